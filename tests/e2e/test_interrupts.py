"""A real training, interrupted again and again at random moments and started again: as if nothing had been.

Four interruptions here; with INTERRUPTS=10 in the environment ten, a few minutes more.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipeline.training import adapter, curve, resume
from tests.e2e.conftest import ROOT, command, environment
from tests.training.checkpoints import files, spoil

pytestmark = pytest.mark.slow

STEPS, SAVE = 40, 2
WAIT_S = 240
DECK = [
    ("pipeline", signal.SIGINT, "step"),
    ("pipeline", signal.SIGKILL, "save"),
    ("trainer", signal.SIGTERM, "step"),
    ("pipeline", signal.SIGTERM, "load"),
    ("trainer", signal.SIGKILL, "step"),
    ("pipeline", signal.SIGTERM, "save"),
    ("trainer", signal.SIGTERM, "load"),
    ("pipeline", signal.SIGKILL, "step"),
    ("trainer", signal.SIGKILL, "save"),
    ("pipeline", signal.SIGINT, "save"),
]


@dataclass
class Run:
    """One runs folder and the pipeline that works in it."""

    folder: Path
    recipe: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def train(self) -> Path | None:
        return next((self.folder / "runs" / "stages").glob("train-*"), None)

    def start(self, target: str = "train", *words: str) -> None:
        call = command(self.folder, self.recipe, target, *words)
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(call, cwd=ROOT, env=environment(), stdout=log, stderr=log)

    def stage(self, label: str) -> Path:
        """Folder of a stage of the newest call."""
        listed = json.loads((self.folder / "runs" / "cut" / "stages.json").read_text(encoding="utf-8"))["stages"]
        [name] = [line["dir"] for line in listed if line["label"] == label]
        return (self.folder / "runs" / "cut" / name).resolve()

    def result(self, label: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.stage(label) / "result.json").read_text(encoding="utf-8"))["result"]
        return value

    def attempts(self) -> list[Path]:
        found = (self.train / "attempts").glob("*") if self.train else ()
        return sorted(found, key=lambda path: int(path.name))

    def step(self) -> int:
        """Last step logged in the newest attempt; 0 while there is none."""
        attempts = self.attempts()
        points = curve.read(attempts[-1] / resume.LOG) if attempts else []
        return max((int(point["step"]) for point in points), default=0)

    def trainer(self) -> psutil.Process | None:
        """The process that trains, behind swift's launcher."""
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("PIPELINE_STAGE_DIR") == str(self.train)
                if mine and any(word.endswith("cli/sft.py") for word in process.cmdline()):
                    return process
            except (psutil.Error, OSError):
                continue
        return None

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(encoding="utf-8")[-3000:]


