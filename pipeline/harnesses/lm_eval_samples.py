"""The items of lm-eval's samples_<task>_<time>.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.eval_items import options, question, question_sha256
from pipeline import jsonl
from pipeline.errors import OutputError
from pipeline.results import Sample, doc_key, finite, picked

FACTS = ("id", "subject", "category", "type", "level", "difficulty")
"""Columns of an item that tables group by, or that name it."""
_INVALID = ("[invalid]", "invalid")
"""What filters write for an output in which they find no answer."""


def metric_name(metric: str, rule: str) -> str:
    return metric if rule == "none" else f"{metric},{rule}"


def read_samples(path: Path, task: str) -> list[Sample]:
    """The items of one file, in the order of the data. An item has a line for each filter; all become one sample."""
    with jsonl.naming(path):
        items: dict[int, list[dict[str, Any]]] = {}
        for record in jsonl.records(path):
            items.setdefault(int(record["doc_id"]), []).append(record)
        return [_sample(lines, task) for _, lines in sorted(items.items())]


def _sample(lines: Sequence[Mapping[str, Any]], task: str) -> Sample:
    first = lines[0]
    doc, arguments = first["doc"], _asked_once(list(first["arguments"].values()))
    asked = question(doc) or json.dumps(doc, sort_keys=True, ensure_ascii=False)
    likely = [pair for pair in (_likelihood(response) for response in first["resps"]) if pair]
    written = [str(argument.get("arg_1", "")).strip() for argument in arguments] if likely else []
    if any(math.isnan(pair[0]) for pair in likely):
        raise OutputError(
            f"{task}: item {first['doc_id']} has a likelihood that is no number (NaN), of which lm-eval makes a score "
            "all the same: the model overflows; set the suite's precision to bfloat16 or float32"
        )
    given = options(doc)
    # Letters, or one continuation after several contexts (winogrande), do not say what was chosen: the options do.
    opaque = len(set(written)) == 1 or all(len(text.strip("().")) == 1 for text in written)
    known = len(given) > 1 and len(given) == (len(written) or len(given))  # an option may be empty, its letter asked
    choices = given if opaque and known else written
    content = given or choices
    raw = str(first["target"])
    likely = likely[: len(choices)]
    answers = {} if likely else {line["filter"]: _answer(line) for line in lines}
    best = max(range(len(likely)), key=lambda at: likely[at][0], default=None)
    if len(likely) == 1 and not likely[0][1]:
        best = None  # one continuation is right if greedy decoding would write it
    return Sample(
        task=task,
        doc_key=doc_key(asked, content, _key_target(_target(raw, content, written=not likely), content)),
        scores=dict(_metrics(lines)),
        question=asked,
        question_sha256=question_sha256(asked),
        prompt=_first(arguments[0].get("arg_0", "")) if arguments else "",  # over an API a list of one
        choices=tuple(choices),
        loglikelihoods=tuple(pair[0] for pair in likely),
        greedy=tuple(pair[1] for pair in likely),
        target=_target(raw, choices, written=not likely),
        answer=choices[best] if best is not None else next(iter(answers.values()), ""),
        answers=answers if len(answers) > 1 else {},
        output="" if likely else _first(first["resps"]),
        facts={key: str(doc[key]) for key in FACTS if isinstance(doc.get(key), str | int)},
    )


def _asked_once(arguments: list[Any]) -> list[Any]:
    """Without the second half of acc_mutual_info's, which asks each choice again, without the question."""
    half = len(arguments) // 2
    once, again = arguments[:half], arguments[half:]
    same = [argument.get("arg_1") for argument in once] == [argument.get("arg_1") for argument in again]
    return once if once and same and not any(_first(argument.get("arg_0", "")) for argument in again) else arguments


def _metrics(lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    for line in lines:
        for metric in line.get("metrics", []):
            value = line.get(metric)
            number = finite(float(value) if isinstance(value, bool) else value)
            if number is not None:
                yield metric_name(metric, line["filter"]), number


def _likelihood(response: Any) -> tuple[float, bool] | None:
    """Of one request: log-likelihood and whether greedy decoding would write it; None for a written answer."""
    inner = response[0] if response else None
    if isinstance(inner, list) and len(inner) == 2:
        return float(inner[0]), str(inner[1]) == "True"
    return None


def _answer(line: Mapping[str, Any]) -> str:
    answer = _first(line["filtered_resps"])
    return "" if answer in _INVALID else answer


def _first(value: Any) -> str:
    while isinstance(value, list):
        value = value[0] if value else ""
    return str(value)


def _target(target: str, choices: Sequence[str], *, written: bool) -> str:
    """The right answer as shown: the choice an index stands for, or what stands behind GSM8K's working."""
    if target.isdigit() and int(target) < len(choices) and not (written and target in choices):
        return choices[int(target)]
    return target.rpartition("####")[2].strip()


def _key_target(target: str, choices: Sequence[str]) -> str:
    """The right choices' texts, also of a task that has their letters written."""
    right = picked(target, choices) if target not in choices else None
    return " ".join(choices[at] for at in sorted(right)) if right else target
