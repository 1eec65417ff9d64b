"""A line of progress for whoever watches: share done, rows, rows/s and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

Say = Callable[[str], None]

_WIDTH = 24
_QUIET_SECONDS = 1.0
_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 5.0


class Progress:
    """Reports on one pass over a known amount of work.

    On a terminal one line is drawn over and over; otherwise, or with ``say``, a new line comes every few seconds.
    Nothing is said of what is over within a second.
    """

    def __init__(self, what: str, total: int, say: Say | None = None) -> None:
        self._what, self._total, self._say = what, max(total, 1), say
        self._drawing = say is None and sys.stderr.isatty()
        self._done = self._rows = 0
        self._began = time.monotonic()
        self._next = self._began + _QUIET_SECONDS
        self._drawn = False

    def advance(self, done: int, rows: int) -> None:
        """Take notice of more work done, and of the rows that were in it."""
        self._done += done
        self._rows += rows
        now = time.monotonic()
        if now >= self._next:
            self._next = now + (_TERMINAL_SECONDS if self._drawing else _LOG_SECONDS)
            self._show(self.line(now - self._began))

    def line(self, seconds: float) -> str:
        """The line after ``seconds`` of work."""
        share = min(self._done / self._total, 1.0)
        left = seconds * (1 - share) / share if share else 0.0
        bar = "#" * round(share * _WIDTH)
        return (
            f"{self._what} [{bar:.<{_WIDTH}}] {share:4.0%}  {self._rows:,} rows, {self._rows / seconds:,.0f} rows/s, "
            f"ETA {int(left) // 60}:{int(left) % 60:02d}"
        )

    def close(self) -> None:
        """End the line that was drawn."""
        if self._drawn:
            sys.stderr.write("\n")

    def _show(self, line: str) -> None:
        if self._drawing:
            sys.stderr.write(f"\r{line}\x1b[K")
            sys.stderr.flush()
            self._drawn = True
        elif self._say is not None:
            self._say(line)
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
