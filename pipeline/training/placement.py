"""ZeRO, checkpointing and micro batch, so that a training fits into its GPUs: the first that does, the fastest first.

Sharding the weights (ZeRO 3) sends all of them over the wire in each forward and backward pass; checkpointing computes
the forward pass a second time, about a third more; a small micro batch costs little once one row fills the GPU. So: no
checkpointing if even one row fits without, and ZeRO 3 only where checkpointing does not help. Weights or states in main
memory are slower by far: a GPU filled to the brim comes before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from pipeline.machine import Machine
from pipeline.training import memory
from pipeline.training.shape import ModelShape
from pipeline.training.spec import DeepSpeed, TrainSpec

ShapeSource = Literal["files", "table", "absent"]
"""Where a shape is from: the model's own files, what is published of its hub id, or nowhere, as it is not here yet."""
Settle = Callable[[str, object, str], None]
"""(field, value, reason)."""

AUTO_MICRO_BATCH = 8
"""Most that `auto` takes: more rows at a time make no GPU faster once it is full."""

HEADROOM = 0.9
"""Share of a GPU's memory that `auto` plans with: the estimate errs, and other processes hold some."""

BRIM = 0.97
"""Share that it plans with before it turns to main memory."""

LATER = "decided once the model is here; until then the safe choice"
UNKNOWN = "the shape of this model is not understood: the safe choice"
FIELDS = ("deepspeed", "gradient_checkpointing", "micro_batch_size")


def place(
    train: TrainSpec, machine: Machine, shape: ModelShape | None, settle: Settle, source: ShapeSource = "files"
) -> None:
    """Settle those of `FIELDS` that are `auto`: the first of `_combinations` that fits."""
    open_fields = [name for name in FIELDS if getattr(train, name) == "auto"]
    if not open_fields:
        return
    if not train.gpus or not machine.gpus or shape is None:
        for name, value, why in _without_memory(train, machine, source):
            if name in open_fields:
                settle(name, value, why)
        return
    plans = list(_combinations(train, machine, shape))
    needs = [memory.estimate(shape, plan, processes=plan.processes).total for plan in plans]
    found = _first_that_fits(plans, needs, min(gpu.memory_gb for gpu in machine.gpus) * 2**30)
    # Nothing fits: what a training without help from main memory would take at the least. Preflight says what to do.
    chosen = min(range(len(plans)), key=lambda i: (memory.offloaded(plans[i]), needs[i])) if found is None else found
    reasons = _reasons(train, machine, plans, needs, chosen, fits=found is not None)
    for name in open_fields:
        settle(name, getattr(plans[chosen], name), reasons[name] + by(source))


def _first_that_fits(plans: Sequence[TrainSpec], needs: Sequence[int], memory_bytes: float) -> int | None:
    for offloads in (False, True):
        mine = [index for index, plan in enumerate(plans) if memory.offloaded(plan) == offloads]
        for index in mine:
            if needs[index] <= HEADROOM * memory_bytes:
                return index
        for index in mine:
            if needs[index] <= BRIM * memory_bytes:
                # At the brim every byte counts: what takes least under the same ZeRO, not the fastest.
                same = [other for other in mine if plans[other].deepspeed == plans[index].deepspeed]
                return min(same, key=lambda other: needs[other])
    return None


def by(source: ShapeSource) -> str:
    """The end of a reason that rests on a shape."""
    return ", by the model's published shape" if source == "table" else ""


def _without_memory(train: TrainSpec, machine: Machine, source: ShapeSource) -> Iterator[tuple[str, object, str]]:
    """On a CPU memory is not looked at; on a GPU, while the model is unknown, what takes least of it."""
    why = LATER if source == "absent" else UNKNOWN
    if train.gpus:
        several = train.processes > 1 and machine.system == "Linux"
        yield "deepspeed", "zero2" if several else "none", f"{_processes(train)}; {why}"
        yield "gradient_checkpointing", True, why
        yield "micro_batch_size", 1, why
        return
    yield "deepspeed", "none", f"{_processes(train)} on the CPU: there is no GPU memory to save"
    yield "gradient_checkpointing", False, "CPU: compute is dearer than memory"
    yield "micro_batch_size", _sizes(train)[0], f"global batch of {train.global_batch_size} over {_processes(train)}"


