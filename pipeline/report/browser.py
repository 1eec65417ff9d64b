"""What the sample browser is given: a bounded choice of the items as JSON, flips first. Pure."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.compile import Report
from pipeline.report.items import STATES, Item, in_order, items
from pipeline.report.wording import clean
from pipeline.results import Sample, picked

MOST_ITEMS = 1500
MOST_BYTES = 4_000_000
MOST_TEXT = 6000
"""Characters of a prompt or an answer; of longer ones the middle is left out."""
CUT = "\n[…]\n"


@dataclass(frozen=True)
class Browser:
    data: str
    """JSON, safe inside a script element."""
    shown: int
    total: int
    models: tuple[str, ...]
    states: dict[str, int]
    """Of the shown items."""


def browser(report: Report, samples: Mapping[str, Sequence[Sample]]) -> Browser | None:
    """None without samples."""
    every = items(samples, report.contamination, report.scores)
    if not every:
        return None
    models = in_order(model for item in every for model in item.answers)
    shown: list[str] = []
    states: dict[str, int] = {}
    size = 0
    for item in _fairly(every):
        text = _safe(_entry(item, models))
        size += len(text.encode())
        if len(shown) == MOST_ITEMS or (shown and size > MOST_BYTES):
            break
        shown.append(text)
        states[item.state] = states.get(item.state, 0) + 1
        if item.contaminated:
            states["contaminated"] = states.get("contaminated", 0) + 1
    head = _safe({"models": [clean(model) for model in models], "groups": _groups(report)})
    data = f'{head[:-1]},"items":[{",".join(shown)}]}}'
    return Browser(data, len(shown), len(every), tuple(map(clean, models)), states)


def _groups(report: Report) -> dict[str, list[str]]:
    """`suite · task` of a score that sums up others -> theirs."""
    return {
        f"{clean(score.suite)} · {clean(score.task)}": [f"{clean(score.suite)} · {clean(task)}" for task in score.tasks]
        for score in report.scores
        if score.tasks
    }


def _fairly(every: Sequence[Item]) -> Iterable[Item]:
    """By state, and within a state an item of each task in turn, so that no large benchmark hides a small one."""
    for state in STATES:
        queues: dict[tuple[str, str], list[Item]] = {}
        for item in every:
            if item.state == state:
                queues.setdefault((item.suite, item.task), []).append(item)
        for place in range(max(map(len, queues.values()), default=0)):
            yield from (queue[place] for queue in queues.values() if place < len(queue))


def _entry(item: Item, models: Sequence[str]) -> dict[str, Any]:
    """Short keys: there are thousands of them."""
    one = item.any
    return {
        "s": clean(item.suite),
        "t": clean(item.task),
        "k": clean(item.key),
        "d": " · ".join(clean(text) for fact, text in one.facts.items() if fact != "id" and text),
        "f": item.state,
        "x": int(item.contaminated),
        "q": shorten(one.question),
        "p": [[role, shorten(text)] for role, text in turns(one.prompt)],
        "c": [shorten(choice) for choice in one.choices],
        "r": right_choices(one),
        "g": shorten(one.target),
        "m": clean(item.metric),
        "a": [_answer(item.answers[model]) if model in item.answers else None for model in models],
    }


def _answer(sample: Sample) -> dict[str, Any]:
    found: dict[str, Any] = {"v": {clean(metric): round(value, 4) for metric, value in sample.scores.items()}}
    if sample.answer:
        found["a"] = shorten(sample.answer)
    if sample.output and sample.output != sample.answer:
        found["o"] = shorten(sample.output)
    if sample.loglikelihoods:
        found["l"] = [round(value, 3) if math.isfinite(value) else None for value in sample.loglikelihoods]
    elif places := picked(sample.answer, sample.choices):
        found["k"] = sorted(places)
    return found


def right_choices(sample: Sample) -> list[int]:
    """Places of the right choices, where the target names any."""
    return sorted(picked(sample.target, sample.choices) or ())


def turns(prompt: str) -> list[tuple[str, str]]:
    """(role, text) of a prompt; a plain text is one turn without a role."""
    if not prompt.startswith("["):
        return [("", prompt)] if prompt else []
    try:
        found = json.loads(prompt)
    except ValueError:
        return [("", prompt)]
    if not all(isinstance(turn, dict) and isinstance(turn.get("role"), str) for turn in found):
        return [("", prompt)]
    texts = (turn.get("content") for turn in found)
    return [
        (clean(turn["role"]), text if isinstance(text, str) else json.dumps(text, ensure_ascii=False))
        for turn, text in zip(found, texts, strict=True)
    ]


def shorten(text: str) -> str:
    """Several lines, safe to show, with the middle left out of very long ones."""
    if len(text) > MOST_TEXT:
        text = text[: MOST_TEXT // 2] + CUT + text[-MOST_TEXT // 2 :]
    return "".join(
        "\ufffd" if c not in "\n\t\u200d" and unicodedata.category(c) in ("Cc", "Cs", "Cf") else c
        for c in text.replace("\r\n", "\n").strip()
    )


def _safe(value: Any) -> str:
    """JSON that cannot end a script element, nor begin a comment in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
