"""The training curve out of swift's logging.jsonl, also while it is being written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Point = dict[str, Any]


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of the file; a half-written last line is left out until it is whole."""
    try:
        text = path.read_bytes()
    except OSError:
        return
    for line in text.split(b"\n")[:-1]:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a line cut by a kill; the attempt that follows logs the step again
        if isinstance(record, dict):
            yield record


def read(path: Path) -> list[Point]:
    """Records that belong to a step, each with `step` (optimizer steps) and its numbers; strings are left out."""
    points = []
    for record in records(path):
        position = record.get("global_step/max_steps")
        if not isinstance(position, str) or "train_runtime" in record:
            continue  # the summaries at the end
        numbers = {k: _number(v) for k, v in record.items() if _number(v) is not None}
        points.append({"step": int(position.split("/")[0]), **numbers})
    return points


def stitch(attempts: Iterable[list[Point]]) -> list[Point]:
    """One curve of several attempts, oldest first: a resumed attempt replaces what it went over again."""
    curve: list[Point] = []
    for points in attempts:
        if points:
            start = points[0]["step"]
            curve = [point for point in curve if point["step"] < start] + points
    return curve


def last_record(path: Path) -> dict[str, Any] | None:
    last = None
    for record in records(path):
        if "global_step/max_steps" in record:
            last = record
    return last


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
