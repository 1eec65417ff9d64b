"""Whose shape decides: the model's own files in a run, whatever is published of the name it has on its hub."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.machine import Machine, read_machine
from pipeline.recipe import Recipe
from pipeline.training.locate import locate
from tests.hubs import ModelScope, serving

ROOT = Path(__file__).resolve().parents[2]
RTX = read_machine(ROOT / "tests/machines/gpu_24gb.json").model_copy(update={"liger": ()})
ROWS = [{"instruction": f"What is {i} plus {i}?", "input": "", "output": f"It is {2 * i}."} for i in range(400)]
CONFIG = {
    "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
"""Nothing like what is published as Qwen3-0.6B."""


def weights() -> bytes:
    names = {
        "model.embed_tokens.weight": (512, 64),
        **{f"model.layers.{n}.mlp.up_proj.weight": (128, 64) for n in range(2)},
    }
    header, end = {}, 0
    for name, (rows, columns) in names.items():
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [end, end + rows * columns * 4]}
        end += rows * columns * 4
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


def recipe(tmp_path: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "by-files",
        "model": {"id": "Qwen/Qwen3-0.6B", "revision": "master"},
        "data": {
            "sources": [{"path": str(tmp_path / "rows.json"), "format": "alpaca"}],
            "val_fraction": 0.1,
            "tokens": "off",
        },
        "train": {"max_steps": 4, "global_batch_size": 16, "max_length": 4096, **train},
        "tracking": {"mode": "disabled"},
    }


def test_the_first_call_and_the_next_train_the_same(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    (tmp_path / "machine.json").write_text(RTX.model_dump_json())
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe(tmp_path)))
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights(), "tokenizer.json": b"{}"}
    stand_in = ModelScope({("model", "Qwen/Qwen3-0.6B"): files})
    runs = tmp_path / "runs"
    with serving(stand_in) as url:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "MODELSCOPE", "SWANLAB", "CUDA_"))}
        env |= {
            "HF_ENDPOINT": url, "MODELSCOPE_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"),
            "MODELSCOPE_CACHE": str(tmp_path / "ms"), "PIPELINE_TOOLS": str(ROOT / "tests/bin"),
        }  # fmt: skip

        def call(*words: str) -> subprocess.CompletedProcess[str]:
            argv = [sys.executable, "-m", "pipeline.run", str(tmp_path / "recipe.yaml"), "--runs-dir", str(runs)]
            argv += ["--machine", str(tmp_path / "machine.json"), *words]
            return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)

        def micro(done: subprocess.CompletedProcess[str]) -> str:
            assert done.returncode == 0, done.stderr
            [line] = [line for line in (done.stdout + done.stderr).splitlines() if "train.micro_batch_size = " in line]
            return line

        before = micro(call("--dry-run"))
        assert "by the model's published shape" in before
        assert "micro_batch_size = 1 " in before

        refused = call("--set", "train.max_length=1000000", "--set", "train.packing=true", "train")
        assert refused.returncode == 3, refused.stderr
        assert "by the model's published shape" in refused.stderr
        assert stand_in.asked == [], "what cannot fit is refused before anything is downloaded"

        data = call("data")
        assert data.returncode == 0, data.stderr
        assert stand_in.asked == [], "the data need no model"

        first = call("train")
        said = first.stderr.splitlines()
        assert "micro_batch_size = 8 " in micro(first), "by the files, not by what is published"
        assert "published" not in first.stderr
        fetched = next(n for n, line in enumerate(said) if line.startswith("model: fetched first"))
        assert fetched < next(n for n, line in enumerate(said) if "train.micro_batch_size" in line)
        trained = sorted(path.name for path in (runs / "stages").glob("train-*"))
        assert len(trained) == 1
        asked = len(stand_in.asked)

        again = call("train")
        assert again.returncode == 0, again.stderr
        assert "train: already done" in again.stderr
        assert sorted(path.name for path in (runs / "stages").glob("train-*")) == trained
        assert len(stand_in.asked) == asked
        assert "micro_batch_size = 8 " in micro(call("--dry-run"))
        args = json.loads(next((runs / "stages").glob("train-*/stage.json")).read_text())["args"]
        assert args["per_device_train_batch_size"] == 8


def located(tmp_path: Path, machine: Machine, model: dict[str, Any], **train: Any) -> Any:
    data = recipe(tmp_path, **train) | {"model": model}
    return locate(Recipe.model_validate_json(json.dumps(data)), machine, None)


def test_a_known_name(tmp_path):
    found = located(tmp_path, RTX, {"id": "Qwen/Qwen3-0.6B"})
    assert (found.shape.hidden, found.source) == (1024, "table")
    assert found.missing.args["id"] == "Qwen/Qwen3-0.6B"


def test_an_unknown_name(tmp_path):
    found = located(tmp_path, RTX, {"id": "me/mine"})
    assert (found.shape, found.source, found.missing.args["id"]) == (None, "absent", "me/mine")


@pytest.mark.parametrize(
    "train", [{"gpus": 0}, {"micro_batch_size": 1, "gradient_checkpointing": True, "deepspeed": "none"}]
)
def test_nothing_waits_for_a_model_on_which_nothing_depends(tmp_path, train):
    without = RTX.model_copy(update={"flash_attention": ()})  # with it packing depends on the model, too
    assert located(tmp_path, without, {"id": "me/mine"}, **train).missing is None


def test_a_folder(tmp_path):
    folder = tmp_path / "model"
    assert located(tmp_path, RTX, {"path": str(folder)})[:2] == (None, "absent")
    folder.mkdir()
    assert located(tmp_path, RTX, {"path": str(folder)})[:2] == (None, "files")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(weights())
    found = located(tmp_path, RTX, {"path": str(folder)})
    assert (found.shape.hidden, found.source, found.missing) == (64, "files", None)
