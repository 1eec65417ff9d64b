"""What a machine can compute with: data types and attention implementations."""

from __future__ import annotations

from pipeline.fields import Precision
from pipeline.machine import Machine
from pipeline.training.shape import ModelShape

FLASH = {"flash_attention_2": (8, 0), "flash_attention_3": (9, 0), "flash_attention_4": (9, 0)}
"""Implementations, the proven first, with the least compute capability each runs on."""

_HOPPER = "flash_attention_3"
"""Its kernels use instructions that Hopper (9, 0) alone has: it imports on Blackwell, and fails there."""

EAGER = frozenset(("gpt_oss",))
"""Model types with attention sinks: transformers 5.19 has no sdpa for them, and flash-attention only from a hub."""

_END_TO_END = frozenset(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"))
"""Multimodal types whose template says support_padding_free (ms-swift 4.6.0, template/templates/qwen.py); of the others
`packing` can be set by hand."""


def end_to_end(shape: ModelShape | None) -> bool:
    """Whether ms-swift lays rows of this model end to end (pipelines/train/sft.py, support_padding_free)."""
    if shape is None:
        return True
    return shape.model_type not in EAGER and (not shape.multimodal or shape.model_type in _END_TO_END)


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
