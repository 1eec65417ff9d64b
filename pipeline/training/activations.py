"""What the forward pass leaves for the backward pass: bytes of activations and logits, tensor by tensor.

Read off transformers 5.19 (models/qwen3, models/llama, models/qwen2), peft 0.20 (tuners/lora/layer.py) and
torch's derivatives.yaml; held against steps gone through on fake tensors by benchmarks/memory.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.training.shape import Linear, ModelShape
from pipeline.training.spec import TrainSpec

LOSS = 12
"""Bytes per token and word of the vocabulary at the start of the backward pass: log-softmax, its gradient and the
gradient of the logits, all float32 (transformers/loss/loss_utils.py upcasts them). Higher than in the forward pass."""

LIGER_LOSS = 6
"""Bytes per token and hidden number: liger's fused loss makes the hidden states' gradient at once, and logits for
a chunk of about tokens x hidden numbers (ops/fused_linear_cross_entropy.py), rounded up to a power of two."""

UNFUSED = frozenset(("granite",))
"""Model types whose loss liger 0.8.5 does not fuse (transformers/monkey_patch.py, fused_linear_cross_entropy)."""

LORA_SCRATCH, FULL_SCRATCH = 14, 8
"""Bytes per token and MLP number that the backward pass of one block needs besides what was kept: gradients of gate,
up and product, and of LoRA's input in float32."""


class Layout(NamedTuple):
    """One forward pass as the model gets it."""

    rows: int
    length: int
    padded: bool
    """Rows of different lengths beside each other, so that attention gets a mask."""

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def pairs(self) -> int:
        """Of tokens, that a mask or eager attention has a number for."""
        return self.rows * self.length**2


class Held(NamedTuple):
    blocks: int
    """All that the blocks keep, and of the block at work what is kept for a moment."""
    logits: int
    """On top of that, at the moment of the peak."""
    last: int
    """Of `blocks`, what is still held when all gradients are made."""


def layout(train: TrainSpec, tokens: int | None) -> Layout:
    """Packed rows are full; rows laid end to end are one row without padding."""
    rows = train.micro_batch_size if isinstance(train.micro_batch_size, int) else 1
    length = min(tokens or train.max_length, train.max_length)
    if train.packing is True:
        return Layout(1, rows * train.max_length, padded=False)
    if train.padding_free is True:
        return Layout(1, rows * length, padded=False)
    return Layout(rows, length, padded=rows > 1)


def fused(shape: ModelShape, train: TrainSpec) -> bool:
    """Whether liger makes the loss without the scores, in training and (transformers' skip_logits) in an evaluation."""
    return train.liger is True and shape.model_type not in UNFUSED


def peak(shape: ModelShape, train: TrainSpec, targets: Sequence[Linear], at: Layout, size: int) -> Held:
    """`size`: bytes of the numbers that are computed with."""
    stream = _stream(train, size)
    kept = at.tokens * per_token(shape, train, targets, size, padded=at.padded) + _pairs(shape, train, at, size)
    if train.dora:  # the product of both matrices, whose norms the magnitudes are divided by, is kept whole
        kept += size * sum(part.parameters for part in targets) // shape.layers
    scratch = LORA_SCRATCH if train.tuner == "lora" else FULL_SCRATCH
    block = kept + at.tokens * scratch * shape.intermediate * size // 2
    mask = at.pairs if _masked(train, at) else 0
    if fused(shape, train):
        logits = at.tokens * shape.hidden * LIGER_LOSS
        if train.tuner == "full":  # the output layer's gradient, beside that of the rows before
            logits += shape.vocab * shape.hidden * _stream(train, size)
    else:
        logits = at.tokens * (shape.vocab * LOSS + 4 * shape.hidden)
    if train.gradient_checkpointing is True:
        inputs = shape.layers * at.tokens * shape.hidden * stream + mask
        return Held(inputs + block, max(0, logits - block), block)
    # The scratch of the last block comes when the logits are gone.
    everything = shape.layers * kept + mask
    return Held(everything + max(0, block - kept - logits), logits, block)


def per_token(shape: ModelShape, train: TrainSpec, targets: Sequence[Linear], size: int, *, padded: bool) -> int:
    """Bytes that one token leaves in one block."""
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    total = _norms(shape, train, size) + _mlp(shape, size, liger=train.liger is True)
    # Queries, keys, values and output, and the logarithms of the softmax's sums. With a mask the keys and values are
    # repeated for every head first (integrations/sdpa_attention.py, use_gqa_in_sdpa), with eager attention always.
    repeated = (padded and train.attention == "sdpa") or train.attention == "eager"
    total += size * (2 * query + 2 * (query if repeated else key)) + 4 * shape.heads
    if train.tuner == "full":
        return total + _inputs(shape, train, size)
    return total + sum(_lora(linear, train, size) for linear in targets if "{}" in linear.name) // shape.layers


def _stream(train: TrainSpec, size: int) -> int:
    """Bytes per number of the residual stream: the type of the weights, not of the computation."""
    return 4 if train.tuner == "full" and train.deepspeed in ("none", "auto") else size


def _norms(shape: ModelShape, train: TrainSpec, size: int) -> int:
    """Two per block over the hidden numbers, and those of queries and keys: a float32 copy of what comes in.

    Where its weight is trained, what comes out is kept as well. liger keeps the input as it is.
    """
    stream, heads = _stream(train, size), (shape.heads + shape.kv_heads) * shape.head_dim if shape.qk_norm else 0
    if train.liger is True:
        return 2 * shape.hidden * stream + heads * size
    out = 1 if train.tuner == "full" else 0
    return 2 * shape.hidden * (4 + out * stream) + heads * (4 + out * size)


def _mlp(shape: ModelShape, size: int, *, liger: bool) -> int:
    """Gate, up and the activated gate, which liger computes again; of experts those that a token goes to."""
    width = shape.intermediate * max(shape.experts_per_token, 1)
    return size * width * (2 if liger else 3)


def _inputs(shape: ModelShape, train: TrainSpec, size: int) -> int:
    """Full training: every linear layer keeps its input.

    Queries, keys and values share theirs, as gate and up do, unless autocast makes a copy for each; the output of
    attention is kept already.
    """
    copies = 5 if _stream(train, size) != size else 2
    return size * (copies * shape.hidden + shape.intermediate * max(shape.experts_per_token, 1))


def _lora(linear: Linear, train: TrainSpec, size: int) -> int:
    """Each target keeps its own copy of the input, dropout's mask (a byte; on a CPU a number) and what lora_A gives.

    DoRA keeps the two results that it weighs against each other.
    """
    mask = 0 if not train.dropout else 4 if train.gpus == 0 else 1
    weighed = 2 * size * linear.outputs if train.dora else 0
    return linear.count * ((size + mask) * linear.inputs + size * train.rank * linear.ranks + weighed)


def _masked(train: TrainSpec, at: Layout) -> bool:
    return at.padded and train.attention in ("sdpa", "eager", "auto")


def _pairs(shape: ModelShape, train: TrainSpec, at: Layout, size: int) -> int:
    """What a block keeps per pair of tokens: flash-attention nothing, sdpa its mask as numbers.

    Eager attention: the softmax of every head in float32, and its copy in the model's type.
    """
    if train.attention == "eager":
        return shape.heads * at.pairs * (4 + (size if size < 4 else 0))
    return at.pairs * size if _masked(train, at) else 0
