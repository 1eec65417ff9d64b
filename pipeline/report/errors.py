"""errors.csv: every item that the tuned model got wrong (without one: that any model got wrong), a line each. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence

from pipeline.report.browser import right_choices
from pipeline.report.compile import Report
from pipeline.report.items import Item, items, right
from pipeline.report.wording import clean
from pipeline.results import Sample

HEADER = (
    "suite", "task", "id", "model", "metric", "score", "flip", "contaminated", "question", "choices", "right_answer",
    "answer", "base_answer",
)  # fmt: skip
WRONG_BELOW = 1.0
"""Of metrics that grade from 0 to 1, everything below this is listed."""


def to_errors(report: Report, samples: Mapping[str, Sequence[Sample]]) -> str:
    """Texts stand on one line each; choices are split by ` | `, the right ones marked by `*`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEADER)
    for item in items(samples, report.contamination, report.scores):
        writer.writerows(_lines(item))
    return stream.getvalue()


def _lines(item: Item) -> Iterator[tuple[object, ...]]:
    judged = [model for model in item.answers if model == "tuned"] or list(item.answers)
    for model in judged:
        sample = item.answers[model]
        value = sample.scores.get(item.metric)
        if value is None or right(sample, item.metric) or value >= WRONG_BELOW:
            continue
        base = item.answers.get("base")
        marked = right_choices(sample)
        choices = " | ".join(f"{'*' if i in marked else ''}{clean(c)}" for i, c in enumerate(sample.choices))
        yield (
            clean(item.suite), clean(item.task), clean(item.key), clean(model), clean(item.metric), value, item.state,
            "yes" if item.contaminated else "no", clean(sample.question), choices, clean(sample.target),
            clean(sample.answer or sample.output),
            clean(base.answer or base.output) if base and model != "base" else "",
        )  # fmt: skip
