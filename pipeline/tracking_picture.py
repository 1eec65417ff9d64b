"""The picture of the report for the tracker: base beside tuned, one pair of bars per comparison."""

from __future__ import annotations

import importlib
import io
from typing import Any

from pipeline.tracking_view import Bar

_MOST_ROWS = 10


def draw(bars: tuple[Bar, ...]) -> Any:
    """A PIL image of at most 10 comparisons, first on top. Needs matplotlib, which ms-swift brings along."""
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return importlib.import_module("PIL.Image").open(buffer)
