"""The one module that starts stages: lock, attempt, log, progress, stop, collect, publish."""

from __future__ import annotations

import dataclasses
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline import processes, provenance
from pipeline.command import Command
from pipeline.console import Console, duration
from pipeline.errors import CommandFailedError, Interrupted, OutputError, PreflightError
from pipeline.files import locked, write_json
from pipeline.settings import child_env, redact, secrets
from pipeline.stage import Stage
from pipeline.store import Store
from pipeline.toollog import ToolLog

POLL_S = 0.5

# What the end of a log says about the cause, most telling first. torchrun turns every death into status 1.
CAUSES = (
    (r"CUDA out of memory|OutOfMemoryError", "GPU memory ran out: lower micro_batch_size, batch_size or max_length"),
    (r"No space left on device|Disk quota exceeded", "the disk is full: free some, or give another --runs-dir"),
    (r"NCCL (error|timeout|watchdog)|ncclInternalError", "the GPUs lost each other (NCCL): see the log of each rank"),
    (r"SafetensorError|invalid JSON in header", "a weight file is cut or damaged: fetch it again"),
    (r"Address already in use|EADDRINUSE", "a port is taken: stop the other server or wait for it to end"),
    (r"CERTIFICATE_VERIFY_FAILED|ProxyError|ConnectionError|Max retries exceeded|Name or service not known",
     "the network or a hub was not reachable: set HF_ENDPOINT or a proxy in .env, or use local paths"),
    (r"ModuleNotFoundError: No module named '([^']+)'", "a Python package is missing: install it in this environment"),
    (r"MemoryError|Cannot allocate memory|DefaultCPUAllocator: can't allocate", "main memory ran out"),
)  # fmt: skip


@dataclass(frozen=True)
class Executor:
    store: Store
    env: Mapping[str, str]
    console: Console
    on_state: Callable[[Stage, str], None] = lambda _stage, _state: None
    """Told 'running', 'done', 'cached' or 'failed' of every stage looked at."""
    show_logs: bool = False

    def ensure(self, stage: Stage, label: str, labels: Mapping[str, str]) -> dict[str, Any]:
        """The stage's record: found, or made after all it depends on. `labels` names stages by folder name.

        OutputError if the stage is a check that did not pass, found or made.
        """
        record = self._made(stage, label, labels)
        problem = stage.verdict(record["result"])
        if problem:
            self.on_state(stage, "failed")
            raise OutputError(f"{label}: {problem}")
        return record

    def _made(self, stage: Stage, label: str, labels: Mapping[str, str]) -> dict[str, Any]:
        record = self.store.result(stage)
        if record:
            self.on_state(stage, "cached")
            return record
        for earlier in stage.before:
            self.ensure(earlier, labels.get(self.store.folder(earlier).name, earlier.name), labels)
        folder = self.store.folder(stage)
        with self._exclusively(folder, label):
            record = self.store.result(stage)  # another pipeline may have made it while this one waited
            if record:
                self.on_state(stage, "cached")
                return record
            self.on_state(stage, "running")
            try:
                record = self._attempt(stage, label, folder)
            except BaseException:
                self.on_state(stage, "failed")
                raise
        self.on_state(stage, "done")
        return record

    @contextmanager
    def _exclusively(self, folder: Path, label: str) -> Iterator[None]:
        holder = provenance.holder()
        with locked(folder / ".lock", holder, wait=False) as free:
            if free is not None:
                yield
                return
        other = (folder / ".lock").read_text(encoding="utf-8")
        self.console.say(f"{label}: waiting for {other}, which is making the same thing")
        with locked(folder / ".lock", holder, wait=True):
            yield

    def _attempt(self, stage: Stage, label: str, folder: Path) -> dict[str, Any]:
        # The lock was free, so whoever carries this stage's tag was left by a supervisor that is dead.
        strays = processes.sweep(str(folder))
        if strays:
            self.console.say(f"{label}: ended {strays} processes that an earlier, killed run had left")
        self.store.discard(stage)
        attempt, earlier = self.store.next_attempt(stage)
        extra = stage.resume(earlier)
        if extra:
            self.console.say(f"{label}: going on from {next(iter(extra.values()))}")
        deps = {role: self.store.place(dep) for role, dep in stage.deps.items()}
        ready = dataclasses.replace(stage, plumbing={**stage.plumbing, **extra})
        command = stage.command(ready, attempt, deps)
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        attempt.mkdir(parents=True)
        write_json(folder / "stage.json", _identity(stage, label, command, self.store))
        for path, text in command.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self._run(ready, label, command, attempt, folder)
        stage.finish(attempt, deps)
        result = stage.collect(attempt, stage, deps)
        seconds = round(time.monotonic() - clock, 3)
        record = self.store.publish(
            stage, attempt, {"label": label, "started": started, "seconds": seconds, "result": result}
        )
        # Their logs stay for the stitched curve; checkpoints and half-merged models are of no more use.
        for old in earlier:
            for path in old.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
        self.console.say(f"{label}: done in {duration(seconds)}")
        return record

    def _run(self, stage: Stage, label: str, command: Command, attempt: Path, folder: Path) -> None:
        """Run to the end; CommandFailedError for a status that `whole` does not have. Nothing outlives this call."""
        env = child_env(self.env, stage.secrets) | _first_gpus(stage.gpus, self.env) | dict(command.env)
        argv = [find_program(command.argv[0], env), *command.argv[1:]]
        hidden = secrets(self.env).values()
        log = folder / "log.txt"
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"$ {redact(str(command), hidden)}\n")
            stream.flush()
            process = processes.start(argv, env, Path.cwd(), str(folder))
            assert process.stdout is not None
            output = ToolLog(process.stdout, stream, hidden, self.console.say if self.show_logs else None)
            try:
                clock = time.monotonic()
                while True:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(POLL_S)
                        break
                    text = stage.progress(attempt) or output.progress or "running"
                    self.console.progress(f"{label}: {text}  ({duration(time.monotonic() - clock)})")
            finally:
                try:
                    if process.poll() is None:
                        processes.stop(process, str(folder))
                finally:
                    processes.sweep(str(folder))  # a launcher may end before its workers do
                    output.join()
        if process.returncode not in stage.whole:
            raise CommandFailedError(_failure(label, command, process.returncode, list(output.tail), log, hidden))


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


