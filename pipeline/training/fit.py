"""Whether a training fits into the memory of its GPUs, and which settings would make it fit: each one tried."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.machine import Machine
from pipeline.training import memory
from pipeline.training.placement import in_main_memory
from pipeline.training.shape import ModelShape
from pipeline.training.spec import TrainSpec

GIB = 2**30
TIGHT = 0.9
"""Share of the memory from which on the estimate's own error decides."""
SHORT = 256
"""Tokens of a row that any data set has: what is too much with it is too much whatever the data are."""
NAMED = 3
"""Ways out in one message."""
PROGRAM = 1.5 * GIB
"""What a training process on a CPU holds besides: Python, torch, swift's imports (measured: 1.2 to 1.6 GiB)."""

Changes = Mapping[str, Any]


class Room(NamedTuple):
    """Memory of one process."""

    bytes: int
    of: str
    """Words for it: the GPU's name."""


def room(train: TrainSpec, machine: Machine) -> Room:
    """Memory that one process of this (resolved) training has: its GPU's, or its share of the machine's."""
    if train.gpus and machine.gpus:
        least = min(machine.gpus, key=lambda gpu: gpu.memory_gb)
        return Room(round(least.memory_gb * GIB), least.name)
    each = machine.memory_gb * GIB / train.cpu_processes - PROGRAM
    return Room(max(round(each), 0), "this machine" if train.cpu_processes == 1 else "each process")


