"""A small world for pipeline runs: model, data, question bank and recipe in one folder, and the fake tools of tests/bin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.bin import fake_tools

ROOT = Path(__file__).parents[1]
STEPS = 8

RECIPE = """\
name: small
model: {path: model, model_type: llama, template: chatml}
data:
  sources: [{path: train.json, format: alpaca}]
  val_fraction: 0.2
  tokens: off               # the stand-in for a model has no tokenizer
train:
  max_steps: 8
  max_length: 64
  micro_batch_size: 1
  global_batch_size: 2
  logging_steps: 1
  save_steps: 2
  eval_steps: 4
export: {check: "off"}     # nor weights that can be asked
eval:
  - harness: lm_eval
    tasks: [bank]
    include_path: tasks
  - harness: evalscope
    datasets:
      - {name: general_mcq, path: bank, args: {subset_list: [bank], prompt_template: "Q: {question}\\n\\n{choices}"}}
tracking: {mode: disabled}
"""

TASK = """\
task: bank
dataset_path: json
dataset_kwargs:
  data_files:
    test: bank/bank_val.jsonl
test_split: test
output_type: multiple_choice
"""


@dataclass
class World:
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    """Environment beside the usual one: the switches of the fake tools."""

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def report(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.runs / "small" / "report.json").read_text())
        return value

    def env(self) -> dict[str, str]:
        return {
            # The interpreter's folder first: `#!/usr/bin/env python3` of the fake tools is then this Python.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            "PIPELINE_TOOLS": str(ROOT / "tests" / "bin"),
            "CUDA_VISIBLE_DEVICES": "",
            "FAKE_CALLS": str(self.folder / "calls.jsonl"),
            "FAKE_PIDS": str(self.folder / "pids"),
            "FAKE_TIMES": str(self.folder / "times.jsonl"),
            **self.extra,
        }

    def argv(self, *words: str, recipe: str = "recipe.yaml") -> list[str]:
        return [sys.executable, "-m", "pipeline.run", recipe, *words]

    def run(self, *words: str, recipe: str = "recipe.yaml", status: int = 0) -> str:
        """One call of the pipeline; its output, stdout and stderr together."""
        done = subprocess.run(
            self.argv(*words, recipe=recipe), cwd=self.folder, env=self.env(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout
        return done.stdout

    def start(self, *words: str, recipe: str = "recipe.yaml") -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*words, recipe=recipe), cwd=self.folder, env=self.env(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def calls(self) -> list[dict[str, Any]]:
        """Every start of a fake tool since the last time this was asked."""
        path = self.folder / "calls.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    def tools(self) -> list[str]:
        return [call["tool"] for call in self.calls()]

    def times(self) -> list[dict[str, Any]]:
        """Every fake tool that has ended by itself: what it was, which GPUs it saw, when it started and ended."""
        path = self.folder / "times.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def living(self) -> list[int]:
        """Processes of fake tools that still run."""
        path = self.folder / "pids"
        pids = [int(line) for line in path.read_text().split()] if path.exists() else []
        return [pid for pid in pids if _lives(pid)]

    def stage(self, kind: str) -> Path:
        """Folder of the only stage of this kind."""
        [folder] = (self.runs / "stages").glob(f"{kind}-*")
        return folder

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


def build(folder: Path) -> World:
    world = World(folder)
    fake_tools.model(folder / "model")
    rows = [{"instruction": f"What is the {i}th colour?", "input": "", "output": f"Colour {i}."} for i in range(40)]
    world.write("train.json", json.dumps(rows))
    docs = [
        {"id": f"q{i}", "question": f"Which light is number {i}?", **dict(zip("ABCD", (f"Light {i}{c}." for c in "wxyz"), strict=True)), "answer": "ABCD"[i % 4]}
        for i in range(20)
    ]  # fmt: skip
    world.write("bank/bank_val.jsonl", "".join(json.dumps(doc) + "\n" for doc in docs))
    world.write("tasks/bank.yaml", TASK)
    world.write("recipe.yaml", RECIPE)
    return world


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Until the condition holds; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
