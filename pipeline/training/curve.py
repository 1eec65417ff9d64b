"""The training curve out of swift's logging.jsonl, also while it is being written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pipeline.files import read_json

Point = dict[str, Any]
LOG = "logging.jsonl"
_END = 1 << 16
"""Bytes of a log in which its last record is looked for first."""


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of the file; a half-written last line is left out until it is whole."""
    yield from follow(path, 0)[0]


def follow(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The JSON objects in whole lines from a byte on, and the byte to go on from."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read()
    except OSError:
        return [], offset
    *lines, rest = data.split(b"\n")
    return list(_objects(lines)), offset + len(data) - len(rest)


def _objects(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a line cut by a kill; the attempt that follows logs the step again
        if isinstance(record, dict):
            yield record


def read(path: Path) -> list[Point]:
    """Records that belong to a step, each with `step` (optimizer steps) and its numbers; strings are left out."""
    return [found for record in records(path) if (found := point(record))]


def point(record: Mapping[str, Any]) -> Point | None:
    """The step and numbers of a record; None of the summaries at the end."""
    position = record.get("global_step/max_steps")
    if not isinstance(position, str) or "train_runtime" in record:
        return None
    numbers = {k: _number(v) for k, v in record.items() if _number(v) is not None}
    return {"step": int(position.split("/")[0]), **numbers}


def stitch(attempts: Iterable[list[Point]], begun: Iterable[int | None] = ()) -> list[Point]:
    """One curve of several attempts, oldest first: a resumed attempt replaces what it went over again.

    `begun`: the step each went on from, see `went_on_from`. It may log more rarely than the one before it, so that its
    first point does not tell.
    """
    curve: list[Point] = []
    for points, start in zip_longest(attempts, begun):
        if points:
            before = points[0]["step"] - 1
            last = before if start is None else min(start, before)
            curve = [point for point in curve if point["step"] <= last] + points
    return curve


def stitched(attempts: Sequence[Path]) -> list[Point]:
    """The curve of a training whose attempts, oldest first, lie in these folders."""
    return stitch((read(attempt / LOG) for attempt in attempts), map(went_on_from, attempts))


def went_on_from(attempt: Path) -> int | None:
    """The step of the checkpoint an attempt went on from, 0 for none; None where ms-swift has not said yet."""
    told = _arguments(attempt)
    if told is None:
        return None
    match = re.search(r"checkpoint-(\d+)/?$", str(told.get("resume_from_checkpoint")))
    return int(match[1]) if match else 0


def last_record(path: Path) -> dict[str, Any] | None:
    """Asked for all the time, so only the end is read: a long training logs tens of megabytes."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    for start in (max(0, size - _END), 0):  # what the first byte cuts is no JSON
        found = [record for record in follow(path, start)[0] if "global_step/max_steps" in record]
        if found:
            return found[-1]
    return None


def loss_scaled(attempt: Path) -> bool:
    """Whether an attempt trains in fp16, whose loss scaling makes gradient norms infinite now and then."""
    return (_arguments(attempt) or {}).get("fp16") is True


def _arguments(attempt: Path) -> dict[str, Any] | None:
    """What ms-swift says that it was told, once it has begun."""
    found = read_json(attempt / "args.json")
    return found if isinstance(found, dict) else None


def non_finite(point: Point) -> list[str]:
    """Keys among loss and gradient norm that are NaN or infinite."""
    return [k for k in ("loss", "eval_loss", "grad_norm") if k in point and not math.isfinite(point[k])]


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        # swift writes some numbers as strings, 'nan' among them.
        try:
            return float(value)
        except ValueError:
            return None
    return None