def misfit(shape: ModelShape, train: TrainSpec, machine: Machine, *, longest: int | None = SHORT) -> list[str]:
    """Why this training cannot fit, with settings that would make it fit; [] when it may.

    `longest` are the tokens of the longest row. The default serves before anybody has seen the data: what it refuses is
    too much for any data. Microseconds; `train` is resolved.
    """
    if train.gpus and not machine.gpus:
        return []  # planned for another machine
    place, need = room(train, machine), _need(shape, train, longest)
    held = in_main_memory(shape, train)
    if need.total > place.bytes:
        what = "GPU" if train.gpus else "process"
        parts = ", ".join(f"{name} {_gib(size)}" for name, size in need.rows() if size > need.total // 50)
        problem = (
            f"train: needs about {_gib(need.total)} GiB per {what} ({parts}), but {place.of} has {_gib(place.bytes)}"
        )
    elif held > machine.memory_gb * GIB:
        what = "puts" if memory.offloaded(train) else "copies at every checkpoint, in each process,"
        problem = (
            f"train.deepspeed: {train.deepspeed} {what} about {_gib(held)} GiB into main memory, but this machine has "
            f"{machine.memory_gb}"
        )
    else:
        return []
    return [f"{problem}; {_ways(shape, train, machine, longest)}"]


def tight(shape: ModelShape, train: TrainSpec, machine: Machine, longest: int | None) -> str | None:
    """A remark where the estimate comes near the limit."""
    place = room(train, machine)
    total = _need(shape, train, longest).total
    if place.bytes * TIGHT < total <= place.bytes:
        return f"memory is tight: about {_gib(total)} of {_gib(place.bytes)} GiB, and the estimate is good to some 15 %"
    return None


def _need(shape: ModelShape, train: TrainSpec, longest: int | None) -> memory.Estimate:
    return memory.estimate(shape, train, processes=train.processes, tokens=longest)


def _excess(shape: ModelShape, train: TrainSpec, machine: Machine, longest: int | None, share: float = 1.0) -> float:
    """Bytes that are too many for a share of the memory; 0 = it fits."""
    over = _need(shape, train, longest).total - share * room(train, machine).bytes
    return max(over, 0.0) + max(in_main_memory(shape, train) - share * machine.memory_gb * GIB, 0.0)


def _ways(shape: ModelShape, train: TrainSpec, machine: Machine, longest: int | None) -> str:
    """Settings that alone make it fit, else those that do so together.

    The mild ones first, which change no result, and with room to spare, if that can be had.
    """
    mild = list(_mild(shape, train, machine))
    for remedies in (mild, [*mild, *_harsh(train, machine)]):
        for share in (TIGHT, 1.0):
            alone = [
                one for one in remedies
                if not _excess(shape, train.model_copy(update=one), machine, longest, share)
            ]  # fmt: skip
            first = list({next(iter(one)): one for one in reversed(alone)}.values())[::-1]  # of zero2 and zero3, zero2
            ways = [[one] for one in first[:NAMED]]
            # Without ZeRO 3, too: it shuts out quantization, which may do more.
            for some in (remedies, [one for one in remedies if not str(one.get("deepspeed")).startswith("zero3")]):
                ways = ways or _together(shape, train, machine, longest, share, some)
            if ways:
                return "it would fit with " + ", or with ".join(_with(shape, train, way, longest) for way in ways)
    return "no setting makes it fit: take a smaller model, or more or larger GPUs"


def _together(
    shape: ModelShape,
    train: TrainSpec,
    machine: Machine,
    longest: int | None,
    share: float,
    remedies: Sequence[Changes],
) -> list[list[Changes]]:
    """[the few settings that together make it fit], or []."""

    def excess(changes: Sequence[Changes]) -> float:
        changed = train.model_copy(update=_merged(changes))
        if changed.quantization != "none" and changed.deepspeed.startswith("zero3"):
            return math.inf  # would be refused: limits.py
        return _excess(shape, changed, machine, longest, share)

    chosen: list[Changes] = []
    for one in remedies:
        if excess([*chosen, one]) < excess(chosen):
            chosen.append(one)
    if excess(chosen):
        return []
    for dearest in reversed(chosen[:]):  # which an earlier and a later one together may have made superfluous
        rest = [other for other in chosen if other is not dearest]
        chosen = chosen if excess(rest) else rest
    return [chosen]


def _mild(shape: ModelShape, train: TrainSpec, machine: Machine) -> Iterator[Changes]:
    """What costs speed at most, the cheapest first."""
    if train.gradient_checkpointing is not True:
        yield {"gradient_checkpointing": True}
    # Where liger-kernel is not installed, nobody knows whether it has anything for this model: setting it tells.
    if train.gpus and train.liger is not True and (not machine.liger or shape.model_type in machine.liger):
        yield {"liger": True}
    if train.micro_batch_size != 1:
        yield {"micro_batch_size": 1}
    if train.tuner == "lora" and memory.saved(shape, train):
        yield {"deepspeed": "none"}  # of main memory, not of the GPU's
    if train.processes > 1 and machine.system == "Linux":
        for stage in (2, 3):
            if stage > memory.stage(train) and not (stage == 3 and train.quantization != "none"):
                yield {"deepspeed": f"zero{stage}"}


def _harsh(train: TrainSpec, machine: Machine) -> Iterator[Changes]:
    """What changes the training itself, or makes it slow by far."""
    zero, quantized = memory.stage(train), train.quantization != "none"
    length = train.max_length // 2
    while length >= SHORT:
        yield {"max_length": length}
        length //= 2
    if train.gpus and train.tuner == "lora" and not quantized and zero < 3:
        yield {"quantization": "4bit"}
    if train.gpus and not memory.offloaded(train) and not quantized and machine.system == "Linux":
        yield from ({"deepspeed": f"zero{stage}_offload"} for stage in (2, 3) if stage >= zero)
    if train.tuner == "full":
        yield {"tuner": "lora"}


def _merged(changes: Sequence[Changes]) -> dict[str, Any]:
    return {name: value for one in changes for name, value in one.items()}


def _with(shape: ModelShape, train: TrainSpec, changes: Sequence[Changes], longest: int | None) -> str:
    settings = _merged(changes)
    need = _need(shape, train.model_copy(update=settings), longest)
    words = " and ".join(f"{name}: {str(value).lower()}" for name, value in settings.items())
    return f"{words} (about {_gib(need.total)} GiB)"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"
