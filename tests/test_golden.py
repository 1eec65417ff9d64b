"""Every recipe loads, plans and prints what its golden files say; see golden.py for how to rewrite them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import MACHINES, RECIPES, ROOT, dry_run, golden_file

PAIRS = [(r, m) for r in RECIPES for m in MACHINES if golden_file(r, m).exists()]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_has_a_golden(recipe):
    assert any(golden_file(recipe, machine).exists() for machine in MACHINES), "python -m tests.golden --write"


def test_the_demo_is_planned_on_every_machine():
    demo = ROOT / "recipes/demo.yaml"
    assert demo in RECIPES
    missing = [m.stem for m in MACHINES if not golden_file(demo, m).exists()]
    assert not missing


def test_every_golden_belongs_to_a_recipe_and_a_machine():
    known = {golden_file(r, m).name for r in RECIPES for m in MACHINES}
    assert {path.name for path in (ROOT / "tests/golden").glob("*.txt")} <= known


@pytest.mark.parametrize(("recipe", "machine"), PAIRS, ids=lambda p: p.stem)
def test_dry_run(recipe, machine, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert dry_run(recipe, machine) == golden_file(recipe, machine).read_text(encoding="utf-8")


def test_by_hand_a_stage_sees_no_more_gpus_than_the_pipeline_gives_it(tmp_path):
    # Of the GPUs that the user's own variable shows, and only where there are more than the stage takes.
    argv = [sys.executable, "-m", "pipeline.run", "recipes/w1_qwen3_0.6b_zero2.yaml", "--dry-run"]
    argv += ["--machine", "tests/machines/gpu_8x24gb.json"]
    shown = {"CUDA_VISIBLE_DEVICES": "7,6,5,4,3,2,1,0"}
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)} | shown
    text = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert text == golden_file(ROOT / argv[3], Path(argv[-1])).read_text(encoding="utf-8").replace(
        "DEVICES=0", "DEVICES=7"
    )
    assert "CUDA_VISIBLE_DEVICES=7 lm_eval run" in text and "NPROC_PER_NODE=8" in text
    assert not [line for line in text.splitlines() if "swift sft" in line and "CUDA_VISIBLE_DEVICES" in line]


def test_the_command_line_prints_the_golden(tmp_path):
    # Not the functions but the program, from the root and without settings of the developer's.
    recipe, machine = next(pair for pair in PAIRS if pair[0].stem.startswith("w1"))
    argv = [sys.executable, "-m", "pipeline.run", str(recipe.relative_to(ROOT)), "--dry-run", "--machine", str(machine)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SWANLAB_PROJECT": "", "DATASET_ID": ""}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == golden_file(recipe, machine).read_text(encoding="utf-8")
