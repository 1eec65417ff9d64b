"""Weights of two model folders compared tensor by tensor, from their files alone. No torch."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

_TORCH = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_BLOCK = 1 << 22


class Tensor(NamedTuple):
    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """First byte in the file."""
    bytes: int


def tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's safetensors files, by name."""
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in _headers(path)}


def _headers(path: Path) -> Iterator[tuple[str, Tensor]]:
    with path.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        header: dict[str, Any] = json.loads(stream.read(length))
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            yield name, Tensor(path, entry["dtype"], tuple(entry["shape"]), 8 + length + start, end - start)


def size(folder: Path) -> tuple[int, str]:
    """(parameters, torch's name of the type most of them are stored in)."""
    counts: Counter[str] = Counter()
    for tensor in tensors(folder).values():
        counts[_TORCH.get(tensor.dtype, "float32")] += math.prod(tensor.shape)
    return counts.total(), counts.most_common(1)[0][0]


def compared(checkpoint: Path, exported: Path, base: Path) -> dict[str, Any]:
    """How many tensors of `checkpoint` are others, or missing, in `exported`; how many differ from those of `base`.

    Where the export changed the type, values are compared after the same rounding.
    """
    ours, theirs, before = tensors(checkpoint), tensors(exported), tensors(base)
    names = [name for name in ours if name in theirs]
    return {
        "compared": len(names),
        "missing": sorted(name for name in ours if name not in theirs),
        "different": [name for name in names if not equal(ours[name], theirs[name])],
        "changed": sum(name not in before or not equal(ours[name], before[name]) for name in names),
    }


def equal(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape:
        return False
    if left.dtype == right.dtype:
        return _digest(left) == _digest(right)
    if not {left.dtype, right.dtype} <= _TORCH.keys():
        return False
    coarse = min(left.dtype, right.dtype, key=("BF16", "F16", "F32").index)
    return bool(np.array_equal(_values(left, coarse), _values(right, coarse), equal_nan=True))


def _digest(tensor: Tensor) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for block in _blocks(tensor):
        digest.update(block)
    return digest.digest()


def _blocks(tensor: Tensor) -> Iterator[bytes]:
    stream: IO[bytes]
    with tensor.path.open("rb") as stream:
        stream.seek(tensor.start)
        left = tensor.bytes
        while left:
            block = stream.read(min(_BLOCK, left))
            if not block:
                return  # cut: the digest of what is there differs from that of a whole one
            left -= len(block)
            yield block


def _values(tensor: Tensor, dtype: str) -> np.ndarray:
    """As float32, after rounding to `dtype`."""
    raw = b"".join(_blocks(tensor))
    if tensor.dtype == "BF16":
        wide = (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        wide = np.frombuffer(raw, dtype="<f4" if tensor.dtype == "F32" else "<f2").astype(np.float32)
    if dtype == "BF16":
        bits = wide.view(np.uint32)
        # To the nearest, ties to even, as torch rounds.
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return wide.astype(np.float16).astype(np.float32) if dtype == "F16" else wide
