"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def write_text(path: Path, text: str) -> None:
    """Replace the file in one step; after a power cut it holds the old text or the new, nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any | None:
    """The file's JSON value, or None if there is no whole one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def sync_folder(folder: Path) -> None:
    """Make renames inside the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, holder: str, *, wait: bool) -> Iterator[IO[str] | None]:
    """Hold an flock on `path` (None if another process holds it and `wait` is false).

    The lock is the kernel's: it is gone with its process, kill -9 included, and children do not inherit it. `holder`
    is written into the file for whoever finds it busy.
    """
    gone = True
    while gone:  # whoever held it may have removed the folder, `gc` say: that lock is nobody's
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield None
                return
            gone = not _is_at(path, stream)
            if not gone:
                stream.truncate(0)
                stream.write(holder)
                stream.flush()
                yield stream


def _is_at(path: Path, stream: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def held_by(path: Path) -> str:
    """Who holds the lock, in words, for whoever found it busy."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8") or "another process"
    return "another process"
