"""The follower as a process: what it is told by environment and standard input, which signals it hears, its output."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Mode = Literal["online", "local", "offline"]
Ending = Literal["ok", "failed", "died"]


def ignore_stop_signals() -> None:
    """Ctrl-C reaches the whole group, but the pipeline says when to end.

    Blocked as well as ignored: swanlab.init puts its own handler for SIGINT in place, which would abort the experiment.
    """
    stops = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    for signum in stops:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)


def wait_for_end(seconds: float) -> Ending | None:
    """What the pipeline says on standard input within `seconds`; None if it says nothing."""
    if not select.select([0], [], [], seconds)[0]:
        return None
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    words = line.decode(errors="replace").split()
    if words == ["end", "ok"]:
        return "ok"
    return "failed" if words == ["end", "failed"] else "died"


@contextmanager
def output_to(log: Path) -> Iterator[Any]:
    """What swanlab prints goes to the log; yields the way to say one line on the real standard error."""
    own = os.dup(2)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield lambda text: os.write(own, f"{text}\n".encode())
    finally:
        sys.stdout.flush()
        os.close(own)


@contextmanager
def deadline(seconds: float, last_words: Callable[[], None]) -> Iterator[None]:
    """End the process, still with 0, if the block hangs: swanlab waits for its upload without a limit."""

    def give_up() -> None:
        last_words()
        os._exit(0)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@dataclass(frozen=True)
class Settings:
    """The JSON of PIPELINE_TRACKING. `log_dir` is absolute; `config` is the resolved recipe, without secrets."""

    mode: Mode
    project: str
    experiment: str
    log_dir: Path
    workspace: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None
    config: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_environment() -> Settings:
        """Raises ValueError where the variable is missing or incomplete."""
        try:
            raw = json.loads(os.environ["PIPELINE_TRACKING"])  # noqa: TID251 - a process of its own, told nothing else
            lists = {"tags": tuple(raw.get("tags") or ()), "config": raw.get("config") or {}}
            return Settings(**{**raw, **lists, "log_dir": Path(raw["log_dir"])})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"PIPELINE_TRACKING should hold the tracker's settings as JSON: {error!r}") from error
