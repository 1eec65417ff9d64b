"""The training curve out of swift's logging.jsonl, also while it is being written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

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


def stitch(attempts: Iterable[list[Point]]) -> list[Point]:
    """One curve of several attempts, oldest first: a resumed attempt replaces what it went over again."""
    curve: list[Point] = []
    for points in attempts:
        if points:
            start = points[0]["step"]
            curve = [point for point in curve if point["step"] < start] + points
    return curve


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
    try:
        return json.loads((attempt / "args.json").read_text(encoding="utf-8")).get("fp16") is True
    except (OSError, ValueError, AttributeError):
        return False


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
