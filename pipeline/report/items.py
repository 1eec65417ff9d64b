"""Every item with what each model made of it: which turned right, which wrong, which nobody solves. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.clean import contaminated, is_hit
from pipeline.report.model_score import ModelScore
from pipeline.report.wording import unique
from pipeline.results import Sample

GAINED, LOST, BOTH_WRONG, BOTH_RIGHT = "gained", "lost", "wrong", "right"
SPLIT, GRADED = "split", "graded"
STATES = (LOST, GAINED, SPLIT, BOTH_WRONG, GRADED, BOTH_RIGHT)
"""What is looked at first comes first."""


@dataclass(frozen=True)
class Item:
    suite: str
    task: str
    key: str
    metric: str
    """By which it is told: the first metric that is right or wrong on every item of the task, else the first.

    Only of metrics that are better when higher; empty without one.
    """
    state: str
    contaminated: bool
    answers: Mapping[str, Sample]
    """By model, base and tuned first."""

    @property
    def any(self) -> Sample:
        return next(iter(self.answers.values()))


def items(
    samples: Mapping[str, Sequence[Sample]],
    contamination: Mapping[str, Any] | None,
    scores: Iterable[ModelScore] = (),
) -> list[Item]:
    """`samples` by label, eval.<suite>.<model>; in the order of the suites, then of the tasks.

    `scores` tell which metrics are better when lower: of these 1 is not right.
    """
    lower = {(score.suite, score.metric) for score in scores if not score.higher_is_better}
    held = contaminated(contamination) if samples else {}
    found: dict[tuple[str, str, str], dict[str, Sample]] = {}
    for label, answered in samples.items():
        _, suite, model = label.split(".", 2)
        for sample in answered:
            found.setdefault((suite, sample.task, sample.doc_key), {})[model] = sample
    models = in_order(label.split(".", 2)[2] for label in samples)
    metrics = _metrics(found, lower)
    result = []
    for (suite, task, key), by_model in found.items():
        answers = {model: by_model[model] for model in models if model in by_model}
        metric = metrics[suite, task]
        hit = bool(held) and is_hit(next(iter(answers.values())), held)
        result.append(Item(suite, task, key, metric, _state(answers, metric), hit, answers))
    return result


def in_order(models: Iterable[str]) -> list[str]:
    """Base and tuned first, the others as they come."""
    return sorted(unique(models), key=lambda model: {"base": 0, "tuned": 1}.get(model, 2))


def right(sample: Sample, metric: str) -> bool | None:
    """None where the metric gives degrees, or is not known of this sample."""
    value = sample.scores.get(metric)
    return None if value not in (0.0, 1.0) else value == 1.0


def _metrics(
    found: Mapping[tuple[str, str, str], Mapping[str, Sample]], lower: Collection[tuple[str, str]]
) -> dict[tuple[str, str], str]:
    """Of each task the first metric that is right or wrong on every item, else the first."""
    names: dict[tuple[str, str], dict[str, bool]] = {}
    for (suite, task, _), by_model in found.items():
        own = names.setdefault((suite, task), {})
        for sample in by_model.values():
            for metric, value in sample.scores.items():
                if (suite, metric) in lower:
                    continue
                own[metric] = own.get(metric, True) and value in (0.0, 1.0)
    return {task: next((m for m, binary in own.items() if binary), next(iter(own), "")) for task, own in names.items()}


def _state(answers: Mapping[str, Sample], metric: str) -> str:
    found = {model: right(sample, metric) for model, sample in answers.items()}
    if None in found.values():
        return GRADED
    if {"base", "tuned"} <= found.keys() and found["base"] != found["tuned"]:
        return GAINED if found["tuned"] else LOST
    if len(set(found.values())) > 1:
        return SPLIT
    return BOTH_RIGHT if any(found.values()) else BOTH_WRONG
