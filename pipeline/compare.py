"""Base against tuned on the same items: a row per score that both have. Pure; the statistics are paired.py's."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from pipeline.paired import Pair, Paired, holm, paired_statistics
from pipeline.results import ROUNDED, Sample, Score, item_values, score_groups


class Row(BaseModel):
    """One metric of one task, base against tuned. `delta` = tuned - base, in the metric's unit.

    Of the paired items where there are some: where these are not all, `base` and `tuned` still are the scores of all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    harness: str
    suite: str
    metric: str
    n: int
    """Paired items; the base's own count where nothing could be paired."""
    base: float
    tuned: float
    delta: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_mid: float | None = None
    """The mid-p variant, nearer to its level than the exact test; None for graded metrics."""
    p_adjusted: float | None = None
    """Holm over the rows of the recipe; the members of a task that sums up others are a family of their own."""
    gained: int | None = None
    """Items only the tuned model got right."""
    lost: int | None = None
    """Items only the base got right."""
    mde: float | None = None
    """Minimum detectable effect: what a true difference would have to be to be found four times in five."""
    method: str = ""
    """Names of the test and the interval."""
    part_of: str = ""
    """The task of this suite that sums this one up, such as mmlu."""
    higher_is_better: bool = True
    remark: str = ""


def compare(
    suite: str,
    base: Sequence[Score],
    tuned: Sequence[Score],
    base_samples: Iterable[Sample],
    tuned_samples: Iterable[Sample],
    confidence: float = 0.95,
) -> list[Row]:
    """A row per score that both models have; samples are paired by content, not by position."""
    sides = list(base_samples), list(tuned_samples)
    left, right = map(_by_task, sides)
    own = list(map(item_values, sides))
    others = {(score.task, score.metric): score for score in tuned}
    parents = owners(base)
    rows = []
    for score in base:
        other = others.get((score.task, score.metric))
        if other is None:
            continue
        remark = _difference(score, other)
        paired = None if remark else paired_statistics(_groups(score, other, left, right), confidence)
        # Statistics belong to a score only if the samples give that very score (a corpus-level BLEU is no mean).
        means = _consistent(score, own[0]) and _consistent(other, own[1]) if paired else score.mean != "none"
        if not remark and not means:
            paired, remark = None, "not a mean over items: no paired interval"
        asked = max(score.n, other.n)
        if paired and paired.n < asked:
            remark = f"{paired.n} of {asked} items paired: delta and interval are of these"
        rows.append(_row(suite, score, other, paired, remark, parents.get(score.task, "")))
    return rows


def adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows of all suites with `p_adjusted`; members of one summing task are one family, all other rows another."""
    families: dict[tuple[str, str], list[int]] = {}
    for index, row in enumerate(rows):
        if row.p_value is not None:
            families.setdefault((row.suite, row.part_of) if row.part_of else ("", ""), []).append(index)
    result = list(rows)
    for members in families.values():
        values = holm([row.p_value for row in map(rows.__getitem__, members) if row.p_value is not None])
        for index, value in zip(members, values, strict=True):
            result[index] = rows[index].model_copy(update={"p_adjusted": value})
    return result


def _row(suite: str, score: Score, other: Score, paired: Paired | None, remark: str, part_of: str) -> Row:
    found = paired.model_dump(exclude={"n", "delta"}) if paired else {"ci_low": None, "ci_high": None, "p_value": None}
    if paired and not score.higher_is_better:  # an item that the metric counts is one that the model got wrong
        found |= {"gained": paired.lost, "lost": paired.gained}
    delta = paired.delta if paired else other.value - score.value  # of rounded scores it would be another
    return Row(
        task=score.task,
        harness=score.harness,
        suite=suite,
        metric=score.metric,
        n=paired.n if paired else score.n,
        base=score.value,
        tuned=other.value,
        delta=None if _difference(score, other) else delta,
        part_of=part_of,
        higher_is_better=score.higher_is_better,
        remark=remark,
        **found,
    )


def owners(scores: Iterable[Score]) -> dict[str, str]:
    """task -> the task with the most members that sums it up, directly or through others."""
    sums = sorted({(score.task, score.tasks) for score in scores if score.tasks}, key=lambda item: -len(item[1]))
    found: dict[str, str] = {}
    for index, (task, members) in enumerate(sums):
        smaller = [name for name, inner in sums[index + 1 :] if set(inner) < set(members)]
        for member in (*members, *smaller):
            if member != task:
                found.setdefault(member, task)
    return found


def _by_task(samples: Iterable[Sample]) -> dict[str, dict[str, Sample]]:
    result: dict[str, dict[str, Sample]] = {}
    for sample in samples:
        result.setdefault(sample.task, {})[sample.doc_key] = sample
    return result


def _groups(
    score: Score, other: Score, base: dict[str, dict[str, Sample]], tuned: dict[str, dict[str, Sample]]
) -> list[list[Pair]]:
    """(base, tuned) values of the items that make up a score: a group per task whose mean counts, else one.

    A model that is equally good on every task, with nothing right at all perhaps, does not tell which mean was taken.
    """
    tasks = [_pairs(base.get(task, {}), tuned.get(task, {}), score.metric) for task in score.tasks or (score.task,)]
    return tasks if "tasks" in (score.mean, other.mean) else [[pair for pairs in tasks for pair in pairs]]


def _pairs(base: dict[str, Sample], tuned: dict[str, Sample], metric: str) -> list[Pair]:
    both = (key for key in sorted(base.keys() & tuned.keys()))
    return [
        (base[key].scores[metric], tuned[key].scores[metric])
        for key in both
        if metric in base[key].scores and metric in tuned[key].scores
    ]


def _consistent(score: Score, values: Mapping[tuple[str, str], list[float]]) -> bool:
    """Whether the mean over a model's own items is its score."""
    groups = [group for group in score_groups(score, values) if group]
    return bool(groups) and abs(statistics.fmean(map(statistics.fmean, groups)) - score.value) < ROUNDED


def _difference(base: Score, tuned: Score) -> str:
    """What differs between the implementations of two scores; such scores are never subtracted.

    Of other items only those that both were asked are compared, so they are no other implementation.
    """
    left, right = (score.implementation.model_dump(exclude={"data"}) for score in (base, tuned))
    parts = [f"{key}: {left[key]} / {right[key]}" for key in left if left[key] != right[key]]
    return "not the same implementation: " + "; ".join(parts) if parts else ""
