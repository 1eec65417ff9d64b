"""What SIGINT, SIGTERM and SIGHUP do: raise Interrupted, or, while stages run, ask all of them to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from pipeline.errors import Interrupted

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Halt:
    """How far everything that runs is to be stopped. Plain values, read by the threads that watch the stages.

    No threading.Event: its lock is not reentrant, and a handler may interrupt the very thread that holds it.
    """

    signum: int = 0
    """The first signal; not 0: end what runs, with time for last words."""
    now: bool = False
    """A second one came: kill."""

    def note(self, signum: int) -> None:
        self.now = bool(self.signum)
        self.signum = self.signum or signum


@contextmanager
def signals_stop() -> Iterator[None]:
    """A signal raises Interrupted in the main thread while inside."""

    def stop(signum: int) -> NoReturn:
        raise Interrupted(signum)

    with _handled_by(stop):
        yield


@contextmanager
def signals_noted() -> Iterator[Halt]:
    """A signal is only noted while inside: whoever looks at the Halt ends what it has started."""
    halt = Halt()
    with _handled_by(halt.note):
        yield halt


@contextmanager
def _handled_by(handle: Callable[[int], None]) -> Iterator[None]:
    def handler(signum: int, _frame: FrameType | None) -> None:
        handle(signum)

    # A signal that whoever started us chose to ignore (nohup) stays ignored.
    before = {n: signal.signal(n, handler) for n in _NUMBERS if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
