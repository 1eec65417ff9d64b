"""Trainings that go wrong for real, in ms-swift on the CPU: each is seen while it runs, named, and stopped or mended."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline import processes
from pipeline.command import Command
from pipeline.console import Console
from pipeline.errors import OutputError
from pipeline.execute import Executor
from pipeline.recipe import ModelSpec
from pipeline.schedule import Schedule
from pipeline.stage import Source, Stage
from pipeline.stages import train
from pipeline.store import Store
from pipeline.training import adapter, curve
from pipeline.training.spec import TrainSpec
from tests.e2e.conftest import environment

pytestmark = pytest.mark.slow

ENDLESS = 100_000
"""Steps: hours, if nobody stops it."""
WRITE_ROWS = """
import json, sys
with open(sys.argv[1] + "/train.jsonl", "w") as stream:
    for i in range(64):
        words = [{"role": "user", "content": f"What is {i} times 2?"}, {"role": "assistant", "content": f"{2 * i}."}]
        stream.write(json.dumps({"messages": words}) + "\\n")
"""
FP16 = """
# torch computes in float16 on any CPU; DeepSpeed asks whether it is fast there.
from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

CPU_Accelerator.is_fp16_supported = lambda self: True
"""
SPEC = {
    "tuner": "lora", "rank": 4, "learning_rate": 1e-3, "max_steps": ENDLESS, "max_length": 64, "micro_batch_size": 2,
    "global_batch_size": 2, "gpus": 0, "precision": "float32", "attention": "sdpa", "packing": False,
    "padding_free": False, "liger": False, "deepspeed": "none", "overlap_comm": False, "gradient_checkpointing": False,
    "save_steps": 5, "save_total_limit": 4, "logging_steps": 1, "dropout": 0,
}  # fmt: skip


class Lab:
    """Trainings of one model, each a stage of its own in one runs folder."""

    def __init__(self, root: Path, model: Path) -> None:
        self.model, self.text = model, io.StringIO()
        self.executor = Executor(Store(root, lambda _: "x"), dict(environment()), Console(self.text))

    def stage(self, **settings: Any) -> Stage:
        data = Stage(
            name="data", program=("python", "-c", WRITE_ROWS), args={"val_fraction": 0.0}, deps={},
            command=lambda stage, out, _: Command((*stage.program, str(out))), collect=lambda *_: {},
        )  # fmt: skip
        model = ModelSpec(path=self.model, model_type="llama", template="chatml")
        return train.stage(
            TrainSpec(**{**SPEC, **settings}), model, base=Source(self.model), data=data, chat_template=True
        )

    def folder(self, stage: Stage) -> Path:
        return self.executor.store.folder(stage)

    def run(self, stage: Stage) -> dict[str, Any]:
        Schedule(self.executor, (), 1).run([stage], {self.folder(stage).name: "train"})
        found = self.executor.store.result(stage)
        assert found is not None
        return found

    def log(self, stage: Stage) -> str:
        path = self.folder(stage) / "log.txt"
        return self.text.getvalue() + (path.read_text(encoding="utf-8")[-3000:] if path.is_file() else "")


@pytest.fixture
def lab(tmp_path: Path, tiny_model: Path) -> Lab:
    return Lab(tmp_path / "runs", tiny_model)


def steps(attempt: Path) -> list[int]:
    return [point["step"] for point in curve.read(attempt / curve.LOG)]


def test_a_learning_rate_of_1e30_is_stopped_at_once(lab: Lab) -> None:
    # The scheduler's first value is 0, so the first step changes nothing and its checkpoint is a good one.
    stage = lab.stage(learning_rate=1e30, save_steps=1, save_total_limit=1000)
    with pytest.raises(OutputError) as caught:
        lab.run(stage)
    folder = lab.folder(stage)
    assert "train: stopped while it ran" in str(caught.value)
    assert "training diverged: step 3: " in str(caught.value)
    assert "Lower train.learning_rate" in str(caught.value)
    assert caught.value.exit_code == 5
    assert processes.tagged(str(folder)) == [], "the whole tree is gone"
    assert max(steps(folder / "attempts" / "1")) < ENDLESS / 2, "it would have gone on to its end"
    assert not (folder / "result.json").exists(), "so nothing is exported"
    finite = folder / "attempts" / "1" / "checkpoint-1"
    assert adapter.checkpoint_problem(finite) is None
    assert adapter.non_finite(finite) is None


def _scaled(lab: Lab, tmp_path: Path, power: int, **settings: Any) -> Stage:
    """A training in fp16 on the CPU, which the pipeline itself would refuse, with a loss scale of 2**power at first.

    Without DeepSpeed accelerate does nothing about fp16 on a CPU, the loss is not scaled at all.
    """
    plugin = tmp_path / "fp16.py"
    plugin.write_text(FP16, encoding="utf-8")
    stage = lab.stage(deepspeed="zero2", **settings)
    zero = stage.args["deepspeed"]
    zero = {**zero, "fp16": {**zero["fp16"], "initial_scale_power": power}}
    return replace(stage, args={**stage.args, "fp16": True, "deepspeed": zero, "external_plugins": [str(plugin)]})


def test_fp16_that_finds_no_loss_scale_is_stopped(lab: Lab, tmp_path: Path) -> None:
    stage = _scaled(lab, tmp_path, 62)  # the largest that DeepSpeed can hold
    with pytest.raises(
        OutputError, match=r"no finite grad_norm from step 1 to \d+ \(grad_norm = (inf|nan)\)"
    ) as caught:
        lab.run(stage)
    assert "train.precision" in str(caught.value)
    attempt = lab.folder(stage) / "attempts" / "1"
    points = curve.read(attempt / curve.LOG)
    assert 20 <= max(steps(attempt)) < ENDLESS / 2
    assert all(math.isfinite(point["loss"]) for point in points if "loss" in point), "only the norm tells"


def test_fp16_that_has_to_look_for_its_loss_scale_is_left_alone(lab: Lab, tmp_path: Path) -> None:
    stage = _scaled(lab, tmp_path, 26, max_steps=30)
    record = lab.run(stage)
    points = curve.read(lab.folder(stage) / "output" / curve.LOG)
    scaled = [point["step"] for point in points if not math.isfinite(point.get("grad_norm", 0))]
    assert scaled, "the scale was too high at first"
    assert scaled[0] == 1
    assert record["result"]["last_loss"] < record["result"]["first_loss"]


def _once(condition: Callable[[], bool], act: Callable[[], None]) -> None:
    def wait() -> None:
        end = time.monotonic() + 200
        while not condition():
            if time.monotonic() > end:
                return
            time.sleep(0.02)
        act()

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_a_rank_that_dies_or_hangs_is_named_and_the_training_tried_once_more(lab: Lab, number: signal.Signals) -> None:
    wanted = 60
    stage = lab.stage(cpu_processes=2, micro_batch_size=1, max_steps=wanted, health={"stall_minutes": 0.4})
    folder = lab.folder(stage)
    whole = folder / "attempts" / "1" / "checkpoint-10" / "trainer_state.json"
    hit: list[int] = []

    def act() -> None:
        [rank] = [rank for rank in processes.ranks(str(folder)) if rank.number == 1]
        hit.append(rank.pid)
        os.kill(rank.pid, number)

    _once(whole.is_file, act)
    record = lab.run(stage)
    assert hit, lab.log(stage)
    assert record["result"]["steps"] == wanted
    [remark] = [text for text in record["result"]["remarks"] if text.startswith("started a second time")]
    assert f"rank 1 (pid {hit[0]})" in remark
    assert (
        "was killed (SIGKILL), by somebody" if number == signal.SIGKILL else "was stopped by somebody (SIGSTOP)"
    ) in remark
    assert record["attempt"] == "2"
    first, second = steps(folder / "attempts" / "1"), steps(folder / "output")
    assert 10 <= max(first) < wanted, "it was in the middle"
    assert min(second) > 5, "from the newest whole checkpoint, not from the beginning"
    points = curve.stitch(
        [curve.read(folder / "attempts" / "1" / curve.LOG), curve.read(folder / "output" / curve.LOG)]
    )
    assert [point["step"] for point in points if "loss" in point] == list(range(1, wanted + 1))
    assert (
        json.loads((folder / "output" / f"checkpoint-{wanted}" / "trainer_state.json").read_text())["global_step"]
        == wanted
    )
    assert record["peak_rss_bytes"] > 2 * 200e6, "two processes with torch"
    assert not psutil.pid_exists(hit[0])
    assert processes.tagged(str(folder)) == []
