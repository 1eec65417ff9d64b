"""Adapters, and right and wrong merges of them, made with peft; each is judged by the real program.

`python tests/e2e/merges.py MODEL ROWS OUT TYPE` prints {name: {verdict, ...}} as JSON. A process of its own: torch stays out
of the test process.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.training import merge_check, merge_logits


def adapter(model: Path, out: Path, *, seed: int, size: float) -> Path:
    """LoRA of all linear layers whose two halves are random, so that every matrix is moved."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tuned = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=size)
    tuned.save_pretrained(out)
    return out


def merge(model: Path, lora: Path, out: Path, dtype: str, scale: Callable[[str], float]) -> Path:
    """Base + scale x adapter, rounded to `dtype`; `scale` by the module's name."""
    import torch
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tuned: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), str(lora))
    for name, module in tuned.named_modules():
        if isinstance(module, LoraLayer):
            module.scaling["default"] *= scale(name)
    tuned.merge_and_unload().to(getattr(torch, dtype)).save_pretrained(out)
    AutoTokenizer.from_pretrained(model).save_pretrained(out)
    return out


def judged(model: Path, lora: Path, merged: Path, rows: Path, *words: str) -> dict[str, Any]:
    argv = [str(merged) + "-check", "--base", model, "--adapter", lora, "--merged", merged, "--rows", rows]
    argv += [
        "--model-type",
        "llama",
        "--template",
        "chatml",
        "--readers",
        '[{"harness": "lm_eval"}, {"harness": "evalscope"}]',
    ]
    options = merge_logits.arguments().parse_args([*map(str, argv), *words])
    found = merge_logits.run(options)
    verdict = merge_check.judge(found["logits"]) if "logits" in found else merge_check.judge_tensors(found["tensors"])
    return {"verdict": verdict, **found}


def main(model: Path, rows: Path, out: Path, dtype: str) -> None:
    lora = adapter(model, out / "lora", seed=1, size=0.1)
    other = adapter(model, out / "other", seed=2, size=0.1)
    nothing = adapter(model, out / "nothing", seed=3, size=0.0)
    wrong: dict[str, tuple[Path, Callable[[str], float]]] = {
        "right": (lora, lambda _: 1.0),
        "base": (lora, lambda _: 0.0),
        "other adapter": (other, lambda _: 1.0),
        "half of the layers": (lora, lambda name: float("layers.0." in name)),
        "alpha / 2": (lora, lambda _: 0.5),
        "alpha x 1.2": (lora, lambda _: 1.2),
        "without q_proj of one layer": (lora, lambda name: float("layers.1.self_attn.q_proj" not in name)),
    }
    found = {
        name: judged(model, lora, merge(model, of, out / name.replace(" / ", "-"), dtype, scale), rows)
        for name, (of, scale) in wrong.items()
    }
    found["no-op adapter"] = judged(model, nothing, merge(model, nothing, out / "noop", dtype, lambda _: 1.0), rows)
    whole = merge(model, lora, out / "whole", "float32", lambda _: 1.0)
    found["all weights, right"] = judged(model, whole, shutil.copytree(whole, out / "copy"), rows)
    found["all weights, the base exported"] = judged(model, whole, model, rows)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
