"""From raw rows to a verdict with every real tool, and what a rerun, a variant and kill -9 do to it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import ROOT, Runner, command, environment

pytestmark = pytest.mark.slow


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def stages(work: Path, name: str = "tiny") -> dict[str, Path]:
    listing = read(work / "runs" / name / "stages.json")["stages"]
    return {line["label"]: (work / "runs" / name / line["dir"]).resolve() for line in listing}


@pytest.fixture(scope="session")
def done(recipe: Path, pipeline: Runner, work: Path) -> Path:
    """The whole chain, run once; the folder of its report."""
    result = pipeline(recipe)
    assert result.returncode == 0, result.stderr
    assert "report: " in result.stdout
    assert "make dashboard" in result.stdout
    return work / "runs" / "tiny"


def test_the_report_holds_curve_scores_and_differences(done: Path) -> None:
    report = read(done / "report.json")
    assert report["verdict"] is None
    rows = {(row["harness"], row["task"], row["metric"]): row for row in report["rows"]}
    assert {("lm_eval", "demo_bank", "acc"), ("evalscope", "general_mcq/bank", "accuracy")} <= rows.keys()
    for row in rows.values():
        assert row["n"] == 8
        assert row["delta"] == pytest.approx(row["tuned"] - row["base"], abs=1e-4)
        assert row["ci_low"] <= row["delta"] <= row["ci_high"]
        assert 0 <= row["p_value"] <= 1
    assert {score["model"] for score in report["scores"]} == {"base", "tuned"}
    assert all(score["implementation"]["version"] for score in report["scores"])
    assert [point["step"] for point in report["curve"] if "loss" in point] == [1, 2, 3, 4, 5, 6]
    data = report["data"]
    assert data["rows_in"] == data["rows_train"] + data["rows_val"] + data["rows_rejected"] + data["rows_deduplicated"]
    assert data["rows_rejected"] > 0, "the demo's bad rows"
    assert set(report["contamination"]["benchmarks"]) == {"demo_bank", "general_mcq"}
    assert report["contamination"]["rows_hit"]["train"] == 0, "the demo's bank is held out"
    assert report["unchecked"] == []
    assert report["tokens"]["train"]["rows"] == data["rows_train"]
    assert report["train"]["steps"] == 6
    for name in ("report.html", "report.md", "scores.csv", "recipe.yaml"):
        assert (done / name).stat().st_size > 0


def test_the_experiment_is_finished_and_single(done: Path) -> None:
    tracking = read(done / "tracking.json")
    assert tracking["error"] is None
    assert len(list((done.parent / "swanlog").glob("run-*"))) == 1


def test_the_same_command_again_starts_nothing(done: Path, recipe: Path, pipeline: Runner, work: Path) -> None:
    logs = {path: path.stat().st_mtime_ns for path in (work / "runs" / "stages").glob("*/log.txt")}
    result = pipeline(recipe)
    assert result.returncode == 0, result.stderr
    assert {path: path.stat().st_mtime_ns for path in (work / "runs" / "stages").glob("*/log.txt")} == logs
    assert "started" not in result.stderr


def test_scores_are_those_of_the_bare_tools(done: Path, recipe: Path, pipeline: Runner, work: Path) -> None:
    """The dry run's text, pasted into a shell, gives the same numbers."""
    text = pipeline(recipe, "--dry-run").stdout
    head = text[: text.index("\n# data\n")]
    parts = {part.split("\n", 1)[0]: part for part in text.split("\n\n# ")[1:]}
    script = head + "\n# " + parts["eval.lm_eval.base"] + "\n# " + parts["eval.evalscope.base"]
    hand = work / "by-hand"
    shell = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env=environment() | {"RUNS": str(hand), "PATH": tools_first()},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert shell.returncode == 0, shell.stderr[-2000:]
    ours = {
        (s["harness"], s["metric"]): s["value"] for s in read(done / "report.json")["scores"] if s["model"] == "base"
    }
    results = read(next((hand / "eval.lm_eval.base").glob("output/*/results_*.json")))["results"]["demo_bank"]
    assert (ours["lm_eval", "acc"], ours["lm_eval", "acc_norm"]) == (results["acc,none"], results["acc_norm,none"])
    report = read(hand / "eval.evalscope.base" / "output" / "reports" / "model" / "general_mcq.json")
    assert ours["evalscope", "accuracy"] == report["metrics"][0]["score"]


def tools_first() -> str:
    import sys

    return f"{Path(sys.executable).parent}:{environment()['PATH']}"


def test_another_learning_rate_runs_training_and_what_follows(
    done: Path, recipe: Path, pipeline: Runner, work: Path
) -> None:
    before = stages(work)
    result = pipeline(recipe, "export", "--set", "train.learning_rate=2e-3")
    assert result.returncode == 0, result.stderr
    after = stages(work)
    same = {label for label in before if before[label] == after[label]}
    assert same == {"data", "data.contamination", "data.tokens", "plan", "eval.lm_eval.base", "eval.evalscope.base"}
    started = {line.split(":")[0] for line in result.stderr.splitlines() if ": started" in line}
    assert started == {"train", "export", "check.export"}
    assert (done / "history" / "1" / "report.json").is_file()


def test_kill_9_in_mid_training_goes_on_from_the_newest_whole_checkpoint(
    recipe: Path, pipeline: Runner, work: Path
) -> None:
    words = ("--set", "name=killed", "--set", "train.max_steps=40", "--set", "train.save_steps=5", "--set", "eval=[]")
    words += ("--set", "train.save_total_limit=10")
    process = subprocess.Popen(
        command(work, recipe, "train", *words), cwd=ROOT, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    train: Path | None = None
    while time.monotonic() < deadline:
        if train is None and (work / "runs" / "killed" / "stages.json").is_file():
            train = stages(work, "killed")["train"]
        if train and (train / "attempts" / "1" / "checkpoint-10" / "trainer_state.json").is_file():
            break
        assert process.poll() is None, "training ended before it could be killed"
        time.sleep(0.05)
    assert train is not None
    process.kill()
    process.wait()
    newest = max((train / "attempts" / "1").glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    if newest.name == "checkpoint-10" or (newest / "trainer_state.json").is_file():
        # As if the kill had come while it was being written: this one must be passed over.
        weights = newest / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    result = pipeline(recipe, "train", *words)
    assert result.returncode == 0, result.stderr
    resumed = [line for line in result.stderr.splitlines() if "going on from" in line]
    assert resumed
    assert newest.name not in resumed[0].split("/")[-1].split()
    report = read(work / "runs" / "killed" / "report.json")
    assert report["train"]["steps"] == 40
    steps = [point["step"] for point in report["curve"] if "loss" in point]
    assert steps == list(range(1, 41)), "no gap and no double in the curve"
    assert not [p for p in psutil.process_iter() if str(train) in environment_of(p)]
    shutil.rmtree(train)


def environment_of(process: psutil.Process) -> str:
    try:
        return process.environ().get("PIPELINE_STAGE_DIR", "")
    except psutil.Error:
        return ""
