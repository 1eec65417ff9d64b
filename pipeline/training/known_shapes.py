"""Configs of well-known hub models, for a plan before anything is downloaded. The model's own files come first.

Numbers are those of each repository's config.json; tests hold them against the published totals.
"""

from __future__ import annotations

import re
from typing import Any

_QWEN3 = {"model_type": "qwen3", "vocab_size": 151936, "head_dim": 128, "dtype": "bfloat16"}
_QWEN2 = {"model_type": "qwen2", "dtype": "bfloat16"}
_LLAMA3 = {"model_type": "llama", "vocab_size": 128256, "head_dim": 128, "dtype": "bfloat16"}
_SMOL = {"model_type": "llama", "vocab_size": 49152, "tie_word_embeddings": True, "dtype": "bfloat16"}
_MISTRAL = {"model_type": "mistral", "dtype": "bfloat16"}

_ROWS: dict[str, tuple[dict[str, Any], tuple[int, int, int, int, int], dict[str, Any]]] = {
    # name: family, (layers, hidden, intermediate, heads, key-value heads), what differs
    "qwen3-0.6b": (_QWEN3, (28, 1024, 3072, 16, 8), {"tie_word_embeddings": True}),
    "qwen3-1.7b": (_QWEN3, (28, 2048, 6144, 16, 8), {"tie_word_embeddings": True}),
    "qwen3-4b": (_QWEN3, (36, 2560, 9728, 32, 8), {"tie_word_embeddings": True}),
    "qwen3-8b": (_QWEN3, (36, 4096, 12288, 32, 8), {}),
    "qwen3-14b": (_QWEN3, (40, 5120, 17408, 40, 8), {}),
    "qwen3-32b": (_QWEN3, (64, 5120, 25600, 64, 8), {}),
    "qwen3-30b-a3b": (
        {**_QWEN3, "model_type": "qwen3_moe"},
        (48, 2048, 6144, 32, 4),
        {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
    ),
    "qwen2.5-0.5b": (_QWEN2, (24, 896, 4864, 14, 2), {"vocab_size": 151936, "tie_word_embeddings": True}),
    "qwen2.5-1.5b": (_QWEN2, (28, 1536, 8960, 12, 2), {"vocab_size": 151936, "tie_word_embeddings": True}),
    "qwen2.5-3b": (_QWEN2, (36, 2048, 11008, 16, 2), {"vocab_size": 151936, "tie_word_embeddings": True}),
    "qwen2.5-7b": (_QWEN2, (28, 3584, 18944, 28, 4), {"vocab_size": 152064}),
    "qwen2.5-14b": (_QWEN2, (48, 5120, 13824, 40, 8), {"vocab_size": 152064}),
    "qwen2.5-32b": (_QWEN2, (64, 5120, 27648, 40, 8), {"vocab_size": 152064}),
    "qwen2.5-72b": (_QWEN2, (80, 8192, 29568, 64, 8), {"vocab_size": 152064}),
    "llama-3.2-1b": (_LLAMA3, (16, 2048, 8192, 32, 8), {"head_dim": 64, "tie_word_embeddings": True}),
    "llama-3.2-3b": (_LLAMA3, (28, 3072, 8192, 24, 8), {"tie_word_embeddings": True}),
    "llama-3.1-8b": (_LLAMA3, (32, 4096, 14336, 32, 8), {}),
    "llama-3.1-70b": (_LLAMA3, (80, 8192, 28672, 64, 8), {}),
    "smollm2-135m": (_SMOL, (30, 576, 1536, 9, 3), {}),
    "smollm2-360m": (_SMOL, (32, 960, 2560, 15, 5), {}),
    "smollm2-1.7b": (_SMOL, (24, 2048, 8192, 32, 32), {}),
    "mistral-7b-v0.1": (_MISTRAL, (32, 4096, 14336, 32, 8), {"vocab_size": 32000}),
    "mistral-7b-v0.3": (_MISTRAL, (32, 4096, 14336, 32, 8), {"vocab_size": 32768}),
}
_SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
_OWNERS = re.compile(r"(Qwen|LLM-Research|meta-llama|HuggingFaceTB|mistralai|AI-ModelScope|unsloth)/", re.IGNORECASE)
"""Those that publish these models; somebody else's `Qwen3-8B` may be anything."""


def config(hub_id: str) -> dict[str, Any] | None:
    """As config.json has it, as far as `families.tensors` needs it; None for an id that is not known."""
    owner = _OWNERS.match(hub_id)
    row = _ROWS.get(_plain(hub_id[owner.end() :])) if owner else None
    if row is None:
        return None
    family, sizes, rest = row
    return {"tie_word_embeddings": False, **family, **dict(zip(_SIZES, sizes, strict=True)), **rest}


def _plain(name: str) -> str:
    """Without what changes the weights and not their shape; `Meta-Llama-3.1-8B-Instruct` -> `llama-3.1-8b`."""
    name = name.lower().removeprefix("meta-")
    version = re.search(r"-v0\.\d$", name)  # Mistral-7B-Instruct-v0.3: another vocabulary, so the version stays
    stem = name[: version.start()] if version else name
    for ending in ("-instruct", "-base", "-chat", "-it"):
        stem = stem.removesuffix(ending)
    # v0.2 has the vocabulary of v0.1.
    return stem + (version[0].replace("0.2", "0.1") if version else "")
