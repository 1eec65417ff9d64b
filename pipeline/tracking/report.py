"""What the tracker tells of scores and of the report: numbers by key and step, and rows of text.

Pure: report.json in, plain values out. Items and their texts stay in the report on this machine, but for the dialogues,
which the recipe asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.steps import training_of, training_step
from pipeline.tracking.data import part, short

_FIELDS = ("delta", "ci_low", "ci_high", "p_value", "p_adjusted")
_MOST_TEXT = 2000
"""Characters of a prompt or an answer."""


def score_key(label: str, score: Mapping[str, Any]) -> str:
    """`<task>/<metric>/<harness>` for a score of the stage `eval.<entry>.<model>` (or a row of the report)."""
    harness = str(score.get("harness") or "")
    named = label.split(".", 2)[1:2] if label.count(".") > 1 else []
    entry = str(score.get("suite") or "".join(named) or harness)
    group = harness if entry == harness else f"{harness}.{entry}" if harness else entry
    metric = str(score.get("metric") or "").removesuffix(",none")
    return "/".join(part(piece) for piece in (str(score.get("task") or ""), metric, group))


def model_of(label: str) -> str:
    """The model of the stage `eval.<entry>.<model>`, whose name may have dots itself."""
    return label.split(".", 2)[-1]


def numbers(report: Mapping[str, Any]) -> Iterator[tuple[str, int, Any]]:
    """(key, step, value): what became of each score, and of checkpoints the scores by training step."""
    for field in _FIELDS:
        for row in _dicts(report.get("rows")):
            yield f"{field}/{score_key('', row)}", 0, row.get(field)
    train = report.get("train")
    steps = train.get("steps") if isinstance(train, Mapping) else None
    found: dict[str, dict[int, Any]] = {}
    for score in _dicts(report.get("scores")):
        step = training_step(str(score.get("model")), steps)
        if step is not None:
            of = training_of(str(score.get("model")))
            key = score_key("", score)
            found.setdefault(f"{key}/{of}" if of else key, {})[step] = score.get("value")
    for key, values in found.items():
        if len(values) > 2 or (len(values) > 1 and 0 not in values):
            yield from ((f"by_step/{key}", step, values[step]) for step in sorted(values))


def texts(report: Mapping[str, Any]) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """(key, rows of caption and text): the verdict, the gate and each comparison; the dialogues."""
    rows = tuple(_summary(report))
    if rows:
        yield "report/summary", rows
    said = tuple(_dialogues(report))
    if said:
        yield "report/dialogues", said


def _summary(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if report.get("verdict"):
        yield "verdict", str(report["verdict"])
    for bound in _dicts(report.get("gate")):
        kind = "may drop by at most" if bound.get("kind") == "max_drop" else "must gain at least"
        text = f"{bound.get('verdict')}: {kind} {short(bound.get('bound'))}, gain {short(bound.get('gain'))}"
        why = f"; {bound['why']}" if bound.get("why") else ""
        yield f"gate {bound.get('key')}", f"{text}{_interval(bound, 'low', 'high')}{why}"
    level = report.get("confidence")
    percent = f"{100 * level:g}% " if isinstance(level, float) else ""
    for row in _dicts(report.get("rows")):
        text = f"{row.get('metric')} ({_suite(row)}): {short(row.get('base'))} → {short(row.get('tuned'))}"
        if _number(row.get("delta")):
            text += f", {row['delta']:+.4g}"
        text += _interval(row, "ci_low", "ci_high", f"{percent}interval ")
        for key, name in (("p_value", "p"), ("p_adjusted", "p (Holm)"), ("n", "n")):
            if row.get(key) is not None:
                text += f", {name} = {short(row[key])}"
        yield str(row.get("task")), text


def _dialogues(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for dialogue in _dicts(report.get("dialogues")):
        asked = "\n".join(str(turn.get("content")) for turn in _dicts(dialogue.get("messages")))
        answers = dialogue.get("answers")
        known = {"in the data": dialogue.get("reference")} if dialogue.get("reference") else {}
        said = {**(answers if isinstance(answers, Mapping) else {}), **known}
        yield asked[:_MOST_TEXT], "\n".join(f"{who}: {str(text)[:_MOST_TEXT]}" for who, text in said.items())


def _interval(values: Mapping[str, Any], low: str, high: str, name: str = "") -> str:
    if not (_number(values.get(low)) and _number(values.get(high))):
        return ""
    return f" ({name}{values[low]:+.4g} to {values[high]:+.4g})"


def _suite(row: Mapping[str, Any]) -> str:
    return str(row.get("suite") or row.get("harness"))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
