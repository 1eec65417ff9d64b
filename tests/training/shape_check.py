"""Every family's layout against transformers' own classes, LoRA's size against peft's; on the meta device, no memory.

.venv/bin/python tests/training/shape_check.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.training import families, known_shapes, lora, memory, shape
from pipeline.training.spec import TrainSpec

TINY = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
CONFIGS: tuple[dict[str, Any], ...] = (
    {"model_type": "llama", **TINY, "tie_word_embeddings": False},
    {"model_type": "llama", **TINY, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    {"model_type": "mistral", **TINY, "tie_word_embeddings": False, "head_dim": 32},
    {"model_type": "qwen2", **TINY, "tie_word_embeddings": True},
    {"model_type": "qwen3", **TINY, "tie_word_embeddings": False, "head_dim": 32},
    {"model_type": "qwen3_moe", **TINY, **EXPERTS, "tie_word_embeddings": False, "head_dim": 32, "mlp_only_layers": [1]},
    {"model_type": "qwen2_moe", **TINY, **EXPERTS, "tie_word_embeddings": False, "shared_expert_intermediate_size": 80},
    {"model_type": "mixtral", **TINY, "num_local_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": False},
)  # fmt: skip
TRAINS = (
    {"rank": 8},
    {"rank": 4, "target_modules": ("q_proj", "v_proj")},
    {"rank": 4, "target_modules": ("q_proj", "down_proj"), "dora": True},
    {"rank": 4, "rslora": True, "target_modules": ("layers.1.self_attn.o_proj",)},
    {"rank": 4, "target_modules": r".*layers\.[02]\.self_attn\.(q|k)_proj"},
)
EXPERT_TRAINS = (TRAINS[0], TRAINS[1], TRAINS[4])


def model_of(config: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


def check(config: dict[str, Any], trains: tuple[dict[str, Any], ...] = TRAINS) -> None:
    from peft import LoraConfig, get_peft_model
    from swift.utils import find_all_linears

    found = shape.shape(config, families.tensors(config))
    assert found is not None
    model = model_of(config)
    names = {name: tuple(value.shape) for name, value in model.named_parameters()}
    ours = families.tensors(config)
    assert names == ours, set(names.items()) ^ set(ours.items())
    assert found.parameters == sum(p.numel() for p in model.parameters())
    model.model_meta = type("Meta", (), {"model_arch": None, "is_multimodal": False})
    every = find_all_linears(model)
    for settings in trains:
        train = TrainSpec(**settings)
        target: Any = every if train.target_modules == "all-linear" else train.target_modules
        adapter = LoraConfig(
            r=train.rank, target_modules=target if isinstance(target, str) else list(target), use_dora=train.dora,
            use_rslora=train.rslora, task_type="CAUSAL_LM",
        )  # fmt: skip
        if not lora.targets(found, train):
            continue  # peft refuses a target that is nowhere
        if found.model_type == "qwen3_moe" and settings not in EXPERT_TRAINS:
            continue  # peft has no DoRA for experts, and wants gate and up together
        adapted = get_peft_model(model_of(config), adapter)
        trained, everything = adapted.get_nb_trainable_parameters()
        assert trained == memory.trainable(found, train), (config["model_type"], settings, trained)
        assert everything == found.parameters + trained
    print(config["model_type"], f"{found.parameters:,}", "agrees")


if __name__ == "__main__":
    for tiny in CONFIGS:
        check(tiny)
    for hub_id in ("Qwen/Qwen2.5-7B", "Qwen/Qwen3-0.6B", "meta-llama/Llama-3.2-1B", "HuggingFaceTB/SmolLM2-135M",
                   "mistralai/Mistral-7B-v0.3", "Qwen/Qwen3-32B"):  # fmt: skip
        known = known_shapes.config(hub_id)
        assert known
        check(known, TRAINS[:1])
