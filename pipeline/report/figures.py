"""Geometry of the report's figures. Pure: numbers in, numbers out; the template draws them.

Horizontal places are percent of the plot's width, so that a figure keeps its text size on a narrow screen; vertical
places are pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.report.wording import MINUS, Line, unique
from pipeline.training.curve import Point

WIDTH = 1000
"""Units of a chart's horizontal axis."""
MAX_POINTS = 800
"""Of one drawn line; longer ones keep the least and the greatest value of every stretch."""
MAX_DOTS = 60


def forest(lines: Iterable[Line]) -> list[Panel]:
    """A panel per unit: fractions share one axis, any other metric has its own."""
    drawn = [entry for entry in lines if entry.row.delta is not None and math.isfinite(entry.row.delta)]
    names = Counter((entry.task, entry.metric) for entry in drawn)
    panels = []
    for unit in unique(_unit(entry) for entry in drawn):
        members = [entry for entry in drawn if _unit(entry) == unit]
        values = [v for entry in members for v in (entry.row.delta, *_interval(entry)) if v is not None]
        axis = axis_for([0.0, *values])
        if axis is None:
            continue
        bars = []
        for entry in members:
            low, high = _interval(entry)
            at = axis.percent(entry.row.delta or 0.0)
            ends = (axis.percent(low), axis.percent(high)) if low is not None and high is not None else (at, at)
            alone = names[entry.task, entry.metric] == 1
            bars.append(Bar(entry, "" if alone else entry.harness, at, ends[0], ends[1]))
        marks = tuple(Tick(axis.percent(v), _signed(v, axis.step)) for v in axis.ticks)
        panels.append(Panel(unit, axis.percent(0.0), marks, tuple(bars)))
    return panels


def chart(points: Sequence[Point], names: Sequence[tuple[str, str]], height: int) -> Chart | None:
    """Lines of `names` (key of the points, caption) by step; None with nothing finite to draw."""
    series = {key: _finite(points, key) for key, _ in names}
    found = [pair for pairs in series.values() for pair in pairs]
    if not found:
        return None
    across = axis_for([step for step, _ in found], tight=True, parts=7)
    up = axis_for([value for _, value in found], parts=max(2, height // 45))
    if across is None or up is None:
        return None
    drawn = []
    for key, caption in names:
        places = [(across.percent(s) / 100 * WIDTH, height * (1 - up.percent(v) / 100)) for s, v in thin(series[key])]
        if places:
            last = series[key][-1][1]
            path = "M" + "L".join(f"{_short(x)} {_short(y)}" for x, y in places)
            # Single measurements, far apart, are marked; so is a line of one point, which would be invisible.
            marked = len(places) == 1 or (key == "eval_loss" and len(places) <= MAX_DOTS)
            dots = tuple(f"M{_short(x)} {_short(y)}h0" for x, y in places) if marked else ()
            drawn.append(Series(key, caption, path, dots, f"{last:.4g}"))
    return Chart(
        height=height,
        x_ticks=tuple(Tick(across.percent(v), f"{v:g}") for v in across.ticks),
        y_ticks=tuple(Tick(height * (1 - up.percent(v) / 100), tick_label(v, up.step)) for v in up.ticks),
        series=tuple(drawn),
    )


def thin(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about `MAX_POINTS` of them; peaks stay."""
    if len(pairs) <= MAX_POINTS:
        return list(pairs)
    stretch = math.ceil(2 * len(pairs) / MAX_POINTS)
    kept = []
    for start in range(0, len(pairs), stretch):
        part = pairs[start : start + stretch]
        low, high = min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])
        kept += sorted({low, high})
    return kept


def axis_for(values: Iterable[float], *, tight: bool = False, parts: int = 5) -> Axis | None:
    """An axis over the finite values with 1-2-5 ticks, about `parts` steps; `tight` ends at the values."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    if high - low < 1e-12 * max(abs(low), abs(high)) or high == low:
        pad = abs(high) / 2 or 0.5
        low, high = low - pad, high + pad
    span = high - low
    if not math.isfinite(span) or not math.isfinite(span * 100) or span < 1e-300:
        return None
    rough = span / parts
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(k * step for k in range(first, last + 1))
    if tight:
        return Axis(low, high, step, tuple(v for v in ticks if low <= v <= high))
    return Axis(min(low, ticks[0]), max(high, ticks[-1]), step, ticks)


def _unit(entry: Line) -> str:
    fraction = abs(entry.row.base) <= 1 and abs(entry.row.tuned) <= 1
    return "" if fraction else entry.metric


def _interval(entry: Line) -> tuple[float | None, float | None]:
    return entry.row.ci_low, entry.row.ci_high


def _finite(points: Sequence[Point], key: str) -> list[tuple[float, float]]:
    pairs = ((point.get("step"), point.get(key)) for point in points)
    return [
        (float(step), float(value))
        for step, value in pairs
        if isinstance(step, int | float) and isinstance(value, int | float) and math.isfinite(value)
    ]


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def tick_label(value: float, step: float) -> str:
    """Enough digits to tell ticks `step` apart."""
    if step < 1e-3 or step >= 1e5:
        digits, _, power = f"{value:.2e}".partition("e")
        return "0" if value == 0 else f"{float(digits):g}e{int(power)}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _signed(value: float, step: float) -> str:
    text = tick_label(abs(value), step)
    return "0" if not text.strip("0.") else (MINUS if value < 0 else "+") + text


@dataclass(frozen=True)
class Axis:
    low: float
    high: float
    step: float
    ticks: tuple[float, ...]

    def percent(self, value: float) -> float:
        return round(min(max((value - self.low) / (self.high - self.low), 0.0), 1.0) * 100, 2)


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True)
class Bar:
    """One row; places in percent. Without an interval both ends are at the delta."""

    line: Line
    harness: str
    """Empty where task and metric name it."""
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    unit: str
    """Name of the metric; empty for fractions of 1."""
    zero: float
    ticks: tuple[Tick, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Series:
    key: str
    caption: str
    path: str
    """SVG path data in WIDTH x height units."""
    dots: tuple[str, ...]
    last: str


@dataclass(frozen=True)
class Chart:
    height: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    series: tuple[Series, ...]
