"""Looking at a plan or a help text imports none of the heavy tools. (Imports, not seconds: those vary by machine.)"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.golden import MACHINES, RECIPES, ROOT, golden_file

HEAVY = ("torch", "transformers", "swanlab", "modelscope", "datasets", "swift", "lm_eval", "evalscope", "scipy")
SCRIPT = """
import runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
print("HEAVY", *[name for name in HEAVY if name in sys.modules])
"""


def heavy(*argv: str) -> list[str]:
    script = f"HEAVY = {HEAVY!r}\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.rsplit("HEAVY", 1)[1].split()


@pytest.mark.parametrize("argv", [("pipeline.run", "--help"), ("data_prep", "--help")], ids=" ".join)
def test_help(argv):
    assert heavy(*argv) == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_dry_run(recipe):
    machine = next(machine for machine in MACHINES if golden_file(recipe, machine).exists())
    assert heavy("pipeline.run", str(recipe), "--dry-run", "--machine", str(machine)) == []


def test_dry_run_that_probes_this_machine():
    recipe = next(path for path in RECIPES if path.stem == "local_files")
    assert heavy("pipeline.run", str(recipe), "--dry-run") == []


def test_this_test_can_fail():
    assert heavy("scipy.version") == ["scipy"]