def made(folder: Path, tiny_model: Path, **train: Any) -> Run:
    """Few and short data, so that almost all of the time is swift's."""
    folder.mkdir()
    words = "the quick brown fox asks a question and gives an answer".split()
    chance = random.Random(1)
    rows = [
        {"instruction": " ".join(chance.choices(words, k=8)), "output": " ".join(chance.choices(words, k=k))}
        for k in chance.choices(range(3, 12), k=120)
    ]
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    recipe = {
        "name": "cut",
        "model": {"path": str(tiny_model), "model_type": "llama", "template": "chatml"},
        "data": {"sources": [{"path": str(folder / "rows.json"), "format": "alpaca"}], "val_fraction": 0.1,
                 "tokens": "off", "dedup": "none"},
        "train": {
            "max_steps": STEPS, "max_length": 128, "micro_batch_size": 2, "global_batch_size": 4, "dropout": 0.1,
            "learning_rate": 1e-3, "logging_steps": 1, "save_steps": SAVE, "eval_steps": 4, "misfit": "warn", **train,
        },
        "tracking": {"mode": "local"},
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return Run(folder, path)


def wait(run: Run, condition: Any) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, run.log()
        assert run.process
        assert run.process.poll() is None, f"it ended before it was interrupted\n{run.log()}"
        time.sleep(0.02)


def finish(run: Run) -> None:
    assert run.process
    assert run.process.wait(WAIT_S) == 0, run.log()


def losses(run: Run) -> dict[int, float]:
    """Of the report; asserts that every step is there once, in order."""
    report = json.loads((run.folder / "runs" / "cut" / "report.json").read_text(encoding="utf-8"))
    points = [point for point in report["curve"] if "loss" in point]
    assert [point["step"] for point in points] == list(range(1, STEPS + 1))
    assert report["train"]["steps"] == STEPS
    return {point["step"]: point["loss"] for point in points}


def tracked(run: Run) -> dict[int, list[float]]:
    """Step -> values of train/loss in SwanLab's local store, of its only experiment."""
    folder = run.folder / "runs" / "swanlog"
    with sqlite3.connect(next(folder.glob("*.swanlab"))) as database:
        [(number, run_id)] = database.execute("SELECT id, run_id FROM experiment").fetchall()
        query = "SELECT folder FROM tag WHERE experiment_id = ? AND name = 'train/loss'"
        [(tag,)] = database.execute(query, (number,)).fetchall()
    found: dict[int, list[float]] = {}
    for file in sorted((folder / run_id / "logs" / tag).glob("*.log")):
        for line in file.read_text(encoding="utf-8").splitlines():
            found.setdefault(int(json.loads(line)["index"]), []).append(float(json.loads(line)["data"]))
    return found


def lost(run: Run) -> Iterator[tuple[int, int]]:
    """(last step of an attempt, how many of its steps the next one that got anywhere made again)."""
    assert run.train
    logs = [path / resume.LOG for path in [*run.attempts(), run.train / "output"]]
    steps = [[int(p["step"]) for p in curve.read(log) if "loss" in p] for log in logs]
    reached = [points for points in steps if points]
    for before, after in pairwise(reached):
        yield before[-1], before[-1] - after[0] + 1


def interrupt(run: Run, who: str, which: signal.Signals, when: str, target: int, chance: random.Random) -> None:
    """At that moment of the attempt that is going on, or about to."""
    if when == "load":
        wait(run, run.trainer)
        time.sleep(chance.uniform(0, 4))
    elif when == "save":
        wait(run, lambda: run.attempts() and any(resume.step(p) >= target for p in run.attempts()[-1].iterdir()))
        time.sleep(chance.uniform(0, 0.05))
    else:
        wait(run, lambda: run.step() >= target)
        time.sleep(chance.uniform(0, 0.4))
    assert run.process
    if who == "pipeline":
        run.process.send_signal(which)
        run.process.wait(WAIT_S)
        return
    before = len(run.attempts())
    trainer = run.trainer()
    assert trainer, run.log()
    trainer.send_signal(which)
    end = time.monotonic() + WAIT_S
    while run.process.poll() is None and len(run.attempts()) == before:  # it may try again by itself
        assert time.monotonic() < end, run.log()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    run = made(tmp_path_factory.mktemp("interrupts") / "undisturbed", tiny_model)
    run.start()
    finish(run)
    return run


def test_interrupted_at_random_moments(
    tmp_path: Path, tiny_model: Path, undisturbed: Run, record_property: Any
) -> None:
    run = made(tmp_path / "cut", tiny_model)
    chance = random.Random(20261)
    told, target = [], 0
    for who, which, when in DECK[: int(os.environ.get("INTERRUPTS", "4"))]:
        if run.process is None or run.process.poll() is not None:
            assert run.process is None or run.process.returncode != 0, run.log()
            run.start()
        if when != "load":
            target += chance.randint(3, 4)
        interrupt(run, who, which, when, target, chance)
        told.append(f"{who} {which.name} at {when} {target}")
    assert run.process
    if run.process.poll() is not None:
        run.start()
    finish(run)
    expected, found = losses(undisturbed), losses(run)
    gap = max(abs(found[step] - expected[step]) for step in expected)
    again = list(lost(run))
    for name, value in (("moments", told), ("gap", gap), ("lost", again)):
        record_property(name, value)
    print(told, gap, again)
    assert gap < 1e-5, "a training that goes on computes what one that was never stopped does"
    assert max(steps for _, steps in again) <= SAVE, "never more than since the last save"
    seen = tracked(run)
    assert sorted(seen) == list(range(1, STEPS + 1))
    assert all(values == [pytest.approx(found[step])] for step, values in seen.items())


LOADERS = {"extra_args": {"dataloader_num_workers": 1}}
"""As on GPUs: processes that SIGTERM kills, and then the trainer dies of their death."""


@pytest.mark.parametrize(
    "train", [{}, LOADERS, {"cpu_processes": 2, **LOADERS}, {"cpu_processes": 2, "deepspeed": "zero2"}]
)
def test_ctrl_c_loses_no_step(tmp_path: Path, tiny_model: Path, train: dict[str, Any]) -> None:
    """With a save every 30 steps all that is there after Ctrl-C was saved because of it, by all processes alike."""
    run = made(tmp_path / "cut", tiny_model, save_steps=30, **train)
    run.start()
    wait(run, lambda: run.step() >= 5)
    assert run.process
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(WAIT_S) == 130, run.log()
    [attempt] = run.attempts()
    [saved] = attempt.glob("checkpoint-*")
    assert 5 <= run.step() == resume.step(saved) < 30
    assert adapter.checkpoint_problem(saved, train.get("cpu_processes", 1)) is None
    if not train:
        run.start()
        finish(run)
        assert [steps for _, steps in lost(run)] == [0]
        losses(run)


def test_each_file_of_a_real_checkpoint_matters(undisturbed: Run, tmp_path: Path) -> None:
    """Deleted, cut, zeroed or with another head: the one before is gone on from, and the file is named."""
    assert undisturbed.train
    older, newest = sorted((undisturbed.train / "output").glob("checkpoint-*"), key=resume.step)[-2:]
    unread = {"README.md", "additional_config.json"}  # nobody reads them again
    for name in sorted(set(files(newest)) - unread):
        for way in ("delete", "cut", "zero", *([] if name.endswith(".json") else ["head"])):
            attempt = tmp_path / f"{name}-{way}"
            for path in (older, newest):
                shutil.copytree(path, attempt / path.name)
                state = attempt / path.name / "trainer_state.json"
                more = state.read_text().replace(f'"max_steps": {STEPS}', '"max_steps": 999')
                state.write_text(more)  # so that there is something left to do
            assert spoil(attempt / newest.name / name, way, 0.6)
            found = resume.newest_checkpoint([attempt], {"processes": 1})
            assert found.checkpoint == attempt / older.name, (name, way)
            assert name.split(".")[0] in found.passed_over[0]


def test_the_best_checkpoint_is_exported_without_another_training(undisturbed: Run) -> None:
    undisturbed.start("export", "--set", "export.checkpoint=best")
    finish(undisturbed)
    assert undisturbed.train
    points = [p for p in curve.read(undisturbed.train / "output" / resume.LOG) if "eval_loss" in p]
    best = min(points, key=lambda point: point["eval_loss"])
    found = undisturbed.result("export")
    assert (found["checkpoint"], found["step"]) == ("best", best["step"])
    assert found["eval_loss"] == pytest.approx(best["eval_loss"], abs=1e-6)
    assert undisturbed.log().count("train: already done") == 1


def test_a_stale_merged_folder_never_becomes_the_result(undisturbed: Run) -> None:
    """Left by attempts with another adapter, under every number that could come next: a new attempt is a new folder."""
    words = ("--set", "export.check=off", "--set", "export.precision=bfloat16")
    undisturbed.start("export", *words)
    finish(undisturbed)
    folder = undisturbed.stage("export")
    fresh = (folder / "output" / "merged" / "model.safetensors").read_bytes()
    (folder / "result.json").unlink()
    for number in ("1", "2", "7"):
        stale = folder / "attempts" / number / "merged"
        shutil.copytree(folder / "output" / "merged", stale, dirs_exist_ok=True)
        (stale / "model.safetensors").write_bytes(fresh[:-100] + bytes(byte ^ 1 for byte in fresh[-100:]))
        assert (stale / "model.safetensors").read_bytes() != fresh
    undisturbed.start("export", *words)
    finish(undisturbed)
    assert (folder / "output" / "merged" / "model.safetensors").read_bytes() == fresh


def test_all_weights_trained_are_exported_whole(tmp_path: Path, tiny_model: Path) -> None:
    """And the check of the export, which compares the tensors, finds them the same."""
    run = made(tmp_path / "cut", tiny_model, tuner="full", max_steps=4, eval_steps=2, learning_rate=1e-4)
    run.start("export", "--set", "export.checkpoint=2")
    finish(run)
    found = run.result("export")
    assert (found["step"], found["dtype"], found["shards"]) == (2, "float32", 1)
    merged = run.stage("export") / "output" / "merged"
    assert {path.name for path in tiny_model.iterdir()} <= {path.name for path in merged.iterdir()}
    assert not list(merged.glob("*.pt"))
    weights = (merged / "model.safetensors").read_bytes()
    assert weights != (tiny_model / "model.safetensors").read_bytes()
