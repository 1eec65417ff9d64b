"""Files that are there whole or not at all, and lines for whoever watches."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def publish(path: Path, data: bytes) -> None:
    """Write ``path`` so that it is there whole or not at all, even after a power cut."""
    draft = path.with_name(path.name + ".tmp")
    try:
        with open(draft, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def to_stderr(line: str) -> None:
    """Write one line for a human."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
