"""`auto` on many machines: what is chosen, and which settings a machine is refused for before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import PreflightError, RecipeError
from pipeline.machine import Gpu, Machine, _visible, read_machine
from pipeline.plan import plan
from pipeline.recipe import Recipe
from pipeline.resolve import resolve
from pipeline.suites import LmEvalSpec
from pipeline.training.settings import accumulation

FILES = Path(__file__).parent / "machines"


def gpu(
    name: str, capability: tuple[int, int], count: int = 1, flash: tuple[str, ...] = ("flash_attention_2",)
) -> Machine:
    card = Gpu(name=name, memory_gb=16, compute_capability=capability)
    return Machine(system="Linux", cpus=8, memory_gb=32, gpus=(card,) * count, flash_attention=flash)


CPU = read_machine(FILES / "cpu.json")
MAC = read_machine(FILES / "mac.json")
RTX = read_machine(FILES / "gpu_24gb.json")
H100 = read_machine(FILES / "gpu_80gb.json")
EIGHT = read_machine(FILES / "gpu_8x24gb.json")
T4 = gpu("Tesla T4", (7, 5))
A100 = gpu("A100", (8, 0))
A100_FA4 = gpu("A100", (8, 0), flash=("flash_attention_4",))
HOPPER_FA4 = gpu("H100", (9, 0), flash=("flash_attention_4",))
HOPPER_ALL = gpu("H100", (9, 0), flash=("flash_attention_3", "flash_attention_2"))
NO_FLASH = gpu("A100", (8, 0), flash=())
MIXED = Machine(system="Linux", cpus=8, memory_gb=32, gpus=A100.gpus + T4.gpus, flash_attention=("flash_attention_2",))


def recipe(**train: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "r",
            "model": {"path": "m"},
            "data": {"sources": [{"path": "d"}]},
            "train": {"global_batch_size": 16, **train},
            "eval": [{"harness": "lm_eval", "tasks": ["t"]}],
        },
        strict=False,
    )


# machine, settings -> gpus, precision, attention, packing, deepspeed, gradient checkpointing, accumulation
# The model is not there, so on a GPU whatever depends on its size is chosen to be safe: see training/test_settings.py.
CHOICES = [
    (CPU, {}, 0, "float32", "sdpa", False, "none", False, 2),
    (MAC, {}, 0, "float32", "sdpa", False, "none", False, 2),
    (CPU, {"micro_batch_size": 1}, 0, "float32", "sdpa", False, "none", False, 16),
    (CPU, {"cpu_processes": 2}, 0, "float32", "sdpa", False, "none", False, 1),
    (
        CPU,
        {"cpu_processes": 2, "micro_batch_size": 2, "deepspeed": "zero2"},
        0,
        "float32",
        "sdpa",
        False,
        "zero2",
        False,
        4,
    ),
    (RTX, {}, 1, "bfloat16", "flash_attention_2", True, "none", True, 16),
    (H100, {}, 1, "bfloat16", "flash_attention_2", True, "none", True, 16),
    (EIGHT, {}, 8, "bfloat16", "flash_attention_2", True, "zero2", True, 2),
    (EIGHT, {"gpus": 1}, 1, "bfloat16", "flash_attention_2", True, "none", True, 16),
    (EIGHT, {"gpus": 0}, 0, "float32", "sdpa", False, "none", False, 2),
    (EIGHT, {"gpus": 4, "micro_batch_size": 2}, 4, "bfloat16", "flash_attention_2", True, "zero2", True, 2),
    (EIGHT, {"nodes": 2}, 8, "bfloat16", "flash_attention_2", True, "zero2", True, 1),
    (RTX, {"nodes": 2}, 1, "bfloat16", "flash_attention_2", True, "zero2", True, 8),
    (EIGHT, {"deepspeed": "zero3"}, 8, "bfloat16", "flash_attention_2", True, "zero3", True, 2),
    (EIGHT, {"deepspeed": "none"}, 8, "bfloat16", "flash_attention_2", True, "none", True, 2),
    (T4, {}, 1, "float16", "sdpa", False, "none", True, 16),
    (A100, {}, 1, "bfloat16", "flash_attention_2", True, "none", True, 16),
    (A100_FA4, {}, 1, "bfloat16", "sdpa", False, "none", True, 16),
    (HOPPER_FA4, {}, 1, "bfloat16", "flash_attention_4", True, "none", True, 16),
    (HOPPER_ALL, {}, 1, "bfloat16", "flash_attention_2", True, "none", True, 16),
    (HOPPER_ALL, {"attention": "flash_attention_3"}, 1, "bfloat16", "flash_attention_3", True, "none", True, 16),
    (NO_FLASH, {}, 1, "bfloat16", "sdpa", False, "none", True, 16),
    (MIXED, {}, 2, "float16", "sdpa", False, "zero2", True, 8),
    (RTX, {"attention": "sdpa"}, 1, "bfloat16", "sdpa", False, "none", True, 16),
    (RTX, {"attention": "eager"}, 1, "bfloat16", "eager", False, "none", True, 16),
    (RTX, {"packing": False}, 1, "bfloat16", "flash_attention_2", False, "none", True, 16),
    (RTX, {"packing": True}, 1, "bfloat16", "flash_attention_2", True, "none", True, 16),
    (RTX, {"precision": "float32"}, 1, "float32", "sdpa", False, "none", True, 16),
    (CPU, {"precision": "bfloat16"}, 0, "bfloat16", "sdpa", False, "none", False, 2),
    (CPU, {"gradient_checkpointing": True}, 0, "float32", "sdpa", False, "none", True, 2),
    (RTX, {"gradient_checkpointing": False}, 1, "bfloat16", "flash_attention_2", True, "none", False, 16),
    (CPU, {"deepspeed": "zero2"}, 0, "float32", "sdpa", False, "zero2", False, 2),
]


@pytest.mark.parametrize("case", CHOICES, ids=lambda c: f"{c[0].gpus[0].name if c[0].gpus else c[0].system}-{c[1]}")
def test_choices(case):
    machine, settings, *expected = case
    resolved, _ = resolve(recipe(**settings), machine)
    train = resolved.train
    assert train
    found = [train.gpus, train.precision, train.attention, train.packing, train.deepspeed]
    assert [*found, train.gradient_checkpointing, accumulation(train)] == expected


# machine, settings, the problems' beginnings
REFUSED = [
    (CPU, {"gpus": 1}, ["train.gpus: 1 asked for, 0 visible on this machine"]),
    (RTX, {"gpus": 2}, ["train.gpus: 2 asked for, 1 visible on this machine"]),
    (CPU, {"packing": True}, ["train.packing: packing needs flash-attention, which does not import or run here"]),
    (NO_FLASH, {"packing": True}, ["train.packing: packing needs flash-attention, which does not import or run here"]),
    (T4, {"packing": True}, ["train.packing: packing needs flash-attention"]),
    (RTX, {"gpus": 0, "packing": True}, ["train.packing: packing needs flash-attention"]),
    (RTX, {"packing": True, "attention": "sdpa"}, ["train.packing: packing needs flash-attention, but train.attention is sdpa"]),
    (CPU, {"attention": "flash_attention_2"}, ["train.attention: flash_attention_2 does not import or run"]),
    (NO_FLASH, {"attention": "flash_attention_2"}, ["train.attention: flash_attention_2 does not import or run"]),
    (T4, {"attention": "flash_attention_2"}, ["train.attention: flash_attention_2 does not import or run"]),
    (A100_FA4, {"attention": "flash_attention_4"}, ["train.attention: flash_attention_4 does not import or run"]),
    (A100, {"attention": "flash_attention_3"}, ["train.attention: flash_attention_3 does not import or run"]),
    (CPU, {"precision": "float16"}, ["train.precision: float16 on a CPU makes every gradient infinite"]),
    (RTX, {"gpus": 0, "precision": "float16"}, ["train.precision: float16 on a CPU makes every gradient infinite"]),
    (T4, {"precision": "bfloat16"}, ["train.precision: Tesla T4 has no bf16; use float16 or auto"]),
    (MIXED, {"precision": "bfloat16"}, ["train.precision: Tesla T4 has no bf16; use float16 or auto"]),
    (MAC, {"deepspeed": "zero2"}, ["train.deepspeed: zero2 needs Linux, this is Darwin"]),
    (EIGHT, {"global_batch_size": 12}, ["train.global_batch_size: 12 is not a multiple of micro_batch_size x GPUs x nodes = 1 x 8 x 1 = 8"]),
    (NO_FLASH, {"padding_free": True}, ["train.padding_free: laying rows end to end needs flash-attention, which does"]),
    (RTX, {"padding_free": False, "packing": True}, ["train.padding_free: packed rows are always laid end to end"]),
    (RTX, {"precision": "float32", "packing": True}, ["train.packing: packing needs flash-attention, which computes in"]),
    (RTX, {"precision": "float32", "attention": "flash_attention_2"}, ["train.attention: flash_attention_2 computes in"]),
    (CPU, {"quantization": "4bit"}, ["train.quantization: 4bit saves GPU memory"]),
    (EIGHT, {"quantization": "4bit", "deepspeed": "zero3"}, ["train.quantization: 4bit weights cannot be cut by zero3"]),
    (CPU, {"liger": True}, ["train.liger: its kernels need a GPU"]),
    (CPU, {"cpu_processes": 3}, ["train.global_batch_size: 16 is not a multiple of micro_batch_size x processes x nodes = 5 x 3"]),
    (CPU, {"global_batch_size": 5, "micro_batch_size": 2}, ["train.global_batch_size: 5 is not a multiple"]),
    (CPU, {"global_batch_size": 1, "micro_batch_size": 2}, ["train.global_batch_size: 1 is not a multiple"]),
    (EIGHT, {"nodes": 3}, ["train.global_batch_size: 16 is not a multiple of micro_batch_size x GPUs x nodes = 1 x 8 x 3 = 24"]),
    (CPU, {"gpus": 3, "packing": True, "precision": "float16"}, ["train.packing: packing needs", "train.gpus: 3", "train.global_batch_size: 16"]),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda c: f"{c[0].gpus[0].name if c[0].gpus else c[0].system}-{c[1]}")
def test_refused(case):
    machine, settings, expected = case
    with pytest.raises(PreflightError) as caught:
        resolve(recipe(**settings), machine)
    assert caught.value.exit_code == 3
    found = caught.value.problems
    assert len(found) == len(expected), found
    assert all(problem.startswith(start) for problem, start in zip(found, expected, strict=True)), found


@pytest.mark.parametrize("machine", [CPU, MAC, T4, MIXED, EIGHT])
def test_nothing_is_left_to_choose_and_resolving_again_changes_nothing(machine):
    resolved, choices = resolve(recipe(), machine)
    assert resolved.train
    assert (
        "auto" not in resolved.train.model_dump(exclude={"health"}).values()
    )  # what is watched goes by the run itself
    assert all(choice.reason for choice in choices)
    assert len({choice.where for choice in choices}) == len(choices)
    again, none = resolve(resolved, machine)
    assert again == resolved
    assert none == []
    plan(resolved)


@pytest.mark.parametrize(
    ("machine", "device", "precision"),
    [(CPU, "cpu", "float32"), (MAC, "cpu", "float32"), (T4, "cuda", "float16"), (H100, "cuda", "bfloat16")],
)
def test_suites(machine, device, precision):
    suite = resolve(recipe(gpus=0), machine)[0].eval[0]
    assert (suite.device, suite.precision) == (device, precision)


def test_a_suite_keeps_what_it_says():
    suite = LmEvalSpec(harness="lm_eval", tasks=("t",), device="cpu", precision="bfloat16")
    resolved, choices = resolve(recipe().model_copy(update={"eval": (suite,)}), H100)
    assert resolved.eval == (suite,)
    assert not [choice for choice in choices if choice.where.startswith("eval")]


def test_a_suite_on_a_gpu_that_is_not_there():
    suite = LmEvalSpec(harness="lm_eval", tasks=("t",), device="cuda")
    with pytest.raises(PreflightError, match=r"eval\[0\].device: cuda asked for, but no GPU is visible"):
        resolve(recipe().model_copy(update={"eval": (suite,)}), CPU)


def test_reasons_name_the_machine():
    _, choices = resolve(recipe(), T4)
    reasons = {choice.where: choice.reason for choice in choices}
    assert reasons["train.precision"] == "Tesla T4 has no bf16 (compute capability below 8.0)"
    assert reasons["train.attention"] == "flash_attention_2 does not run on Tesla T4"
    assert reasons["eval[0].device"] == "1 GPU visible"
    assert "macOS" in {c.where: c.reason for c in resolve(recipe(), MAC)[1]}["train.precision"]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"system": "Linux"}', '{"system": "Linux", "cpus": 1, "memory_gb": 1, "gpu": []}']
)
def test_a_machine_file_that_is_none(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(RecipeError, match="--machine .*m.json: "):
        read_machine(tmp_path / "m.json")
    with pytest.raises(RecipeError, match="No such file"):
        read_machine(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2]), ("", []), ("0", [0]), ("2,0", [2, 0]), ("1,9,0", [1]), ("-1", []), ("GPU-b", [1]),
        ("GPU-c,GPU-a", [2, 0]), (" 1 , 2 ", [1, 2]), ("NoDevFiles", []),
    ],
)  # fmt: skip
def test_visible_devices(visible, indices):
    found = [(i, f"GPU-{'abc'[i]}{i}", RTX.gpus[0]) for i in range(3)]
    assert [index for index, _, _ in _visible(found, visible)] == indices
