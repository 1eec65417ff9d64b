from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipe import ModelSpec
from pipeline.training import memory, shape
from pipeline.training.memory import Estimate
from pipeline.training.shape import ModelShape
from pipeline.training.spec import TrainSpec

HERE = Path(__file__).parent
SIMULATED = json.loads((HERE / "memory_simulated.json").read_text(encoding="utf-8"))
"""Peaks of whole training steps on fake tensors, by `benchmarks/memory.py --write` (see there)."""

GPU: dict[str, Any] = {
    "gpus": 1, "precision": "bfloat16", "attention": "sdpa", "packing": False, "padding_free": False, "liger": False,
    "deepspeed": "none", "gradient_checkpointing": False, "micro_batch_size": 2, "max_length": 1024,
}  # fmt: skip


def known(name: str = "Qwen/Qwen2.5-7B") -> ModelShape:
    found = shape.of(ModelSpec(id=name))
    assert found
    return found


def need(model: ModelShape | None = None, processes: int = 1, tokens: int | None = None, **own: Any) -> Estimate:
    return memory.estimate(model or known(), TrainSpec(**{**GPU, **own}), processes=processes, tokens=tokens)


@pytest.mark.parametrize("case", SIMULATED, ids=lambda case: case["label"])
def test_within_a_tenth_of_a_step_gone_through(case: dict[str, Any]) -> None:
    train = TrainSpec(**case["settings"])
    found = memory.estimate(known(case["model"]), train, processes=1)
    assert found.total - found.workspace == pytest.approx(case["peak"], rel=0.10)
    assert memory.trainable(known(case["model"]), train) == case["trainable"]


def test_weights_by_hand() -> None:
    model = known()
    assert need().weights == 2 * 7_615_616_512
    assert need(precision="float32").weights == 4 * 7_615_616_512
    linear = 28 * (2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944)
    rest = 7_615_616_512 - linear
    # QLoRA's 0.127 bits for the scales; embeddings, head and norms stay in 16 bit.
    assert need(quantization="4bit").weights == pytest.approx(linear * 4.127 / 8 + rest * 2, rel=1e-4)
    assert need(quantization="8bit").weights == pytest.approx(linear + rest * 2, rel=1e-3)
    assert sum(part.parameters for part in model.linears) == linear


