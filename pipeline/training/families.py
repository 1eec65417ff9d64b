"""The weights that a config.json stands for, for the families whose layout is known: name and shape of each tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Whether queries, keys and values have a bias (where config.json does not say), and heads a norm of their own.
# Source: transformers/models/<family>/modeling_<family>.py, class <Family>Attention.
_BIAS = {"qwen2": True, "qwen2_moe": True}
_QK_NORM = frozenset({"qwen3", "qwen3_moe"})
_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "mixtral"})
_TIED = frozenset({"gemma", "gemma2", "gemma3", "gemma3_text"})
"""Families whose config class ties the embeddings unless it says otherwise."""


def text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a config."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def tied(config: Mapping[str, Any]) -> bool:
    # The outer value counts for multimodal models, too: it is the one from_pretrained ties by.
    for part in (config, text(config)):
        if "tie_word_embeddings" in part:
            return bool(part["tie_word_embeddings"])
    # transformers 5 dropped the old default (True) from its base class for these families.
    return text(config).get("model_type") in _TIED


def tensors(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """{} for a family that is not known; KeyError where a size is missing."""
    kind = config.get("model_type")
    if kind not in _FAMILIES:
        return {}
    hidden, vocab = int(config["hidden_size"]), int(config["vocab_size"])
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(int(config["num_hidden_layers"])):
        for name, size in (*_attention(config, str(kind)), *_mlp(config, str(kind), layer)):
            found[f"model.layers.{layer}.{name}"] = size
    found["model.norm.weight"] = (hidden,)
    if not tied(config):
        found["lm_head.weight"] = (vocab, hidden)
    return found


def _attention(config: Mapping[str, Any], kind: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    width = int(config.get("head_dim") or hidden // heads)
    keys = int(config.get("num_key_value_heads") or heads) * width
    bias = bool(config.get("attention_bias", _BIAS.get(kind, False)) or kind in _BIAS)
    for name, size in (("q", heads * width), ("k", keys), ("v", keys)):
        yield f"self_attn.{name}_proj.weight", (size, hidden)
        if bias:
            yield f"self_attn.{name}_proj.bias", (size,)
    yield "self_attn.o_proj.weight", (hidden, heads * width)
    if bias and kind not in _BIAS:
        yield "self_attn.o_proj.bias", (hidden,)
    if kind in _QK_NORM:
        yield "self_attn.q_norm.weight", (width,)
        yield "self_attn.k_norm.weight", (width,)
    yield "input_layernorm.weight", (hidden,)
    yield "post_attention_layernorm.weight", (hidden,)


def _mlp(config: Mapping[str, Any], kind: str, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden = int(config["hidden_size"])
    experts = int(config.get("num_experts") or config.get("num_local_experts") or 0)
    sparse = kind in ("qwen2_moe", "qwen3_moe", "mixtral") and experts > 0
    if kind != "mixtral":
        step = int(config.get("decoder_sparse_step") or 1)
        sparse = sparse and layer not in (config.get("mlp_only_layers") or ()) and (layer + 1) % step == 0
    if not sparse:
        bias = bool(config.get("mlp_bias"))
        yield from _gated("mlp", hidden, int(config["intermediate_size"]), bias=bias)
        return
    width = int(config["intermediate_size"] if kind == "mixtral" else config["moe_intermediate_size"])
    yield "mlp.gate.weight", (experts, hidden)
    yield "mlp.experts.gate_up_proj", (experts, 2 * width, hidden)
    yield "mlp.experts.down_proj", (experts, hidden, width)
    if kind == "qwen2_moe":
        yield from _gated("mlp.shared_expert", hidden, int(config["shared_expert_intermediate_size"]))
        yield "mlp.shared_expert_gate.weight", (1, hidden)


def _gated(name: str, hidden: int, width: int, *, bias: bool = False) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part, size in (("gate", (width, hidden)), ("up", (width, hidden)), ("down", (hidden, width))):
        yield f"{name}.{part}_proj.weight", size
        if bias:
            yield f"{name}.{part}_proj.bias", size[:1]
