"""Facts about the machine that `auto` settings depend on. Nothing here imports torch."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import RecipeError


class Gpu(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    memory_gb: float
    compute_capability: tuple[int, int]
    """(8, 0) = Ampere A100; bf16 and flash-attention 2 need at least (8, 0), flash-attention 4 (9, 0)."""


class Machine(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str
    """Linux, Darwin, Windows."""
    cpus: int
    memory_gb: float
    gpus: tuple[Gpu, ...] = ()
    """Those that CUDA_VISIBLE_DEVICES shows."""
    flash_attention: tuple[str, ...] = ()
    """Implementations whose import was tried and worked: flash_attention_2, _3, _4."""
    liger: bool = False

    @property
    def bf16(self) -> bool:
        return bool(self.gpus) and all(gpu.compute_capability >= (8, 0) for gpu in self.gpus)


def read_machine(path: Path) -> Machine:
    """Machine facts from a JSON file (`--machine FILE`): plan here for a machine elsewhere."""
    try:
        return Machine.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"--machine {path}: {error.strerror}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"--machine {path}: {problems}") from error


def probe(env: Mapping[str, str] = os.environ) -> Machine:  # noqa: TID251 - the default is this process's own
    """This machine, by NVML (respecting CUDA_VISIBLE_DEVICES) and by importing flash-attn in a child process."""
    gpus = _gpus(env)
    return Machine(
        system=platform.system(),
        # Those this process may use: a job's share of the node, not the node.
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
        gpus=gpus,
        flash_attention=_flash_attention() if gpus else (),
        liger=bool(gpus) and _version("liger-kernel") is not None,
    )


def _gpus(env: Mapping[str, str]) -> tuple[Gpu, ...]:
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    visible = env.get("CUDA_VISIBLE_DEVICES")
    found = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            memory = round(pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30, 1)
            name = _text(pynvml.nvmlDeviceGetName(handle))
            found.append((index, uuid, Gpu(name=name, memory_gb=memory, compute_capability=(major, minor))))
    finally:
        pynvml.nvmlShutdown()
    return tuple(gpu for _, _, gpu in _visible(found, visible))


def _visible(found: list[tuple[int, str, Gpu]], visible: str | None) -> list[tuple[int, str, Gpu]]:
    """CUDA's own rule: indices or UUID prefixes, in the order given, ending at the first that does not exist."""
    if visible is None:
        return found
    chosen = []
    for token in (part.strip() for part in visible.split(",")):
        match = [f for f in found if token and (token == str(f[0]) or (not token.isdigit() and f[1].startswith(token)))]
        if not match:
            break
        chosen.append(match[0])
    return chosen


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


_CANDIDATES = {
    # implementation: (distribution, the import that fails when the wheel does not match Python/torch/CUDA/ABI)
    "flash_attention_2": ("flash-attn", "import flash_attn, flash_attn_2_cuda"),
    "flash_attention_3": ("flash-attn-3", "import flash_attn_interface"),
    "flash_attention_4": ("flash-attn-4", "import flash_attn.cute"),
}


def _flash_attention() -> tuple[str, ...]:
    """Each installed flash-attention imported for real in a child process; the answer is cached by versions."""
    installed = {name: v for name, (dist, _) in _CANDIDATES.items() if (v := _version(dist))}
    if not installed:
        return ()
    key = json.dumps([installed, _version("torch"), sys.version, sys.prefix], sort_keys=True)
    cache = Path(tempfile.gettempdir()) / f"flash-attn-import-{os.getuid()}.json"
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
        if known["key"] == key and cache.stat().st_uid == os.getuid():
            return tuple(known["works"])
    except (OSError, ValueError, KeyError):
        pass  # no cache yet, or one cut short: try the imports again
    works = []
    for name in installed:
        code = f"import torch; {_CANDIDATES[name][1]}"
        if subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=180, check=False).returncode == 0:
            works.append(name)
    scratch = cache.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps({"key": key, "works": works}), encoding="utf-8")
    scratch.replace(cache)
    return tuple(works)
