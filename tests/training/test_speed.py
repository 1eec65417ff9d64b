"""Peaks by the names that NVML gives, and what a token of training costs."""

import pytest

from pipeline.training import speed
from pipeline.training.shape import Linear, ModelShape
from pipeline.training.spec import TrainSpec

T = 1e12


def shape(**changes) -> ModelShape:
    """Two blocks of one 64 x 64 projection each, 1000 words, output layer not tied."""
    values = {
        "parameters": 2 * 64 * 64 + 2 * 1000 * 64, "layers": 2, "hidden": 64, "intermediate": 128, "heads": 4,
        "kv_heads": 2, "head_dim": 16, "vocab": 1000, "tied": False, "dtype": "bfloat16",
        "linears": (Linear("layers.{}.proj", 64, 64, 2),),
    }  # fmt: skip
    return ModelShape(**{**values, **changes})


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H100 PCIe", "bfloat16", 756.4),
        ("NVIDIA H100 NVL", "bfloat16", 835.5),
        ("NVIDIA H800", "bfloat16", 989.4),
        ("NVIDIA H200", "bfloat16", 989.4),
        ("NVIDIA H20", "bfloat16", 148),
        ("NVIDIA H20-3e", "bfloat16", 148),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", 312),
        ("NVIDIA A100-SXM4-80GB", "float32", 19.5),
        ("NVIDIA A800-SXM4-80GB", "float16", 312),
        ("NVIDIA A10", "bfloat16", 125),
        ("NVIDIA A10G", "bfloat16", 70),
        ("NVIDIA L4", "bfloat16", 121),
        ("NVIDIA L40S", "bfloat16", 362),
        ("NVIDIA L20", "bfloat16", 119.5),
        ("Tesla V100-SXM2-32GB", "float16", 125),
        ("Tesla V100-PCIE-16GB", "float16", 112),
        ("Tesla V100-SXM2-32GB", "bfloat16", None),
        ("Tesla T4", "float16", 65),
        ("NVIDIA GeForce RTX 3090", "bfloat16", 71),
        ("NVIDIA GeForce RTX 4090", "bfloat16", 165.2),
        ("NVIDIA GeForce RTX 4090 D", "bfloat16", 147),
        ("NVIDIA GeForce RTX 5090", "bfloat16", 209.5),
        ("NVIDIA B200", "bfloat16", 2250),
        ("NVIDIA GB200", "bfloat16", 2500),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bfloat16", None),
        ("GRID A100-10C", "bfloat16", None),
        ("NVIDIA T400", "float16", None),
        ("NVIDIA Some Future GPU", "bfloat16", None),
    ],
)
def test_peaks_are_found_by_nvml_names(name, precision, tflops):
    found = speed.peak_flops(name, precision)
    assert found == (None if tflops is None else pytest.approx(tflops * T))


def test_a_trained_weight_costs_six_and_a_frozen_one_four():
    multiplied = 2 * 64 * 64 + 1000 * 64  # the input embedding is looked up, not multiplied
    attention = 12 * 2 * 4 * 16 * 100
    full = speed.flops_per_token(shape(), TrainSpec(tuner="full"), 100)
    assert full == 6 * multiplied + attention
    adapter = 2 * 8 * (64 + 64)
    lora = speed.flops_per_token(shape(), TrainSpec(rank=8), 100)
    assert lora == 4 * multiplied + 6 * adapter + attention


def test_a_tied_output_layer_is_still_multiplied():
    tied = shape(tied=True, parameters=2 * 64 * 64 + 1000 * 64)
    both = [speed.flops_per_token(one, TrainSpec(tuner="full"), 100) for one in (tied, shape())]
    assert both[0] == both[1]


def test_of_experts_only_those_that_are_asked_count():
    experts = 8 * 3 * 64 * 32 * 2
    sparse = shape(parameters=shape().parameters + experts, experts=8, experts_per_token=2, expert_parameters=experts)
    more = speed.flops_per_token(sparse, TrainSpec(tuner="full"), 0) - speed.flops_per_token(
        shape(), TrainSpec(tuner="full"), 0
    )
    assert more == 6 * experts / 4


def test_checkpointing_counts_for_the_hardware_alone():
    plain, again = (TrainSpec(tuner="full", gradient_checkpointing=on) for on in (False, True))
    assert speed.flops_per_token(shape(), plain, 50) == speed.flops_per_token(shape(), again, 50)
    assert speed.hardware_flops_per_token(shape(), plain, 50) == speed.flops_per_token(shape(), plain, 50)
    extra = speed.hardware_flops_per_token(shape(), again, 50) - speed.flops_per_token(shape(), again, 50)
    assert extra == 2 * 2 * 64 * 64 + 4 * 2 * 4 * 16 * 50


def test_a_seven_billion_model_at_a_known_speed():
    """LLaMA-2-7B: 6 x 6.6e9 (without the embedding table) and 1.6e9 of attention at 4096 tokens, a hand calculation."""
    seven = shape(parameters=6_738_415_616, layers=32, hidden=4096, heads=32, kv_heads=32, head_dim=128, vocab=32000)
    flops = speed.flops_per_token(seven, TrainSpec(tuner="full"), 4096)
    assert flops == pytest.approx(6 * 6_607_343_616 + 12 * 32 * 4096 * 4096)
    assert speed.mfu(3000, flops, 312 * T) == pytest.approx(0.443, abs=0.001)
