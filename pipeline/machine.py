"""Facts about the machine that `auto` settings depend on. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import processes
from pipeline.errors import PreflightError, RecipeError


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
    liger: tuple[str, ...] = ()
    """Model types (config.json) that the installed liger-kernel has fused kernels for; its import was tried, too."""

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
        memory_gb=round(processes.all_memory() / 2**30, 1),
        gpus=gpus,
        flash_attention=_flash_attention() if gpus else (),
        liger=_liger() if gpus else (),
    )


def _gpus(env: Mapping[str, str]) -> tuple[Gpu, ...]:
    visible = env.get("CUDA_VISIBLE_DEVICES")
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    found = []
    try:
        for index in _asked(visible, pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
            free = round((memory.total - memory.reserved) / 2**30, 1)  # the driver keeps some for itself
            name = _text(pynvml.nvmlDeviceGetName(handle))
            found.append((index, uuid, Gpu(name=name, memory_gb=free, compute_capability=(major, minor))))
    except pynvml.NVMLError as error:
        raise PreflightError(
            f"a GPU does not say what it is ({error}): see nvidia-smi, or give --machine FILE"
        ) from error
    finally:
        pynvml.nvmlShutdown()
    if visible and "MIG-" in visible:
        raise PreflightError(
            f"CUDA_VISIBLE_DEVICES={visible}: parts of a GPU (MIG) do not say what they have; do it with --machine FILE"
        )
    return tuple(gpu for _, _, gpu in _visible(found, visible))


def _asked(visible: str | None, count: int) -> Iterator[int]:
    """Those that may be chosen: one that is hidden by its number may be broken."""
    tokens = None if visible is None else [token.strip() for token in visible.split(",")]
    numbers = tokens is not None and all(token.isdigit() or not token for token in tokens)
    yield from (index for index in range(count) if not numbers or str(index) in (tokens or ()))


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
    """Each installed flash-attention imported for real in a child process."""
    installed = {name: v for name, (dist, _) in _CANDIDATES.items() if (v := _version(dist))}
    works = {name: _tried(f"import torch; {_CANDIDATES[name][1]}", [name, v]) for name, v in installed.items()}
    return tuple(name for name, said in works.items() if said is not None)


_LIGER = """import torch, triton, liger_kernel.transformers.monkey_patch as patch
print(*sorted(patch.MODEL_TYPE_TO_APPLY_LIGER_FN))"""
"""transformers applies liger by this table, and passes by a model type that is not in it without a word that shows."""


def _liger() -> tuple[str, ...]:
    installed = _version("liger-kernel")
    said = _tried(_LIGER, ["liger", installed, _version("transformers"), _version("triton")]) if installed else None
    return tuple(said.split()) if said else ()


def _tried(code: str, versions: list[str | None]) -> str | None:
    """What this code prints in a child process, None if it fails; the answer is cached by versions."""
    key = json.dumps([code, versions, _version("torch"), sys.version, sys.prefix])
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    cache = Path(tempfile.gettempdir()) / f"pipeline-import-{os.getuid()}-{name}.json"
    try:
        known = json.loads(cache.read_text(encoding="utf-8"))
        if known["key"] == key and cache.stat().st_uid == os.getuid():
            return None if known["said"] is None else str(known["said"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no cache yet, or one cut short: try it again
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        return None
    # Libraries print while they are imported; what was asked for comes last.
    lines = done.stdout.strip().splitlines()
    said = None if done.returncode else lines[-1] if lines else ""
    scratch = cache.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps({"key": key, "said": said}), encoding="utf-8")
    scratch.replace(cache)
    return said
