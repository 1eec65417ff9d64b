"""What is refused of a training before anything starts, and the facts about the machine that it rests on."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import machine as machine_module
from pipeline.errors import PreflightError
from pipeline.machine import read_machine
from pipeline.plan import plan
from pipeline.provenance import version
from pipeline.recipe import ModelSpec, Recipe
from pipeline.resolve import resolve
from pipeline.run import main
from pipeline.stage import Stage
from pipeline.stages import train as train_stage
from pipeline.training import checks, shape
from pipeline.training.locate import Located
from pipeline.training.spec import TrainSpec

MACHINES = Path(__file__).parents[1] / "machines"
RTX, EIGHT, CPU = (read_machine(MACHINES / f"{name}.json") for name in ("gpu_24gb", "gpu_8x24gb", "cpu"))


def trained(machine: Any = RTX, **train: Any) -> Stage:
    data = {
        "name": "r", "model": {"path": "m"}, "data": {"sources": [{"path": "d"}]},
        "train": {"max_steps": 3, "micro_batch_size": 1, **train},
    }  # fmt: skip
    return plan(resolve(Recipe.model_validate_json(json.dumps(data)), machine)[0]).stages["train"]


def words(stage: Stage) -> dict[str, str]:
    argv = stage.command(stage, Path("out"), {role: Path("in") / role for role in stage.deps}).argv
    flags = [index for index, word in enumerate(argv) if word.startswith("--")]
    return {argv[i][2:]: " ".join(argv[i + 1 : j]) for i, j in zip(flags, [*flags[1:], len(argv)], strict=True)}


@pytest.mark.parametrize(
    ("settings", "library", "field"),
    [
        ({"quantization": "4bit"}, "bitsandbytes", "quantization"),
        ({"liger": True}, "liger-kernel", "liger"),
        ({"deepspeed": "zero2"}, "deepspeed", "deepspeed"),
    ],
)
def test_libraries_that_a_setting_asks_for(settings, library, field, monkeypatch):
    monkeypatch.setattr(checks, "version", lambda name: None if name == library else "1")
    [problem] = checks.libraries(trained(**settings))
    assert problem.startswith(f"train.{field}: needs {library}, which is not installed")
    monkeypatch.setattr(checks, "version", lambda _: "1")
    assert list(checks.libraries(trained(**settings))) == []


def test_nothing_is_asked_for_by_itself(monkeypatch):
    monkeypatch.setattr(checks, "version", lambda _: None)
    assert list(checks.libraries(trained(CPU))) == []


def located(name: str, source: Any = "files") -> Located:
    return Located(shape.of(ModelSpec(id=name)), source)


def test_what_cannot_fit():
    large, small = located("Qwen/Qwen2.5-32B-Instruct", "table"), located("Qwen/Qwen3-0.6B")
    train = resolve(recipe_of(), RTX, large.shape)[0].train
    assert train
    with pytest.raises(PreflightError, match=r"train: needs about .*published shape\); or train.misfit: warn"):
        checks.check_fit(train, RTX, large)
    assert checks.check_fit(train.model_copy(update={"misfit": "warn"}), RTX, large)
    assert checks.check_fit(train, RTX, small) == []
    assert checks.check_fit(train, RTX, Located(None, "absent")) == []


def recipe_of() -> Recipe:
    data = {"name": "r", "model": {"path": "m"}, "data": {"sources": [{"path": "d"}]}, "train": {"max_steps": 3}}
    return Recipe.model_validate_json(json.dumps(data))


def test_full_training():
    flags = words(trained(tuner="full"))
    assert (flags["tuner_type"], flags["torch_dtype"], flags["bf16"]) == ("full", "float32", "true")
    assert not [flag for flag in flags if "lora" in flag or flag in ("target_modules", "use_dora")]
    assert words(trained(EIGHT, tuner="full", gpus=2))["torch_dtype"] == "bfloat16", (
        "ZeRO has a float32 copy of its own"
    )


def test_adapter_variants():
    flags = words(trained(dora=True, rslora=True, rank=64))
    assert (flags["use_dora"], flags["use_rslora"], flags["lora_rank"]) == ("true", "true", "64")


def test_quantization():
    flags = words(trained(quantization="4bit"))
    found = {key: value for key, value in flags.items() if "quant" in key or "bnb" in key}
    assert found == {
        "quant_method": "bnb", "quant_bits": "4", "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": "true",
        "bnb_4bit_compute_dtype": "bfloat16",
    }  # fmt: skip
    assert {key for key in words(trained(quantization="8bit")) if "bnb" in key or "quant" in key} == {
        "quant_method",
        "quant_bits",
    }


@pytest.mark.parametrize("value", [True, False])
def test_checkpointing_is_always_said(value):
    assert words(trained(gradient_checkpointing=value))["gradient_checkpointing"] == str(value).lower()


def test_several_gpus_without_deepspeed():
    stage = trained(EIGHT, deepspeed="none", gpus=2)
    assert words(stage)["ddp_find_unused_parameters"] == "false"
    assert stage.env["NPROC_PER_NODE"] == "2"
    assert "ddp_find_unused_parameters" not in words(trained(EIGHT, gpus=2))


def test_deepspeed_settings_are_a_file_and_part_of_the_identity():
    stage = trained(EIGHT, deepspeed="zero2", gpus=2)
    command = stage.command(stage, Path("out"), {role: Path("in") / role for role in stage.deps})
    place = Path("out") / train_stage.DEEPSPEED
    assert json.loads(command.files[place]) == stage.args["deepspeed"]
    assert words(stage)["deepspeed"] == str(place)
    assert stage.args["deepspeed"]["zero_optimization"]["overlap_comm"] is False
    other = trained(EIGHT, deepspeed="zero2", gpus=2, overlap_comm=True)
    assert other.fingerprint(lambda _: "") != stage.fingerprint(lambda _: "")


def test_the_learning_rate_stays_the_users():
    assert words(trained(tuner="full"))["learning_rate"] == str(TrainSpec().learning_rate)


def test_an_import_is_tried_in_a_process_and_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(machine_module.tempfile, "gettempdir", lambda: str(tmp_path))
    count = tmp_path / "count"
    code = f"open({str(count)!r}, 'a').write('x'); print('noise'); print('a b')"
    assert machine_module._tried(code, ["1"]) == "a b"
    assert machine_module._tried(code, ["1"]) == "a b"
    assert count.read_text() == "x"
    assert machine_module._tried(code, ["2"]) == "a b"
    assert count.read_text() == "xx"
    assert machine_module._tried("import not_there_at_all", ["1"]) is None
    for path in tmp_path.glob("*.json"):
        path.write_text("{")
    assert machine_module._tried(code, ["1"]) == "a b"


def test_liger_names_its_model_types(tmp_path, monkeypatch):
    """Against a package of the same layout: the real one needs triton, which needs a GPU's torch."""
    for name in ("triton", "liger_kernel", "liger_kernel/transformers"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
    patch = "MODEL_TYPE_TO_APPLY_LIGER_FN = {'qwen3': 1, 'llama': 2}"
    (tmp_path / "liger_kernel/transformers/monkey_patch.py").write_text(patch)
    (tmp_path / "torch.py").touch()
    monkeypatch.setattr(machine_module.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(machine_module, "_version", lambda _: "1")
    assert machine_module._liger() == ("llama", "qwen3")
    (tmp_path / "triton/__init__.py").write_text("raise ImportError")
    monkeypatch.setattr(machine_module, "_version", lambda _: "2")
    assert machine_module._liger() == ()
    monkeypatch.setattr(machine_module, "_version", lambda _: None)
    assert machine_module._liger() == ()


def test_what_is_not_installed_here_is_not_found():
    if version("liger-kernel") is None and "torch" not in sys.modules:
        assert machine_module._liger() == ()


def test_a_regex_of_targets_goes_by_a_flag_of_its_own():
    pattern = r"model\.layers\.\d+\.self_attn\.(q|v)_proj"
    found = words(trained(target_modules=pattern))
    assert found["target_regex"] == pattern and "target_modules" not in found
    for names in ("all-linear", "q_proj", ["q_proj", "v_proj"]):
        found = words(trained(target_modules=names))
        assert found["target_modules"] and "target_regex" not in found


def test_a_dry_run_says_what_a_run_would_refuse(tmp_path, capsys):
    root = Path(__file__).parents[2]
    argv = [str(root / "recipes/w2_qwen2.5_32b.yaml"), "train", "--dry-run", "--runs-dir", str(tmp_path), "--machine"]
    assert main([*argv, str(MACHINES / "gpu_24gb.json")]) == 0
    [problem] = re.findall(r"^#   problem: (.*)", capsys.readouterr().out, re.MULTILINE)
    assert "has 24.0" in problem and "it would fit with" in problem
    assert main([*argv, str(MACHINES / "gpu_80gb.json")]) == 0
    assert "problem" not in capsys.readouterr().out
