"""What a training needs on each GPU, from the model's shape and the settings: pure arithmetic, no torch.

Every constant names its source. How far the whole is from what was measured stands in docs/training.md.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from pipeline.training import activations, deepspeed
from pipeline.training.lora import targets, trainable
from pipeline.training.shape import ModelShape
from pipeline.training.spec import TrainSpec

__all__ = ["BYTES", "Estimate", "estimate", "host", "offloaded", "precision", "saved", "stage", "targets", "trainable"]

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Per weight with double quantization: a block of 64 has an 8-bit scale, 256 scales a 32-bit one (QLoRA, Dettmers et
al. 2023, arXiv:2305.14314, section 3)."""
INT8_BITS = 8
"""LLM.int8; its scale per row is less than a hundredth of a bit."""

CUDA_CONTEXT = 600 * 2**20
"""What a process holds before its first tensor: context, loaded kernels, cuBLAS' workspace of 32 MiB on Hopper. An
assumption: nvidia-smi shows some 300 to 600 MiB, by GPU and driver."""
NCCL = 400 * 2**20
"""Its channels' buffers, with several processes. An assumption."""
FRAGMENTATION = 0.04
"""Of the rest, what PyTorch's allocator holds in pieces that nothing fits into. An assumption; rows of very different
lengths make it more. PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True makes it less."""
MASTER = 4 + 4 + 4
"""DeepSpeed, per trained weight: a float32 copy and AdamW's two states. ZeRO 1 and 2 copy float32 weights as well
(runtime/zero/stage_1_and_2.py, weights_partition), ZeRO 3 does not (stage3.py, fp32_partitioned_groups_flat)."""


class Estimate(BaseModel):
    """Bytes per GPU (per process on a CPU) at the moment of the peak."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: int
    """Of the model, without what LoRA adds."""
    adapter: int
    """Weights that LoRA adds; 0 in full training."""
    gradients: int
    optimizer: int
    activations: int
    """What the backward pass needs of the blocks, the block that is being worked on, autocast's copies of weights."""
    logits: int
    """Scores of all tokens over the vocabulary, their float32 copy and gradient."""
    workspace: int
    """CUDA context, fragmentation, buffers for communication."""

    @property
    def total(self) -> int:
        return sum(value for _, value in self.rows())

    def rows(self) -> list[tuple[str, int]]:
        return [(name, getattr(self, name)) for name in type(self).model_fields]


def estimate(shape: ModelShape, train: TrainSpec, *, processes: int, tokens: int | None = None) -> Estimate:
    """Bytes per GPU of a resolved section over `processes` of all nodes; see Estimate.

    `tokens` is the longest row that really comes; without it max_length is assumed. With packing every row is
    max_length. All of a row's tokens are taken to be trained on; ms-swift makes logits for those only, so long prompts
    make `logits` too high. `auto` is read as: bfloat16, one row, sdpa, and no to everything else.
    """
    size = BYTES[precision(train)]
    held = activations.peak(shape, train, targets(shape, train), activations.layout(train, tokens), size)
    static = _static(shape, train, size, processes)
    # Autocast keeps each float32 weight's 16-bit copy from the forward pass on (full training: TrainSpec.held_in).
    copies = shape.parameters * size if train.tuner == "full" and stage(train) == 0 and size == 2 else 0
    over = copies + held.blocks + held.logits
    if not _accumulates(train, processes):
        # Gradients are made while activations go: they are never all there at once.
        over = max(over - static["gradients"], held.last)
    over = max(over, _step(shape, train, size, processes))
    logits = min(held.logits, over)
    known = {**static, "activations": over - logits, "logits": logits}
    workspace = _buffers(shape, train, size, processes)
    if train.gpus != 0:
        workspace += CUDA_CONTEXT + (NCCL if processes > 1 else 0) + round(FRAGMENTATION * sum(known.values()))
    return Estimate(**known, workspace=workspace)


def _step(shape: ModelShape, train: TrainSpec, size: int, processes: int) -> int:
    """What ZeRO 1 and 2 make for the optimizer step: their part of the gradients once more, flat, then in float32.

    All three are there at once (DeepSpeed 0.19.8, runtime/zero/stage_1_and_2.py, step).
    """
    if stage(train) not in (1, 2) or offloaded(train):
        return 0
    return trainable(shape, train) // processes * (size + (4 if size < 4 else 0))


