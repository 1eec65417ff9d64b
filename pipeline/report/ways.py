"""One benchmark through several implementations, on several models: MMLU, whose scores made a name for that. Pure.

A number without its implementation means nothing: the same model, the same questions, and neither the scores nor the
order of the models stay (docs/mmlu.md). Scores of different implementations are shown side by side, never subtracted.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from pipeline import mmlu
from pipeline.catalog import lookup
from pipeline.paired import paired_statistics
from pipeline.report.model_score import ModelScore
from pipeline.report.ways_page import Flip, Frozen, Lenience, Orders, Rendered, Standing, Way, WaysPage
from pipeline.results import Sample


class _Asked(Frozen):
    """One implementation, by one model, with its items."""

    harness: str
    name: str
    model: str
    suite: str
    seed: int | None
    scores: list[ModelScore]
    """Of the whole, or of the subjects where only some are asked."""
    samples: list[Sample]


def ways(scores: Sequence[ModelScore], samples: Mapping[str, Sequence[Sample]]) -> WaysPage | None:
    """`samples`: `eval.<suite>.<model>` -> items. None unless MMLU was asked in at least two ways."""
    asked = list(_asked(scores, samples))
    # Where a suite repeats a way with the examples in another order, the file's order is the one that is ranked.
    plain: dict[tuple[str, str, str], _Asked] = {}
    for one in sorted(asked, key=lambda a: (a.seed is not None, a.seed or 0)):
        plain.setdefault((one.harness, one.name, one.model), one)
    if len({(harness, name) for harness, name, _ in plain}) < 2:
        return None
    models = list(dict.fromkeys(one.model for one in asked))
    columns: dict[tuple[str, str, str], Way] = {}
    figures: list[tuple[int, str, float, float | None, int]] = []
    for one in plain.values():
        for metric, (value, stderr, n) in _figures(one).items():
            way = Way(
                harness=one.harness,
                name=one.name,
                metric=metric,
                source=mmlu.SOURCES.get(one.name, ""),
                rule=mmlu.RULES.get((one.harness, one.name, metric), ""),
            )
            columns.setdefault((one.harness, one.name, metric), way)
            place = list(columns).index((one.harness, one.name, metric))
            figures.append((place, one.model, value, stderr, n))
    standings = [
        Standing(
            way=way,
            model=model,
            value=value,
            stderr=stderr,
            n=n,
            rank=1 + sum(other[0] == way and other[2] > value for other in figures),
        )
        for way, model, value, stderr, n in figures
    ]
    question, rendered = _rendered(list(plain.values()))
    return WaysPage(
        models=models,
        ways=list(columns.values()),
        standings=standings,
        flips=sorted(_flips(standings, models, _tested(list(columns), plain)), key=lambda flip: not flip.sure),
        none_of_letters=list(_lenience(plain.values())),
        orders=list(_orders(asked, list(columns))),
        question=question,
        rendered=rendered,
    )


def _asked(scores: Sequence[ModelScore], samples: Mapping[str, Sequence[Sample]]) -> Iterator[_Asked]:
    found: dict[tuple[str, str, str, str], list[ModelScore]] = {}
    for score in scores:
        name = _name(score.harness, score.task)
        if name:
            found.setdefault((score.harness, name, score.model, score.suite), []).append(score)
    for (harness, name, model, suite), mine in found.items():
        items = [s for s in samples.get(f"eval.{suite}.{model}", ()) if _name(harness, s.task) == name]
        seeds = {score.implementation.shot_seed for score in mine}
        seed = seeds.pop() if len(seeds) == 1 else None
        yield _Asked(harness=harness, name=name, model=model, suite=suite, seed=seed, scores=mine, samples=items)


def _name(harness: str, task: str) -> str | None:
    """Which implementation of MMLU the task is, or a subject of."""
    named = lookup.find(task.partition("/")[0], "lm_eval" if harness == "lm_eval" else "evalscope")
    return named.entry.name if named and named.entry.folder == "mmlu" else None


def _figures(one: _Asked) -> dict[str, tuple[float, float | None, int]]:
    """Of each metric that counts right answers: value, standard error, items.

    Where the whole benchmark was not asked, but some of its subjects one by one, they are taken together.
    """
    whole = {score.metric: score for score in one.scores if score.task == one.name}
    found: dict[str, tuple[float, float | None, int]] = {}
    for metric in dict.fromkeys(score.metric for score in one.scores if score.higher_is_better):
        values = [sample.scores[metric] for sample in one.samples if metric in sample.scores]
        if metric in whole:
            found[metric] = (whole[metric].value, whole[metric].stderr, whole[metric].n)
        elif values:
            stderr = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
            found[metric] = (statistics.fmean(values), stderr, len(values))
    return found


def _tested(
    columns: Sequence[tuple[str, str, str]], asked: Mapping[tuple[str, str, str], _Asked]
) -> Callable[[int, str, str], float | None]:
    """(way, a model, another) -> p-value of their difference by that way, on the items that both were asked.

    All implementations weight subjects by their size, so the score is the plain mean over items.
    """
    values = {
        (place, one.model): {s.doc_key: s.scores[metric] for s in one.samples if metric in s.scores}
        for place, (harness, name, metric) in enumerate(columns)
        for one in asked.values()
        if (one.harness, one.name) == (harness, name)
    }

    def p_value(way: int, one: str, other: str) -> float | None:
        left, right = values.get((way, one), {}), values.get((way, other), {})
        found = paired_statistics([[(left[key], right[key]) for key in sorted(left.keys() & right.keys())]])
        return found.p_value if found else None

    return p_value


def _flips(
    standings: Sequence[Standing], models: Sequence[str], tested: Callable[[int, str, str], float | None]
) -> Iterator[Flip]:
    value = {(standing.way, standing.model): standing.value for standing in standings}
    for first, second in combinations(sorted({standing.way for standing in standings}), 2):
        for one, other in combinations(models, 2):
            cells = [value.get((way, model)) for way in (first, second) for model in (one, other)]
            if None in cells:
                continue
            a, b, c, d = (cell for cell in cells if cell is not None)
            if (a - b) * (c - d) < 0:
                models_, by_first, by_second = (
                    ((one, other), (a, b), (c, d)) if a > b else ((other, one), (b, a), (d, c))
                )
                p_values = tested(first, one, other), tested(second, one, other)
                yield Flip(
                    ways=(first, second), models=models_, by_first=by_first, by_second=by_second, p_values=p_values
                )


def _lenience(asked: Iterable[_Asked]) -> Iterator[Lenience]:
    for one in asked:
        values = [value for value in map(_none_of_letters, one.samples) if value is not None]
        if values:
            yield Lenience(
                harness=one.harness, name=one.name, model=one.model, share=statistics.fmean(values), n=len(values)
            )


def _none_of_letters(sample: Sample) -> float | None:
    """1 if the likeliest token is none of the letters; None where no letters were compared.

    A letter is one token. So greedy decoding writes one of the four, or none of them is the likeliest token.
    """
    if mmlu.NONE_OF_LETTERS in sample.scores:
        return sample.scores[mmlu.NONE_OF_LETTERS]
    if _name("lm_eval", sample.task) == "mmlu" and len(sample.greedy) == 4:
        return float(not any(sample.greedy))
    return None


def _orders(asked: Sequence[_Asked], columns: Sequence[tuple[str, str, str]]) -> Iterator[Orders]:
    """Only the same items under several orders: another limit would be another difference."""
    found: dict[tuple[int, str, frozenset[str]], dict[str, float]] = {}
    for one in asked:
        for metric, (value, _, _) in _figures(one).items():
            place = columns.index((one.harness, one.name, metric))
            items = frozenset(sample.doc_key for sample in one.samples)
            found.setdefault((place, one.model, items), {})["file" if one.seed is None else str(one.seed)] = value
    for (place, model, items), values in found.items():
        if len(values) > 1:
            yield Orders(
                way=place,
                model=model,
                values=values,
                spread=max(values.values()) - min(values.values()),
                stdev=statistics.stdev(values.values()),
                n=len(items),
            )


def _rendered(asked: Sequence[_Asked]) -> tuple[str, list[Rendered]]:
    """The question with the shortest prompts of those that most ways ask, as each of them asks it."""
    items: dict[str, list[tuple[_Asked, Sample]]] = {}
    for one in asked:
        for sample in one.samples:
            items.setdefault(sample.doc_key, []).append((one, sample))
    if not items:
        return "", []
    chosen = min(items.values(), key=lambda found: (-len(found), sum(len(sample.prompt) for _, sample in found)))
    by_way: dict[tuple[str, str], list[tuple[_Asked, Sample]]] = {}
    for one, sample in chosen:
        by_way.setdefault((one.harness, one.name), []).append((one, sample))
    rendered = []
    for (harness, name), found in by_way.items():
        sample = found[0][1]
        metric = next(iter(_figures(found[0][0])), "")
        rendered.append(
            Rendered(
                harness=harness,
                name=name,
                rule=mmlu.RULES.get((harness, name, metric), ""),
                prompt=sample.prompt,
                target=sample.target,
                answers={one.model: s.answer or s.output for one, s in found},
                right={one.model: s.scores.get(metric) == 1.0 for one, s in found},
            )
        )
    return chosen[0][1].question, rendered
