"""The small scripts: what they name and what they refuse."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.recipe_file import load_recipe
from pipeline.suites import EvalScopeSpec

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("facts", "machine", "name"),
    [
        # Names as the project's own release pages spell them.
        (("2.6.3", (3, 10), "2.4.1", "12.3", "False"), "x86_64",
         "flash_attn-2.6.3+cu12torch2.4cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"),
        (("2.8.3", (3, 12), "2.8.0", "12.8", "True"), "x86_64",
         "flash_attn-2.8.3+cu12torch2.8cxx11abiTRUE-cp312-cp312-linux_x86_64.whl"),
        (("2.8.3", (3, 11), "2.9.1", "13.0", "True"), "aarch64",
         "flash_attn-2.8.3+cu13torch2.9cxx11abiTRUE-cp311-cp311-linux_aarch64.whl"),
    ],
)  # fmt: skip
def test_flash_attn_wheel(
    facts: tuple[str, tuple[int, int], str, str, str], machine: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = script("flash_attn_wheel")
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    assert module.wheel(*facts) == name


def test_the_demo_data_are_what_their_source_gives() -> None:
    """Also refuses held-out questions that share six words in a row with a training row."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "demo_data.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_demo_asks_in_the_form_that_was_trained() -> None:
    world = tomllib.loads((SCRIPTS.parent / "recipes" / "demo" / "world.toml").read_text(encoding="utf-8"))
    recipe = load_recipe(SCRIPTS.parent / "recipes" / "demo.yaml")
    suite = next(suite for suite in recipe.eval if isinstance(suite, EvalScopeSpec))
    asked = [entry.args.get("prompt_template") for entry in suite.datasets if not isinstance(entry, str)]
    assert asked[0] == world["mcq_prompt"]


def test_setup_refuses_another_python(tmp_path: Path) -> None:
    """In a copy without .venv, with an interpreter that says it is too old."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "setup.sh").write_bytes((SCRIPTS / "setup.sh").read_bytes())
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["bash", str(tmp_path / "scripts" / "setup.sh")], env={"PATH": "/usr/bin:/bin", "PYTHON": str(old)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "Python 3.11 or 3.12 is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()
