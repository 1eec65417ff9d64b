"""Many models on one benchmark: who leads, and how a score moves with the training step. Pure; places as in figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.compare import owners
from pipeline.report.compile import Report
from pipeline.report.figures import Axis, Tick, axis_for, tick_label
from pipeline.report.model_score import ModelScore
from pipeline.report.steps import training_of, training_step
from pipeline.report.wording import clean, decimals_for, fixed, folded_parents, place, unique

Z95 = 1.959964
"""Standard errors on either side of a 95 % interval."""
HEIGHT = 130
"""Pixels of a curve."""


def ladders(report: Report) -> list[Ladder]:
    """A panel per score that three models or more have, or two that are not base and tuned; the best model on top."""
    found = []
    for scores in _groups(report):
        models = {score.model for score in scores}
        if len(models) < 2 or models <= {"base", "tuned"}:
            continue
        axis = axis_for([v for score in scores for v in _ends(score)])
        if axis is None:
            continue
        first = scores[0]
        decimals = decimals_for([score.value for score in scores], max(score.n for score in scores))
        ranked = sorted(scores, key=lambda s: (s.value, s.model), reverse=first.higher_is_better)
        rungs = tuple(_rung(score, axis, decimals) for score in ranked)
        ticks = tuple(Tick(axis.percent(v), tick_label(v, axis.step)) for v in axis.ticks)
        found.append(Ladder(*_names(first), not first.higher_is_better, ticks, rungs))
    return found


def _rung(score: ModelScore, axis: Axis, decimals: int) -> Rung:
    low, high = (axis.percent(v) for v in (min(_ends(score)), max(_ends(score))))
    return Rung(clean(score.model), axis.percent(score.value), low, high, fixed(score.value, decimals))


def climbs(report: Report) -> list[Climb]:
    """A curve per score over the checkpoints: models called tuned-<step> or <...>step-<n>; base is step 0."""
    last = (report.train or {}).get("steps")
    found = []
    for scores, of in _trainings(report):
        named = [(step, score) for score in scores if (step := training_step(score.model, last)) is not None]
        if len({step for step, _ in named}) < 2 or all(score.model in ("base", "tuned") for _, score in named):
            continue
        across = axis_for([float(step) for step, _ in named], tight=True, parts=5)
        up = axis_for([v for _, score in named for v in _ends(score)], parts=3)
        if across is None or up is None:
            continue
        named.sort(key=lambda pair: pair[0])
        decimals = decimals_for([score.value for _, score in named], max(score.n for _, score in named))
        stops = tuple(
            Stop(
                step=step,
                x=across.percent(step),
                y=_down(up, score.value),
                low=_down(up, min(_ends(score))),
                high=_down(up, max(_ends(score))),
                value=fixed(score.value, decimals),
            )
            for step, score in named
        )
        path = "M" + "L".join(f"{stop.x * 10:.1f} {stop.y:.1f}" for stop in stops)
        x_ticks = tuple(Tick(across.percent(v), f"{v:g}") for v in across.ticks)
        y_ticks = tuple(Tick(_down(up, v), tick_label(v, up.step)) for v in up.ticks)
        found.append(
            Climb(*_names(scores[0]), clean(of), not scores[0].higher_is_better, x_ticks, y_ticks, stops, path)
        )
    return found


def _trainings(report: Report) -> Iterable[tuple[Sequence[ModelScore], str]]:
    """Scores of the same thing by the models of one training, and its name where there are several."""
    for scores in _groups(report):
        names = unique(training_of(score.model) for score in scores)
        for name in names:
            yield [score for score in scores if training_of(score.model) == name], name if len(names) > 1 else ""


def _groups(report: Report) -> Iterable[Sequence[ModelScore]]:
    """Scores of the same thing, by suite, task and metric; subsets of tasks with many of them are left out."""
    for suite in unique(score.suite for score in report.scores):
        scores = [score for score in report.scores if score.suite == suite and math.isfinite(score.value)]
        hidden = folded_parents((score.task for score in scores), owners(scores))
        groups: dict[tuple[str, str], list[ModelScore]] = {}
        for score in scores:
            if score.task not in hidden:
                groups.setdefault((score.task, score.metric), []).append(score)
        # Numbers of different implementations have no common axis; the board says in what they differ.
        yield from (g for g in groups.values() if len({s.implementation.model_dump_json() for s in g}) == 1)


def _ends(score: ModelScore) -> tuple[float, ...]:
    wide = Z95 * (score.stderr or 0.0)
    return (score.value - wide, score.value, score.value + wide)


def _down(axis: Axis, value: float) -> float:
    return round(HEIGHT * (1 - axis.percent(value) / 100), 1)


def _names(score: ModelScore) -> tuple[str, str, str]:
    return clean(score.task), place(score.suite, score.harness), clean(score.metric)


@dataclass(frozen=True)
class Rung:
    """A model's score; places in percent of the plot's width."""

    model: str
    at: float
    low: float
    high: float
    value: str


@dataclass(frozen=True)
class Ladder:
    task: str
    harness: str
    metric: str
    lower_is_better: bool
    ticks: tuple[Tick, ...]
    rungs: tuple[Rung, ...]


@dataclass(frozen=True)
class Stop:
    """A checkpoint's score: x in percent, the others in pixels from the top."""

    step: int
    x: float
    y: float
    low: float
    high: float
    value: str


@dataclass(frozen=True)
class Climb:
    task: str
    harness: str
    metric: str
    of: str
    """Whose training it is, where there are several."""
    lower_is_better: bool
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    stops: tuple[Stop, ...]
    path: str
    """SVG path data in 1000 x `HEIGHT` units."""
