"""Checkpoints and adapters read from their files alone: whole? of this training? trained? No torch."""

from __future__ import annotations

import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.sources import weight_problems

SENTINEL = "checkpoint-is-incomplete.txt"
"""transformers' own mark of a checkpoint that it saves on a signal, there as long as that is not done."""
CRC_BYTES = 2 << 30
"""Of a larger archive of torch only the table of contents and the members' headers are read: 60 GB take a minute."""
LARGEST = 65504.0
"""What float16 can hold; weights of an adapter are thousands of times smaller."""
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4,
    "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


def checkpoint_problem(path: Path, processes: int | None = None) -> str | None:
    """Why training cannot go on from this checkpoint, or None: every file is looked at, and all that belong to it.

    `processes` is how many train together, if known. What cannot be seen: bits flipped in the weights' numbers, for
    safetensors have no checksum.
    """
    if (path / SENTINEL).exists():
        return f"{SENTINEL}: it was not saved to its end"
    read = {name: _object(path / name) for name in ("trainer_state.json", "args.json")}
    for name, found in read.items():
        if found is None:
            return f"{name} is missing or cut"
    state, args = read["trainer_state.json"] or {}, read["args.json"] or {}
    step = re.fullmatch(r"checkpoint-(\d+)", path.resolve().name)
    if step and state.get("global_step") != int(step[1]):
        return f"trainer_state.json: global_step {state.get('global_step')} in a folder called {path.resolve().name}"
    sharded = bool(list(path.glob("global_step*"))) or (path / "latest").exists()
    many = processes or _count(args.get("global_world_size"))
    checks: list[Callable[[], str | None]] = [
        lambda: _weights(path, full=args.get("tuner_type") == "full"),
        lambda: _states(path, args, sharded=sharded),
        lambda: _random(path, many),
        lambda: _shards(path, many) if sharded else None,
    ]
    return next((problem for check in checks if (problem := check())), None)


def other_training(path: Path, args: Mapping[str, Any]) -> str | None:
    """Which setting in a checkpoint's args.json is not the one that swift is given now, or None.

    Numbers are compared, and what swift takes as it is; words, lists and switches it partly replaces by its own.
    """
    found = _object(path / "args.json") or {}
    wanted = dict(args)
    if "processes" in wanted:
        wanted["global_world_size"] = wanted.pop("processes")
    for name, value in wanted.items():
        exact = name == "tuner_type" or (isinstance(value, int | float) and not isinstance(value, bool))
        if exact and name in found and found[name] != value:
            what = "processes" if name == "global_world_size" else name
            return f"args.json: it was trained with {what} {found[name]}, now it is {value}"
    return None


def untrained(path: Path) -> str | None:
    """Why this adapter cannot have learned anything, or None. lora_B starts at zero, so any training moves it."""
    problem = non_finite(path)
    if problem:
        return problem
    sides = [bool(values.any()) for name, values in _tensors(path / "adapter_model.safetensors") if "lora_B" in name]
    if sides and not any(sides):
        return f"all {len(sides)} lora_B matrices are zero: the adapter was not trained"
    return None


def non_finite(path: Path) -> str | None:
    """Which tensor of an adapter is not all numbers, or none that a training could want; or None."""
    for name, values in _tensors(path / "adapter_model.safetensors"):
        if not np.isfinite(values).all():
            return f"{name} holds NaN or infinity: training diverged"
        # The loss that would tell is that of the step after: at a learning rate of 1e30 the first one is fine.
        if values.size and np.abs(values).max() > LARGEST:
            return f"{name} holds {np.abs(values).max():.3g}: training diverged"
    return None


def _weights(path: Path, *, full: bool) -> str | None:
    config = "config.json" if full else "adapter_config.json"
    if _object(path / config) is None:
        return f"{config} is missing or cut"
    files = sorted(path.glob("model*.safetensors" if full else "adapter_model.safetensors"))
    if not files:
        return f"{'model' if full else 'adapter_model'}.safetensors is missing"
    problems = weight_problems(path)
    if problems:
        return problems[0]
    index = _object(path / "model.safetensors.index.json")
    of = re.search(r"-of-(\d+)$", files[0].stem)
    if of and (len(files) != int(of[1]) or index is None):
        return f"{len(files)} of {int(of[1])} safetensors files, or no model.safetensors.index.json"
    names = set[str]()
    for file in files:
        header = _header(file)
        problem = _spans(header)
        if problem:
            return f"{file.name}: {problem}"
        names |= header.keys() - {"__metadata__"}
    if index is not None and set(index.get("weight_map", {})) != names:
        return "model.safetensors.index.json names other tensors than the files hold"
    halves = {name.replace("lora_A", "lora_?").replace("lora_B", "lora_?") for name in names if "lora_" in name}
    alone = [h for h in halves if not {h.replace("lora_?", "lora_A"), h.replace("lora_?", "lora_B")} <= names]
    pairs = [name for name in alone if "lora_?" in name]
    return f"adapter_model.safetensors: of {min(pairs)} one half is missing" if pairs else None


