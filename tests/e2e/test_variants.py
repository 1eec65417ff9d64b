"""Other ways to train than LoRA as it comes: they are trained, proved and exported by the same commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Runner

pytestmark = pytest.mark.slow

VARIANTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("full", {"tuner": "full", "learning_rate": 1e-3}, {"tuner_type": "full", "gradient_checkpointing": False}),
    ("dora", {"dora": True, "rslora": True}, {"use_dora": True, "use_rslora": True, "gradient_checkpointing": False}),
]


@pytest.mark.parametrize(("name", "settings", "told"), VARIANTS, ids=[name for name, _, _ in VARIANTS])
def test_trained_and_exported(
    name: str, settings: dict[str, Any], told: dict[str, Any], recipe: Path, pipeline: Runner, work: Path
) -> None:
    words = [word for key, value in settings.items() for word in ("--set", f"train.{key}={json.dumps(value)}")]
    done = pipeline(recipe, "train", "export", "--set", f"name={name}", "--set", "tracking.mode=disabled", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    stages = json.loads((work / "runs" / name / "stages.json").read_text())["stages"]
    places = {stage["label"]: (work / "runs" / name / stage["dir"]).resolve() for stage in stages}
    # What swift itself took the settings for.
    seen = json.loads((places["train"] / "output/last-checkpoint/args.json").read_text())
    assert {key: seen[key] for key in told} == told
    proof = json.loads((places["train"] / "result.json").read_text())["result"]
    assert proof["steps"] == 6
    merged = places["export"] / "output/merged"
    assert (merged / "config.json").is_file()
    assert list(merged.glob("*.safetensors"))
    assert not list(merged.glob("adapter*"))
