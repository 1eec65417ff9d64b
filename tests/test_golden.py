"""Every recipe loads, plans and prints what its golden files say; see golden.py for how to rewrite them."""

from __future__ import annotations

import subprocess
import sys

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


def test_the_command_line_prints_the_golden(tmp_path):
    # Not the functions but the program, from the root and without settings of the developer's.
    recipe, machine = next(pair for pair in PAIRS if pair[0].stem.startswith("w1"))
    argv = [sys.executable, "-m", "pipeline.run", str(recipe.relative_to(ROOT)), "--dry-run", "--machine", str(machine)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SWANLAB_PROJECT": "", "DATASET_ID": ""}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == golden_file(recipe, machine).read_text(encoding="utf-8")
