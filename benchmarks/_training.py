"""What benchmarks/train.py trains: a model with random weights in a real shape, made-up rows, a recipe."""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.training import known_shapes

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {"tiny": "", "0.6b": "Qwen/Qwen3-0.6B", "7b": "Qwen/Qwen2.5-7B"}
TYPES = {"tiny": "llama", "0.6b": "qwen3", "7b": "qwen2_5"}
WORDS = "the quick brown fox asks a question and gives an answer".split()
"""One token each for the tokenizer of tests/tiny_model.py."""
SPREAD = 0.9
"""Of the logarithm of the lengths; instruction data have 0.7 to 1.1."""


def prepared(folder: Path, options: argparse.Namespace) -> Path:
    """A folder with model, rows and recipe."""
    model = options.model.resolve() if options.model else folder / "model"
    if not options.model:
        words = [str(model), SHAPES[options.shape], *([str(options.layers)] if options.layers else [])]
        code = "import sys; from benchmarks._training import made_up; made_up(*sys.argv[1:])"  # torch stays out of here
        subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    rng = random.Random(0)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as stream:
        for _ in range(options.rows):
            length = min(int(rng.lognormvariate(math.log(0.3 * options.max_length), SPREAD)), 2 * options.max_length)
            asked, said = (" ".join(rng.choices(WORDS, k=max(4, part))) for part in (length // 4, length - length // 4))
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
            stream.write(json.dumps({"messages": turns}) + "\n")
    kind = "llama" if options.model else TYPES[options.shape]
    recipe = {
        "name": "bench",
        "model": {"path": str(model), "model_type": kind, "template": "chatml"},
        "data": {"sources": [{"path": "rows.jsonl"}], "val_fraction": 0.0, "dedup": "none"},
        "train": {
            "rank": 8, "alpha": 32.0, "max_length": options.max_length, "global_batch_size": options.batch,
            "max_steps": options.steps, "logging_steps": 2, "save_steps": 100_000, "misfit": "warn",
        },
        "tracking": {"mode": "disabled"},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    return folder


def made_up(folder: str, hub_id: str, layers: str = "") -> None:
    """A model of that shape with random weights in bf16 and a tokenizer of 512 tokens; without an id the tiny one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests import tiny_model

    tiny_model.make(Path(folder))
    if not hub_id:
        return
    known = dict(known_shapes.config(hub_id) or {})
    known |= {"num_hidden_layers": int(layers)} if layers else {}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "max_position_embeddings": 32768}
    config = AutoConfig.for_model(**{**known, **ends})
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    model = model.to_empty(device="cuda" if torch.cuda.is_available() else "cpu")
    model.tie_weights()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0) if "norm" in name else weight.normal_(0.0, 0.02)
    model.save_pretrained(folder)
