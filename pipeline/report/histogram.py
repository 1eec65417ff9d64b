"""Geometry of a histogram with bins of any width. Pure; places are as in figures.py."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.report.figures import Tick, axis_for, tick_label


def histogram(edges: Sequence[float], counts: Sequence[float], limit: float | None, height: int) -> Histogram | None:
    """A column of equal width for each bin between two of `edges` (ascending), as high as its count.

    Empty bins at both ends are left out, but for those up to `limit`, which is marked by a line. None with nothing to
    draw.
    """
    filled = [i for i, count in enumerate(counts) if count > 0]
    if len(edges) != len(counts) + 1 or not filled or any(a >= b for a, b in pairwise(edges)):
        return None
    inside = [i for i, (low, high) in enumerate(pairwise(edges)) if limit is not None and low < limit <= high]
    first, last = min(filled + inside), max(filled + inside)
    up = axis_for([0.0, *counts], parts=max(2, height // 45))
    if up is None:
        return None
    wide = 100 / (last - first + 1)
    columns = []
    for place, i in enumerate(range(first, last + 1)):
        # At least one pixel high, or a single row among a million would not be seen.
        tall = max(height * up.percent(counts[i]) / 100, 1) if counts[i] > 0 else 0.0
        columns.append(
            Column(round(place * wide, 2), round(wide, 2), height - tall, tall, edges[i], edges[i + 1], counts[i])
        )
    every = math.ceil((last - first + 2) / 12)
    marked = None
    if limit is not None and inside:
        low, high = edges[inside[0]], edges[inside[0] + 1]
        marked = round((inside[0] - first + (limit - low) / (high - low)) * wide, 2)
    return Histogram(
        height=height,
        x_ticks=tuple(Tick(round((i - first) * wide, 2), f"{edges[i]:g}") for i in range(first, last + 2, every)),
        y_ticks=tuple(Tick(height * (1 - up.percent(v) / 100), tick_label(v, up.step)) for v in up.ticks),
        columns=tuple(columns),
        limit=marked,
    )


@dataclass(frozen=True)
class Column:
    """A column of a histogram: left edge and width in percent, top and height in pixels, and what it stands for."""

    left: float
    width: float
    top: float
    tall: float
    low: float
    high: float
    count: float


@dataclass(frozen=True)
class Histogram:
    height: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    columns: tuple[Column, ...]
    limit: float | None
    """Place of the marked limit in percent."""
