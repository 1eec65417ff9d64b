"""Which layers LoRA is put on, and how many weights that trains, by ms-swift's and peft's rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from pipeline.training.shape import Linear, ModelShape
from pipeline.training.spec import TrainSpec

_REGEX = re.compile(r"[\^$*+?()\[\]{}|\\]")
_QWEN = (("gate_proj", "up_proj"), "down_proj")
_MIXTRAL = (("w1", "w3"), "w2")
_FUSED = {
    **dict.fromkeys("qwen3_moe qwen3_next olmoe deepseek_v2 deepseek_v3 glm4_moe dots1 ernie4_5_moe".split(), _QWEN),
    **dict.fromkeys("mixtral minimax minimax_m2".split(), _MIXTRAL),
}
"""Families whose experts' names peft still takes, for the two parameters that transformers 5 makes of them.

The first two names are one parameter, gate_up_proj: peft/utils/transformers_weight_conversion.py, and the families by
transformers/conversion_mapping.py (not qwen2_moe itself).
"""


def trainable(shape: ModelShape, train: TrainSpec) -> int:
    """Weights that are trained: all, or LoRA's r x (inputs + outputs) per target; DoRA adds a magnitude per output."""
    if train.tuner == "full":
        return shape.parameters
    return sum(
        part.count * (train.rank * part.ranks * (part.inputs + part.outputs) + (part.outputs if train.dora else 0))
        for part in targets(shape, train)
    )


def by_regex(train: TrainSpec) -> bool:
    """Whether the targets are a regex over whole names: a string that is no plain name."""
    return isinstance(train.target_modules, str) and _REGEX.search(train.target_modules) is not None


def targets(shape: ModelShape, train: TrainSpec) -> tuple[Linear, ...]:
    """The layers that LoRA is put on, each with the number of its blocks.

    A list holds names, or ends of names; a string that is no plain name is a regex over whole names (--target_regex).
    """
    asked = (train.target_modules,) if isinstance(train.target_modules, str) else train.target_modules
    if "all-linear" in asked:
        found = shape.linears
    elif by_regex(train):
        pattern = re.compile(asked[0])
        found = _some(shape.linears, lambda name: pattern.fullmatch(name) is not None)
        if shape.experts and shape.model_type in _FUSED:  # peft makes ends of names of it, in all blocks
            ends = {_end(part.name) for part in found}
            found = tuple(part for part in shape.linears if _end(part.name) in ends)
    else:
        found = _some(shape.linears, lambda name: any(name == word or name.endswith(f".{word}") for word in asked))
    words = {_end(word) for word in asked} | {_end(part.name) for part in found}
    return _with_experts(shape, found, words)


def _some(linears: tuple[Linear, ...], wanted: Callable[[str], bool]) -> tuple[Linear, ...]:
    counts = [(linear, sum(wanted(name) for name in linear.names)) for linear in linears]
    return tuple(replace(linear, count=count, at=()) for linear, count in counts if count)


def _with_experts(shape: ModelShape, found: tuple[Linear, ...], words: set[str]) -> tuple[Linear, ...]:
    """Experts where their parts are named; layers of the same name that are no experts then go without LoRA."""
    if not shape.experts or shape.model_type not in _FUSED:
        return found
    gated, down = _FUSED[shape.model_type]
    blocks = shape.expert_parameters // (3 * shape.experts * shape.hidden * shape.intermediate)
    extra = []
    if words.issuperset(gated):
        size = (shape.hidden, 2 * shape.intermediate)
        extra.append(Linear("model.layers.{}.mlp.experts.gate_up_proj", *size, blocks, ranks=2 * shape.experts))
    if down in words:
        size = (shape.intermediate, shape.hidden)
        extra.append(Linear("model.layers.{}.mlp.experts.down_proj", *size, blocks, ranks=shape.experts))
    return (*(part for part in found if _end(part.name) not in (*gated, down)), *extra)


def _end(name: str) -> str:
    return name.rsplit(".", 1)[-1]
