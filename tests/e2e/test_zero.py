"""Several processes on the CPU, through the whole pipeline: ZeRO 2 with a kill in the middle, ZeRO 3, and plain DDP."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import ROOT, Runner, command, environment

pytestmark = pytest.mark.slow

STEPS = 8


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sharded(recipe: Path, work: Path) -> Path:
    """The tiny recipe for 2 processes; no dropout, whose random numbers each process draws for itself."""
    text = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    text["train"] |= {
        "gpus": 0, "cpu_processes": 2, "deepspeed": "zero2", "max_steps": STEPS, "micro_batch_size": 2, "dropout": 0,
        "save_steps": 2, "save_total_limit": 4,
    }  # fmt: skip
    text["eval"] = [suite | {"limit": 4} for suite in text["eval"] if suite["harness"] == "lm_eval"]
    text["tracking"] = {"mode": "disabled"}
    path = work / "sharded.yaml"
    path.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
    return path


def stage(work: Path, name: str, label: str) -> Path:
    lines = read(work / "runs" / name / "stages.json")["stages"]
    return next((work / "runs" / name / line["dir"]).resolve() for line in lines if line["label"] == label)


def shapes_of(weights: Path) -> dict[str, list[int]]:
    """Tensor -> shape, from the header of a safetensors file."""
    with weights.open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}


def losses(report: dict[str, Any]) -> list[float]:
    """One per step, finite, with finite gradients, and falling."""
    points = [point for point in report["curve"] if "loss" in point]
    assert [point["step"] for point in points] == list(range(1, STEPS + 1)), "no gap and no double in the curve"
    for point in points:
        assert math.isfinite(point["loss"])
        assert 0 < point["grad_norm"] < math.inf
    values = [point["loss"] for point in points]
    assert sum(values[-3:]) < sum(values[:3])
    return values


@pytest.fixture(scope="module")
def zero2(sharded: Path, pipeline: Runner, work: Path) -> list[float]:
    """Killed after its first checkpoint, then the same command to the end: training, merge, evaluation, report."""
    words = (sharded, "--set", "name=zero2")
    with (work / "killed.log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command(work, *words), cwd=ROOT, env=environment() | {"MASTER_PORT": "1"}, stdout=log, stderr=log
        )
    deadline = time.monotonic() + 400
    while not list((work / "runs" / "stages").glob("train-*/attempts/1/checkpoint-2/trainer_state.json")):
        assert process.poll() is None, "ended before it could be killed: " + (work / "killed.log").read_text()[-3000:]
        assert time.monotonic() < deadline, (work / "killed.log").read_text()[-3000:]
        time.sleep(0.02)
    process.kill()
    process.wait()
    result = pipeline(*words)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "train: going on from" in result.stderr
    return losses(read(work / "runs" / "zero2" / "report.json"))


def test_zero2_is_killed_goes_on_and_is_evaluated(zero2: list[float], work: Path) -> None:
    report = read(work / "runs" / "zero2" / "report.json")
    assert report["train"]["steps"] == len(zero2) == STEPS
    assert {score["model"] for score in report["scores"]} == {"base", "tuned"}
    log = (stage(work, "zero2", "train") / "log.txt").read_text(encoding="utf-8")
    assert "ZeRO stage 2 optimizer" in log or "'stage': 2" in log
    assert "Building extension module" not in log, "nothing is compiled at the start"


def test_zero3_learns_the_same_and_leaves_a_whole_adapter(
    zero2: list[float], sharded: Path, pipeline: Runner, work: Path
) -> None:
    result = pipeline(sharded, "--set", "name=zero3", "--set", "train.deepspeed=zero3")
    assert result.returncode == 0, result.stderr[-3000:]
    report = read(work / "runs" / "zero3" / "report.json")
    assert losses(report) == pytest.approx(zero2, abs=1e-3)
    shapes = [
        shapes_of(stage(work, name, "train") / "output" / "last-checkpoint" / "adapter_model.safetensors")
        for name in ("zero2", "zero3")
    ]
    assert shapes[0] == shapes[1]
    assert all(math.prod(shape) > 0 for shape in shapes[1].values()), "parts gathered, not placeholders"
    assert {score["model"] for score in report["scores"]} == {"base", "tuned"}


def test_two_processes_without_deepspeed_learn_the_same(
    zero2: list[float], sharded: Path, pipeline: Runner, work: Path
) -> None:
    result = pipeline(sharded, "train", "--set", "name=ddp", "--set", "train.deepspeed=none")
    assert result.returncode == 0, result.stderr[-3000:]
    assert losses(read(work / "runs" / "ddp" / "report.json")) == pytest.approx(zero2, abs=1e-3)