def _first_gpus(count: int, env: Mapping[str, str]) -> dict[str, str]:
    """Shows a stage only the GPUs it asked for: with more, swift splits the model over them, or refuses DeepSpeed."""
    if not count:
        return {}
    visible = [word for word in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    return {"CUDA_VISIBLE_DEVICES": ",".join((visible or [str(index) for index in range(count)])[:count])}


@contextmanager
def signals_stop() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise Interrupted in the main thread while inside."""

    def stop(signum: int, _frame: FrameType | None) -> None:
        raise Interrupted(signum)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # A signal that whoever started us chose to ignore (nohup) stays ignored.
    before = {n: signal.signal(n, stop) for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _failure(label: str, command: Command, status: int, tail: list[str], log: Path, hidden: Any) -> str:
    text = "\n".join(tail)
    cause = next((why for pattern, why in CAUSES if re.search(pattern, text)), None)
    # swift ends with sys.exit(-9) when its child was killed, which the system shows as 247.
    if cause is None and status in (-9, 137, 247):
        cause = "killed, most likely because main memory ran out (see dmesg)"
    lines = [f"{label}: the tool ended with status {status}" + (f": {cause}" if cause else "")]
    lines += ["command:", redact(str(command), hidden), f"last lines of {log}:"]
    return "\n".join([*lines, *(f"  | {line}" for line in tail)])


def _identity(stage: Stage, label: str, command: Command, store: Store) -> dict[str, Any]:
    return {
        "label": label,
        "name": stage.name,
        "version": stage.version,
        "tool": stage.tool,
        "fingerprint": stage.fingerprint(store.digest),
        "program": stage.program,
        "args": stage.args,
        "plumbing": stage.plumbing,
        "deps": {role: str(store.place(dep)) for role, dep in stage.deps.items()},
        "command": str(command),
        "provenance": provenance.collect(),
    }
