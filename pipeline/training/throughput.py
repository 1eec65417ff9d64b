"""What a training came to: speed, use of the hardware, memory, time and cost, and how far off its plan was. Pure.

Real tokens are those of the conversations as trained on, padding left out: ms-swift's own count of the rows (the record
with `train_dataset` at the end of logging.jsonl: mean times size, of packed rows where packing is on), else the plan's,
times the passes made. Tokens with padding come from transformers' `total_flos`, which is 6 x tokens x weights without
the input embedding, over all processes and attempts. (`include_num_input_tokens_seen` would count per step, but by the
command line only with padding, and at the price of a collective call in every micro batch.)

Speeds are those of steady steps (`pace`); hours and cost are of all attempts, with start-up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipeline.training import memory, speed
from pipeline.training.pace import Record, clock, is_training, number, pace, position
from pipeline.training.shape import ModelShape
from pipeline.training.spec import TrainSpec

GIB = 2**30
_COUNTED = re.compile(r"([\d.]+)±.*\bsize=(\d+)")
_TRAINABLE = re.compile(r"\(([\d.]+)M Trainable")


class Planned(BaseModel):
    """A figure of the plan beside what was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: Literal["steps", "tokens_per_epoch", "trainable", "memory", "seconds"]
    """`memory`: bytes, GPUs only (a process on a CPU holds its libraries, too); both sides without the CUDA context."""
    low: float
    high: float
    """As `low` where the plan has one figure."""
    actual: float

    @property
    def off(self) -> float:
        """(actual - planned) / planned; 0 within a range, else from its nearer end."""
        near = min(max(self.actual, self.low), self.high)
        return (self.actual - near) / near if near else 0.0


class Throughput(BaseModel):
    """Speeds are of one GPU (one process on a CPU), but for samples, which are of the whole training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpus: int
    """Over all nodes; 0 on a CPU."""
    processes: int
    device: str | None = None
    attempts: int
    steps: int
    """Optimizer steps made."""
    measured_steps: int | None = None
    """Those the speed was measured on."""
    basis: Literal["steady", "paused", "whole"] | None = None
    """See `pace.Pace`."""
    seconds_per_step: float | None = None
    seconds_per_step_median: float | None = None
    seconds_per_step_p95: float | None = None
    tokens: int | None = None
    """Real tokens trained on, over all processes; the exact ones for whole epochs, else in proportion."""
    padded_tokens: int | None = None
    """With padding."""
    tokens_per_step: float | None = None
    tokens_per_second: float | None = None
    """Real ones."""
    padded_tokens_per_second: float | None = None
    samples_per_second: float | None = None
    """Conversations, also where they are packed."""
    flops_per_token: float | None = None
    """Of one real token: `speed.flops_per_token`."""
    peak_flops: float | None = None
    mfu: float | None = None
    """tokens_per_second x flops_per_token / peak_flops."""
    peak_memory: int | None = None
    """Bytes that PyTorch's allocator reserved at most on a GPU (of rank 0), without the CUDA context."""
    peak_rss: int | None = None
    """Bytes of main memory, of all processes together."""
    seconds: float
    """Of all attempts, with start-up. What an attempt that was cut short took after its last record is not known."""
    gpu_hours: float | None = None
    cost: float | None = None
    currency: str | None = None
    planned: list[Planned] = []


def measure(
    logs: Sequence[Sequence[Record]],
    train: TrainSpec,
    *,
    record: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    shape: ModelShape | None = None,
    conversations: int | None = None,
    price: float | None = None,
    currency: str = "",
) -> Throughput | None:
    """None before the first step was logged.

    `logs`: logging.jsonl of every attempt, oldest first. `train` is resolved. `record`: the stage's, once it is done;
    `plan`: plan.json; `conversations`: rows of train.jsonl; `price` of an hour of one GPU.
    """
    logs = [log for log in logs if any(position(entry) is not None for entry in log)]
    if not any(is_training(entry) for log in logs for entry in log):
        return None
    last = logs[-1]  # which may have logged its end alone
    epochs = _last(last, "epoch")
    steps = max(step for entry in last if (step := position(entry)) is not None)
    tokens, rows = counted(logs)
    per_epoch = tokens or number(plan or {}, "tokens_per_epoch")
    if train.packing is True or rows is None:
        rows = conversations - int(number(plan or {}, "rows_dropped") or 0) if conversations else None
    real = per_epoch * epochs if per_epoch and epochs else None
    padded = _padded(last, train, shape, real)
    found = pace(logs, train.save_steps)
    rate = steps and found and 1 / (found.seconds * steps * train.processes)
    flops, peak = _flops(plan, train, shape, per_epoch, rows), _peak(plan, train)
    fast = real * rate if real and rate else None
    gpus = train.processes if train.gpus else 0
    seconds = _seconds(logs, train, record)
    hours = gpus * seconds / 3600 if gpus else None
    return Throughput(
        gpus=gpus,
        processes=train.processes,
        device=plan.get("device") if plan else None,
        attempts=len(logs),
        steps=steps,
        measured_steps=found.steps if found else None,
        basis=found.basis if found else None,
        seconds_per_step=found.seconds if found else None,
        seconds_per_step_median=found.median if found else None,
        seconds_per_step_p95=found.slow if found else None,
        tokens=round(real) if real else None,
        padded_tokens=round(padded) if padded else None,
        tokens_per_step=real / steps if real else None,
        tokens_per_second=fast,
        padded_tokens_per_second=padded * rate if padded and rate else None,
        samples_per_second=epochs * rows * rate * train.processes if epochs and rows and rate else None,
        flops_per_token=flops,
        peak_flops=peak,
        mfu=speed.mfu(fast, flops, peak) if fast and flops and peak else None,
        peak_memory=_peak_memory(logs),
        peak_rss=int(record["peak_rss_bytes"]) if record and record.get("peak_rss_bytes") else None,
        seconds=seconds,
        gpu_hours=hours,
        cost=hours * price if hours is not None and price is not None else None,
        currency=currency if hours is not None and price is not None else None,
        planned=_planned(logs, plan, record, train),
    )


