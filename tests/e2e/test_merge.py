"""Right and wrong merges through the real check; prompts through the real harnesses; the stage in a real run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, Runner, environment

pytestmark = pytest.mark.slow


def child(script: str, *words: object) -> Any:
    """What a script prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "e2e" / script), *map(str, words)], cwd=ROOT, capture_output=True, text=True,
        env=environment() | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"},
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "val.jsonl"
    talks = [
        [
            {"role": "user", "content": f"Which fox is number {i}?"},
            {"role": "assistant", "content": f"The brown fox {i}."},
        ]
        for i in range(6)
    ]
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks), encoding="utf-8")
    return path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_wrong_merges_are_found_and_right_ones_are_not(
    tiny_model: Path, rows: Path, tmp_path: Path, dtype: str
) -> None:
    found = child("merges.py", tiny_model, rows, tmp_path, dtype)
    verdicts = {name: entry["verdict"] for name, entry in found.items()}
    assert verdicts == {
        "right": "agree",
        "base": "differ",
        "other adapter": "differ",
        "half of the layers": "differ",
        "alpha / 2": "differ",
        "alpha x 1.2": "differ",
        # One matrix of a model whose answers hardly depend on it is less than rounding to bfloat16.
        "without q_proj of one layer": "differ" if dtype == "float32" else verdicts["without q_proj of one layer"],
        "no-op adapter": "no effect",
        "all weights, right": "agree",
        "all weights, the base exported": "differ",
    }
    right = found["right"]["logits"]
    assert right["merged_dtype"] == dtype
    assert right["dtype"] == "float32"
    assert right["prompts"] == 6
    # The rounding we make is the rounding the file has; all else is far from it.
    assert right["mean_abs"] == pytest.approx(right["rounding"], rel=0.2, abs=1e-5)
    assert found["base"]["logits"]["merged_to_base"] < right["tolerance"]
    far = [found[name]["logits"]["mean_abs"] for name in ("base", "other adapter", "half of the layers", "alpha / 2")]
    assert min(far) > 10 * right["tolerance"]
    assert all(entry["equal"] for entry in found["right"]["templates"]), "the tiny model's template is ChatML"
    assert len(found["right"]["templates"]) == 8
    assert found["right"]["export_changed"] == []


def test_prompts_are_what_the_installed_harnesses_make(tiny_model: Path) -> None:
    compared = child("renders.py", tiny_model)
    assert len(compared) == 69
    assert [name for name, ours, theirs in compared if ours != theirs] == []
    by = {name: ours for name, ours, _ in compared}
    first = by["bos evalscope None user"][1][:2]
    assert first[0] == first[1], "EvalScope lets the tokenizer add its first token to a prompt that has it"
    assert by["bos lm_eval None user"][1] == by["bos evalscope None user"][1][1:]


@pytest.fixture(scope="module")
def exported(recipe: Path, pipeline: Runner, work: Path) -> dict[str, Path]:
    """Folders of the stages of a run up to the export and its check."""
    done = pipeline(recipe, "export", "--set", "name=merged")
    assert done.returncode == 0, done.stderr
    return folders(work)


def folders(work: Path) -> dict[str, Path]:
    listing = json.loads((work / "runs" / "merged" / "stages.json").read_text())["stages"]
    return {line["label"]: (work / "runs" / "merged" / line["dir"]).resolve() for line in listing}


def test_the_stage_in_a_run(exported: dict[str, Path]) -> None:
    record = json.loads((exported["check.export"] / "result.json").read_text())
    found = record["result"]
    assert found["verdict"] == "agree", found
    assert found["remarks"] == []
    assert {entry["reader"] for entry in found["templates"]} == {"lm_eval", "evalscope"}


def test_a_merge_that_went_wrong_stops_the_evaluations_of_the_tuned_model(
    exported: dict[str, Path], recipe: Path, pipeline: Runner, work: Path, tiny_model: Path
) -> None:
    """The weights of the base under the export's name: what a stale folder would hold."""
    weights = exported["export"] / "output" / "merged" / "model.safetensors"
    kept = weights.read_bytes()
    assert weights.stat().st_size == (tiny_model / "model.safetensors").stat().st_size
    shutil.rmtree(exported["check.export"])
    shutil.copyfile(tiny_model / "model.safetensors", weights)
    try:
        words = ("--set", "name=merged", "--set", "eval.0.limit=2")
        done = pipeline(recipe, "eval", *words)
        assert done.returncode == 5, done.stderr
        assert "It is the base model: nothing was merged" in done.stderr
        states = json.loads((work / "runs" / "merged" / "stages.json").read_text())["stages"]
        by = {line["label"]: line["status"] for line in states}
        assert by["eval.lm_eval.base"] == "done"
        assert by["eval.lm_eval.tuned"] not in ("done", "failed", "running")
        done = pipeline(recipe, "export", *words, "--set", "export.check=warn")
        assert done.returncode == 0, done.stderr
        report = json.loads((work / "runs" / "merged" / "report.json").read_text())
        assert any("nothing was merged" in remark for remark in report["remarks"])
    finally:
        weights.write_bytes(kept)
        shutil.rmtree(exported["check.export"], ignore_errors=True)
