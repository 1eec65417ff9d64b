"""Whether full training changed the weights: a few tensors of a checkpoint against the base model's. No torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TENSORS = 32
"""Looked at, spread over the file's names; the first that differs ends the search for a difference."""
VALUES = 1 << 20
"""Of each tensor, from its beginning."""
_STEP = {"F64": 0.0, "F32": 0.0, "BF16": 2.0**-8, "F16": 2.0**-11}
"""Half the relative distance of two neighbouring numbers: what rounding to this type can do to a weight."""


@dataclass(frozen=True)
class Slot:
    """Where a tensor lies."""

    file: Path
    dtype: str
    start: int
    count: int
    """Values to read."""


def unmoved(checkpoint: Path, base: Path) -> str | None:
    """Why this checkpoint cannot be the base model after training, or None."""
    ours, theirs = _slots(checkpoint), _slots(base)
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return f"none of its tensors is in {base}: is it a checkpoint of that model?"
    names = _some(shared)
    problem = _not_finite(ours, names)
    if problem:
        return problem
    moved = any(
        _differs(_values(ours[name]), _values(theirs[name]), max(_STEP[ours[name].dtype], _STEP[theirs[name].dtype]))
        for name in names
    )
    return None if moved else f"all {len(names)} tensors looked at are those of {base}: nothing was trained"


def non_finite(checkpoint: Path) -> str | None:
    """Which tensor of a checkpoint of all weights is not all numbers, or None; a few are looked at."""
    slots = _slots(checkpoint)
    return _not_finite(slots, _some(sorted(slots)))


def _some(names: list[str]) -> list[str]:
    return names[:: max(1, len(names) // TENSORS)]


def _not_finite(slots: Mapping[str, Slot], names: Sequence[str]) -> str | None:
    bad = next((name for name in names if not np.isfinite(_values(slots[name])).all()), None)
    return f"{bad} holds NaN or infinity: training diverged" if bad else None


def _differs(ours: np.ndarray, theirs: np.ndarray, step: float) -> bool:
    """Whether any value differs by more than a change of data type explains."""
    if ours.size != theirs.size:
        return True
    return bool((np.abs(ours - theirs) > step * np.abs(theirs)).any())


def _slots(folder: Path) -> dict[str, Slot]:
    return {name: slot for path in sorted(folder.glob("*.safetensors")) for name, slot in _header(path)}


def _header(path: Path) -> Iterator[tuple[str, Slot]]:
    with path.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        header = json.loads(stream.read(length))
    for name, tensor in header.items():
        if name != "__metadata__" and tensor["dtype"] in _STEP:
            start, end = tensor["data_offsets"]
            width = {"F64": 8, "F32": 4}.get(tensor["dtype"], 2)
            yield name, Slot(path, tensor["dtype"], 8 + length + start, min((end - start) // width, VALUES))


def _values(slot: Slot) -> np.ndarray:
    """As float64, which holds all of them exactly."""
    kind = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}[slot.dtype]
    found = np.fromfile(slot.file, dtype=kind, count=slot.count, offset=slot.start)
    if slot.dtype == "BF16":
        found = (found.astype(np.uint32) << 16).view(np.float32)
    return found.astype(np.float64)
