"""DeepSpeed's settings file: what it decides, what it leaves to transformers, and that the installed tools take it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline.training import deepspeed
from pipeline.training.spec import DeepSpeed, TrainSpec

KINDS = [kind for kind in get_args(DeepSpeed) if kind != "none"]
SHARDS_WEIGHTS = [kind for kind in KINDS if kind.startswith("zero3")]
REST = [kind for kind in KINDS if kind not in SHARDS_WEIGHTS]
GIB = 2**30


def settings(kind: str, **more: Any) -> dict[str, Any]:
    value = deepspeed.config(TrainSpec.model_validate({"deepspeed": kind, **more}))
    assert value is not None
    return value


def leaves(value: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from leaves(inner, f"{path}{key}.")
        else:
            yield path + key, inner


def test_without_deepspeed_there_is_no_file() -> None:
    assert deepspeed.config(TrainSpec(deepspeed="none")) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_name_says_what_is_cut_and_what_is_offloaded(kind: str) -> None:
    zero = settings(kind)["zero_optimization"]
    assert f"zero{zero['stage']}" == kind.removesuffix("_offload")
    offloads = kind.endswith("_offload")
    assert ("offload_optimizer" in zero) == offloads
    assert ("offload_param" in zero) == (offloads and kind in SHARDS_WEIGHTS)
    for role in ("offload_optimizer", "offload_param"):
        assert zero.get(role, {"device": "cpu", "pin_memory": True}) == {"device": "cpu", "pin_memory": True}


@pytest.mark.parametrize("kind", KINDS)
def test_what_swift_knows_by_its_own_flags_is_not_said_twice(kind: str) -> None:
    """`auto` anywhere else would reach DeepSpeed as a word, and train_batch_size is what ZeRO 3 stumbles over on CPUs."""
    value = settings(kind)
    assert "train_batch_size" not in value
    said = {
        "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping", "bf16.enabled",
        "fp16.enabled",
    }  # fmt: skip
    if kind in SHARDS_WEIGHTS:
        names = ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
        said |= {f"zero_optimization.{name}" for name in names}
    assert {path for path, leaf in leaves(value) if leaf == "auto"} == said


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_whole_numbers(kind: str) -> None:
    value = settings(kind)
    assert json.loads(json.dumps(value)) == value
    assert not [path for path, leaf in leaves(value) if isinstance(leaf, float)]


@pytest.mark.parametrize("kind", KINDS)
def test_overlap_is_what_was_set_and_otherwise_safe(kind: str) -> None:
    for wanted in (True, False):
        assert settings(kind, overlap_comm=wanted)["zero_optimization"]["overlap_comm"] is wanted
        assert deepspeed.overlap(TrainSpec.model_validate({"deepspeed": kind, "overlap_comm": wanted}))[0] is wanted
    assert settings(kind)["zero_optimization"]["overlap_comm"] is (kind in SHARDS_WEIGHTS)


@pytest.mark.parametrize("kind", REST)
def test_buffers_are_of_the_size_of_what_is_sent(kind: str) -> None:
    """A rank-64 adapter on all linear layers of a 7B model has 0.16 billion weights; DeepSpeed's default takes 2 GiB."""
    for role in ("reduce_bucket_size", "allgather_bucket_size"):
        adapter, whole = (settings(kind, tuner=tuner)["zero_optimization"][role] for tuner in ("lora", "full"))
        assert adapter < whole < 500_000_000
        assert adapter * 4 < 0.25 * GIB


