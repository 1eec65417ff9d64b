"""Statistics of row lengths, from all rows or from a sample of them; `Tokens` is ``tokens.json``.

Intervals are at 95 % and for a finite population of N rows of which n were measured. The standard error of a mean is
s / sqrt(n) * sqrt(1 - n/N) (Cochran, Sampling Techniques, 3rd ed., 1977, section 2.6); a share has Wilson's interval
(J. Am. Stat. Assoc. 22, 1927) with the sample size that has that same correction, n * (N - 1) / (N - n). Both are
without width when all rows were measured.
"""

from __future__ import annotations

import bisect
import math
import random
from collections.abc import Callable, Sequence
from statistics import NormalDist, fmean, stdev
from typing import Literal, TypeAlias

import msgspec

Z = NormalDist().inv_cdf(0.975)
PACKED_ROWS = 50_000
"""The most rows that are packed for the estimate; the rest is in proportion."""

Truncation: TypeAlias = Literal["delete", "left", "right"]


def mean_of(values: Sequence[float], population: int) -> Mean:
    """The mean of a population of which ``values`` were measured."""
    if not values:
        return Mean(0.0, 0.0, 0.0, 0.0)
    mean, size = fmean(values), len(values)
    error = 0.0
    if 1 < size < population:
        error = stdev(values) / math.sqrt(size) * math.sqrt(1 - size / population)
    return Mean(round(mean, 3), round(error, 4), round(max(mean - Z * error, 0), 3), round(mean + Z * error, 3))


def share_of(hits: int, size: int, population: int) -> Share:
    """The share of a population of which ``hits`` of ``size`` measured ones have some property."""
    if not size:
        return Share(0, 0.0, 0.0, 0.0)
    share = hits / size
    if size >= population:
        return Share(hits, round(share, 6), round(share, 6), round(share, 6))
    effective = size * (population - 1) / (population - size)
    square = Z * Z / effective
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / effective + square / (4 * effective))
    return Share(hits, round(share, 6), round(max(middle - half, 0), 6), round(min(middle + half, 1), 6))


def quantile(ordered: Sequence[int], share: float) -> int:
    """The smallest of the ``ordered`` values that at least ``share`` of them do not exceed; 0 of nothing."""
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1] if ordered else 0


def histogram(lengths: Sequence[int]) -> Histogram:
    """Counts between edges that grow by the square root of 2, from 16 to beyond the longest; the first bin is from 0.

    Bin i holds the lengths from ``edges[i]`` up to, not including, ``edges[i + 1]``.
    """
    longest = max(lengths, default=0)
    edges = [0]
    power = 8
    while edges[-1] <= longest:
        edges.append(round(2 ** (power / 2)))
        power += 1
    counts = [0] * (len(edges) - 1)
    for length in lengths:
        counts[bisect.bisect_right(edges, length) - 1] += 1
    return Histogram(edges, counts)


def trained_length(tokens: int, first: int, last: int, max_length: int, truncation: Truncation) -> int:
    """What the trainer sees of a row of ``tokens``; 0 where it leaves it out: too long, or with nothing left to learn.

    ``first`` and ``last`` are the places of the first and the last token that is learned, behind the row's first one,
    which nothing predicts; 0 for none.
    """
    if tokens <= max_length:
        return tokens if last else 0
    # Of the part that is kept the first token is not predicted, either.
    seen = {"delete": False, "right": 0 < first < max_length, "left": last > tokens - max_length}[truncation]
    return max_length if seen else 0


def epoch_of(
    trained: Sequence[int],
    population: int,
    *,
    global_batch_size: int | None,
    packs: Callable[[Sequence[int]], Sequence[int]] | None,
    max_length: int,
    seed: int,
) -> Epoch:
    """One pass over a population of rows of which those in ``trained`` were measured (see `trained_length`).

    ``packs`` makes packed rows of rows in the order they come, which is random in training; None packs nothing.
    """
    scale = population / len(trained) if trained else 0.0
    kept = [length for length in trained if length]
    rows = round(len(kept) * scale)
    tokens = mean_of(trained, population)
    packed = fill = None
    if packs is not None and kept:
        shuffled = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
        # A sample is repeated up to the size of the data: a few rows alone would pack worse than many.
        chosen = [length for _ in range(math.ceil(min(rows, PACKED_ROWS) / len(kept))) for length in kept]
        shuffled.shuffle(chosen)
        chosen = chosen[: min(rows, PACKED_ROWS)]
        made = packs(chosen)
        packed = round(len(made) * rows / len(chosen))
        fill = round(sum(made) / len(made) / max_length, 4)
    batched = rows if packed is None else packed
    return Epoch(
        rows=rows,
        tokens=round(tokens.mean * population),
        tokens_low=round(tokens.low * population),
        tokens_high=round(tokens.high * population),
        longest=max(trained, default=0),
        packed_rows=packed,
        packed_fill=fill,
        steps=math.ceil(batched / global_batch_size) if global_batch_size else None,
        steps_without_packing=math.ceil(rows / global_batch_size) if global_batch_size else None,
    )


class Mean(msgspec.Struct, frozen=True):
    """A mean with its standard error and interval."""

    mean: float
    standard_error: float
    low: float
    high: float


class Share(msgspec.Struct, frozen=True):
    """A share with its interval; ``sampled_rows`` is the count among the rows measured."""

    sampled_rows: int
    share: float
    low: float
    high: float


class Histogram(msgspec.Struct, frozen=True):
    """One more edge than counts; see `histogram`."""

    edges: list[int]
    counts: list[int]


class Quantiles(msgspec.Struct, frozen=True):
    """Of the rows measured; ``max`` is the longest seen, not the longest there is."""

    p50: int
    p90: int
    p95: int
    p99: int
    max: int


class Failed(msgspec.Struct, frozen=True):
    """Rows that swift's template cannot encode, and the first of them; swift leaves them out in silence."""

    rows: Share
    line: int
    error: str


class Epoch(msgspec.Struct, frozen=True):
    """Estimates for one pass over the training rows, after truncation or deletion of those over the limit.

    ``steps`` are optimizer steps: those of packed rows where packing is on. ``packed_fill`` is the mean share of the
    maximal length that a packed row fills. ``longest`` is of the rows measured.
    """

    rows: int
    tokens: int
    tokens_low: int
    tokens_high: int
    longest: int
    packed_rows: int | None
    packed_fill: float | None
    steps: int | None
    steps_without_packing: int | None


class SplitTokens(msgspec.Struct, frozen=True, kw_only=True):
    """One file. ``tokens`` and ``trained_tokens`` are per row that can be encoded; ``trained_share`` is of all tokens.

    ``unlearned`` rows are left out because ``max_length``, or the template, leaves no token of them to learn.
    ``languages`` counts the rows measured by the language of their user and assistant turns, most frequent first.
    """

    rows: int
    sampled: int
    exact: bool
    tokens: Mean
    quantiles: Quantiles
    trained_tokens: Mean
    trained_share: float
    over_max_length: Share
    unlearned: Share
    failed: Failed | None
    histogram: Histogram
    languages: dict[str, int]
    epoch: Epoch | None


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of ``tokens.json``."""

    schema: int = 1
    model_type: str
    template: str
    settings: dict[str, str | bool | None]
    max_length: int
    truncation: Truncation
    packing: bool
    global_batch_size: int | None
    seed: int
    languages_by: str
    train: SplitTokens
    val: SplitTokens | None
