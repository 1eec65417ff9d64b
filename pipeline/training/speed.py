"""What a processor can compute at most, and what one token of training costs: the two sides of an expected time and of
model FLOPs utilization (MFU).

Peaks are dense (no 2:4 sparsity), in FLOP/s at boost clock, for bf16/fp16 with float32 accumulation, from NVIDIA's data
sheets and architecture white papers (H100/H200, A100, Ada, L4/L40S, GA102, V100, T4, Blackwell). GeForce cards
accumulate in float32 at half the rate that their fp16 headline figure names; theirs is that half. H20 and L20 are those
for the Chinese market, A800/H800 differ from A100/H100 in NVLink only.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pipeline.training.memory import trainable
from pipeline.training.shape import ModelShape
from pipeline.training.spec import TrainSpec

T = 1e12


class Peak(NamedTuple):
    half: float
    """bf16 and fp16 on tensor cores, FLOP/s."""
    single: float
    """float32 outside tensor cores, FLOP/s: torch does not use TF32 unless told to."""
    bf16: bool = True


_PEAKS: tuple[tuple[str, Peak], ...] = (
    (r"GB200", Peak(2500 * T, 80 * T)),
    (r"B200", Peak(2250 * T, 75 * T)),
    (r"GH200", Peak(989.4 * T, 66.9 * T)),
    (r"H200 NVL", Peak(835.5 * T, 60 * T)),
    (r"H200", Peak(989.4 * T, 66.9 * T)),
    (r"H[18]00 NVL", Peak(835.5 * T, 60 * T)),
    (r"H[18]00.* PCIe", Peak(756.4 * T, 51.2 * T)),
    (r"H[18]00", Peak(989.4 * T, 66.9 * T)),
    (r"H20", Peak(148 * T, 44 * T)),
    (r"A[18]00", Peak(312 * T, 19.5 * T)),
    (r"A40", Peak(149.7 * T, 37.4 * T)),
    (r"A30", Peak(165 * T, 10.3 * T)),
    (r"A10G", Peak(70 * T, 35 * T)),
    (r"A10", Peak(125 * T, 31.2 * T)),
    (r"L40S", Peak(362 * T, 91.6 * T)),
    (r"L40", Peak(181 * T, 90.5 * T)),
    (r"L20", Peak(119.5 * T, 59.8 * T)),
    (r"L4", Peak(121 * T, 30.3 * T)),
    (r"V100S", Peak(130 * T, 16.4 * T, bf16=False)),
    (r"V100.*PCIe", Peak(112 * T, 14 * T, bf16=False)),
    (r"V100", Peak(125 * T, 15.7 * T, bf16=False)),
    (r"T4", Peak(65 * T, 8.1 * T, bf16=False)),
    (r"RTX 6000 Ada.*", Peak(364.2 * T, 91.1 * T)),
    (r"RTX A6000", Peak(154.8 * T, 38.7 * T)),
    (r"RTX A5000", Peak(111.1 * T, 27.8 * T)),
    (r"RTX 5090", Peak(209.5 * T, 104.8 * T)),
    (r"RTX 5080", Peak(112.6 * T, 56.3 * T)),
    (r"RTX 4090 D", Peak(147 * T, 73.5 * T)),
    (r"RTX 4090", Peak(165.2 * T, 82.6 * T)),
    (r"RTX 4080", Peak(97.5 * T, 48.7 * T)),
    (r"RTX 3090 Ti", Peak(80 * T, 40 * T)),
    (r"RTX 3090", Peak(71 * T, 35.6 * T)),
    (r"RTX 2080 Ti", Peak(53.8 * T, 13.4 * T, bf16=False)),
)
"""By name as NVML gives it, the narrower name first."""

_CUT = re.compile(r"\bMIG\b|^GRID |-\d+[QC]\b")
"""A slice of a GPU, or a virtual one: its share of the peak is not in its name."""


def peak_flops(gpu_name: str, precision: str) -> float | None:
    """FLOP/s of one GPU at most, by the name that NVML gives; None where the table has no figure."""
    if _CUT.search(gpu_name):
        return None
    for pattern, peak in _PEAKS:
        if re.search(rf"\b{pattern}(?![A-Za-z0-9])", gpu_name, re.IGNORECASE):
            if precision == "float32":
                return peak.single
            return None if precision == "bfloat16" and not peak.bf16 else peak.half
    return None


def flops_per_token(shape: ModelShape, train: TrainSpec, mean_length: float) -> float:
    """Floating-point operations that one real (not padded) token of training needs.

    A weight of a matrix product costs 2 in the forward pass, 2 for the gradient of its input and 2 for its own
    gradient (Kaplan et al. 2020, arXiv:2001.08361, section 2.1): 6 N when it is trained, 4 N when it is frozen under
    LoRA, plus 6 for each weight of the adapters. N counts the weights that are multiplied: not the embedding table,
    which is looked up, but the output layer, tied or not; of a mixture of experts those that a token goes through.
    Attention adds 12 * layers * heads * head_dim * length, the convention of PaLM (Chowdhery et al. 2022,
    arXiv:2204.02311, appendix B): causal attention needs half of it, which is not taken off, so that figures compare
    with published ones. `mean_length` is that of conversations, also where they are packed, since none attends to
    another. What gradient checkpointing computes twice is not needed, so it counts in `hardware_flops_per_token` only.
    """
    return _per_weight(train) * _multiplied(shape) + 6.0 * _adapter(shape, train) + _attention(shape, mean_length, 12)


def hardware_flops_per_token(shape: ModelShape, train: TrainSpec, mean_length: float) -> float:
    """`flops_per_token` and what the settings make the GPU compute besides: for HFU instead of MFU."""
    again = 0.0
    if train.gradient_checkpointing is True:
        layers = _multiplied(shape) - shape.vocab * shape.hidden  # the output layer is not computed twice
        again = 2.0 * (layers + _adapter(shape, train)) + _attention(shape, mean_length, 4)
    return flops_per_token(shape, train, mean_length) + again


def mfu(tokens_per_second: float, flops: float, peak: float) -> float:
    """Share of the peak that the model's own computations use, for one GPU: tokens/s x FLOPs per token / peak."""
    return tokens_per_second * flops / peak


def _per_weight(train: TrainSpec) -> Literal[4, 6]:
    return 6 if train.tuner == "full" else 4


def _multiplied(shape: ModelShape) -> int:
    """Weights that one token is multiplied with; norms and biases are in it, a few in ten thousand."""
    return shape.active - (0 if shape.tied else shape.vocab * shape.hidden)


def _adapter(shape: ModelShape, train: TrainSpec) -> int:
    """Weights of the adapters that one token is multiplied with."""
    return 0 if train.tuner == "full" else trainable(shape, train)


def _attention(shape: ModelShape, length: float, factor: int) -> float:
    return factor * shape.layers * shape.heads * shape.head_dim * length