def saved(shape: ModelShape, train: TrainSpec) -> int:
    """Bytes of main memory per process that a checkpoint takes for a moment.

    Under ZeRO 1 and 2 every process copies all weights there, of which one then writes its adapter (accelerate 1.15,
    Accelerator.get_state_dict); ZeRO 3 and plain data parallelism have none.
    """
    return _weights(shape, train, BYTES[precision(train)]) if stage(train) in (1, 2) else 0


def host(shape: ModelShape, train: TrainSpec, *, processes: int) -> int:
    """Bytes of main memory per process that offloading fills; 0 without it."""
    if not offloaded(train):
        return 0
    size = BYTES[precision(train)]
    # Besides the optimizer's: gradients in float32, and the new weights before they go back.
    held = trainable(shape, train) * (MASTER + 4 + size)
    if stage(train) == 3:
        held += _weights(shape, train, size)
    return held // processes


def _static(shape: ModelShape, train: TrainSpec, size: int, processes: int) -> dict[str, int]:
    """What is there from step to step."""
    trained, zero = trainable(shape, train), stage(train)
    # Per trained weight: float32 (adapter: peft's autocast_adapter_dtype; full: held_in) unless DeepSpeed casts it.
    each = size if zero else 4
    optimizer = trained * (2 * each if not zero else MASTER if zero < 3 or size < 4 else 8)
    found = {
        "weights": _weights(shape, train, size),
        "adapter": trained * each if train.tuner == "lora" else 0,
        "gradients": trained * each,
        "optimizer": optimizer,
    }
    sharded = {1: ("optimizer",), 2: ("optimizer", "gradients"), 3: tuple(found)}.get(zero, ())
    moved = () if not offloaded(train) else tuple(found) if zero == 3 else ("optimizer", "gradients")
    return {name: 0 if name in moved else n // processes if name in sharded else n for name, n in found.items()}


def _buffers(shape: ModelShape, train: TrainSpec, size: int, processes: int) -> int:
    """Of communication, and of weights that are whole only for a moment."""
    trained, zero = trainable(shape, train), stage(train)
    if zero == 0:
        copies = 4 * trained if processes > 1 else 0  # DDP's buckets hold the gradients a second time
        if train.quantization == "none":
            return copies
        # The largest matrix, as bitsandbytes brings it back to 16 bit for its product.
        return copies + max((part.inputs * part.outputs for part in shape.linears), default=0) * size
    if zero == 3:
        # Gathered weights are kept up to this number, and one bucket of gradients (hidden^2, by transformers).
        return min(shape.parameters, deepspeed.LIVE_PARAMETERS) * size + shape.hidden**2 * size
    bucket = deepspeed.SMALL_BUCKET if train.tuner == "lora" else deepspeed.LARGE_BUCKET
    # Allocated whole, used or not; twice where communication runs beside the backward pass.
    return bucket * size * (2 if deepspeed.overlap(train)[0] else 1)


def _accumulates(train: TrainSpec, processes: int) -> bool:
    """Whether gradients of earlier forward passes are there while the next one runs."""
    rows = train.micro_batch_size if isinstance(train.micro_batch_size, int) else 1
    return train.global_batch_size > rows * processes


def precision(train: TrainSpec) -> str:
    return "bfloat16" if train.precision == "auto" else train.precision


def stage(train: TrainSpec) -> int:
    """Of ZeRO; 0 without DeepSpeed."""
    return int(train.deepspeed[4]) if train.deepspeed.startswith("zero") else 0


def offloaded(train: TrainSpec) -> bool:
    return train.deepspeed.endswith("_offload")


def _weights(shape: ModelShape, train: TrainSpec, size: int) -> int:
    if train.tuner == "full" and stage(train) == 0:
        return shape.parameters * 4  # held in float32 (TrainSpec.held_in)
    if train.quantization == "none":
        return shape.parameters * size
    packed = sum(linear.parameters for linear in shape.linears)
    bits = NF4_BITS if train.quantization == "4bit" else INT8_BITS
    return round(packed * bits / 8) + (shape.parameters - packed) * size
