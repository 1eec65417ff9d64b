"""One benchmark through several implementations: where they agree item by item, and why where they do not. Pure.

Items meet by content (`Sample.doc_key`), tasks by their items, so no table of names is needed. Scores of different
implementations are shown side by side and never subtracted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from pipeline.paired import kappa
from pipeline.results import Implementation, Sample, Score, fold, picked

Reason = Literal["parsing", "rule", "prompt"]
"""Why two verdicts on one item differ.

parsing: no answer could be made out of the text that counts as wrong. rule: the same answer was preferred, but another
rule decided. prompt: another answer was preferred, which leaves the prompt (wording, examples, form of the answer).
"""

METRICS = 2
"""How many of a task's right-or-wrong metrics are held against others: acc and acc_norm, say."""
EXAMPLES = 3  # of each reason
_SHOWN = 300  # characters of a text in an example
_NUMBER = re.compile(r"^[$€£]?\s*(-?[\d,]*\.?\d+)\s*[.%]?$")


class Side(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    task: str
    metric: str
    value: float
    """The score of the whole task."""
    n: int
    implementation: Implementation


class Example(BaseModel):
    """An item that one implementation counts as right and the other as wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    doc_key: str
    question: str
    target: str
    answers: tuple[str, str]
    """Left and right; empty where none could be made out."""
    right: Literal["left", "right"]
    """Whose answer counted."""
    reason: Reason


class Reconciled(BaseModel):
    """Two implementations on the items that one model answered in both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    left: Side
    right: Side
    n: int
    """Items in common."""
    both_right: int
    only_left: int
    only_right: int
    both_wrong: int
    agreement: float
    """Share of the items with the same verdict."""
    kappa: float | None
    """Agreement beyond chance: 1 is full, 0 what chance gives; None where a side is always or never right."""
    reasons: dict[Reason, int]
    """Of the items with different verdicts."""
    examples: list[Example]


class _Task(NamedTuple):
    """A task with the items below it, by content."""

    suite: str
    scores: tuple[Score, ...]  # of its first right-or-wrong metrics
    items: dict[str, Sample]
    members: dict[tuple[str, str], Score]  # (task, metric) -> score, of the tasks it sums up


def reconcile(
    model: str, suites: Mapping[str, tuple[Sequence[Score], Sequence[Sample]]], examples: int = EXAMPLES
) -> list[Reconciled]:
    """Every two tasks of a model, of one suite or of two, that ask the same items; `suites`: (scores, samples).

    Not the same implementation with its examples in another order: report/ways.py shows what that changes.
    """
    tasks = [task for suite, (scores, samples) in suites.items() for task in _tasks(suite, scores, samples)]
    found = []
    for left, right in combinations(tasks, 2):
        if _reordered(left, right):
            continue
        keys = [key for key in left.items if key in right.items]
        if len(keys) > 1:
            pairs = [(left.items[key], right.items[key]) for key in keys]
            found += [
                _reconciled(model, (left.suite, one), (right.suite, other), pairs, examples)
                for one in _narrowed(left, keys)
                for other in _narrowed(right, keys)
            ]
    return found


def _tasks(suite: str, scores: Sequence[Score], samples: Iterable[Sample]) -> Iterator[_Task]:
    """The tasks that no other task of the suite sums up, with their items."""
    by_task: dict[str, dict[str, Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task, {})[sample.doc_key] = sample
    summed = {leaf for score in scores for leaf in score.tasks}
    inner = {s.task for s in scores for o in scores if s.tasks and set(s.tasks) < set(o.tasks)}
    for task in dict.fromkeys(score.task for score in scores if score.task not in summed | inner):
        own = [score for score in scores if score.task == task]
        leaves = own[0].tasks or (task,)
        items = {key: sample for leaf in leaves for key, sample in by_task.get(leaf, {}).items()}
        graded = tuple(s for s in own if s.higher_is_better and _is_verdict(s.metric, items.values()))
        if graded:
            yield _Task(suite, graded[:METRICS], items, {(s.task, s.metric): s for s in scores if s.task in leaves})


def _reordered(left: _Task, right: _Task) -> bool:
    """Whether two tasks are one, but for the seed of its examples (and for how many items were asked)."""
    one, other = ([score.implementation for score in task.scores] for task in (left, right))
    plain = [[i.model_copy(update={"shot_seed": None, "data": ""}) for i in side] for side in (one, other)]
    return plain[0] == plain[1] and [i.shot_seed for i in one] != [i.shot_seed for i in other]


def _narrowed(task: _Task, keys: Iterable[str]) -> list[Score]:
    """Scores of the one member that all these items belong to (mmlu/anatomy), else of the whole."""
    tasks = {task.items[key].task for key in keys}
    return [task.members.get((next(iter(tasks)), s.metric), s) if len(tasks) == 1 else s for s in task.scores]


def _is_verdict(metric: str, items: Iterable[Sample]) -> bool:
    values = {item.scores[metric] for item in items if metric in item.scores}
    return bool(values) and values <= {0.0, 1.0}


def _reconciled(
    model: str,
    left: tuple[str, Score],
    right: tuple[str, Score],
    pairs: Iterable[tuple[Sample, Sample]],
    examples: int,
) -> Reconciled:
    table: Counter[tuple[bool, bool]] = Counter()
    reasons: Counter[Reason] = Counter()
    shown: list[Example] = []
    for pair in pairs:
        scored = [s.scores.get(score.metric) for s, (_, score) in zip(pair, (left, right), strict=True)]
        if None in scored:
            continue
        verdicts = (scored[0] == 1.0, scored[1] == 1.0)
        table[verdicts] += 1
        if verdicts[0] != verdicts[1]:
            reason = _reason(pair, (left[1], right[1]), wrong=int(verdicts[0]))
            reasons[reason] += 1
            if reasons[reason] <= examples:
                shown.append(_example(pair, (left[1], right[1]), verdicts[0], reason))
    n = sum(table.values())
    return Reconciled(
        model=model,
        left=_side(*left),
        right=_side(*right),
        n=n,
        both_right=table[True, True],
        only_left=table[True, False],
        only_right=table[False, True],
        both_wrong=table[False, False],
        agreement=(table[True, True] + table[False, False]) / n if n else 0.0,
        kappa=kappa(table),
        reasons=dict(reasons),
        examples=shown,
    )


def _reason(pair: tuple[Sample, Sample], scores: tuple[Score, Score], wrong: int) -> Reason:
    """`wrong`: 0 if the left one counts as wrong, 1 for the right one."""
    if not pair[wrong].loglikelihoods and not _made_out(pair[wrong], scores[wrong]):
        return "parsing"
    by_text = sorted(map(fold, pair[0].choices)) == sorted(map(fold, pair[1].choices))
    one, other = (_preferred(sample, score, by_text=by_text) for sample, score in zip(pair, scores, strict=True))
    return "rule" if one == other else "prompt"


def _made_out(sample: Sample, score: Score) -> bool:
    answer = _answer(sample, score)
    return picked(answer, sample.choices) is not None if sample.choices else bool(answer.strip())


def _answer(sample: Sample, score: Score) -> str:
    """What the metric's own rule made of the text."""
    return sample.answers.get(score.metric.rpartition(",")[2], sample.answer)


def _counted(sample: Sample, score: Score) -> str:
    """The answer that this metric took: of likelihoods per character or byte it can be another than the likeliest."""
    kind = score.implementation.normalisation
    sizes = [len(choice.encode() if kind == "bytes" else choice) for choice in sample.choices]
    if kind not in ("characters", "bytes") or not all(sizes) or len(sample.loglikelihoods) != len(sizes):
        return _answer(sample, score)
    places = range(len(sizes))
    best = sample.choices[max(places, key=lambda at: sample.loglikelihoods[at] / sizes[at])]
    # Where letters were scored and texts are shown, the lengths are not those that were divided by.
    return best if (best == sample.target) == (sample.scores.get(score.metric) == 1.0) else _answer(sample, score)


def _preferred(sample: Sample, score: Score, *, by_text: bool) -> object:
    """The answer a model prefers, in a form that two implementations can be held against each other in.

    Of choices their texts, or their places where each implementation words them its own way. Of likelihoods before any
    normalisation: what that changes is the rule. Else the text, a number without thousands' commas.
    """
    if sample.choices and len(sample.loglikelihoods) == len(sample.choices):
        best = max(range(len(sample.choices)), key=sample.loglikelihoods.__getitem__)
        places: frozenset[int] | None = frozenset({best})
    elif sample.choices:
        places = picked(_answer(sample, score), sample.choices)
    else:
        answer = _answer(sample, score).strip()
        number = _NUMBER.match(answer)
        return float(number[1].replace(",", "")) if number else fold(answer)
    return frozenset(fold(sample.choices[at]) for at in places) if by_text and places else places


def _example(pair: tuple[Sample, Sample], scores: tuple[Score, Score], left: bool, reason: Reason) -> Example:  # noqa: FBT001
    return Example(
        doc_key=pair[0].doc_key,
        question=pair[0].question[:_SHOWN],
        target=pair[0].target[:_SHOWN],
        answers=(_counted(pair[0], scores[0])[:_SHOWN], _counted(pair[1], scores[1])[:_SHOWN]),
        right="left" if left else "right",
        reason=reason,
    )


def _side(suite: str, score: Score) -> Side:
    figures = score.model_dump(include={"task", "metric", "value", "n"})
    return Side(suite=suite, implementation=score.implementation, **figures)
