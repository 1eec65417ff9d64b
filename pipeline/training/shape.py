"""A model's shape from its files alone: config.json and the headers of its safetensors. No torch, no weights read."""

from __future__ import annotations

import json
import math
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.recipe import ModelSpec
from pipeline.training import families, known_shapes

Tensors = Mapping[str, tuple[int, ...]]
"""Shape of each tensor by its name in the checkpoint."""

_NUMBER = re.compile(r"\.(\d+)\.")
_UNTRAINED = ("lm_head", "score", "v_head", "classifier")
"""Names that ms-swift's `all-linear` leaves out (swift/utils/transformers_utils.py, find_all_linears)."""
_EXPERTS = re.compile(r"\.experts(\.|$)")
"""Experts are one 3-D parameter in transformers 5, whatever the file holds: no Linear, so `all-linear` passes by."""
_ROUTER = re.compile(r"\.(mlp|block_sparse_moe|feed_forward)\.(gate|router)(\.|$)")
"""A class of its own in transformers 5 (*TopKRouter), no Linear."""
_VISION = re.compile(r"(^|\.)(visual|vision_tower|vision_model|vision|multi_modal_projector|merger|audio_tower)\.")
"""Frozen by ms-swift's defaults (freeze_vit, freeze_aligner), and no part of `all-linear`."""
_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True)
class Linear:
    """Linear layers of one name and shape; `{}` stands for the number of the block."""

    name: str
    inputs: int
    outputs: int
    count: int = 1
    at: tuple[int, ...] = ()
    """Numbers of the blocks it is in; empty: 0 to count - 1."""
    ranks: int = 1
    """Times the rank: of all experts in one parameter, LoRA has one each (peft's ParamWrapper)."""

    @property
    def names(self) -> list[str]:
        """Full names, as peft sees them."""
        if "{}" not in self.name:
            return [self.name]
        return [self.name.replace("{}", str(number), 1) for number in self.at or range(self.count)]

    @property
    def parameters(self) -> int:
        """Of all its weights, without biases."""
        return self.inputs * self.outputs * self.count


@dataclass(frozen=True)
class ModelShape:
    """What memory and speed of a training depend on. Widths and counts, no bytes."""

    parameters: int
    """All weights, tied ones once."""
    layers: int
    hidden: int
    intermediate: int
    """Width inside the MLP; of one expert where there are experts."""
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    """Input and output embedding are one matrix."""
    dtype: str
    """float32, bfloat16, float16: what the files are in."""
    linears: tuple[Linear, ...]
    """What `all-linear` trains."""
    model_type: str = ""
    multimodal: bool = False
    """It has a part for pictures or sound, too."""
    qk_norm: bool = False
    """A norm on queries and keys of each head, as in Qwen3."""
    experts: int = 0
    """Per block with experts; 0 = a dense model."""
    experts_per_token: int = 0
    expert_parameters: int = 0
    """Of all experts together; part of `parameters`."""

    @property
    def active(self) -> int:
        """Weights that one token meets: of the experts only those it is sent to."""
        if not self.experts:
            return self.parameters
        return self.parameters - self.expert_parameters * (self.experts - self.experts_per_token) // self.experts

    @property
    def embeddings(self) -> int:
        """Weights of input and output embedding."""
        return self.vocab * self.hidden * (1 if self.tied else 2)


def read(folder: Path) -> ModelShape | None:
    """From config.json and, where they are, the safetensors' headers; None where that does not say enough.

    A folder without weights is taken for what its config says, if it is of a family that families.py knows.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    try:
        tensors, dtype = _headers(sorted(folder.glob("*.safetensors")))
        return shape(config, tensors or families.tensors(config), dtype)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def of(model: ModelSpec, folder: Path | None = None) -> ModelShape | None:
    """The folder's files if they say enough, else what is known of the hub id, else None."""
    place = folder or model.path
    found = read(place) if place else None
    if found is None and model.id:
        config = known_shapes.config(model.id)
        return shape(config, families.tensors(config)) if config else None
    return found


