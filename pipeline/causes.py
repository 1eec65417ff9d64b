"""Why a tool failed, told from its exit status and the last lines of its log. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.command import Command
from pipeline.errors import CommandFailedError
from pipeline.settings import redact

MEMORY = "memory"
"""Kind of failure that a smaller batch may cure: memory of a GPU or of the machine."""

# Kind, what a log's end says, the cause in words; most telling first. torchrun turns every death into status 1.
CAUSES = (
    (MEMORY, r"CUDA out of memory|OutOfMemoryError",
     "GPU memory ran out: lower micro_batch_size, batch_size or max_length"),
    ("disk", r"No space left on device|Disk quota exceeded",
     "the disk is full: free some, or give another --runs-dir"),
    ("nccl", r"NCCL (error|timeout|watchdog)|ncclInternalError",
     "the GPUs lost each other (NCCL): see the log of each rank"),
    ("weights", r"SafetensorError|invalid JSON in header", "a weight file is cut or damaged: fetch it again"),
    ("port", r"Address already in use|EADDRINUSE", "a port is taken: stop the other server or wait for it to end"),
    ("network", r"CERTIFICATE_VERIFY_FAILED|ProxyError|ConnectionError|Max retries exceeded|Name or service not known",
     "the network or a hub was not reachable: set HF_ENDPOINT or a proxy in .env, or use local paths"),
    ("package", r"ModuleNotFoundError: No module named '([^']+)'",
     "a Python package is missing: install it in this environment"),
    (MEMORY, r"MemoryError|Cannot allocate memory|DefaultCPUAllocator: can't allocate",
     "main memory ran out"),
)  # fmt: skip

# swift ends with sys.exit(-9) when its child was killed, which the system shows as 247.
_KILLED = (-9, 137, 247)


def failure(
    label: str, command: Command, status: int, tail: Sequence[str], log: Path, hidden: Iterable[str]
) -> CommandFailedError:
    """The error for a tool that ended with `status`: cause, command to paste, last lines."""
    text = "\n".join(tail)
    kind, cause = next(((kind, why) for kind, pattern, why in CAUSES if re.search(pattern, text)), ("", ""))
    if not cause and status in _KILLED:
        kind, cause = MEMORY, "killed, most likely because main memory ran out (see dmesg)"
    lines = [f"{label}: the tool ended with status {status}" + (f": {cause}" if cause else "")]
    lines += ["command:", redact(str(command), hidden), f"last lines of {log}:"]
    return CommandFailedError("\n".join([*lines, *(f"  | {line}" for line in tail)]), kind)