def _combinations(train: TrainSpec, machine: Machine, shape: ModelShape) -> Iterator[TrainSpec]:
    """What may be chosen, the cheapest in time first; main memory must hold what is put there."""
    checkpointing, micro = train.gradient_checkpointing, train.micro_batch_size
    for zero in _zeros(train, machine) if train.deepspeed == "auto" else (train.deepspeed,):
        for saved in (False, True) if checkpointing == "auto" else (checkpointing,):
            for rows in _sizes(train) if micro == "auto" else (micro,):
                update = {"deepspeed": zero, "gradient_checkpointing": saved, "micro_batch_size": rows}
                plan = train.model_copy(update=update)
                if train.deepspeed == "auto" and in_main_memory(shape, plan) > HEADROOM * machine.memory_gb * 2**30:
                    continue
                yield plan


def in_main_memory(shape: ModelShape, train: TrainSpec) -> int:
    """Bytes of one node's main memory that its processes take: what is offloaded, or copied for a checkpoint."""
    each = memory.host(shape, train, processes=train.processes) + (memory.saved(shape, train) if train.gpus else 0)
    return each * train.processes // train.nodes


def _zeros(train: TrainSpec, machine: Machine) -> Sequence[DeepSpeed]:
    if machine.system != "Linux":
        return ("none",)
    if train.processes > 1:
        # For each checkpoint ZeRO 2 copies the model to main memory; of an adapter it has little to share out. ZeRO 3
        # cannot cut bitsandbytes' 4- and 8-bit weights.
        plain: Sequence[DeepSpeed] = ("none",) if train.tuner == "lora" else ()
        more: Sequence[DeepSpeed] = ("zero3", "zero2_offload", "zero3_offload") if train.quantization == "none" else ()
        return ("zero2", *plain, *more)
    return ("none",) if train.quantization != "none" else ("none", "zero2_offload", "zero3_offload")


def _sizes(train: TrainSpec) -> list[int]:
    """Micro batches that divide each process's share of the global batch, the largest first."""
    share = max(train.global_batch_size // train.processes, 1)
    return [size for size in range(min(share, AUTO_MICRO_BATCH), 0, -1) if share % size == 0]


def _reasons(
    train: TrainSpec,
    machine: Machine,
    plans: Sequence[TrainSpec],
    needs: Sequence[int],
    chosen: int,
    *,
    fits: bool,
) -> dict[str, str]:
    plan = plans[chosen]
    need = f"{needs[chosen] / 2**30:.1f} of {min(gpu.memory_gb for gpu in machine.gpus):g} GiB"

    def least(**kept: Any) -> str:
        """What the cheapest in memory needs among those that have these values."""
        found = [n for n, p in zip(needs, plans, strict=True) if all(getattr(p, k) == v for k, v in kept.items())]
        return f"{min(found) / 2**30:.1f} GiB" if found else "more main memory than there is"

    if not fits:
        return dict.fromkeys(FIELDS, f"nothing fits; the least is {need}")
    first = _zeros(train, machine)[0] if train.deepspeed == "auto" else train.deepspeed
    if plan.deepspeed != first:
        zero = f"{first} does not fit ({least(deepspeed=first)} at the least), this does: {need}"
    elif plan.deepspeed == "none":
        zero = f"{_processes(train)}, and it fits: {need}"
    else:
        zero = f"{_processes(train)}: optimizer state and gradients are sharded"
    saved = f"fits without: {need}"
    if plan.gradient_checkpointing:
        without = least(deepspeed=plan.deepspeed, gradient_checkpointing=False)
        saved = f"without it {without} at the least, with it {need}"
    share = max(train.global_batch_size // train.processes, 1)
    rows = f"the largest part of each GPU's {share} that fits, {AUTO_MICRO_BATCH} at most: {need}"
    if needs[chosen] > HEADROOM * min(gpu.memory_gb for gpu in machine.gpus) * 2**30:
        rows = f"the least that can be, as the GPU is full: {need}"
    return {"deepspeed": zero, "gradient_checkpointing": saved, "micro_batch_size": rows}


def _processes(train: TrainSpec) -> str:
    kind = ("GPU", "GPUs") if train.gpus else ("process", "processes")
    return f"{train.processes} {kind[train.processes > 1]}"