def test_optimizer_by_hand() -> None:
    trained = 40_370_176
    found = need()
    assert (found.adapter, found.gradients, found.optimizer) == (4 * trained, 4 * trained, 8 * trained)
    zero = need(deepspeed="zero2", processes=4)
    # DeepSpeed: 16-bit adapter and gradients; float32 master copy and two states, cut in four.
    assert (zero.adapter, zero.gradients, zero.optimizer) == (2 * trained, 2 * trained // 4, 12 * trained // 4)
    full = need(tuner="full", deepspeed="zero2", processes=8)
    assert full.adapter == 0
    assert full.optimizer == 12 * 7_615_616_512 // 8
    assert need(tuner="full", deepspeed="zero3", processes=8).weights == 2 * 7_615_616_512 // 8


def test_a_cpu_has_no_context() -> None:
    assert need(gpus=0, precision="float32").workspace == 0
    assert need().workspace > 500 * 2**20


def test_rows_are_the_total() -> None:
    found = need()
    assert sum(size for _, size in found.rows()) == found.total
    assert [name for name, _ in found.rows()] == list(Estimate.model_fields)


@given(
    rows=st.integers(1, 16), length=st.integers(16, 8192), checkpointing=st.booleans(), liger=st.booleans(),
    tuner=st.sampled_from(["lora", "full"]), attention=st.sampled_from(["sdpa", "eager", "flash_attention_2"]),
)  # fmt: skip
def test_more_work_never_takes_less(
    rows: int, length: int, checkpointing: bool, liger: bool, tuner: str, attention: str
) -> None:
    base = {
        "micro_batch_size": rows, "max_length": length, "gradient_checkpointing": checkpointing, "liger": liger,
        "tuner": tuner, "attention": attention, "global_batch_size": 64,
    }  # fmt: skip
    model = known("Qwen/Qwen3-0.6B")
    here = need(model, **base).total
    assert here > 0
    assert need(model, **{**base, "micro_batch_size": rows + 1}).total >= here
    assert need(model, **{**base, "max_length": length + 64}).total >= here
    assert need(model, **{**base, "gradient_checkpointing": True}).total <= here
    # In full training its loss makes the output layer's gradient beside that of the rows before.
    own = 0 if tuner == "lora" else round(1.04 * 4 * model.vocab * model.hidden) + 1
    assert need(model, **{**base, "liger": True}).total <= here + own
    assert need(model, tokens=length // 2, **base).total <= here
    assert need(model, tokens=10**6, **base).total == here
    larger = need(known("Qwen/Qwen3-1.7B"), **base).total
    assert larger > here


@given(processes=st.integers(2, 64), tuner=st.sampled_from(["lora", "full"]))
def test_sharding_more_takes_less(processes: int, tuner: str) -> None:
    kinds = ("zero1", "zero2", "zero3")
    held = [need(processes=processes, tuner=tuner, deepspeed=kind) for kind in kinds]
    static = [e.weights + e.adapter + e.gradients + e.optimizer for e in held]
    assert static == sorted(static, reverse=True)
    again = need(processes=processes + 1, tuner=tuner, deepspeed="zero3")
    assert again.weights <= held[2].weights


def test_offloading_moves_it_to_main_memory() -> None:
    for kind in ("zero2_offload", "zero3_offload"):
        train = TrainSpec(**{**GPU, "deepspeed": kind, "tuner": "full"})
        found = memory.estimate(known(), train, processes=4)
        assert found.optimizer == 0
        assert memory.host(known(), train, processes=4) >= 12 * known().parameters // 4
    assert memory.host(known(), TrainSpec(**GPU), processes=4) == 0
    assert found.weights == 0


def test_rows_laid_end_to_end_have_no_mask() -> None:
    packed = need(packing=True, padding_free=True, attention="flash_attention_2", micro_batch_size=2)
    assert packed.total <= need(micro_batch_size=2).total
    # A packed row is full, however short the conversations in it.
    assert need(packing=True, padding_free=True, attention="flash_attention_2", tokens=100).total == packed.total


def test_logits_are_those_of_all_tokens() -> None:
    found = need(micro_batch_size=2, max_length=1024)
    assert found.logits == 2 * 1024 * (152064 * 12 + 4 * 3584)
    assert need(micro_batch_size=2, max_length=1024, liger=True).logits < found.logits / 8


def test_where_liger_does_not_fuse_the_loss_there_are_all_scores() -> None:
    granite = replace(known(), model_type="granite")
    assert need(granite, max_length=1024, liger=True).logits == need(max_length=1024).logits


@pytest.mark.parametrize(("processes", "gib"), [(2, 85.1), (4, 49.6)])
def test_full_training_under_zero2_needs_most_in_the_optimizer_step(processes: int, gib: float) -> None:
    """7B: 2 bytes a weight, and of each part 2 + 12 + 2 + 4: gradients, states, gradients flat and in float32."""
    settings = {"tuner": "full", "gradient_checkpointing": True, "liger": True, "attention": "flash_attention_2"}
    found = need(processes=processes, deepspeed="zero2", max_length=512, **settings)
    step = 2 * 7_615_616_512 + 20 * 7_615_616_512 // processes
    assert found.total - found.workspace == pytest.approx(step, rel=1e-6)
    assert step / 2**30 == pytest.approx(gib, rel=0.01)
    assert found.total > need(processes=processes, deepspeed="zero3", max_length=512, **settings).total


def test_a_checkpoint_under_zero2_is_a_copy_of_the_model_in_each_process() -> None:
    for kind, copied in (("none", False), ("zero2", True), ("zero3", False)):
        train = TrainSpec(**{**GPU, "gpus": 8, "deepspeed": kind})
        assert memory.saved(known(), train) == copied * 2 * known().parameters


def test_experts_only_cost_what_they_weigh() -> None:
    model = known("Qwen/Qwen3-30B-A3B")
    found = need(model, deepspeed="none")
    assert found.weights == 2 * model.parameters
    dense = need(known("Qwen/Qwen3-32B"))
    assert found.activations < dense.activations


def test_microseconds() -> None:
    model, train = known("Qwen/Qwen2.5-72B"), TrainSpec(**GPU)
    start = time.perf_counter()
    for _ in range(100):
        memory.estimate(model, train, processes=8)
    assert (time.perf_counter() - start) / 100 < 0.005
    assert math.isfinite(memory.estimate(model, TrainSpec(), processes=1).total)  # `auto`s are read as stated


@pytest.mark.slow
def test_the_recorded_peaks_are_those_of_the_installed_tools() -> None:
    program = HERE.parents[1] / "benchmarks" / "memory.py"
    labels = [case["label"] for case in SIMULATED[:2]]
    command = [sys.executable, str(program), "--check", *labels]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
