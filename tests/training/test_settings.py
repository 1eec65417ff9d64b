"""`auto` of a training whose model is known: memory, ZeRO, kernels; by hand or not, always with a reason."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.machine import Machine, read_machine
from pipeline.recipe import ModelSpec
from pipeline.training import memory, shape
from pipeline.training.fit import misfit
from pipeline.training.own_flags import FIELDS
from pipeline.training.placement import BRIM, HEADROOM
from pipeline.training.settings import accumulation, needs_shape, resolve_train
from pipeline.training.shape import ModelShape
from pipeline.training.spec import TrainSpec

MACHINES = Path(__file__).parents[1] / "machines"
CPU, RTX, H100, EIGHT = (
    read_machine(MACHINES / f"{name}.json") for name in ("cpu", "gpu_24gb", "gpu_80gb", "gpu_8x24gb")
)


def known(hub_id: str) -> ModelShape:
    found = shape.of(ModelSpec(id=hub_id))
    assert found
    return found


SMALL, SEVEN, FOURTEEN, LARGE = (
    known(f"Qwen/{name}") for name in ("Qwen3-0.6B", "Qwen2.5-7B-Instruct", "Qwen2.5-14B", "Qwen2.5-32B-Instruct")
)


def settled(
    machine: Machine, model: ModelShape | None, source: Any = "files", **settings: Any
) -> tuple[TrainSpec, dict[str, str], list[str]]:
    reasons: dict[str, str] = {}
    problems: list[str] = []
    train = resolve_train(
        TrainSpec(**settings), machine, model, lambda field, _, why: reasons.update({field: why}), problems, source
    )
    return train, reasons, problems


def like(machine: Machine, count: int | None = None, **gpu: Any) -> Machine:
    gpus = tuple(one.model_copy(update=gpu) for one in machine.gpus[:count])
    return machine.model_copy(update={"gpus": gpus})


def held(model: ModelShape, train: TrainSpec) -> float:
    return memory.estimate(model, train, processes=train.processes).total / 2**30


# machine, model, settings -> deepspeed, gradient checkpointing
CHOICES: list[tuple[Machine, ModelShape, dict[str, Any], str, bool]] = [
    (like(RTX, memory_gb=10.0), SMALL, {}, "none", False),
    (RTX, SMALL, {"tuner": "full"}, "none", False),
    (EIGHT, SMALL, {}, "zero2", False),
    (H100, SEVEN, {"max_length": 3072}, "none", False),
    (RTX, SEVEN, {"max_length": 3072}, "none", True),  # 24 GB: only with checkpointing
    (H100, LARGE, {"max_length": 4096}, "none", True),
    (EIGHT, SEVEN, {}, "zero2", True),
    (EIGHT, LARGE, {}, "zero3", True),  # 61 GiB of weights on no GPU of 24 GB
    (EIGHT, SEVEN, {"tuner": "full", "max_length": 1024}, "zero3", True),  # 16 bytes a weight over 8 x 24 GB
    (RTX, FOURTEEN, {"quantization": "4bit"}, "none", True),
    (like(RTX, memory_gb=16.0), SEVEN, {"max_length": 1024}, "zero3_offload", False),
    # Long rows, whose scores liger never makes, in the evaluation neither.
    (RTX, SEVEN, {"max_length": 8192}, "none", True),
    (H100, LARGE, {"max_length": 8192}, "none", True),
    (like(RTX, memory_gb=16.0), SEVEN, {"max_length": 8192, "quantization": "4bit"}, "none", True),
    # The optimizer step under ZeRO 2 holds the gradients three times: 85 GiB.
    (like(EIGHT, 2, memory_gb=80.0), SEVEN, {"tuner": "full", "max_length": 1024}, "zero3", False),
]


@pytest.mark.parametrize("case", CHOICES, ids=lambda c: f"{len(c[0].gpus)}x{c[0].gpus[0].memory_gb}-{c[1].parameters}")
def test_what_fits(case):
    machine, model, settings, zero, saved = case
    train, reasons, problems = settled(machine, model, **settings)
    assert problems == []
    assert (train.deepspeed, train.gradient_checkpointing) == (zero, saved), reasons
    assert held(model, train) <= BRIM * machine.gpus[0].memory_gb
    assert set(reasons) >= {"micro_batch_size", "gradient_checkpointing", "deepspeed", "overlap_comm", "liger"}


def test_checkpointing_only_where_one_row_does_not_fit_without():
    train, reasons, _ = settled(RTX, SEVEN, max_length=3072)
    without = train.model_copy(update={"gradient_checkpointing": False, "micro_batch_size": 1})
    assert held(SEVEN, without) > HEADROOM * 24
    assert f"{held(SEVEN, without):.1f} GiB" in reasons["gradient_checkpointing"]


def test_the_largest_micro_batch_that_fits():
    train, reasons, _ = settled(RTX, SMALL, max_length=2048)
    sizes = [n for n in (1, 2, 4, 8) if held(SMALL, train.model_copy(update={"micro_batch_size": n})) <= HEADROOM * 24]
    assert train.micro_batch_size == max(sizes) < 8
    assert f"{held(SMALL, train):.1f} of 24 GiB" in reasons["micro_batch_size"]


@given(
    model=st.sampled_from([SMALL, SEVEN, LARGE]),
    memory_gb=st.sampled_from([8.0, 16.0, 24.0, 48.0, 80.0, 141.0]),
    count=st.sampled_from([1, 2, 4, 8]),
    share=st.integers(1, 24),
    settings=st.fixed_dictionaries(
        {},
        optional={
            "tuner": st.sampled_from(["lora", "full"]),
            "max_length": st.sampled_from([512, 2048, 8192]),
            "packing": st.just(False),
            "attention": st.just("sdpa"),
            "deepspeed": st.sampled_from(["none", "zero2", "zero3"]),
            "gradient_checkpointing": st.booleans(),
            "micro_batch_size": st.just(1),
            "precision": st.sampled_from(["float32", "bfloat16"]),
        },
    ),
)
def test_whatever_is_asked(model, memory_gb, count, share, settings):
    machine = like(EIGHT, count, memory_gb=memory_gb)
    train, reasons, problems = settled(machine, model, global_batch_size=share * count, **settings)
    assert (not problems) or settings.get("packing") is None
    assert "auto" not in train.model_dump(exclude={"health"}).values()
    assert all(getattr(train, name) == value for name, value in settings.items()), "what is set by hand stays"
    assert not reasons.keys() & settings.keys()
    assert accumulation(train) * train.micro_batch_size * count == train.global_batch_size
    again, none, _ = settled(machine, model, **train.model_dump())
    assert again == train
    assert none == {}
    # More memory never makes a training slower.
    larger, _, _ = settled(
        like(EIGHT, count, memory_gb=memory_gb * 2), model, global_batch_size=share * count, **settings
    )
    order = ["none", "zero2", "zero3", "zero2_offload", "zero3_offload"]
    if held(model, train) <= HEADROOM * memory_gb:
        assert order.index(larger.deepspeed) <= order.index(train.deepspeed)
        assert (larger.deepspeed, larger.gradient_checkpointing) <= (train.deepspeed, train.gradient_checkpointing)


def test_nothing_fits():
    train, reasons, problems = settled(like(RTX, memory_gb=24.0), LARGE)  # 64 GB of RAM do not hold the weights either
    assert (train.deepspeed, train.gradient_checkpointing, train.micro_batch_size) == ("none", True, 1)
    assert reasons["deepspeed"].startswith("nothing fits; the least is ")
    assert problems == [], "who asks anyway is refused by the plan, which `train.misfit: warn` turns into a remark"


def test_a_model_that_is_not_here():
    train, reasons, _ = settled(RTX, None, "absent")
    assert (train.deepspeed, train.gradient_checkpointing, train.micro_batch_size, train.liger) == (
        "none",
        True,
        1,
        False,
    )
    assert "decided once the model is here" in reasons["micro_batch_size"]
    _, reasons, _ = settled(RTX, None, "files")
    assert "is not understood" in reasons["gradient_checkpointing"]
    _, reasons, _ = settled(RTX, SMALL, "table")
    assert all("published shape" in reasons[name] for name in ("micro_batch_size", "liger"))
    assert "published shape" not in str(settled(RTX, SMALL)[1])


def test_kernels_for_the_model_type():
    assert settled(RTX, SMALL)[0].liger is True
    phi = next(iter([SMALL])).__class__(**{**SMALL.__dict__, "model_type": "unheard_of"})
    train, reasons, _ = settled(RTX, phi)
    assert train.liger is False
    assert reasons["liger"] == "liger-kernel has nothing for unheard_of"
    assert settled(RTX, phi, liger=True)[2] == [
        "train.liger: liger-kernel has nothing for unheard_of and would do nothing; use auto"
    ]
    bare = RTX.model_copy(update={"liger": ()})
    assert settled(bare, SMALL)[1]["liger"] == "liger-kernel does not import here"
    assert settled(CPU, SMALL)[1]["liger"] == "its kernels need a GPU"


def test_communication_beside_the_backward_pass():
    for zero, value in (("zero2", False), ("zero3", True), ("none", False)):
        train, reasons, _ = settled(EIGHT, SMALL, deepspeed=zero)
        assert train.overlap_comm is value, reasons


def test_several_gpus_without_deepspeed():
    train, _, problems = settled(EIGHT, SMALL, deepspeed="none")
    assert (train.deepspeed, train.processes, problems) == ("none", 8, [])


@pytest.mark.parametrize("settings", [{}, {"deepspeed": "none"}, {"micro_batch_size": 1}, {"liger": False}])
def test_on_a_cpu_nothing_depends_on_the_model(settings):
    assert not needs_shape(TrainSpec(**settings), CPU)
    assert not needs_shape(TrainSpec(gpus=0, **settings), RTX)
    found = [settled(CPU, model, source, **settings)[0] for model, source in [(None, "absent"), (LARGE, "files")]]
    assert found[0] == found[1]


def test_when_a_model_has_to_be_looked_at():
    by_hand: dict[str, Any] = {
        "micro_batch_size": 1,
        "gradient_checkpointing": True,
        "deepspeed": "none",
        "liger": False,
        "attention": "sdpa",
        "packing": False,
        "padding_free": False,
    }
    assert not needs_shape(TrainSpec(**by_hand), RTX)
    for field in by_hand:
        assert needs_shape(TrainSpec(**{**by_hand, field: "auto"}), RTX), field
    bare = RTX.model_copy(update={"liger": (), "flash_attention": ()})
    assert not needs_shape(TrainSpec(**{**by_hand, "liger": "auto"}), bare)
    assert not needs_shape(TrainSpec(**{**by_hand, "packing": "auto"}), bare)


@pytest.mark.parametrize("flag", sorted(FIELDS))
def test_a_flag_that_has_a_key_of_its_own(flag):
    with pytest.raises(ValueError, match=rf"`{flag}` is `{FIELDS[flag]}` here; set that instead"):
        TrainSpec(extra_args={flag: 1})


def test_every_key_that_is_named_exists():
    for key in FIELDS.values():
        section, _, field = key.partition(".")
        assert section != "train" or field in TrainSpec.model_fields


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [
        ({}, "bfloat16"),
        ({"tuner": "full"}, "float32"),
        ({"tuner": "full", "precision": "float16"}, "float32"),
        ({"tuner": "full", "deepspeed": "zero2"}, "bfloat16"),
    ],
)
def test_full_training_never_in_16_bit_alone(settings, dtype):
    assert settled(RTX, SMALL, **settings)[0].held_in == dtype


def test_reasons_are_one_line_each():
    for machine, model in itertools.product((CPU, RTX, H100, EIGHT), (None, SMALL, LARGE)):
        for reason in settled(machine, model)[1].values():
            assert reason and "\n" not in reason


def test_a_full_gpu_comes_before_main_memory():
    plain, _, _ = settled(H100, LARGE, deepspeed="none", gradient_checkpointing=True, micro_batch_size=1)
    tight = like(H100, memory_gb=held(LARGE, plain) / (BRIM - 0.01))
    assert settled(tight, LARGE)[0].deepspeed == "none"
    # At the brim the least is taken, not the most that goes in: the estimate errs by more than what is left.
    for gigabytes in (76, 79, 79.5, 80):
        chosen, reasons, _ = settled(like(H100, memory_gb=gigabytes), LARGE, max_length=4096)
        assert (chosen.deepspeed, chosen.micro_batch_size) == ("none", 1)
        assert reasons["micro_batch_size"].startswith("the least" if gigabytes < 79.6 else "the largest part")
    short = like(H100, memory_gb=held(LARGE, plain) / (BRIM + 0.01))
    assert settled(short, LARGE)[0].deepspeed == "zero3_offload"


def test_experts_refuse_dropout_and_dora():
    experts = known("Qwen/Qwen3-30B-A3B")
    parts = {"target_modules": ("gate_proj", "up_proj", "down_proj")}
    [problem] = settled(H100, experts, **parts)[2]
    assert problem.startswith("train.dropout: peft puts LoRA on experts")
    [problem] = settled(H100, experts, **parts, dropout=0.0, dora=True)[2]
    assert problem.startswith("train.dora: peft puts LoRA on experts")
    assert settled(H100, experts, **parts, dropout=0.0)[2] == []
    assert settled(H100, experts, dora=True)[2] == []  # all-linear passes experts by


def test_hopper_kernels_are_for_hopper_only():
    for capability, expected in (((9, 0), "flash_attention_3"), ((10, 0), "sdpa"), ((12, 0), "sdpa")):
        machine = like(H100, compute_capability=capability).model_copy(
            update={"flash_attention": ("flash_attention_3",)}
        )
        assert settled(machine, SMALL)[0].attention == expected


@pytest.mark.parametrize(
    ("settings", "machine", "multiples"),
    [
        ({"global_batch_size": 12}, EIGHT, "8 or 16"),
        ({"global_batch_size": 16, "micro_batch_size": 3}, RTX, "15 or 18"),
        ({"global_batch_size": 4}, EIGHT, "8"),
        ({}, like(EIGHT, 3), "15 or 18"),
    ],
)
def test_a_global_batch_that_divides_is_named(settings, machine, multiples):
    [problem] = settled(machine, SMALL, **settings)[2]
    assert problem.endswith(f"; set it to {multiples}")
    for size in multiples.split(" or "):
        assert settled(machine, SMALL, **{**settings, "global_batch_size": int(size)})[2] == []


def test_where_main_memory_does_not_hold_a_copy_of_the_model_for_each_process():
    """ZeRO 2 makes one at every checkpoint: 8 x 14 GiB. Plain data parallelism has as good as nothing more on the GPU."""
    small = like(EIGHT, memory_gb=80.0).model_copy(update={"memory_gb": 100.0})
    assert settled(like(EIGHT, memory_gb=80.0), SEVEN)[0].deepspeed == "zero2"
    train, reasons, problems = settled(small, SEVEN)
    assert (train.deepspeed, problems) == ("none", [])
    assert "zero2 does not fit (more main memory than there is" in reasons["deepspeed"]
    [problem] = misfit(SEVEN, settled(small, SEVEN, deepspeed="zero2")[0], small)
    assert "zero2 copies at every checkpoint, in each process, about 113.5 GiB into main memory" in problem
    assert "deepspeed: none" in problem


@pytest.mark.parametrize(("kind", "pictures", "laid"), [
    ("qwen3", False, True), ("gemma3", True, False), ("qwen2_5_vl", True, True), ("gpt_oss", False, False),
])  # fmt: skip
def test_rows_are_laid_end_to_end_where_ms_swift_can(kind: str, pictures: bool, laid: bool):
    model = replace(SMALL, model_type=kind, multimodal=pictures)
    train, reasons, problems = settled(RTX, model)
    assert (train.packing, train.padding_free, problems) == (laid, laid, [])
    assert (f"ms-swift does not lay rows of {kind} end to end" in reasons["packing"]) == (kind == "gemma3")
    assert (train.attention == "eager") == (kind == "gpt_oss")
    assert settled(RTX, model, packing=True, attention="flash_attention_2")[0].packing is True, "by hand it is tried"


@pytest.mark.parametrize("extra", [
    {"label_smoothing_factor": 0.1}, {"loss_scale": "react"}, {"enable_dft_loss": True}, {"loss_type": "x"},
    {"is_binary_loss_scale": False}, {"sequence_parallel_size": 2},
])  # fmt: skip
def test_what_needs_all_scores_goes_without_the_fused_loss(extra: dict[str, Any]):
    train, reasons, problems = settled(RTX, SMALL, extra_args=extra)
    assert (train.liger, problems) == (False, [])
    assert next(iter(extra)) in reasons["liger"]
    [problem] = settled(RTX, SMALL, extra_args=extra, liger=True)[2]
    assert problem.startswith(f"train.extra_args.{next(iter(extra))}: needs scores")
    for plain in (
        {"loss_scale": "last_round"}, {"loss_scale": "react", "is_binary_loss_scale": True}, {"sequence_parallel_size": 1},
        {"loss_scale": "default+ignore_empty_think"}, {"loss_scale": "ignore_think_prefix"},
    ):  # fmt: skip
        assert settled(RTX, SMALL, extra_args=plain)[0].liger is True


@pytest.mark.parametrize("flag", ["streaming", "disable_tqdm"])
def test_what_would_blind_the_pipeline_is_refused(flag: str):
    [problem] = settled(CPU, SMALL, extra_args={flag: True})[2]
    assert problem.startswith(f"train.extra_args.{flag}: ")
