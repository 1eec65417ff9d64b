"""A recipe whose model and data set are hub ids: downloaded through the real clients, cut once, resumed, then local."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.hubs import HuggingFace, ModelScope, serving

ROOT = Path(__file__).resolve().parents[1]
ROWS = [{"instruction": f"What is {i} plus {i}?", "input": "", "output": f"It is {2 * i}."} for i in range(400)]


def weights() -> bytes:
    """A whole safetensors file of 3 MB."""
    body = bytes(3_000_000)
    header = json.dumps({"w": {"dtype": "F32", "shape": [750_000], "data_offsets": [0, len(body)]}}).encode()
    return struct.pack("<Q", len(header)) + header + body


MODEL = {
    "config.json": b'{"model_type": "llama", "torch_dtype": "float32"}',
    "model.safetensors": weights(),
    "tokenizer.json": b"{}",
}
DATA = {
    "README.md": b"# facts\n",
    # A file that newer readers cannot parse; it must be passed over.
    "dataset_infos.json": b'{"default": {"features": {"x": {"_type": "Value"}}}}',
    "train.json": json.dumps(ROWS).encode(),
}


@pytest.mark.parametrize("hub", ["modelscope", "huggingface"])
def test_model_and_data_by_id(hub: str, tmp_path: Path) -> None:
    kinds = {("model", "team/Tiny-1M"): MODEL, ("dataset", "team/facts"): DATA}
    stand_in = ModelScope(kinds) if hub == "modelscope" else HuggingFace(kinds)
    stand_in.faults["model.safetensors"] = "cut"
    recipe = {
        "name": "by-id",
        "model": {"id": "team/Tiny-1M", "hub": hub},
        # The stand-in for a model has no tokenizer to count with.
        "data": {
            "sources": [{"id": "team/facts", "hub": hub, "format": "alpaca"}],
            "val_fraction": 0.1,
            "tokens": "off",
        },
        "train": {"max_steps": 4, "global_batch_size": 4},
        "export": {"check": "off"},  # nor weights that could be compared
        "tracking": {"mode": "disabled"},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with serving(stand_in) as url:
        env = {
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MODELSCOPE", "SWANLAB"))
        }
        env |= {
            "HF_ENDPOINT": url, "MODELSCOPE_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"),
            "MODELSCOPE_CACHE": str(tmp_path / "ms"), "PIPELINE_TOOLS": str(ROOT / "tests" / "bin"),
            "CUDA_VISIBLE_DEVICES": "",
        }  # fmt: skip
        command = [sys.executable, "-m", "pipeline.run", str(path), "--runs-dir", str(tmp_path / "runs")]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert "no revision given" in done.stderr
        size = len(MODEL["model.safetensors"])
        assert stand_in.starts("model.safetensors") == [0, size // 2], "cut in the middle, resumed from there"
        assert stand_in.sent("model.safetensors") == size
        asked = len(stand_in.asked)
        again = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert again.returncode == 0, again.stderr
        assert len(stand_in.asked) == asked, "a finished download asks nobody"
    report = json.loads((tmp_path / "runs" / "by-id" / "report.json").read_text(encoding="utf-8"))
    assert report["data"]["rows_in"] == len(ROWS)
    model = next((tmp_path / "runs" / "stages").glob("model-*/output/Tiny-1M"))
    assert (model / "model.safetensors").read_bytes() == MODEL["model.safetensors"]
