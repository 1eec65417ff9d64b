"""Why a tool failed, told from its exit status, the last lines of its log and what its processes do. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.command import Command
from pipeline.errors import CommandFailedError
from pipeline.processes import Rank
from pipeline.settings import redact

SHOWN = 20
"""Last lines that a message repeats. The cause is looked for in these, then in all that were kept: torchrun's own
traceback and its summary of eight ranks stand below it."""
MEMORY = "memory"
"""Kind of failure that a smaller batch may cure: memory of a GPU or of the machine."""
KILLED = "killed"
"""A process was ended from outside, not for want of memory: worth a second try."""
HANG = "hang"
"""Nothing went on any more, or ever slower."""
KEPT = (
    "Checkpoints from before it stay: the same command goes on from the newest of them, with a changed setting the "
    "training starts afresh. Nothing of this one is exported or evaluated."
)

# Kind, what a log's end says, the cause in words; most telling first. torchrun turns every death into status 1.
CAUSES = (
    ("shm", r"Error while creating shared memory segment \S*nccl|/shm/nccl.*No space left on device",
     "NCCL found no room in /dev/shm: start the container with --ipc=host or a larger --shm-size"),
    (MEMORY, r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|"
     r"Cuda failure 2 'out of memory'",
     "GPU memory ran out: lower micro_batch_size (train), batch_size (eval) or max_length; a training takes less with "
     "gradient_checkpointing: true, liger: true or deepspeed: zero3, too"),
    ("disk", r"No space left on device|Disk quota exceeded",
     "the disk is full: free some, or give another --runs-dir"),
    ("nccl", r"NCCL (error|timeout|watchdog)|nccl(Internal|System|Remote)Error|caught collective operation timeout",
     "the GPUs lost each other (NCCL): see the log of each rank"),
    ("weights", r"SafetensorError|invalid JSON in header", "a weight file is cut or damaged: fetch it again"),
    ("port", r"Address already in use|EADDRINUSE", "a port is taken: stop the other server or wait for it to end"),
    ("network", r"CERTIFICATE_VERIFY_FAILED|ProxyError|ConnectionError|Max retries exceeded|Name or service not known",
     "the network or a hub was not reachable: set HF_ENDPOINT or a proxy in .env, or use local paths"),
    ("package", r"ModuleNotFoundError: No module named '([^']+)'",
     "a Python package is missing: install it in this environment"),
    (MEMORY, r"MemoryError|Cannot allocate memory|DefaultCPUAllocator: can't allocate",
     "main memory ran out: lower micro_batch_size (train), batch_size (eval) or max_length, or take deepspeed without "
     "offload"),
)  # fmt: skip

# swift ends with sys.exit(-9) when its child was killed, which the system shows as 247.
_KILLED = (-9, 137, 247)
# torchrun's summary of a process that failed, below "Root Cause" of the one that was first; status -9 is SIGKILL.
_RANK = re.compile(r"rank\s*:\s*(\d+) .*?exitcode\s*:\s*(-?\d+)\s*\(pid:\s*(\d+)\)", re.DOTALL)
_DOES = {
    "stopped": "was stopped by somebody (SIGSTOP)",
    "tracing-stop": "is stopped by a debugger",
    "disk-sleep": "waits for a disk, a network file system or a driver",
    "zombie": "is dead",
}


def failure(
    label: str,
    command: Command,
    status: int,
    tail: Sequence[str],
    log: Path,
    hidden: Iterable[str],
    *,
    out_of_memory: bool | None = None,
) -> CommandFailedError:
    """The error for a tool that ended with `status`: cause, command to paste, last lines.

    `out_of_memory` says whether the kernel has killed something for want of memory meanwhile; None: it does not tell.
    """
    text = "\n".join(tail[-SHOWN:])
    kind, cause = _killed(status, text, out_of_memory)
    for said in (text, "\n".join(tail)):
        if not cause:
            kind, cause = next(((kind, why) for kind, pattern, why in CAUSES if re.search(pattern, said)), ("", ""))
    if not cause:
        cause = _failed_first(text)
    lines = [f"{label}: the tool ended with status {status}" + (f": {cause}" if cause else "")]
    lines += ["command:", redact(str(command), hidden), f"last lines of {log}:"]
    return CommandFailedError("\n".join([*lines, *(f"  | {line}" for line in tail[-SHOWN:])]), kind)


def hang(label: str, words: str, ranks: Sequence[Rank], tail: Sequence[str]) -> CommandFailedError:
    """The error for a tool that was stopped because it did not get on: which of its processes hangs, last lines."""
    lines = [f"{label}: {words}, so it was stopped: {_suspects(ranks)}", "last lines of its log:"]
    return CommandFailedError("\n".join([*lines, *(f"  | {line}" for line in tail[-SHOWN:])]), HANG)


def _killed(status: int, text: str, out_of_memory: bool | None) -> tuple[str, str]:  # noqa: FBT001
    """SIGKILL, of the tool or of one of its ranks. What the other ranks then say (NCCL, gloo) only follows from it."""
    rank = _first(text)
    if rank and rank[2] == "-9":
        who = f"rank {rank[1]} (pid {rank[3]}) was killed (SIGKILL)"
    elif status in _KILLED:
        who = "killed"
    else:
        return "", ""
    if out_of_memory is False:
        return KILLED, f"{who}, by somebody: the kernel has killed nothing for want of memory"
    sure = "because" if out_of_memory else "most likely because"
    remedy = "lower micro_batch_size (train) or batch_size (eval), or offload nothing to main memory"
    return MEMORY, f"{who}, {sure} main memory ran out (see dmesg): {remedy}"


def _first(text: str) -> re.Match[str] | None:
    """Number, status and pid of the rank that failed first: what happened to the others came of it."""
    return _RANK.search(text, max(text.find("Root Cause"), 0))


def _failed_first(text: str) -> str:
    rank = _first(text)
    return f"rank {rank[1]} (pid {rank[3]}) failed first, with status {rank[2]}: see its lines" if rank else ""


def _suspects(ranks: Sequence[Rank]) -> str:
    """The ranks that cannot go on by themselves; where there are none, what all of them do."""
    if not ranks:
        return "its processes wait for something that does not come"
    gone = sorted(set(ranks[0].node) - {rank.number for rank in ranks})
    found = [f"rank {number} is gone" for number in gone]
    found += [f"rank {rank.number} (pid {rank.pid}) {_DOES[rank.status]}" for rank in ranks if rank.status in _DOES]
    waiting = [f"rank {rank.number} (pid {rank.pid}) {rank.status}" for rank in ranks]
    return "; ".join(found) or f"none of its processes is stopped, they wait for each other: {', '.join(waiting)}"
