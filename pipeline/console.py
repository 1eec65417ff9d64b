"""What the user sees while work goes on: one line per event, below them a live table, one line per running stage."""

from __future__ import annotations

import os
import sys
import threading
import time
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

QUIET_INTERVAL_S = 15.0
"""Between two progress lines where the output is a file or CI log, not a terminal; for each stage that runs."""


class Console:
    """Lines come from several threads; each is printed whole."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self._lock = threading.Lock()
        self._rows: tuple[str, ...] = ()
        self._drawn = 0
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        with self._lock:
            self._erase()
            print(text, file=self.stream, flush=True)
            self._draw()

    def table(self, rows: Sequence[str], summary: str = "") -> None:
        """Keep these lines at the bottom of the terminal; in a log, print those that changed now and then."""
        with self._lock:
            if self.live:
                new = tuple(rows) + ((summary,) if summary and rows else ())
                if new != self._rows:
                    self._erase()
                    self._rows = new
                    self._draw()
                return
            now = time.monotonic()
            if rows and now - self._last >= QUIET_INTERVAL_S * len(rows):
                for row in rows:
                    if row not in self._rows:
                        print(row, file=self.stream, flush=True)
                self._rows, self._last = tuple(rows), now

    def _erase(self) -> None:
        if self._drawn:
            print(f"\033[{self._drawn}F\033[J", end="", file=self.stream, flush=True)
            self._drawn = 0

    def _draw(self) -> None:
        if not (self.live and self._rows):
            return
        columns, lines = _size(self.stream)
        shown = self._rows
        if len(shown) > lines - 1:  # what has scrolled off cannot be erased any more
            shown = (*shown[: max(lines - 3, 0)], f"... and {len(shown) - lines + 2} more", shown[-1])
        print("\n".join(clipped(row, columns - 1) for row in shown), file=self.stream, flush=True)
        self._drawn = len(shown)


def clipped(text: str, columns: int) -> str:
    """As much of the text as fits: a line that wraps could not be erased. Chinese characters take two columns."""
    used = 0
    for index, character in enumerate(text):
        used += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if used > columns:
            return text[:index]
    return text


def _size(stream: TextIO) -> tuple[int, int]:
    with suppress(OSError, ValueError):
        columns, lines = os.get_terminal_size(stream.fileno())
        if columns and lines:  # 0 0 under some CI systems
            return columns, lines
    return 80, 24


def duration(seconds: float) -> str:
    """75 -> '1m15s'."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{whole}s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


def megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
