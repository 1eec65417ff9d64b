"""Base against tuned on the same items: paired differences with intervals and tests. Pure.

Right/wrong metrics: exact McNemar test (McNemar 1947; the binomial form for discordant pairs) and the adjusted Wald
interval for a paired difference of proportions (Bonett & Price 2012, recommended by Fagerland, Lydersen & Laake 2014).
Graded metrics: percentile bootstrap of the mean difference (Efron & Tibshirani 1993, 10,000 resamples, fixed seed) and
the paired sign-flip permutation test (10,000 flips, or all of them for small n).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from pipeline.results import Sample, Score

RESAMPLES = 10_000
SEED = 20_120


class Row(BaseModel):
    """One metric of one task, base against tuned. `delta` = tuned - base, in the metric's unit."""

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
    gained: int | None = None
    """Items only the tuned model got right."""
    lost: int | None = None
    """Items only the base got right."""
    higher_is_better: bool = True
    remark: str = ""


class Paired(BaseModel):
    """Statistics of paired items."""

    model_config = ConfigDict(frozen=True)

    n: int
    delta: float
    ci_low: float
    ci_high: float
    p_value: float
    gained: int | None = None
    lost: int | None = None


def compare(
    suite: str,
    base: Sequence[Score],
    tuned: Sequence[Score],
    base_samples: Iterable[Sample],
    tuned_samples: Iterable[Sample],
    confidence: float = 0.95,
) -> list[Row]:
    """A row per score that both models have; samples are paired by content, not by position."""
    left, right = _by_metric(base_samples), _by_metric(tuned_samples)
    other = {(score.task, score.metric): score for score in tuned}
    rows = []
    for score in base:
        key = (score.task, score.metric)
        match = other.get(key)
        if match is None:
            continue
        remark = _difference(score, match)
        pairs = _pair(left.get(key, {}), right.get(key, {}))
        paired = None if remark else paired_statistics(pairs, confidence)
        # Statistics belong to a score only if the samples give that very score (a corpus-level BLEU is no mean).
        if paired and not _consistent(pairs, score.value, match.value):
            paired, remark = None, "not a mean over items: no paired interval"
        if paired and paired.n < min(score.n, match.n):
            remark = f"{paired.n} of {min(score.n, match.n)} items paired"
        rows.append(
            Row(
                task=score.task,
                harness=score.harness,
                suite=suite,
                metric=score.metric,
                n=paired.n if paired else score.n,
                base=score.value,
                tuned=match.value,
                delta=None if score.implementation != match.implementation else match.value - score.value,
                ci_low=paired.ci_low if paired else None,
                ci_high=paired.ci_high if paired else None,
                p_value=paired.p_value if paired else None,
                gained=paired.gained if paired else None,
                lost=paired.lost if paired else None,
                higher_is_better=score.higher_is_better,
                remark=remark,
            )
        )
    return rows


def paired_statistics(pairs: Sequence[tuple[float, float]], confidence: float = 0.95) -> Paired | None:
    """Difference tuned - base over (base, tuned) pairs; None below two pairs."""
    if len(pairs) < 2:
        return None
    if all(value in (0.0, 1.0) for pair in pairs for value in pair):
        return _binary(pairs, confidence)
    return _graded(pairs, confidence)


def _binary(pairs: Sequence[tuple[float, float]], confidence: float) -> Paired:
    from scipy import stats

    n = len(pairs)
    gained = sum(1 for base, tuned in pairs if tuned > base)
    lost = sum(1 for base, tuned in pairs if tuned < base)
    p_value = float(stats.binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    p12, p21 = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    centre = p12 - p21
    half = z * math.sqrt((p12 + p21 - centre**2) / (n + 2))
    return Paired(
        n=n,
        delta=(gained - lost) / n,
        ci_low=max(-1.0, centre - half),
        ci_high=min(1.0, centre + half),
        p_value=p_value,
        gained=gained,
        lost=lost,
    )


def _graded(pairs: Sequence[tuple[float, float]], confidence: float) -> Paired:
    import numpy as np
    from scipy import stats

    difference = np.array([tuned - base for base, tuned in pairs])
    delta = float(difference.mean())
    if not difference.any():
        return Paired(n=len(pairs), delta=0.0, ci_low=0.0, ci_high=0.0, p_value=1.0)
    generator = np.random.default_rng(SEED)
    interval = stats.bootstrap(
        (difference,), np.mean, confidence_level=confidence, n_resamples=RESAMPLES, method="percentile",
        batch=500, rng=generator,
    ).confidence_interval  # fmt: skip
    test = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, batch=500, vectorized=True,
        rng=generator,
    )  # fmt: skip
    return Paired(
        n=len(pairs),
        delta=delta,
        ci_low=float(interval.low),
        ci_high=float(interval.high),
        p_value=float(test.pvalue),
    )


def _by_metric(samples: Iterable[Sample]) -> dict[tuple[str, str], dict[str, float]]:
    result: dict[tuple[str, str], dict[str, float]] = {}
    for sample in samples:
        result.setdefault((sample.task, sample.metric), {})[sample.doc_key] = sample.score
    return result


def _pair(base: dict[str, float], tuned: dict[str, float]) -> list[tuple[float, float]]:
    return [(base[key], tuned[key]) for key in sorted(base.keys() & tuned.keys())]


def _consistent(pairs: Sequence[tuple[float, float]], base: float, tuned: float) -> bool:
    """Whether the means over the pairs are the reported scores (EvalScope rounds to four digits)."""
    n = len(pairs)
    means = (sum(pair[0] for pair in pairs) / n, sum(pair[1] for pair in pairs) / n)
    return abs(means[0] - base) < 6e-5 and abs(means[1] - tuned) < 6e-5


def _difference(base: Score, tuned: Score) -> str:
    """What differs between the implementations of two scores; such scores are never subtracted."""
    left, right = base.implementation.model_dump(), tuned.implementation.model_dump()
    parts = [f"{key}: {left[key]} / {right[key]}" for key in left if left[key] != right[key]]
    return "not the same implementation: " + "; ".join(parts) if parts else ""
