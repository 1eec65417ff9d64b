"""The real chain on a tiny model: real data_prep, swift, lm-eval, EvalScope and SwanLab, on the CPU, offline."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made in a child process: torch stays out of the test process."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    subprocess.run(
        [sys.executable, str(ROOT / "tests" / "tiny_model.py"), str(folder)], check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One runs folder for the whole session, so that later tests find what earlier ones made."""
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def recipe(work: Path, tiny_model: Path) -> Path:
    demo = ROOT / "recipes" / "demo"
    text = {
        "name": "tiny",
        "model": {"path": str(tiny_model), "model_type": "llama", "template": "chatml"},
        "data": {
            "sources": [
                {"path": str(demo / "train_alpaca.json"), "format": "alpaca"},
                {"path": str(demo / "train_sharegpt.jsonl")},
            ],
            "val_fraction": 0.1,
        },
        "train": {
            "max_steps": 6, "max_length": 256, "micro_batch_size": 4, "global_batch_size": 8,
            "learning_rate": 1e-3, "logging_steps": 1, "save_steps": 3, "eval_steps": 3,
        },
        "eval": [
            {
                "harness": "lm_eval",
                "limit": 8,
                "include_path": str(demo / "tasks"),
                "tasks": [{"name": "demo_bank", "path": str(demo / "evalscope" / "bank_val.jsonl")}],
            },
            {
                "harness": "evalscope",
                "limit": 8,
                "datasets": [
                    {"name": "general_mcq", "path": str(demo / "evalscope"), "args": {"subset_list": ["bank"]}}
                ],
                "generation": {"max_tokens": 8},
            },
        ],
        "tracking": {"mode": "local"},
    }  # fmt: skip
    path = work / "tiny.yaml"
    path.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def pipeline(work: Path) -> Runner:
    """`pipeline(recipe, *words)` runs the command line as a user would."""

    def run(*words: object, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(work, *words), cwd=ROOT, env=environment() | extra, capture_output=True, text=True,
            timeout=900, check=False,
        )  # fmt: skip

    return run


def command(work: Path, *words: object) -> list[str]:
    return [sys.executable, "-m", "pipeline.run", *map(str, words), "--runs-dir", str(work / "runs")]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("SWANLAB", "PIPELINE", "HF_"))}
