"""Pictures for the tracker: base beside tuned, training rows by length. They need matplotlib, which ms-swift brings."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.tracking import view
from pipeline.tracking.data import Lengths
from pipeline.tracking.view import Bar

_MOST_ROWS = 10


def pictures(run_dir: Path) -> Iterator[tuple[str, Any]]:
    """(key, PIL image) of all there is to draw."""
    lengths = view.lengths(run_dir)
    if lengths and any(lengths.counts):
        yield "tokens/histogram", draw_lengths(lengths)
    bars = view.bars(run_dir)
    if bars:
        yield "report/base_vs_tuned", draw(bars)


def draw_lengths(lengths: Lengths) -> Any:
    """Columns of equal width, as in the report; the line is max_length."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    filled = [i for i, count in enumerate(lengths.counts) if count]
    places = range(filled[0], filled[-1] + 1)
    axes.bar([i + 0.5 for i in places], [lengths.counts[i] for i in places], 0.95, color="#2f855a")
    marks = [*places, filled[-1] + 1]
    axes.set_xticks(marks, [str(lengths.edges[i]) for i in marks], fontsize=8, rotation=45)
    axes.set_xlabel("tokens", fontsize=8)
    axes.set_ylabel("training rows measured", fontsize=8)
    limit = lengths.limit
    if limit is not None and lengths.edges[0] < limit <= lengths.edges[-1]:
        i = next(i for i, high in enumerate(lengths.edges[1:]) if limit <= high)
        low, high = lengths.edges[i : i + 2]
        axes.axvline(i + (limit - low) / (high - low), color="#b8480a", linestyle="--", label=f"max_length {limit}")
        axes.legend(frameon=False, fontsize=8)
    return _image(figure)


def draw(bars: tuple[Bar, ...]) -> Any:
    """At most 10 comparisons, first on top."""
    figure_module = importlib.import_module("matplotlib.figure")  # no pyplot: no window system, no global state
    shown = bars[:_MOST_ROWS]
    # Small in inches, so that the writing stays readable in the dashboard's thumbnail.
    figure = figure_module.Figure(figsize=(5, 0.8 + 0.45 * len(shown)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(shown))
    for offset, name, color in ((-0.2, "base", "#9aa5b1"), (0.2, "tuned", "#2f855a")):
        widths = [getattr(bar, name) for bar in shown]
        drawn = axes.barh([row + offset for row in rows], widths, 0.38, label=name, color=color)
        axes.bar_label(drawn, fmt="%.3f", padding=3, fontsize=8)
    axes.set_yticks(list(rows), [bar.label for bar in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.1)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, frameon=False)
    return _image(figure)


def _image(figure: Any) -> Any:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return importlib.import_module("PIL.Image").open(buffer)