def shape(config: Mapping[str, Any], tensors: Tensors, dtype: str | None = None) -> ModelShape | None:
    """`dtype` is that of the files; without it the config's. None without tensors or sizes."""
    text = families.text(config)
    if not tensors or "hidden_size" not in text:
        return None
    tied = families.tied(config)
    heads = int(text["num_attention_heads"])
    hidden = int(text["hidden_size"])
    # A head that is saved although it is tied (some converters do) is loaded as the same matrix.
    counted = {n: s for n, s in tensors.items() if not (tied and n.endswith("lm_head.weight") and _embedded(tensors))}
    experts = int(text.get("num_experts") or text.get("num_local_experts") or text.get("n_routed_experts") or 0)
    return ModelShape(
        parameters=sum(math.prod(size) for size in counted.values()),
        layers=int(text["num_hidden_layers"]),
        hidden=hidden,
        intermediate=int((experts and text.get("moe_intermediate_size")) or text["intermediate_size"]),
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=int(text.get("head_dim") or hidden // heads),
        vocab=int(text["vocab_size"]),
        tied=tied,
        dtype=str(dtype or config.get("dtype") or config.get("torch_dtype") or text.get("torch_dtype") or "float32"),
        linears=_linears(tensors),
        model_type=str(config.get("model_type", "")),
        multimodal=any(f"{kind}_config" in config for kind in ("vision", "audio")),
        qk_norm=any(".q_norm." in name for name in tensors),
        experts=experts,
        experts_per_token=int(text.get("num_experts_per_tok") or 0),
        expert_parameters=sum(math.prod(size) for name, size in tensors.items() if _EXPERTS.search(name)),
    )


def _embedded(tensors: Tensors) -> bool:
    return any(name.endswith("embed_tokens.weight") for name in tensors)


def _linears(tensors: Tensors) -> tuple[Linear, ...]:
    groups: dict[tuple[str, int, int], list[int]] = defaultdict(list)
    for name, size in tensors.items():
        if len(size) != 2 or not name.endswith(".weight") or not _is_linear(name):
            continue
        module = name.removesuffix(".weight")
        number = _NUMBER.search(module)
        groups[_NUMBER.sub(".{}.", module, count=1), size[1], size[0]].append(int(number[1]) if number else 0)
    return tuple(
        Linear(name, inputs, outputs, len(at), tuple(sorted(at)) if "{}" in name else ())
        for (name, inputs, outputs), at in groups.items()
    )


def _is_linear(name: str) -> bool:
    last = name.removesuffix(".weight").rsplit(".", 1)[-1]
    return not (
        any(word in name for word in _UNTRAINED)
        or any(pattern.search(name) for pattern in (_EXPERTS, _ROUTER, _VISION))
        or "norm" in last
        or "emb" in last
        or last in ("wte", "wpe")
    )


_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def _headers(files: Iterable[Path]) -> tuple[dict[str, tuple[int, ...]], str | None]:
    """Shapes of all tensors, and the data type that most of the weights have."""
    found: dict[str, tuple[int, ...]] = {}
    weight: dict[str, int] = defaultdict(int)
    for path in files:
        if path.name.startswith("adapter_"):
            continue
        with path.open("rb") as stream:
            length = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))[0]
            if length > _HEADER_LIMIT:
                raise ValueError(f"{path}: not a safetensors file")
            header = json.loads(stream.read(length) or b"{}")
        if not isinstance(header, dict):
            raise ValueError(f"{path}: the header is no object")  # noqa: TRY004  bad data, not a bad call
        for name, tensor in header.items():
            if name != "__metadata__":
                found[name] = tuple(tensor["shape"])
                weight[tensor["dtype"]] += math.prod(found[name])
    return found, _DTYPES.get(max(weight, key=lambda kind: weight[kind])) if weight else None
