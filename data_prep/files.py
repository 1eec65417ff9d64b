"""Files that are there whole or not at all, lines for whoever watches, and the exit status of a command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from data_prep.errors import DataPrepError


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


def exit_status(work: Callable[[], None]) -> int:
    """Run ``work``; 0, or the status that its error stands for, after a line for a human."""
    try:
        work()
    except DataPrepError as error:
        to_stderr(f"error: {error}")
        return error.exit_code
    except OSError as error:
        to_stderr(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        to_stderr("interrupted")
        return 130
    return 0
