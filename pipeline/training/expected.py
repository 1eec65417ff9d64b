"""How long a training will take: by earlier ones of the same model on this machine, else by the hardware's peak."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.machine import Machine
from pipeline.training import speed
from pipeline.training.shape import ModelShape
from pipeline.training.spec import TrainSpec
from pipeline.training.steps import Rows

MFU_DENSE = (0.2, 0.5)
MFU_PADDED = (0.05, 0.4)
"""Share of the peak that trainings of language models usually reach, over real tokens: without padding (packing,
padding-free), and with it. From published figures (PaLM 0.46, arXiv:2204.02311; LLaMA-class models 0.4 to 0.5 on A100),
widened downward for adapters, small models and small batches. Not measured here."""
CPU_CORE = (1.5e10, 6e10)
"""FLOP/s of one core in float32. Measured with torch 2.13 on a 2-core x86 server: LoRA on SmolLM2-135M, batch 8, 67,000
tokens in 547 s, other work beside it: 3.7e10."""
START = (15.0, 60.0)
"""Seconds until the first step: imports, the model, the data through the template."""
SPREAD = 0.1
"""Around what was measured: the next training is not the last one."""


class Rate(NamedTuple):
    """FLOP/s that one process really computes."""

    low: float
    high: float
    source: str


class Work(NamedTuple):
    """What one training computes, recomputation by gradient checkpointing included."""

    train_flops: float
    eval_flops: float


def work(shape: ModelShape, train: TrainSpec, data: Rows, tokens: float, steps: int, *, validates: bool) -> Work:
    """`tokens` are those of the whole training. An evaluation is a forward pass over val.jsonl."""
    mean = (data.tokens or 0) / max(data.kept, 1)
    forward = speed.flops_per_token(shape, train, mean) / (3 if train.tuner == "full" else 2)
    passes = -(-steps // train.eval_steps) if validates else 0
    return Work(tokens * speed.hardware_flops_per_token(shape, train, mean), passes * (data.val_tokens or 0) * forward)


def seconds(done: Work, rate: Rate, processes: int) -> tuple[float, float]:
    """(low, high) for the whole stage."""
    total = (done.train_flops + done.eval_flops) / processes
    return START[0] + total / rate.high, START[1] + total / rate.low


def typical(train: TrainSpec, machine: Machine) -> Rate | None:
    """By the peak of the (slowest) GPU, or by cores; None for a GPU that the table does not have."""
    if not train.gpus:
        cores = machine.cpus / train.cpu_processes
        low, high = (cores * one for one in CPU_CORE)
        return Rate(
            low, high, f"{machine.cpus} cores at {CPU_CORE[0] / 1e9:.0f} to {CPU_CORE[1] / 1e9:.0f} GFLOP/s each"
        )
    peaks = {gpu.name: speed.peak_flops(gpu.name, str(train.precision)) for gpu in machine.gpus}
    if not peaks or None in peaks.values():
        return None
    name, peak = min(((name, peak) for name, peak in peaks.items() if peak), key=lambda one: one[1])
    dense = train.packing is True or train.padding_free is True
    low, high = MFU_DENSE if dense else MFU_PADDED
    source = f"{low:.0%} to {high:.0%} of the {peak / 1e12:.0f} TFLOP/s of {name}, as is usual; not measured here"
    return Rate(low * peak, high * peak, source)


def measured(mine: Mapping[str, Any], runs: Path) -> Rate | None:
    """From trainings in this runs folder whose plan names the same model, device and precision as `mine`."""
    rates = [rate for plan, took in _earlier(runs) if (rate := _rate(mine, plan, took))]
    if not rates:
        return None
    what = "1 earlier training" if len(rates) == 1 else f"{len(rates)} earlier trainings"
    low, high = min(rates) * (1 - SPREAD), max(rates) * (1 + SPREAD)
    return Rate(low, high, f"{what} of this model on this kind of machine, in {runs.name}/")


def _rate(mine: Mapping[str, Any], plan: Mapping[str, Any], took: float) -> float | None:
    keys = ("parameters", "device", "precision", "processes", "tuner", "quantization")
    total = plan.get("flops", {}).get("total")
    if any(mine[key] != plan.get(key) for key in keys) or not total:
        return None
    return float(total) / took / int(plan["processes"])


def _earlier(runs: Path) -> Iterator[tuple[dict[str, Any], float]]:
    """(plan, seconds of its training) of every recipe's last run; what cannot be read is passed over."""
    for states in sorted(runs.glob("*/stages.json")):
        try:
            folders = {stage["label"]: states.parent / stage["dir"] for stage in _json(states)["stages"]}
            plan = _json(folders["plan"] / "result.json")["result"]
            train = _json(folders["train"] / "result.json")
            took = _runtime(folders["train"] / "output" / "logging.jsonl")
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if took and train["attempt"] == "1":  # a resumed one took longer than its last attempt
            yield plan, took


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _runtime(log: Path) -> float | None:
    """Seconds from the first step to the last."""
    for line in reversed(log.read_text(encoding="utf-8").splitlines()):
        record = json.loads(line)
        if "train_runtime" in record:
            return float(record["train_runtime"])
    return None
