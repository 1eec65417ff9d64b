"""What the user sees while work goes on: one line per event, one live line of progress."""

from __future__ import annotations

import sys
import time
from typing import TextIO

QUIET_INTERVAL_S = 15.0
"""Between two progress lines where the output is a file or CI log, not a terminal."""


class Console:
    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self._shown = ""
        self._last = 0.0

    def say(self, text: str) -> None:
        self._clear()
        print(text, file=self.stream, flush=True)

    def progress(self, text: str) -> None:
        """Replace the live line; in a log, print it now and then when it has changed."""
        if text == self._shown:
            return
        now = time.monotonic()
        if self.live:
            self._clear()
            print(f"\r{text[:160]}", end="", file=self.stream, flush=True)
            self._shown = text
        elif now - self._last >= QUIET_INTERVAL_S:
            print(text, file=self.stream, flush=True)
            self._shown, self._last = text, now

    def _clear(self) -> None:
        if self.live and self._shown:
            print("\r\033[K", end="", file=self.stream)
        self._shown = ""


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
