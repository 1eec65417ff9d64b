"""Looks after one running tool: its memory, whether it gets on, and what its stage's `Watch` says."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from pipeline import causes, processes
from pipeline.errors import OutputError, PipelineError
from pipeline.stage import Signs, Watch
from pipeline.toollog import ToolLog

SAMPLE_SHARE = 0.01
"""Of the time is spent at most on looking at the memory of the process tree: all processes have to be listed."""
_AWAKE_S = 5.0
"""Seconds between two looks that count at most: a longer gap is a machine or a pipeline that was itself stopped."""


@dataclass
class Guard:
    process: subprocess.Popen[bytes]
    tag: str
    watch: Watch | None
    output: ToolLog
    log: TextIO
    warn: Callable[[str], None]
    """Told of each trouble that does not stop the tool."""
    peak_rss: int = 0
    """Bytes: the most that the process tree held at a look, memory that several processes share counted for each."""
    stopped: PipelineError | None = None
    oom_kills: int | None = field(default_factory=processes.oom_kills)
    _seconds: float = 0.0
    _heard: float = 0.0
    _size: int = -1
    _bar: str = ""
    _clock: float = field(default_factory=time.monotonic)
    _sample: float = 0.0

    def look(self, label: str, *, ended: bool = False, failed: bool = False) -> PipelineError | None:
        """Why the tool has to be stopped, or, once it has ended, why what it left is not worth reading.

        One that `failed` did not come to the end of its work: what is only wrong at the end is no trouble then.
        """
        now = time.monotonic()
        self._seconds += min(now - self._clock, _AWAKE_S)
        self._clock = now
        if now >= self._sample and not ended:
            self.peak_rss = max(self.peak_rss, processes.tree_rss(self.process.pid))
            self._sample = now + (time.monotonic() - now) / SAMPLE_SHARE
        if self.watch is None:
            return None
        for trouble in self.watch.look(self._signs(ended=ended and not failed)):
            if not trouble.stop:
                self.warn(trouble.words)
            elif self.stopped is None:
                self.stopped = self._error(label, trouble.words, hang=trouble.hang, ended=ended)
        return self.stopped

    def out_of_memory(self) -> bool | None:
        """Whether the kernel has killed something for want of memory meanwhile; None where it does not say."""
        now = processes.oom_kills()
        return None if now is None or self.oom_kills is None else now > self.oom_kills

    def _signs(self, *, ended: bool) -> Signs:
        bar = re.sub(r" \[.*", "", self.output.progress)
        size = os.fstat(self.log.fileno()).st_size
        if (size, bar) != (self._size, self._bar):
            self._size, self._bar, self._heard = size, bar, self._seconds
        return Signs(self._seconds, self._heard, bar, ended)

    def _error(self, label: str, words: str, *, hang: bool, ended: bool) -> PipelineError:
        if hang:
            return causes.hang(label, words, processes.ranks(self.tag), list(self.output.tail))
        return OutputError(f"{label}: {'' if ended else 'stopped while it ran. '}{words}\n{causes.KEPT}")
