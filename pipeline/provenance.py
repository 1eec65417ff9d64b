"""Where and with what something was made: recorded beside results, never part of their identity."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

TOOLS = (
    "ms-swift", "lm-eval", "evalscope", "swanlab", "modelscope", "huggingface-hub", "transformers", "datasets",
    "peft", "torch", "deepspeed", "flash-attn", "flash-attn-4", "liger-kernel",
)  # fmt: skip


def version(distribution: str) -> str | None:
    """Installed version, without importing the package."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def collect() -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "git": _git_commit(),
        "tools": {name: found for name in TOOLS if (found := version(name))},
    }


def holder() -> str:
    """Who holds a lock, in words for whoever finds it busy."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} (since {now})"


def _git_commit() -> str | None:
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
