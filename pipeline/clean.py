"""Scores without the items that training rows hold, and scores of those items alone. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from data_prep.eval_items import options
from pipeline.compare import Row, compare
from pipeline.results import Sample, Score, fold, item_values, score_groups

Part = Literal["clean", "contaminated"]
Items = Mapping[str, Sequence[frozenset[str]]]
"""Folded question -> the folded options of each contaminated item that asks it."""


class CleanRow(Row):
    """Base against tuned on one part of a task's items; `n` counts that part."""

    part: Part
    of: int
    """Items of the whole task that both models answered."""


def contaminated(report: Mapping[str, Any] | None) -> dict[str, list[frozenset[str]]]:
    """The items of contamination.json that rows of train.jsonl overlap, of whatever benchmark."""
    found: dict[str, list[frozenset[str]]] = {}
    for benchmark in ((report or {}).get("benchmarks") or {}).values():
        for item in benchmark["contaminated"]:
            found.setdefault(fold(item["question"]), []).append(frozenset(map(fold, options(item.get("raw") or {}))))
    return found


def is_hit(sample: Sample, items: Items) -> bool:
    """Whether a sample is one of the items: the same question and, where both have options, the same options.

    The question alone does not do: "Which of the following is true?" asks for another thing each time. Choices may
    have more text around the option: a letter, or the sentence whose blank it fills.
    """
    choices = [fold(choice) for choice in sample.choices]
    return any(
        not choices or all(any(option in choice for choice in choices) for option in given)
        for given in items.get(fold(sample.question), ())
    )


def clean_rows(
    items: Items,
    suite: str,
    base: Sequence[Score],
    tuned: Sequence[Score],
    base_samples: Iterable[Sample],
    tuned_samples: Iterable[Sample],
    confidence: float = 0.95,
) -> list[CleanRow]:
    """Two rows per score with contaminated items: on the clean ones, and on the contaminated ones.

    Scores are means over the samples of a part. What is no mean (a corpus-level BLEU) has no part and no row.
    """
    left, right = list(base_samples), list(tuned_samples)
    hit = {(s.task, s.doc_key) for s in (*left, *right) if is_hit(s, items)}
    both = {(s.task, s.doc_key) for s in left} & {(s.task, s.doc_key) for s in right}
    parts: dict[Part, set[tuple[str, str]]] = {"clean": both - hit, "contaminated": both & hit}
    touched = {task for task, _ in parts["contaminated"]}
    rows: dict[tuple[str, str], list[CleanRow]] = {}
    for part, keys in parts.items():
        sides = [
            (list(_means(scores, kept, touched)), kept)
            for scores, samples in ((base, left), (tuned, right))
            for kept in [[s for s in samples if (s.task, s.doc_key) in keys]]
        ]
        for row in compare(suite, sides[0][0], sides[1][0], sides[0][1], sides[1][1], confidence):
            tasks = next(s.tasks or (s.task,) for s in base if (s.task, s.metric) == (row.task, row.metric))
            whole = sum(task in tasks for task, _ in both)
            found = CleanRow(**row.model_dump(), part=part, of=whole)
            rows.setdefault((row.task, row.metric), []).append(found)
    order = [(score.task, score.metric) for score in base]
    return [row for key in order for row in rows.get(key, ())]


def _means(scores: Iterable[Score], samples: Iterable[Sample], touched: set[str]) -> Iterator[Score]:
    """The scores over these samples alone, of tasks that have contaminated items."""
    values = item_values(samples)
    for score in scores:
        groups = [group for group in score_groups(score, values) if group]
        if score.mean != "none" and touched.intersection(score.tasks or (score.task,)) and groups:
            mean = statistics.fmean(map(statistics.fmean, groups))
            yield score.model_copy(update={"value": mean, "n": sum(map(len, groups)), "stderr": None})
