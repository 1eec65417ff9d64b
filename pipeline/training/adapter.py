"""Checkpoints and adapters read from their files alone: whole? trained? No torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.sources import weight_problems


def checkpoint_problem(path: Path) -> str | None:
    """Why training cannot go on from this checkpoint, or None. trainer_state.json is what the trainer writes last."""
    for name in ("trainer_state.json", "args.json"):
        try:
            json.loads((path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return f"{name} is missing or cut"
    if not list(path.glob("*.safetensors")):
        return "no safetensors file"
    problems = weight_problems(path)
    if problems:
        return problems[0]
    sharded = list(path.glob("global_step*"))  # DeepSpeed keeps the optimizer in here
    if not sharded and not (path / "optimizer.pt").is_file():
        return "optimizer.pt is missing"
    if not sharded and not (path / "scheduler.pt").is_file():
        return "scheduler.pt is missing"
    return None


def untrained(path: Path) -> str | None:
    """Why this adapter cannot have learned anything, or None. lora_B starts at zero, so any training moves it."""
    seen = moved = 0
    for name, values in _tensors(path / "adapter_model.safetensors"):
        if not np.isfinite(values).all():
            return f"{name} holds NaN or infinity: training diverged"
        if "lora_B" in name:
            seen += 1
            moved += bool(values.any())
    if seen and not moved:
        return f"all {seen} lora_B matrices are zero: the adapter was not trained"
    return None


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every floating-point tensor of a safetensors file as float32."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        header = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name == "__metadata__":
                continue
            start, end = tensor["data_offsets"]
            stream.seek(8 + length + start)
            raw = stream.read(end - start)
            if tensor["dtype"] == "BF16":
                wide = np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16
                yield name, wide.view(np.float32)
            elif tensor["dtype"] in ("F32", "F16"):
                yield name, np.frombuffer(raw, dtype="<f4" if tensor["dtype"] == "F32" else "<f2").astype(np.float32)