def test_checkpoints_of_zero3_hold_the_weights() -> None:
    for kind in SHARDS_WEIGHTS:
        assert settings(kind)["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True


@pytest.mark.parametrize("kind", KINDS)
def test_fp16_has_a_loss_scale_that_adapts(kind: str) -> None:
    assert settings(kind)["fp16"]["loss_scale"] == 0
    assert settings(kind)["fp16"]["initial_scale_power"] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_it_departs_from_ms_swifts_own_file_only_where_it_says_so(kind: str) -> None:
    """After an update of ms-swift: look at what it has changed, and why."""
    found = importlib.util.find_spec("swift")
    assert found is not None
    assert found.origin is not None
    theirs = json.loads((Path(found.origin).parent / "config" / f"{kind}.json").read_text(encoding="utf-8"))
    for role in ("offload_optimizer", "offload_param"):
        if theirs["zero_optimization"].get(role, {}).get("device") == "none":
            del theirs["zero_optimization"][role]
    ours, packaged = dict(leaves(settings(kind))), dict(leaves(theirs))
    different = {path for path in ours | packaged if ours.get(path) != packaged.get(path)}
    expected = {"train_batch_size"}
    expected |= {"zero_force_ds_cpu_optimizer"} if kind.endswith("_offload") else set()
    if kind in SHARDS_WEIGHTS:
        expected |= {"zero_optimization.overlap_comm"}
        expected |= {path for path in packaged if "zero_quantized" in path}  # False is DeepSpeed's default
    else:
        expected |= {"zero_optimization.reduce_bucket_size", "zero_optimization.allgather_bucket_size"}
    assert different == expected


READ = """
import json, sys
from types import SimpleNamespace
from deepspeed.runtime.config import DeepSpeedConfig
from transformers import TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig
args = TrainingArguments("out", use_cpu=True, bf16=True, per_device_train_batch_size=2, gradient_accumulation_steps=3)
for line in sys.stdin:
    filled = HfTrainerDeepSpeedConfig(json.loads(line))
    filled.trainer_config_process(args)
    filled.trainer_config_finalize(args, SimpleNamespace(config=SimpleNamespace(hidden_size=64)), 10)
    read = DeepSpeedConfig(filled.config)
    zero = read.zero_config
    print("READ", json.dumps({
        "stage": int(zero.stage), "overlap_comm": zero.overlap_comm, "reduce_bucket_size": zero.reduce_bucket_size,
        "allgather_bucket_size": zero.allgather_bucket_size, "gather": zero.gather_16bit_weights_on_model_save,
        "optimizer": str(zero.offload_optimizer and zero.offload_optimizer.device),
        "params": str(zero.offload_param and zero.offload_param.device),
        "batch": [read.train_batch_size, read.train_micro_batch_size_per_gpu, read.gradient_accumulation_steps],
        "clip": read.gradient_clipping, "bf16": read.bfloat16_config.enabled, "fp16": read.float16_config.enabled,
        "own_adam": read.zero_force_ds_cpu_optimizer,
    }))
"""


@pytest.mark.slow
def test_the_installed_deepspeed_reads_it_as_meant(tmp_path: Path) -> None:
    given = [settings(kind, tuner=tuner) for kind in KINDS for tuner in ("lora", "full")]
    child = subprocess.run(
        [sys.executable, "-c", READ], input="\n".join(map(json.dumps, given)), cwd=tmp_path, capture_output=True,
        text=True, timeout=180, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr[-3000:]
    read = [json.loads(line.removeprefix("READ ")) for line in child.stdout.splitlines() if line.startswith("READ ")]
    assert len(read) == len(given)
    for ours, theirs in zip(given, read, strict=True):
        zero = ours["zero_optimization"]
        hidden = 64 * 64
        assert theirs["batch"] == [6, 2, 3]
        assert (theirs["clip"], theirs["bf16"], theirs["fp16"]) == (1.0, True, False)
        assert (theirs["stage"], theirs["overlap_comm"]) == (zero["stage"], zero["overlap_comm"])
        assert theirs["reduce_bucket_size"] == (hidden if zero["stage"] == 3 else zero["reduce_bucket_size"])
        assert theirs["gather"] is (zero["stage"] == 3)
        assert theirs["optimizer"] == ("cpu" if "offload_optimizer" in zero else "None")
        assert theirs["params"] == ("cpu" if "offload_param" in zero else "None")
        assert theirs["own_adam"] is ("offload_optimizer" not in zero)
