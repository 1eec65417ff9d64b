"""What a tool prints: redacted into its log, the last lines kept for errors, its progress bar for the live line."""

from __future__ import annotations

import collections
import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import IO, TextIO

from pipeline.settings import redact

TAIL_LINES = 200
_CHUNK = 1 << 16
_LONGEST = 1 << 20
"""Bytes; a longer line is broken, so that output without newlines cannot fill the memory."""
_BAR = re.compile(r"(?:^|\s|\|)(\d+)%\|[^|]*\|\s*(\S+/\S+) \[([^\]]*)\]")

_OURS = re.compile(r"^(\w[\w ]*) \[[#.]+\] +(\d+%)  (.+)$")
"""data_prep's own bar: what it does, the share, rows/s and the time left."""


class ToolLog:
    """Reads a tool's output in a thread of its own until the pipe is closed.

    A progress bar redraws itself with carriage returns and ends in a newline much later: its newest state is in
    `progress`, and only its last state goes into the log.
    """

    def __init__(
        self, output: IO[bytes], log: TextIO, hidden: Iterable[str] = (), show: Callable[[str], None] | None = None
    ) -> None:
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self.progress = ""
        """The newest progress bar as '45% 200/448 [00:20<00:25]', '' before the first."""
        self._output, self._log, self._hidden, self._show = output, log, list(hidden), show
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _read(self) -> None:
        rest = b""
        with self._output as output:
            # read1: what is there now, without waiting for a full buffer or a newline.
            while chunk := output.read1(_CHUNK):  # type: ignore[attr-defined]
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._line(_last_state(line))
                rest = rest[rest.rfind(b"\r", 0, -1) + 1 :] if b"\r" in rest[:-1] else rest
                self._look(_last_state(rest))
                if len(rest) > _LONGEST:
                    self._line(_last_state(rest))
                    rest = b""
        if rest:
            self._line(_last_state(rest))

    def _line(self, text: str) -> None:
        self._look(text)
        line = redact(text, self._hidden)
        with suppress(OSError):  # a full disk must not end the reading: the tool would wait for us for ever
            self._log.write(line + "\n")
            self._log.flush()
        if line.strip():
            self.tail.append(line)
            if self._show:
                self._show(line)

    def _look(self, text: str) -> None:
        found = _BAR.search(text)
        if found:
            percent, count, times = found.groups()
            self.progress = f"{percent}% {count} [{times}]"
        elif found := _OURS.search(text):
            self.progress = " ".join(found.groups())


def _last_state(line: bytes) -> str:
    """The text after the last carriage return that something follows."""
    return line.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode("utf-8", errors="replace")
