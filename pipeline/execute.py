"""The one module that starts stages: lock, attempt, log, progress, stop, collect, publish."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import processes, provenance
from pipeline.causes import failure
from pipeline.command import Command
from pipeline.console import Console, duration
from pipeline.errors import CommandFailedError, Interrupted, PreflightError
from pipeline.files import locked, write_json
from pipeline.guard import Guard
from pipeline.settings import child_env, keys, redact, secrets
from pipeline.signals import Halt
from pipeline.stage import Args, Stage
from pipeline.store import Store
from pipeline.toollog import ToolLog

POLL_S = 0.25


@dataclass
class Work:
    """One stage that is being made, in a thread of its own."""

    stage: Stage
    label: str
    halt: Halt
    gpus: tuple[str, ...] = ()
    """The GPUs it has to itself, as CUDA_VISIBLE_DEVICES names them."""
    text: str = "starting"
    """How far it is; replaced by its thread, read by the one that draws the table."""
    clock: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Executor:
    store: Store
    env: Mapping[str, str]
    console: Console
    show_logs: bool = False

    def claim(self, stage: Stage) -> ExitStack | None:
        """The stage's lock, to be closed by whoever got it; None while another pipeline makes the same thing."""
        with ExitStack() as stack:
            lock = locked(self.store.folder(stage) / ".lock", provenance.holder(), wait=False)
            return None if stack.enter_context(lock) is None else stack.pop_all()

    def sweep(self, stage: Stage, label: str) -> None:
        """End what carries this stage's tag. Its lock is ours, so that was left by a supervisor that is dead."""
        strays = processes.sweep(str(self.store.folder(stage)))
        if strays:
            self.console.say(f"{label}: ended {strays} processes that an earlier, killed run had left")

    def make(self, work: Work) -> dict[str, Any]:
        """The record of the stage, whose lock is held: attempts until one succeeds or there is no other way to try."""
        stage, remarks, left = work.stage, list[str](), dict(work.stage.retries)
        while True:
            try:
                return self._attempt(work, stage, remarks)
            except CommandFailedError as error:
                if left.get(error.kind, 0) and not work.halt.signum:
                    left[error.kind] -= 1
                    cause = str(error).partition("\n")[0].removeprefix(f"{work.label}: ")
                    remarks.append(f"started a second time: {cause}")
                    self.console.say(f"{work.label}: {cause}; starting it again")
                    continue
                plumbing = stage.retry(error.kind, stage.plumbing)
                if plumbing is None:
                    raise
                remarks.append(f"{_changes(stage.plumbing, plumbing)} after out of {error.kind}")
                self.console.say(f"{work.label}: {remarks[-1]}; starting it again")
                stage = replace(stage, plumbing=plumbing)

    def _attempt(self, work: Work, stage: Stage, remarks: list[str]) -> dict[str, Any]:
        folder, label = self.store.folder(stage), work.label
        self.sweep(stage, label)
        self.store.discard(stage)
        attempt, earlier = self.store.next_attempt(stage)
        going = stage.resume(earlier)
        extra = going.plumbing
        for remark in going.remarks:
            self.console.say(f"{label}: {remark}")
        remarks += going.remarks
        if extra:
            self.console.say(f"{label}: going on from {next(iter(extra.values()))}")
        deps = {role: self.store.place(dep) for role, dep in stage.deps.items()}
        ready = replace(stage, plumbing={**stage.plumbing, **extra})
        command = stage.command(ready, attempt, deps)
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        attempt.mkdir(parents=True)
        write_json(folder / "stage.json", _identity(stage, work, command, self.store))
        for path, text in command.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        peak_rss = self._run(ready, work, command, attempt, folder, remarks)
        stage.finish(attempt, deps)
        result = stage.collect(attempt, stage, deps)
        if remarks:
            result = {**result, "remarks": [*result.get("remarks", ()), *dict.fromkeys(remarks)]}
        seconds = round(time.monotonic() - clock, 3)
        facts = {"label": label, "started": started, "seconds": seconds, "peak_rss_bytes": peak_rss}
        record = self.store.publish(stage, attempt, {**facts, "result": result})
        # Their logs stay for the stitched curve; checkpoints and half-merged models are of no more use.
        for old in earlier:
            for path in old.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
        self.console.say(f"{label}: done in {duration(seconds)}")
        return record

    def _run(self, stage: Stage, work: Work, command: Command, attempt: Path, folder: Path, remarks: list[str]) -> int:
        """Run to the end; the most memory it held, in bytes. Nothing outlives this call.

        CommandFailedError for a status that `whole` does not have, and for a tool that hung; OutputError where the
        stage's watch had it stopped.
        """

        def warn(words: str) -> None:
            remarks.append(words)
            self.console.say(f"{work.label}: warning: {words}")

        # By the same numbers as NVML, from which they are: CUDA alone would count the fastest first.
        gpus = {"CUDA_VISIBLE_DEVICES": ",".join(work.gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        env = child_env(self.env, stage.secrets) | gpus | dict(command.env)
        env |= keys(self.env, command.keys)
        argv = [find_program(command.argv[0], env), *command.argv[1:]]
        hidden = secrets(self.env).values()
        log = folder / "log.txt"
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"$ {redact(str(command), hidden)}\n")
            stream.flush()
            process = processes.start(argv, env, Path.cwd(), str(folder))
            assert process.stdout is not None
            show = (lambda line: self.console.say(f"{work.label} | {line}")) if self.show_logs else None
            output = ToolLog(process.stdout, stream, hidden, show)
            watch = stage.watch(attempt) if stage.watch else None
            guard = Guard(process, str(folder), watch, output, stream, warn)
            try:
                while process.poll() is None and not guard.look(work.label):
                    if work.halt.signum:
                        raise Interrupted(work.halt.signum)
                    work.text = stage.progress(attempt) or output.progress or "running"
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(POLL_S)
            finally:
                try:
                    if process.poll() is None:
                        work.text = "stopping"
                        hurry = lambda: work.halt.now or bool(guard.stopped)  # noqa: E731
                        processes.stop(process, str(folder), stage.grace_s, hurry, stage.ask)
                finally:
                    processes.sweep(str(folder))  # a launcher may end before its workers do
                    output.join()
            stopped = guard.look(work.label, ended=True, failed=process.returncode not in stage.whole)
        if stopped:
            raise stopped
        if process.returncode not in stage.whole:
            dead = guard.out_of_memory()
            raise failure(work.label, command, process.returncode, list(output.tail), log, hidden, out_of_memory=dead)
        return guard.peak_rss


def find_program(name: str, env: Mapping[str, str]) -> str:
    """Absolute path of a tool: PIPELINE_TOOLS, then this interpreter's environment, then PATH.

    The interpreter's own folder comes before PATH because macOS has another `swift`.
    """
    if name == "python":
        return sys.executable
    folders = [env.get("PIPELINE_TOOLS", ""), str(Path(sys.executable).parent), env.get("PATH", "")]
    found = shutil.which(name, path=":".join(f for f in folders if f))
    if found is None:
        raise PreflightError(f"{name}: not found; run `make setup`, or name its folder in PIPELINE_TOOLS")
    return found


def _changes(before: Args, after: Args) -> str:
    return ", ".join(f"{key} {before.get(key)} -> {value}" for key, value in after.items() if before.get(key) != value)


def _identity(stage: Stage, work: Work, command: Command, store: Store) -> dict[str, Any]:
    return {
        "label": work.label,
        "name": stage.name,
        "version": stage.version,
        "tool": stage.tool,
        "fingerprint": stage.fingerprint(store.digest),
        "program": stage.program,
        "args": stage.args,
        "plumbing": stage.plumbing,
        "deps": {role: str(store.place(dep)) for role, dep in stage.deps.items()},
        "gpus": work.gpus,
        "command": str(command),
        "provenance": provenance.collect(),
    }
