"""A benchmark of many subjects (MMLU, C-Eval): base and tuned on each, sorted by how it changed. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.compile import Report
from pipeline.report.figures import Tick, axis_for, tick_label
from pipeline.report.wording import Line, clean, folded_parents, line, unique

LEAST = 8
"""Subjects that are worth a figure."""
ENDS = 10
"""Subjects shown at either end of the ranking; those between are folded."""


def by_subject(report: Report) -> list[Subjects]:
    """A figure per suite, benchmark and metric with at least `LEAST` subjects that both models were asked.

    Sums of others (mmlu_stem) are no subjects.
    """
    groups: dict[tuple[str, str, str], list[Line]] = {}
    sums = {(score.suite, score.task) for score in report.scores if score.tasks}
    for suite in unique(row.suite for row in report.rows):
        rows = [row for row in report.rows if row.suite == suite]
        owned = {row.task: row.part_of for row in rows if row.part_of}
        parents = folded_parents((row.task for row in rows), owned, least=LEAST)
        for row in rows:
            parent = row.part_of or parents.get(row.task)
            if parent and (suite, row.task) not in sums and row.delta is not None and math.isfinite(row.delta):
                groups.setdefault((suite, parent, row.metric), []).append(line(row))
    return [
        _figure(suite, task, metric, lines) for (suite, task, metric), lines in groups.items() if len(lines) >= LEAST
    ]


def _figure(suite: str, task: str, metric: str, lines: Sequence[Line]) -> Subjects:
    gain = {id(e): (e.row.delta or 0.0) * (1 if e.row.higher_is_better else -1) for e in lines}
    ranked = sorted(lines, key=lambda e: (-gain[id(e)], e.task))
    axis = axis_for([v for e in ranked for v in (e.row.base, e.row.tuned)])
    dots = []
    for rank, entry in enumerate(ranked, 1):
        places = (axis.percent(entry.row.base), axis.percent(entry.row.tuned)) if axis else (0.0, 0.0)
        dots.append(Dots(rank, entry, _own_name(entry.task, task), *places))
    few = len(dots) <= 2 * ENDS + 2
    return Subjects(
        suite=clean(suite),
        task=clean(task),
        metric=clean(metric),
        ticks=tuple(Tick(axis.percent(v), tick_label(v, axis.step)) for v in axis.ticks) if axis else (),
        top=tuple(dots if few else dots[:ENDS]),
        middle=() if few else tuple(dots[ENDS:-ENDS]),
        bottom=() if few else tuple(dots[-ENDS:]),
        risen=sum(1 for e in ranked if gain[id(e)] > 0),
        fallen=sum(1 for e in ranked if gain[id(e)] < 0),
    )


def _own_name(task: str, parent: str) -> str:
    """`anatomy` of mmlu_anatomy."""
    own = task.removeprefix(clean(parent)).lstrip("/_")
    return (own or task).replace("_", " ")


@dataclass(frozen=True)
class Dots:
    rank: int
    line: Line
    name: str
    base: float
    """Place of the base's score, percent of the plot's width."""
    tuned: float


@dataclass(frozen=True)
class Subjects:
    suite: str
    task: str
    metric: str
    ticks: tuple[Tick, ...]
    top: tuple[Dots, ...]
    middle: tuple[Dots, ...]
    bottom: tuple[Dots, ...]
    risen: int
    fallen: int

    @property
    def count(self) -> int:
        return len(self.top) + len(self.middle) + len(self.bottom)
