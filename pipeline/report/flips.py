"""Items whose answer changed from base to tuned: how many turned right, how many wrong. Pure; places in percent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.report.wording import Line


def flips(lines: Iterable[Line]) -> list[Flips]:
    """Of each task the first right/wrong metric; bars share one scale, the most items that any task has on a side."""
    first: dict[tuple[str, str], Line] = {}
    for entry in lines:
        if entry.row.gained is not None and entry.row.lost is not None:
            first.setdefault((entry.row.suite, entry.row.task), entry)
    most = max((max(e.row.gained or 0, e.row.lost or 0) for e in first.values()), default=0)
    if not most:
        return []
    return [
        Flips(
            e, e.row.gained or 0, e.row.lost or 0, *(round(85 * (n or 0) / most, 1) for n in (e.row.gained, e.row.lost))
        )
        for e in first.values()
    ]


@dataclass(frozen=True)
class Flips:
    line: Line
    gained: int
    lost: int
    gained_width: float
    """Percent of its half; the longest leaves room for its number."""
    lost_width: float
