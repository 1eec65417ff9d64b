"""Blocks of files, worked on by one or several processes, written in the order of the input.

Process i of n works on the blocks i, i + n, i + 2n, ... Where a block's rows go depends on how much came before, so a
baton goes round: who holds it books the space its block needs, hands the baton on, and only then writes. While it
waits, a process works ahead on its next blocks. So the files come out alike for any number of processes.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

from data_prep.allocator import keep_freed_memory
from data_prep.cook import Cook, Cooked
from data_prep.errors import DataPrepError
from data_prep.job import Job
from data_prep.sink import Prepared, Sink, Tallies

_AHEAD = 4
"""Blocks that a process may have ready before their turn."""
_TELL_SECONDS = 0.2
_WATCH_SECONDS = 0.5

Advance: TypeAlias = Callable[[int, int], None]
"""Told the bytes and the rows of every block."""


class Baton(NamedTuple):
    """Where the next block's rows go."""

    position: int = 0
    """Offset of the next row in the file that is being read."""
    number: int = 0
    """Its lines or elements so far."""
    sizes: tuple[int, ...] = ()
    """Bytes of each output so far."""
    broken: str | None = None
    """Why no more is to be read."""


class Ring(Protocol):
    """How the baton comes and goes."""

    def ready(self) -> bool:
        """Whether the baton can be had at once."""

    def take(self) -> Baton:
        """Wait for the baton."""

    def give(self, baton: Baton) -> None:
        """Hand it on."""


class Alone:
    """The ring of one process."""

    def __init__(self, baton: Baton) -> None:
        self.baton = baton

    def ready(self) -> bool:
        return True

    def take(self) -> Baton:
        return self.baton

    def give(self, baton: Baton) -> None:
        self.baton = baton


class Piped:
    """A place in the ring of several processes."""

    def __init__(self, before: Connection, after: Connection) -> None:
        self._before, self._after = before, after

    def ready(self) -> bool:
        return self._before.poll()

    def take(self) -> Baton:
        return Baton(*self._before.recv())

    def give(self, baton: Baton) -> None:
        self._after.send(tuple(baton))


def run(job: Job, processes: int, advance: Advance) -> tuple[Tallies, str | None]:
    """Work on all blocks of ``job``; the counts, and what is wrong with a file as a whole, or None."""
    start = Baton(sizes=(0,) * Sink.outputs(job))
    if processes > 1:
        return _run_several(job, processes, start, advance)
    ring = Alone(start)
    tallies = _share(job, 0, 1, ring, advance)
    return tallies, ring.baton.broken


def _blocks(job: Job) -> Iterator[tuple[int, int]]:
    for at, file in enumerate(job.files):
        for index in range(file.blocks(job.step)):
            yield at, index


def _share(job: Job, place: int, places: int, ring: Ring, advance: Advance) -> Tallies:
    """One process's part of the work."""
    keep_freed_memory()
    cook = Cook(job)
    pending: deque[tuple[int, int, Cooked, Prepared]] = deque()
    collecting = gc.isenabled()
    gc.disable()  # rows hold no cycles, and looking for some costs a fifth
    try:
        with Sink(job) as sink:

            def finish() -> None:
                at, index, cooked, prepared = pending.popleft()
                file = job.files[at]
                baton = ring.take()
                if baton.broken is not None:
                    ring.give(baton)
                    return
                if index == 0:
                    baton = baton._replace(position=file.start if not cooked.sure else cooked.begin, number=0)
                if file.array and not (cooked.sure and cooked.begin == baton.position):
                    cooked = cook.again(file, index, baton.position, baton.number)
                    prepared = sink.prepare(cooked)
                booked = sink.book(cooked, prepared, at, baton.number, baton.sizes)
                ring.give(Baton(cooked.end, baton.number + cooked.numbers, booked.sizes, cooked.broken))
                sink.write(booked)
                advance(job.step, len(cooked.lines) + len(cooked.rejected))

            opened, fd = -1, -1
            for at, index in islice(_blocks(job), place, None, places):
                if at != opened:
                    if fd >= 0:
                        os.close(fd)
                    opened, fd = at, os.open(job.files[at].path, os.O_RDONLY)
                cooked = cook.block(fd, job.files[at], index)
                pending.append((at, index, cooked, sink.prepare(cooked)))
                while pending and (ring.ready() or len(pending) >= _AHEAD):
                    finish()
            while pending:
                finish()
            if fd >= 0:
                os.close(fd)
            return sink.tallies
    finally:
        if collecting:
            gc.enable()


def _watch(parent: int) -> None:
    """End this process when the one that started it is gone: nobody else would, and it holds the folder's lock."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)


def _work(
    parent: int, job: Job, place: int, places: int, before: Connection, after: Connection, results: Connection
) -> None:
    """The body of one of several processes."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    done = [0, 0, time.monotonic()]

    def advance(size: int, rows: int) -> None:
        done[0] += size
        done[1] += rows
        if time.monotonic() - done[2] > _TELL_SECONDS:  # every message takes the parent's time, on a core of ours
            results.send((done[0], done[1]))
            done[:] = [0, 0, time.monotonic()]

    try:
        tallies = _share(job, place, places, Piped(before, after), advance)
        results.send(tallies)
    except (DataPrepError, OSError) as error:
        results.send(error)
    except BaseException:  # noqa: BLE001 - a bug of ours: raised again in the parent, which cannot see where it was
        results.send(RuntimeError(traceback.format_exc()))


def process_context() -> Any:
    """How to start processes: by forking this one, at once, or anew, which takes a third of a second each.

    A fork leaves the other threads behind, with the locks they hold; so only a process without any is forked.
    """
    tasks = Path("/proc/self/task")
    alone = sys.platform == "linux" and tasks.is_dir() and len(list(tasks.iterdir())) == 1
    return multiprocessing.get_context("fork" if alone else "spawn")


def _run_several(job: Job, processes: int, start: Baton, advance: Advance) -> tuple[Tallies, str | None]:
    context = process_context()
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    workers: list[BaseProcess] = []
    results: dict[Connection, Tallies | None] = {}
    try:
        for place in range(processes):
            receive, send = context.Pipe(duplex=False)
            arguments = (os.getpid(), job, place, processes, pipes[place][0], pipes[(place + 1) % processes][1], send)
            worker = context.Process(target=_work, args=arguments, daemon=True)
            worker.start()
            send.close()
            workers.append(worker)
            results[receive] = None
        pipes[0][1].send(tuple(start))
        open_ones = list(results)
        while open_ones:
            for connection in wait(open_ones):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv()
                except EOFError:
                    raise RuntimeError("a process of data_prep ended without a word: killed, out of memory?") from None
                if isinstance(message, BaseException):
                    raise message
                if isinstance(message, tuple):
                    advance(*message)
                else:
                    results[connection] = message
                    open_ones.remove(connection)
        last = sum(1 for _ in _blocks(job)) % processes
        baton = Baton(*pipes[last][0].recv())
        return Tallies.total([tallies for tallies in results.values() if tallies is not None]), baton.broken
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
