"""Runs stages side by side: each in a thread of its own as soon as all it waits for is done and there is room for it.

One failing stage stops what depends on it and nothing else. All states are told, and all files of the run written, by
the thread that calls `Schedule.run`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field

from pipeline import slots
from pipeline.console import duration
from pipeline.errors import Interrupted, OutputError, PipelineError, PreflightError
from pipeline.execute import Executor, Work
from pipeline.files import held_by
from pipeline.jobs import Job, Record, jobs
from pipeline.signals import Halt, signals_noted
from pipeline.stage import Stage

POLL_S = 0.25
BUSY_S = 1.0
"""Between two looks at a lock that another pipeline holds."""


@dataclass
class Schedule:
    executor: Executor
    gpus: Sequence[str]
    """Names of the visible GPUs."""
    workers: int
    """Stages on the CPU at a time."""
    on_state: Callable[[Stage, str], None] = lambda _stage, _state: None
    """Told 'running', 'done', 'cached' or 'failed' of every stage looked at."""
    jobs: dict[str, Job] = field(default_factory=dict)
    running: dict[Future[Record], str] = field(default_factory=dict)
    errors: list[PipelineError] = field(default_factory=list)

    def run(self, targets: Iterable[Stage], labels: Mapping[str, str]) -> None:
        """Find or make the targets and all they wait for; `labels` names stages by folder name.

        At the end raises the errors of all that failed as one, of the first one's class. Interrupted after a signal,
        once everything is stopped.
        """
        self.jobs, self.errors = jobs(targets, labels, self.executor.store), []
        order = self._order()
        self._check_room()
        if not order:
            self._raise_errors()
            return
        with signals_noted() as halt, ThreadPoolExecutor(max(1, len(order))) as threads:
            try:
                self._sweep()
                self._loop(order, threads, halt)
            finally:
                if self.running:  # something of our own broke: nothing may go on unwatched
                    halt.note(signal.SIGTERM)
                for key in self.running.values():
                    self.on_state(self.jobs[key].stage, "failed")
                self.executor.console.table(())
        if halt.signum:
            raise Interrupted(halt.signum)
        self._raise_errors()

    def _loop(self, order: Sequence[str], threads: ThreadPoolExecutor, halt: Halt) -> None:
        said = False
        while True:
            if halt.signum and self.running and not said:
                said = True
                self.executor.console.say(f"stopping {len(self.running)} running stages; again to kill them now")
            self._collect()
            if not halt.signum:
                self._start(order, threads, halt)
            elif not self.running:
                raise Interrupted(halt.signum)
            if not self.running and not any(job.state == "waiting" for job in self.jobs.values()):
                return
            self._show()
            if self.running:
                wait(self.running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            else:
                time.sleep(POLL_S)

    def _order(self) -> list[str]:
        """Settle what is done already; the keys of the rest, those with precedence first."""
        left = {key: job for key, job in self.jobs.items() if job.found is None}
        for job in self.jobs.values():
            if job.found is not None:
                self.on_state(job.stage, "cached")
                self._settle(job, job.found)
        before = {key: [other for other in job.before if other in left] for key, job in left.items()}
        known = self.executor.store.durations() if len(left) > 1 else {}
        return slots.precedence({key: job.stage for key, job in left.items()}, before, known)

    def _check_room(self) -> None:
        for job in self.jobs.values():
            if job.state == "waiting" and job.stage.gpus > len(self.gpus):
                raise PreflightError(
                    f"{job.label}: takes {job.stage.gpus} GPUs, but {len(self.gpus)} are visible; "
                    "lower `gpus`, or show more in CUDA_VISIBLE_DEVICES"
                )

    def _sweep(self) -> None:
        """Before anything starts: what a killed run left of any of these stages may sit on a GPU, or on the cores."""
        for job in self.jobs.values():
            if job.state == "waiting" and (self.executor.store.folder(job.stage) / "attempts").is_dir():
                lock = self.executor.claim(job.stage)
                if lock:
                    with lock:
                        self.executor.sweep(job.stage, job.label)

    def _start(self, order: Sequence[str], threads: ThreadPoolExecutor, halt: Halt) -> None:
        now = time.monotonic()
        wishes = []
        for key in order:
            job = self.jobs[key]
            if job.state == "waiting" and job.busy_until <= now and self._soon(job):
                ready = all(self.jobs[other].state == "done" for other in job.before)
                wishes.append(slots.Wish(key, slots.kind(job.stage), slots.count(job.stage), ready))
        for key in slots.choose(wishes, self._free()):
            self._launch(key, threads, halt)

    def _soon(self, job: Job) -> bool:
        """Whether nothing long has to be done before it."""
        unfinished = [self.jobs[key] for key in job.before if self.jobs[key].state != "done"]
        return all(other.stage.name in ("model", *slots.CHECKS) and self._soon(other) for other in unfinished)

    def _free(self) -> dict[slots.Kind, int]:
        free: dict[slots.Kind, int] = {"gpu": len(self.gpus), "cpu": self.workers, "net": slots.DOWNLOADS}
        for key in self.running.values():
            stage = self.jobs[key].stage
            free[slots.kind(stage)] -= slots.count(stage)
        return free

    def _launch(self, key: str, threads: ThreadPoolExecutor, halt: Halt) -> None:
        job, executor = self.jobs[key], self.executor
        lock = executor.claim(job.stage)
        if lock is None:
            job.busy_until = time.monotonic() + BUSY_S
            if not job.told:
                job.told = True
                other = held_by(executor.store.folder(job.stage) / ".lock")
                executor.console.say(f"{job.label}: waiting for {other}, which is making the same thing")
            return
        record = executor.store.result(job.stage)  # another pipeline may have made it meanwhile
        if record:
            lock.close()
            self.on_state(job.stage, "cached")
            self._settle(job, record)
            return
        taken = {name for other in self.running.values() for name in self.jobs[other].gpus}
        job.gpus = tuple(name for name in self.gpus if name not in taken)[: job.stage.gpus]
        job.work = Work(job.stage, job.label, halt, job.gpus)
        job.state = "running"
        self.on_state(job.stage, "running")
        self.running[threads.submit(_make, executor, job.work, lock)] = key

    def _collect(self) -> None:
        for future in [future for future in self.running if future.done()]:
            job = self.jobs[self.running[future]]
            error = future.exception()
            if isinstance(error, Interrupted):
                job.state = "skipped"
                self.on_state(job.stage, "failed")
            elif isinstance(error, PipelineError):
                self._fail(job, error)
            elif error is not None:
                raise error
            else:
                self.on_state(job.stage, "done")
                self._settle(job, future.result())
            del self.running[future]

    def _settle(self, job: Job, record: Record) -> None:
        """It is there; OutputError if it is a check that did not pass, found or made."""
        problem = job.stage.verdict(record["result"])
        if problem:
            self._fail(job, OutputError(f"{job.label}: {problem}"))
        else:
            job.state = "done"

    def _fail(self, job: Job, error: PipelineError) -> None:
        job.state = "failed"
        self.errors.append(error)
        self.on_state(job.stage, "failed")
        lost = {self.executor.store.folder(job.stage).name}
        for key, other in self.jobs.items():  # in an order in which each comes after those it waits for
            if other.state == "waiting" and lost & set(other.before):
                other.state = "skipped"
                lost.add(key)
        rest = sum(other.found is None and other.state in ("waiting", "running") for other in self.jobs.values())
        if rest:
            self.executor.console.say(f"{str(error).splitlines()[0]}; what does not depend on it goes on ({rest})")

    def _raise_errors(self) -> None:
        if not self.errors:
            return
        skipped = [job.label for job in self.jobs.values() if job.state == "skipped"]
        words = [str(error) for error in self.errors]
        words += [f"not run, for want of that: {', '.join(skipped)}"] if skipped else []
        raise self.errors[0] if len(words) == 1 else type(self.errors[0])("\n\n".join(words))

    def _show(self) -> None:
        shown = {}
        now = time.monotonic()
        for key in self.running.values():
            job = self.jobs[key]
            assert job.work is not None
            place = f" [GPU {','.join(job.gpus)}]" if job.gpus else ""
            shown[f"{job.label}{place}:"] = f"{job.work.text}  ({duration(now - job.work.clock)})"
        width = max(map(len, shown), default=0)
        rows = [f"{name:<{width}} {text}" for name, text in shown.items()]
        states = [job.state for job in self.jobs.values()]
        counts = [f"{states.count(state)} {state}" for state in ("running", "waiting", "failed", "done")]
        self.executor.console.table(rows, ", ".join(count for count in counts if not count.startswith("0 ")))


def _make(executor: Executor, work: Work, lock: ExitStack) -> Record:
    with lock:
        return executor.make(work)