def _spans(header: Mapping[str, Any]) -> str | None:
    """Where the header contradicts itself: each tensor is as long as type and shape say, and one follows another."""
    tensors = sorted((t["data_offsets"], name) for name, t in header.items() if name != "__metadata__")
    place = 0
    for (start, end, *_), name in tensors:
        shape = [size for size in header[name].get("shape", [0]) if isinstance(size, int)]
        size = _ITEM_BYTES.get(str(header[name].get("dtype")), 0) * math.prod(shape)
        if start != place or end - start != size:
            return f"the header contradicts itself at {name}"
        place = end
    return None if tensors else "it holds no tensor"


def _states(path: Path, args: Mapping[str, Any], *, sharded: bool) -> str | None:
    """Optimizer, scheduler, settings, and the scaler of fp16, each an archive of torch. DeepSpeed has its own."""
    own = args.get("deepspeed")
    needed = ["training_args.bin"]
    needed += [] if isinstance(own, dict) and "scheduler" in own else ["scheduler.pt"]
    if not sharded:
        needed += ["optimizer.pt"]
        needed += ["scaler.pt"] if args.get("fp16") and not args.get("use_cpu") else []
    for name in dict.fromkeys([*needed, *(file.name for kind in ("*.pt", "*.bin") for file in path.glob(kind))]):
        problem = _archive(path / name)
        if problem:
            return f"{name} {problem}"
    return None


def _random(path: Path, processes: int | None) -> str | None:
    """The state of the random numbers, one file per process."""
    found = {file.name for file in path.glob("rng_state*.pth")}
    count = processes or max(len(found), 1)
    wanted = {"rng_state.pth"} if count == 1 else {f"rng_state_{rank}.pth" for rank in range(count)}
    if found - wanted:
        return f"{min(found - wanted)}: it was saved by {len(found)} processes, not {count}"
    for name in sorted(wanted):
        problem = _archive(path / name)
        if problem:
            return f"{name} {problem}"
    return None


def _shards(path: Path, processes: int | None) -> str | None:
    """DeepSpeed's folder: `latest` names it; in it the optimizer's part of each process, and the model's state."""
    try:
        latest = (path / "latest").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return "latest is missing"
    folder = path / latest
    if not re.fullmatch(r"global_step\d+", latest) or not folder.is_dir():
        return f"latest names {latest!r}, which is not there"
    optimizers = sorted(folder.glob("*_optim_states.pt"))
    models = sorted(folder.glob("*_model_states.pt"))
    ranks = {int(match[1]) for file in optimizers if (match := re.search(r"zero_pp_rank_(\d+)_", file.name))}
    count = processes or len(optimizers)
    if ranks != set(range(count)) or not ranks:
        return f"{latest}: optimizer states of {len(ranks)} processes, not {count}"
    # With the weights themselves in parts (ZeRO3) the model's state is, too.
    parts = any("zero_pp_rank" in file.name for file in models)
    if len(models) != (count if parts else 1):
        return f"{latest}: model states of {len(models)} processes, not {count if parts else 1}"
    for file in [*optimizers, *models]:
        problem = _archive(file)
        if problem:
            return f"{latest}/{file.name} {problem}"
    return None


_UNREADABLE = (zipfile.BadZipFile, OSError, ValueError, EOFError, RuntimeError, zlib.error)
"""zipfile's at damaged bytes: no table; places outside the file; flags for encryption, unknown packing, deflation."""


def _archive(path: Path) -> str | None:
    """What is wrong with a file that torch.save has written: a zip whose table of contents is at its end."""
    try:
        with zipfile.ZipFile(path) as archive:
            if path.stat().st_size <= CRC_BYTES:
                bad = archive.testzip()
                return f"is damaged: {bad}" if bad else None
            for member in archive.infolist():
                archive.open(member).close()  # looks at the header that stands before its bytes
    except FileNotFoundError:
        return "is missing"
    except _UNREADABLE:
        return "is cut or damaged"
    return None


def _object(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
        found: dict[str, Any] = json.loads(stream.read(length))
    return found


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every floating-point tensor of a safetensors file as float32."""
    if not path.is_file():
        return
    header = _header(path)
    with path.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0]
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
