"""The runs folder: where stages lie, what is done, and how an attempt is published.

    stages/train-3fa92c1b0e77/  stage.json  log.txt  attempts/1/  output/  result.json
    <recipe name>/              report.*  recipe.yaml  stages.json  tracking.json

`result.json`, written last and atomically, is the only meaning of "done".
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import locked, read_json, sync_folder, write_json
from pipeline.stage import Source, Stage

SCHEMA = 1


@dataclass(frozen=True)
class Store:
    root: Path
    """Absolute path of the runs folder."""
    digest: Callable[[Source], str]

    def folder(self, stage: Stage) -> Path:
        return self.root / "stages" / f"{stage.name}-{stage.fingerprint(self.digest)[:12]}"

    def place(self, dep: Stage | Source) -> Path:
        """Where those downstream read what `dep` gives."""
        if isinstance(dep, Source):
            return dep.path.absolute()
        return dep.output(self.folder(dep) / "output")

    def result(self, stage: Stage) -> dict[str, Any] | None:
        """The record of a finished stage, if all it vouches for is still there."""
        folder = self.folder(stage)
        record = read_json(folder / "result.json")
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            return None
        if record.get("fingerprint") != stage.fingerprint(self.digest):
            return None
        whole = all(_has_size(folder / "output" / f["path"], f["size"]) for f in record["manifest"])
        return record if whole and stage.output(folder / "output").exists() else None

    def state(self, stage: Stage) -> str:
        """done, running (its lock is held), interrupted (attempts but no result) or missing."""
        if self.result(stage):
            return "done"
        folder = self.folder(stage)
        if not folder.is_dir():
            return "missing"
        with locked(folder / ".lock", "", wait=False) as held:
            if held is None:
                return "running"
        return "interrupted" if any((folder / "attempts").glob("*")) else "missing"

    def next_attempt(self, stage: Stage) -> tuple[Path, list[Path]]:
        """A new folder for an attempt, and those of earlier ones, oldest first."""
        attempts = self.folder(stage) / "attempts"
        earlier = sorted((p for p in attempts.glob("*") if p.name.isdigit()), key=lambda p: int(p.name))
        number = int(earlier[-1].name) + 1 if earlier else 1
        return attempts / str(number), earlier

    def publish(self, stage: Stage, attempt: Path, record: dict[str, Any]) -> dict[str, Any]:
        """Turn a complete attempt into the stage's output (`discard` made room for it), and vouch for it last."""
        folder = self.folder(stage)
        output = folder / "output"
        manifest = [_entry(path, attempt) for path in _files(attempt)]
        attempt.rename(output)
        sync_folder(folder)
        full = {
            "schema": SCHEMA,
            "stage": stage.name,
            "fingerprint": stage.fingerprint(self.digest),
            "attempt": attempt.name,
            **record,
            "manifest": manifest,
        }
        write_json(folder / "result.json", full)
        return full

    def discard(self, stage: Stage) -> None:
        """Forget a result that no longer vouches for what lies there, first the voucher.

        The output becomes an earlier attempt again: a training goes on from what is whole in it.
        """
        folder = self.folder(stage)
        (folder / "result.json").unlink(missing_ok=True)
        if (folder / "output").exists():
            attempt, _ = self.next_attempt(stage)
            attempt.parent.mkdir(exist_ok=True)
            (folder / "output").rename(attempt)


def _entry(path: Path, base: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return {"path": path.relative_to(base).as_posix(), "size": path.stat().st_size, "sha256": checksum}


def _files(folder: Path) -> Iterator[Path]:
    """Regular files below; links are not followed (a downloaded model is a link to the hub's cache)."""
    for parent, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = Path(parent) / name
            if path.is_file() and not path.is_symlink():
                yield path


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def size(folder: Path) -> int:
    """Bytes on disk below the folder."""
    return sum(path.stat().st_size for path in _files(folder))