def counted(logs: Sequence[Sequence[Record]]) -> tuple[int | None, int | None]:
    """(tokens, rows) of one pass over the training rows, by ms-swift's own count; None if it tokenizes on the way."""
    for log in reversed(logs):
        for entry in log:
            match = _COUNTED.match(str(entry.get("train_dataset", "")))
            if match:
                return round(float(match[1]) * int(match[2])), int(match[2])
    return None, None


def _padded(log: Sequence[Record], train: TrainSpec, shape: ModelShape | None, real: float | None) -> float | None:
    """All tokens that went through the model. ZeRO3 leaves transformers no weights to count, and no figure."""
    total = _last(log, "total_flos")
    if not total or shape is None or real is None:
        return None
    added = memory.trainable(shape, train) if train.tuner == "lora" else 0
    padded = total / 6 / (shape.parameters - shape.vocab * shape.hidden + added)
    return padded if padded >= real else None


def _flops(
    plan: Mapping[str, Any] | None,
    train: TrainSpec,
    shape: ModelShape | None,
    per_epoch: float | None,
    conversations: int | None,
) -> float | None:
    told = ((plan or {}).get("flops") or {}).get("per_token")
    if told or shape is None or not per_epoch or not conversations:
        return float(told) if told else None
    return speed.flops_per_token(shape, train, per_epoch / conversations)


def _peak(plan: Mapping[str, Any] | None, train: TrainSpec) -> float | None:
    """Of the GPUs the plan names, if they are of one kind and the table has it."""
    device = (plan or {}).get("device")
    return speed.peak_flops(device, str(train.precision)) if device and train.gpus else None


def _peak_memory(logs: Sequence[Sequence[Record]]) -> int | None:
    found = [value for log in logs for entry in log if (value := number(entry, "memory(GiB)"))]
    return round(max(found) * GIB) if found else None


def _seconds(logs: Sequence[Sequence[Record]], train: TrainSpec, record: Mapping[str, Any] | None) -> float:
    """Of a finished attempt its whole time; of one that was cut short the trainer's clock and the start-up of that."""
    clocks = [clock(log, train.save_steps) for log in logs]
    if record is None:
        return sum(clocks)
    whole = float(record["seconds"])
    return sum(clocks[:-1]) + whole + max(whole - clocks[-1], 0.0) * (len(logs) - 1)


def _planned(
    logs: Sequence[Sequence[Record]],
    plan: Mapping[str, Any] | None,
    record: Mapping[str, Any] | None,
    train: TrainSpec,
) -> list[Planned]:
    """What both sides have, of a training that is done."""
    if not plan or record is None:
        return []
    need = sum((plan.get("memory") or {}).values()) - memory.CUDA_CONTEXT
    held = _peak_memory(logs) if train.gpus else None
    time = plan.get("seconds_expected") or {}
    trained = round(plan.get("trainable") or 0, -2)  # ms-swift tells millions with four decimals
    once = len(logs) == 1  # what an interrupted training took is no measure of the plan
    pairs = (
        ("steps", plan.get("steps"), plan.get("steps"), record["result"].get("steps")),
        ("tokens_per_epoch", plan.get("tokens_per_epoch"), plan.get("tokens_per_epoch"), counted(logs)[0]),
        ("trainable", trained, trained, _trained(logs[-1])),
        ("memory", need, need, held),
        ("seconds", time.get("low"), time.get("high"), record["seconds"] if once else None),
    )
    return [
        Planned(what=what, low=low, high=high, actual=came) for what, low, high, came in pairs if low and high and came
    ]


def _trained(log: Sequence[Record]) -> float | None:
    """Weights that were trained, as ms-swift tells them."""
    for entry in log:
        match = _TRAINABLE.search(str(entry.get("model_parameter_info", "")))
        if match:
            return float(match[1]) * 1e6
    return None


def _last(log: Sequence[Record], key: str) -> float | None:
    found = [value for entry in log if (value := number(entry, key)) is not None]
    return found[-1] if found else None
