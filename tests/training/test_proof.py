"""What proves that a training learned something: weights that moved, all steps made, a curve that is finite."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import OutputError
from pipeline.training import full
from pipeline.training.proof import proof
from tests.bin import fake_tools

NAMES = [f"model.layers.{i}.weight" for i in range(100)]


def weights(path: Path, values: dict[str, list[float]], dtype: str = "F32") -> Path:
    """A safetensors file of one data type, rounded as torch rounds."""
    header, body = {}, b""
    for name, numbers in values.items():
        array = np.array(numbers, dtype=np.float32)
        if dtype == "BF16":
            bits = array.view(np.uint32)
            raw = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
        else:
            raw = array.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": [len(numbers)], "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


BASE = {name: [0.1 * i + 0.0371, -0.3, 1e-3] for i, name in enumerate(NAMES)}
MOVED = {name: [value * 1.05 for value in values] for name, values in BASE.items()}


@pytest.mark.parametrize("ours", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("theirs", ["F32", "F16", "BF16"])
def test_another_data_type_is_no_training_but_another_value_is(tmp_path: Path, ours: str, theirs: str) -> None:
    weights(tmp_path / "base" / "model.safetensors", BASE, theirs)
    weights(tmp_path / "same" / "model.safetensors", BASE, ours)
    weights(tmp_path / "moved" / "model.safetensors", MOVED, ours)
    problem = full.unmoved(tmp_path / "same", tmp_path / "base")
    assert problem
    assert "nothing was trained" in problem
    assert full.unmoved(tmp_path / "moved", tmp_path / "base") is None


def test_the_smallest_step_of_the_same_type_counts(tmp_path: Path) -> None:
    weights(tmp_path / "base" / "model.safetensors", BASE, "F32")
    nudged = {
        name: [float(np.nextafter(np.float32(v), np.float32(9))) for v in values] for name, values in BASE.items()
    }
    weights(tmp_path / "tuned" / "model.safetensors", nudged, "F32")
    assert full.unmoved(tmp_path / "tuned", tmp_path / "base") is None


def test_one_moved_tensor_among_those_looked_at_is_enough_and_shards_are_read(tmp_path: Path) -> None:
    for name in ("base", "tuned"):
        for part in range(4):
            values = {key: BASE[key] for key in NAMES[part * 25 : part * 25 + 25]}
            if name == "tuned" and part == 0:
                values |= {NAMES[0]: [5.0, 5.0, 5.0]}
            weights(tmp_path / name / f"model-{part}.safetensors", values)
    assert full.unmoved(tmp_path / "tuned", tmp_path / "base") is None


def test_nan_and_foreign_weights_are_named(tmp_path: Path) -> None:
    weights(tmp_path / "base" / "model.safetensors", BASE)
    broken = {name: [math.nan] * 3 for name in NAMES}
    weights(tmp_path / "nan" / "model.safetensors", broken)
    problem = full.unmoved(tmp_path / "nan", tmp_path / "base")
    assert problem
    assert f"{NAMES[0]} holds NaN" in problem
    weights(tmp_path / "other" / "model.safetensors", {"x": [1.0]})
    assert "is it a checkpoint of that model?" in (full.unmoved(tmp_path / "other", tmp_path / "base") or "")


# ---- the proof


def attempt(folder: Path, norms: list[float], *, total: int | None = None, **args: Any) -> Path:
    """A training that logged these norms, with a checkpoint at its end."""
    steps = len(norms)
    lines = [
        {"loss": 2 / step, "grad_norm": norm, "global_step/max_steps": f"{step}/{total or steps}"}
        for step, norm in enumerate(norms, 1)
    ]
    fake_tools.save(folder / "logging.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    fake_tools.save_json(folder / "args.json", args)
    last = folder / f"checkpoint-{steps}"
    prefix = "base_model.model.layers.0.q_proj"
    fake_tools.safetensors(
        last / "adapter_model.safetensors", {f"{prefix}.lora_A.weight": [0.1], f"{prefix}.lora_B.weight": [0.3]}
    )
    fake_tools.save_json(last / "adapter_config.json", {"peft_type": "LORA"})
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "scaler.pt"):
        fake_tools.archive(last / name)
    fake_tools.save_json(last / "args.json", args)
    fake_tools.save_json(last / "trainer_state.json", {"global_step": steps, "max_steps": total or steps})
    return last


def test_a_good_training_is_proved(tmp_path: Path) -> None:
    last = attempt(tmp_path / "1", [1.0] * 4)
    found = proof(last, [tmp_path / "1"], tmp_path)
    assert (found["steps"], found["first_loss"], found["last_loss"]) == (4, 2.0, 0.5)


@pytest.mark.parametrize(
    ("norms", "settings", "words"),
    [
        ([1.0, math.nan, 1.0], {}, "training diverged: step 2: grad_norm = nan"),
        ([math.inf, 1.0, 1.0], {}, "training diverged: step 1: grad_norm = inf"),
        ([math.inf] * 5, {"fp16": True}, "no finite grad_norm from step 1 to 5"),
        ([1.0] * 4, {"total": 9}, "training ended after 4 of 9 steps"),
    ],
)
def test_a_bad_training_is_not(tmp_path: Path, norms: list[float], settings: dict[str, Any], words: str) -> None:
    last = attempt(tmp_path / "1", norms, **settings)
    with pytest.raises(OutputError, match=words):
        proof(last, [tmp_path / "1"], tmp_path)


def test_a_loss_that_was_no_number_between_two_records_is_told_by_the_mean(tmp_path: Path) -> None:
    last = attempt(tmp_path / "1", [1.0] * 4)
    log = tmp_path / "1" / "logging.jsonl"
    fake_tools.save(log, log.read_text() + json.dumps({"train_loss": math.nan, "train_runtime": 9.0}) + "\n")
    with pytest.raises(OutputError, match="train_loss, the mean of all steps, is nan, though none that was logged"):
        proof(last, [tmp_path / "1"], tmp_path)
    assert proof(last, [tmp_path / "1"], tmp_path, diverged="warn")["steps"] == 4


@pytest.mark.parametrize(
    ("norms", "settings"),
    [
        ([math.inf, math.inf, 1.0], {"fp16": True}),  # loss scaling at work
        ([1.0] * 4, {"total": 9, "early_stop_interval": 2}),
    ],
)
def test_what_is_normal_passes(tmp_path: Path, norms: list[float], settings: dict[str, Any]) -> None:
    last = attempt(tmp_path / "1", norms, **settings)
    assert proof(last, [tmp_path / "1"], tmp_path)["steps"] == len(norms)


def test_a_curve_that_diverged_passes_only_where_the_recipe_says_so(tmp_path: Path) -> None:
    last = attempt(tmp_path / "1", [1.0, math.nan, 1.0])
    assert proof(last, [tmp_path / "1"], tmp_path, diverged="warn")["steps"] == 3


def test_full_training_is_held_against_its_base(tmp_path: Path) -> None:
    last = attempt(tmp_path / "1", [1.0] * 4, tuner_type="full")
    (last / "adapter_model.safetensors").unlink()
    (last / "adapter_config.json").unlink()
    weights(tmp_path / "base" / "model.safetensors", BASE)
    weights(last / "model.safetensors", MOVED)
    fake_tools.save_json(last / "config.json", {"model_type": "llama"})
    assert proof(last, [tmp_path / "1"], tmp_path / "base")["steps"] == 4
    weights(last / "model.safetensors", BASE)
    with pytest.raises(OutputError, match="nothing was trained"):
        proof(last, [tmp_path / "1"], tmp_path / "base")
