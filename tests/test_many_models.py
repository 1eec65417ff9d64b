"""Gate, checkpoints as models, and the archive of all results, in real processes with the stand-ins for the tools."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import zipfile
from pathlib import Path

import pytest

from pipeline import samples
from tests.worlds import World, build, wait_for

ALL = ("--set", "export.checkpoints=all", "--set", "train.save_total_limit=5")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = build(tmp_path_factory.mktemp("done"))
    world.run()
    return world


@pytest.fixture
def done(template: World, tmp_path: Path) -> World:
    shutil.copytree(template.folder, tmp_path / "world", symlinks=True)
    return World(tmp_path / "world")


@pytest.mark.parametrize(
    ("gate", "status", "word"),
    [
        (["min_gain.lm_eval/bank/acc=0.2", "max_drop.bank=0.02"], 0, "PASS"),
        (["min_gain.bank=0.9"], 6, "FAIL"),
        (["min_gain.bank=0.5"], 6, "INCONCLUSIVE"),
        (["min_gain.bank=0.5", "inconclusive=pass"], 0, "INCONCLUSIVE"),
        (["max_drop.bnak=0.02"], 6, "INCONCLUSIVE"),
    ],
)
def test_the_gate_decides_how_the_run_ends(done: World, gate: list[str], status: int, word: str) -> None:
    output = done.run(*(part for setting in gate for part in ("--set", f"gate.{setting}")), status=status)
    assert done.report["verdict"] == word
    assert (f"gate: {word}" in output) == (status == 6)
    assert "report: runs/small/report.html" in output  # written either way
    if word == "FAIL":
        assert "lm_eval/bank/acc: min_gain 0.9, found +0.5500 [" in output


def test_a_gate_does_not_speak_before_all_is_evaluated(tmp_path: Path) -> None:
    world = build(tmp_path)
    world.run("train", "--set", "gate.min_gain.bank=0.9")
    world.run("eval", "--set", "gate.min_gain.bank=0.9", status=6)


def test_every_checkpoint_is_merged_and_evaluated(tmp_path: Path) -> None:
    world = build(tmp_path)
    world.run("train", "--set", "train.save_total_limit=5")
    world.calls()
    world.run(*ALL)
    assert "sft" not in world.tools()  # what is merged of a training does not change what it computes
    assert {score["model"] for score in world.report["scores"]} == {"base", "tuned", "tuned-2", "tuned-4", "tuned-6"}
    assert {line["label"] for line in world.report["stages"]} >= {"export.2", "eval.evalscope.tuned-6"}
    assert all(line["done"] for line in world.report["stages"])
    merges = [path.read_text() for path in world.runs.glob("stages/export-*/log.txt")]
    for step in (2, 4, 6):
        assert sum(f"/checkpoint-{step} " in text for text in merges) == 1


def test_checkpoints_that_were_not_kept_are_refused(done: World) -> None:
    output = done.run(*ALL, status=3)
    assert "checkpoint-2 is not there" in output
    assert "checkpoint-4" not in output, "two are kept, and one more for the best, which is the last here"
    assert "checkpoint-6 is not there" not in output


def test_checkpoints_of_an_interrupted_attempt_are_exported_too(tmp_path: Path) -> None:
    world = build(tmp_path)
    world.extra = {"FAKE_HANG_AT": "6"}
    process = world.start("train", *ALL)
    wait_for(lambda: list(world.runs.glob("stages/train-*/attempts/1/checkpoint-4/trainer_state.json")))
    wait_for(world.living)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    world.extra = {}
    world.run(*ALL)
    output = world.stage("train") / "output"
    assert {path.name for path in output.glob("checkpoint-*")} >= {"checkpoint-2", "checkpoint-4", "checkpoint-6"}
    assert "tuned-2" in {score["model"] for score in world.report["scores"]}


def test_the_submission_vouches_for_every_file(done: World) -> None:
    output = done.run("submission")
    assert "submission: runs/small/submission.zip" in output
    path = done.runs / "small" / "submission.zip"
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        names = set(archive.namelist()) - {"manifest.json"}
        assert names == {entry["path"] for entry in manifest["files"]}
        for entry in manifest["files"]:
            data = archive.read(entry["path"])
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["sha256"], entry["size"])
        archive.extract("samples/tuned/lm_eval.jsonl", done.folder)
    items = samples.read(done.folder / "samples" / "tuned" / "lm_eval.jsonl")
    assert sum(item.scores["acc"] for item in items) == 19
    assert {"samples/base/evalscope.jsonl", "scores.csv", "report.json", "recipe.yaml"} <= names
    assert any(name.startswith("results/base/lm_eval/") and "/results_" in name for name in names)
    assert {(e["model"], e["suite"]) for e in manifest["evaluations"]} == {
        (model, suite) for model in ("base", "tuned") for suite in ("lm_eval", "evalscope")
    }
    assert all(e["samples"] == 20 and e["command"] and e["tool"] for e in manifest["evaluations"])
    assert manifest["not_evaluated"] == []


def test_nothing_evaluated_is_nothing_to_submit(tmp_path: Path) -> None:
    world = build(tmp_path)
    world.write("only_data.yaml", (tmp_path / "recipe.yaml").read_text().split("eval:")[0])
    assert "the recipe has no such section" in world.run("submission", recipe="only_data.yaml", status=2)
