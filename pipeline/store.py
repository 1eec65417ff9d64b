"""The runs folder: where stages lie, what is done, and how an attempt is published.

    stages/train-3fa92c1b0e77/  stage.json  log.txt  attempts/1/  output/  result.json
    <recipe name>/              report.*  recipe.yaml  stages.json  tracking.json

`result.json`, written last and atomically, is the only meaning of "done".
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import locked, read_json, sync_folder, write_json
from pipeline.slots import kin
from pipeline.stage import Source, Stage

SCHEMA = 1
SCORED = ("samples.jsonl",)
"""Files that reports are made of: their content is checked each time, of others the size."""


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
        found = self._look(stage)
        return found if isinstance(found, dict) else None

    def damage(self, stage: Stage) -> str | None:
        """What is wrong with a result that was there once: `result.json is cut`; None if none was, or all is well."""
        found = self._look(stage)
        return found if isinstance(found, str) else None

    def _look(self, stage: Stage) -> dict[str, Any] | str | None:
        folder = self.folder(stage)
        if not (folder / "result.json").is_file():
            return None
        record = read_json(folder / "result.json")
        if not isinstance(record, dict):
            return "result.json is cut, or something else"
        if record.get("schema") != SCHEMA:
            return "result.json is of another version of this program"
        if record.get("fingerprint") != stage.fingerprint(self.digest):
            return "result.json is of another stage"
        if not {"manifest", "result"} <= record.keys():
            return "result.json is incomplete"
        if record.get("checksum", checksum := _checksum(record)) != checksum:
            return "result.json was changed after it was written"
        for entry in record["manifest"]:
            problem = _problem(folder / "output" / entry["path"], entry)
            if problem:
                return f"output/{entry['path']} {problem}"
        return record if stage.output(folder / "output").exists() else "its output is gone"

    def state(self, stage: Stage) -> str:
        """done, running (its lock is held), damaged, interrupted (attempts but no result) or missing."""
        if self.result(stage):
            return "done"
        folder = self.folder(stage)
        if not folder.is_dir():
            return "missing"
        with locked(folder / ".lock", "", wait=False) as held:
            if held is None:
                return "running"
        if self.damage(stage):
            return "damaged"
        return "interrupted" if self.attempts(stage) else "missing"

    def durations(self) -> dict[str, float]:
        """Seconds that finished stages took, by `slots.kin`: the most of any model or data."""
        found: dict[str, float] = {}
        for path in (self.root / "stages").glob("*/result.json"):
            record: Any = read_json(path)
            told: Any = read_json(path.with_name("stage.json"))
            with suppress(KeyError, TypeError):  # a file that is cut, or of another version: it only puts in order
                key = kin(told["name"], told["args"])
                found[key] = max(found.get(key, 0.0), float(record["seconds"]))
        return found

    def next_attempt(self, stage: Stage) -> tuple[Path, list[Path]]:
        """A new folder for an attempt, and those of earlier ones, oldest first."""
        earlier = self.attempts(stage)
        number = int(earlier[-1].name) + 1 if earlier else 1
        return self.folder(stage) / "attempts" / str(number), earlier

    def attempts(self, stage: Stage) -> list[Path]:
        """Folders of unfinished attempts, oldest first; whatever else lies beside them is not ours."""
        found = (self.folder(stage) / "attempts").glob("*")
        return sorted((path for path in found if path.name.isdigit()), key=lambda path: int(path.name))

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
        full["checksum"] = _checksum(full)
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


def _problem(path: Path, entry: Mapping[str, Any]) -> str | None:
    """Why the file is not the one that was published. Of what reports are made of, every byte is looked at."""
    try:
        found = path.stat()
    except OSError:
        return "is gone"
    if found.st_size != entry["size"]:
        return f"has {found.st_size} bytes instead of {entry['size']}"
    if path.name in SCORED and _sha256(path, found.st_size, found.st_mtime_ns) != entry["sha256"]:
        return "was changed after it was written"
    return None


def _checksum(record: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, allow_nan=False).encode()).hexdigest()


@functools.cache
def _sha256(path: Path, _size: int, _changed_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def size(folder: Path) -> int:
    """Bytes on disk below the folder."""
    return sum(path.stat().st_size for path in _files(folder))
