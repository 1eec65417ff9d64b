"""The plan of a training against what `swift sft` itself logs of it: equal, not close. Real tools, a tiny model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.e2e.conftest import ROOT, Runner

pytestmark = pytest.mark.slow

ROWS = 45

RECIPES: dict[str, dict[str, Any]] = {
    "lora_cut": {
        "data": {"val_fraction": 0.2},
        "train": {"epochs": 2, "max_length": 80, "micro_batch_size": 1, "global_batch_size": 8, "truncation": "right"},
        "long": 8,
    },
    "full_delete": {
        "data": {"val_fraction": 0},
        "train": {
            "tuner": "full", "epochs": 1, "max_length": 70, "micro_batch_size": 5, "global_batch_size": 10,
            "truncation": "delete",
        },
    },
    # From here on the same rows, limit and batch: data and tokens are prepared once for all of them.
    "lora_max_steps": {
        "data": {"val_fraction": 0},
        "train": {
            "max_steps": 3, "max_length": 256, "micro_batch_size": 2, "global_batch_size": 12, "rank": 4,
            "target_modules": ["q_proj", "v_proj"],
        },
    },
    "two_processes": {
        "data": {"val_fraction": 0},
        "train": {
            "epochs": 1.5, "max_length": 256, "micro_batch_size": 3, "global_batch_size": 12, "cpu_processes": 2,
        },
    },
    "dora_accumulated": {
        "data": {"val_fraction": 0},
        "train": {"epochs": 1.3, "max_length": 256, "micro_batch_size": 1, "global_batch_size": 12, "dora": True},
    },
}  # fmt: skip


class Run(NamedTuple):
    plan: dict[str, Any]
    swift: dict[str, Any]
    """What swift says at the end of its log."""
    steps: str
    """`global_step/max_steps` of the last step."""
    text: str
    """The terminal."""


def conversations(count: int, long: int = 0) -> list[dict[str, str]]:
    """34 to 94 tokens each; `long` more ask a question longer than that, of which nothing is learned at 80."""
    words = ("word " * (i % 13) for i in range(count))
    rows = [
        {"instruction": f"Question {i}?", "input": "", "output": f"{w}answer {i * i}."} for i, w in enumerate(words)
    ]
    return rows + [{"instruction": f"{i} why " * 40, "input": "", "output": "So."} for i in range(long)]


@pytest.fixture(scope="module")
def runs(work: Path, tiny_model: Path, pipeline: Runner) -> Iterator[Callable[[str], Run]]:
    """Made two at a time: a start of swift is mostly imports on one core."""
    for long in (0, 8):
        (work / f"plan{long}.json").write_text(json.dumps(conversations(ROWS, long)))
    with ThreadPoolExecutor(2) as pool:
        made = {name: pool.submit(_run, work, name, tiny_model, pipeline) for name in RECIPES}
        yield lambda name: made[name].result()


def _run(work: Path, name: str, model: Path, pipeline: Runner) -> Run:
    file = f"plan{RECIPES[name].get('long', 0)}.json"
    recipe = {
        "name": name,
        "model": {"path": str(model), "model_type": "llama", "template": "chatml"},
        "data": {"sources": [{"path": str(work / file), "format": "alpaca"}], **RECIPES[name]["data"]},
        "train": {"misfit": "warn", "logging_steps": 1, **RECIPES[name]["train"]},
        "tracking": {"mode": "disabled"},
    }
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    done = pipeline(path, "train")
    assert done.returncode == 0, done.stderr[-3000:]
    states = work / "runs" / name / "stages.json"
    outputs = {
        stage["label"]: states.parent / stage["dir"] / "output" for stage in json.loads(states.read_text())["stages"]
    }
    records = [json.loads(line) for line in (outputs["train"] / "logging.jsonl").read_text().splitlines()]
    steps = [record["global_step/max_steps"] for record in records if "global_step/max_steps" in record]
    return Run(json.loads((outputs["plan"] / "plan.json").read_text()), records[-1], steps[-1], done.stderr)


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_and_trained_share_are_those_that_swift_counts(name, runs):
    run = runs(name)
    plan = run.plan
    added = plan["trainable"] if plan["tuner"] == "lora" else 0
    whole = plan["parameters"] + added
    said = (
        f"{whole / 1e6:.4f}M Params ({plan['trainable'] / 1e6:.4f}M Trainable [{plan['trainable_share'] * 100:.4f}%])"
    )
    assert said in run.swift["model_parameter_info"]


@pytest.mark.parametrize("name", RECIPES)
def test_rows_and_tokens_are_those_that_swift_counts(name, runs):
    run = runs(name)
    mean, largest, size = _statistics(run.swift["train_dataset"])
    plan = run.plan
    assert plan["rows_exact"]
    assert plan["rows"] - plan["rows_dropped"] == size
    assert plan["tokens_per_epoch"] == round(mean * size)
    assert plan["longest_row"] == largest
    if RECIPES[name]["data"]["val_fraction"]:
        assert plan["val_rows"] == _statistics(run.swift["val_dataset"])[2] > 0
    else:
        assert "val_dataset" not in run.swift


@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_those_that_swift_makes(name, runs):
    run = runs(name)
    assert run.steps == f"{run.plan['steps']}/{run.plan['steps']}"
    assert run.swift["global_step"] == run.plan["steps"]


def test_rows_are_cut_and_dropped_as_planned(runs):
    """So that the equalities above are not those of recipes in which nothing happens."""
    assert runs("lora_cut").plan["rows_cut"] > 0
    assert runs("lora_cut").plan["rows_dropped"] > 0, "questions longer than the limit, alone in a micro batch"
    assert runs("full_delete").plan["rows_dropped"] > 0
    assert runs("two_processes").plan["processes"] == 2


def test_the_terminal_shows_the_plan(runs):
    run = runs("full_delete")
    assert re.search(r"plan: \S+ k parameters, .* trained \(100\.00%\), 45 rows, \d+ left out", run.text)
    assert re.search(r"plan: \d optimizer steps of \d+ tokens", run.text)
    assert "plan: memory per process: about" in run.text


def refused(
    work: Path, name: str, train: dict[str, Any], rows: int, model: Path, pipeline: Runner, *words: object
) -> str:
    """What the pipeline says of a training that it does not start."""
    (work / f"{name}.json").write_text(json.dumps(conversations(rows)))
    recipe = {
        "name": name,
        "model": {"path": str(model), "model_type": "llama", "template": "chatml"},
        "data": {"sources": [{"path": str(work / f"{name}.json"), "format": "alpaca"}], "val_fraction": 0},
        "train": train,
        "tracking": {"mode": "disabled"},
    }
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    done = pipeline(path, *words)
    assert done.returncode == 5, done.stderr[-3000:]
    assert "train: started" not in done.stderr
    return done.stderr


def test_a_limit_that_drops_most_rows_is_refused(work, tiny_model, pipeline):
    train = {"epochs": 4, "max_length": 50, "truncation": "delete", "global_batch_size": 1}
    said = refused(work, "dropped", train, 40, tiny_model, pipeline, "train")
    assert re.search(r"train.max_length: 50 tokens with truncation: delete drops \d+ of 40 rows \(\d+%\)", said)


def test_eight_rows_packed_into_one_step_are_refused(work, tiny_model, pipeline):
    """Planned for a GPU with flash-attention: packing is what the recipe asks for nowhere, and gets by default."""
    train = {"epochs": 3, "max_length": 512, "global_batch_size": 1}
    machine = ROOT / "tests" / "machines" / "gpu_80gb.json"
    said = refused(work, "packed", train, 8, tiny_model, pipeline, "plan", "--machine", machine)
    assert (
        "8 rows, packed into 1, in batches of 1, make 3 optimizer steps in all; set packing: false (24 steps)" in said
    )


def _statistics(text: str) -> tuple[float, int, int]:
    """Mean, longest and number of `60.440514±25.686375, min=23.000000, max=124.000000, size=311`."""
    found = re.fullmatch(r"([\d.]+)±[\d.]+, min=[\d.]+, max=([\d.]+), size=(\d+)", text)
    assert found, text
    return float(found[1]), round(float(found[2])), int(found[3])
