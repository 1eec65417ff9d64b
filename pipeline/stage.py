"""A stage is inert data: what is run, on what, and how its output is read. No I/O here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Any, Protocol, TypeAlias

from pipeline.command import Command

Args: TypeAlias = Mapping[str, Any]
Paths: TypeAlias = Mapping[str, Path]


CPU_ENV = {
    "CUDA_VISIBLE_DEVICES": "",
    # torch's OpenMP threads spin while they wait. With anything else on the cores that costs a factor of 10 (two
    # trainings on 2 cores: 45 s a step instead of 6); sleeping costs 7 % on an idle machine.
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Environment of a stage that computes on the CPU."""


@dataclass(frozen=True)
class Source:
    """Something the pipeline did not make: a local file or folder. Its content is its identity, its place is not."""

    path: Path


@dataclass(frozen=True)
class Trouble:
    """Something that a `Watch` saw go wrong in a running tool."""

    words: str
    """What, where, and the remedy; the first line is the cause."""
    stop: bool = True
    """Whether to end the tool; else it becomes a remark of the result, and a line on the console."""
    hang: bool = False
    """The tool does not get on (its processes are looked at, status 4), instead of computing nonsense (status 5)."""


@dataclass(frozen=True)
class Signs:
    """Signs of life of a running tool."""

    seconds: float
    """Since it was started, as far as somebody watched: the time in which this process was stopped is left out."""
    heard: float
    """`seconds` when it last printed anything."""
    bar: str = ""
    """How far its newest progress bar is: `14/140`."""
    ended: bool = False


@dataclass(frozen=True)
class Resumption:
    """How an attempt goes on from earlier ones."""

    plumbing: Args = field(default_factory=dict)
    """Beside the stage's own; empty: from the beginning."""
    remarks: tuple[str, ...] = ()
    """What the user should know of it: which checkpoints were passed over, and why."""


class Watch(Protocol):
    """Looks at the files that a tool is writing, and remembers what it has read of them."""

    def look(self, signs: Signs) -> Iterable[Trouble]:
        """What is wrong now; the same thing is told once. Asked several times a second, and when the tool has ended."""


@dataclass(frozen=True)
class Stage:
    """One external job.

    Identity is `(name, version, tool, program, args, fingerprints of deps)`. Whatever changes the result belongs into
    `args`; whatever does not (paths, devices, log intervals) into `plumbing` and `env`, which are never hashed.
    """

    name: str
    """Kind of stage; first part of its directory's name."""
    program: tuple[str, ...]
    """Executable and subcommand; "python" stands for this interpreter."""
    args: Args
    """Settings that bear identity: JSON values, rendered by `command`."""
    deps: Mapping[str, Stage | Source]
    command: Callable[[Stage, Path, Paths], Command]
    """(stage, folder to write to, place of each dep) -> command; pure."""
    collect: Callable[[Path, Stage, Paths], dict[str, Any]]
    """(folder written, stage, place of each dep) -> result as JSON values; OutputError if absent or wrong."""
    output: Callable[[Path], Path] = lambda out: out
    """(stage's output folder) -> what those downstream read: the merged model, say."""
    plumbing: Args = field(default_factory=dict)
    """Settings that do not change the result."""
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """Environment variables with secrets that this stage's tool needs; all others are kept from it."""
    tool: tuple[str, str] | None = None
    """(harness, version): part of the identity where a result means nothing without it."""
    version: int = 1
    """Raised when our own code around the tool changes what comes out."""
    gpus: int = 0
    """GPUs it takes, which nobody else has meanwhile and which are all it sees; 0 = none: it takes a CPU worker."""
    progress: Callable[[Path], str | None] = lambda _: None
    """(folder being written) -> one line such as 'step 40/200  loss 1.21  ETA 3m'."""
    resume: Callable[[Sequence[Path]], Resumption] = lambda _: Resumption()
    """(folders of earlier, unfinished attempts, oldest first) -> how to go on from the best of them."""
    retry: Callable[[str, Args], Args | None] = lambda _kind, _plumbing: None
    """(kind of failure as in `causes.CAUSES`, plumbing it failed with) -> plumbing for another attempt, or None.

    Evaluations halve `batch_size` here when memory ran out.
    """
    retries: Mapping[str, int] = field(default_factory=dict)
    """Kind of failure (`causes.CAUSES`) -> how often it is worth the same again, from where `resume` finds a way on."""
    watch: Callable[[Path], Watch] | None = None
    """(folder being written) -> what looks after the running tool."""
    grace_s: float = 35.0
    """Seconds its tool has to end after `ask` or SIGTERM before it is killed. torchrun waits 30 s for its workers."""
    ask: Signals | None = None
    """The signal by which those of its processes that handle it are asked to end, before any gets SIGTERM."""
    whole: tuple[int, ...] = (0,)
    """Exit statuses with which the tool leaves a whole output; any other is a failure."""
    verdict: Callable[[Mapping[str, Any]], str | None] = lambda _: None
    """result -> why nothing may go on after it: a check that did not pass. None lets the run go on.

    It is asked of a result that was found done, too, so what only decides about a result is not part of the identity.
    """
    tell: Callable[[Mapping[str, Any]], Sequence[str]] = lambda _: ()
    """result -> lines shown in the terminal once it is made: the plan of a training."""
    after: tuple[Stage, ...] = ()
    """Checks that must have passed before this starts, though it reads nothing of them. Not part of the identity."""
    finish: Callable[[Path, Paths], None] = lambda _out, _deps: None
    """Completes what the tool wrote, before it is collected and published (export: the base's tokenizer files)."""

    @property
    def before(self) -> Iterator[Stage]:
        """Stages that are made sure of before this one: what it reads, then what it waits for."""
        yield from (dep for dep in self.deps.values() if isinstance(dep, Stage))
        yield from self.after

    def fingerprint(self, digest: Callable[[Source], str]) -> str:
        """64 hex digits; `digest` gives the content digest of a local source."""
        identity = {
            "name": self.name,
            "version": self.version,
            "tool": self.tool,
            "program": self.program,
            "args": self.args,
            "deps": {
                role: digest(dep) if isinstance(dep, Source) else dep.fingerprint(digest)
                for role, dep in sorted(self.deps.items())
            },
        }
        text = json.dumps(identity, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
