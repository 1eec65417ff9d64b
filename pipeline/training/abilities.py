"""What a machine can compute with: data types and attention implementations."""

from __future__ import annotations

from pipeline.fields import Precision
from pipeline.machine import Machine

FLASH = {"flash_attention_2": (8, 0), "flash_attention_3": (9, 0), "flash_attention_4": (9, 0)}
"""Implementations, the proven first, with the least compute capability each runs on."""

_HOPPER = "flash_attention_3"
"""Its kernels use instructions that Hopper (9, 0) alone has: it imports on Blackwell, and fails there."""


def precision(machine: Machine) -> tuple[Precision, str]:
    """Data type to compute in, and why."""
    if not machine.gpus:
        if machine.system == "Darwin":
            return "float32", "macOS: runs on the CPU; the tools' MPS path is not tested here and not used"
        return "float32", "no GPU: bf16 is fast on few CPUs, and fp16 gives infinities"
    if machine.bf16:
        return "bfloat16", f"{machine.gpus[0].name} has bf16"
    return "float16", f"{weakest(machine)} has no bf16 (compute capability below 8.0)"


def weakest(machine: Machine) -> str:
    return min(machine.gpus, key=lambda gpu: gpu.compute_capability).name


def runs(flash: str, machine: Machine) -> bool:
    if flash not in machine.flash_attention:
        return False
    found = [gpu.compute_capability for gpu in machine.gpus]
    return all(one >= FLASH[flash] and (flash != _HOPPER or one < (10, 0)) for one in found)
