"""``python -m pipeline.training.forecast``: what a training will take and come to, before it starts. No torch.

Parameters come from the model's files, rows and tokens from tokens.json (which swift's own template counted), steps by
the arithmetic of swift's data loader and transformers' trainer, memory from memory.py, time from expected.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.files import write_json, write_text
from pipeline.machine import Machine
from pipeline.training import expected, fit, memory, plan_text, speed, steps
from pipeline.training.fit import misfit
from pipeline.training.shape import ModelShape, read
from pipeline.training.spec import TrainSpec

__all__ = ["forecast", "misfit"]

PLAN = "plan.json"


def forecast(
    shape: ModelShape | None,
    train: TrainSpec,
    machine: Machine | None,
    data: steps.Rows,
    *,
    validates: bool = False,
    earlier: Path | None = None,
) -> dict[str, Any]:
    """plan.json, of a resolved section. `earlier` is a runs folder, whose trainings may tell how fast this machine is.

    Sizes are bytes per GPU (per process on a CPU), times seconds. What is not known is None, and a remark says why.
    """
    found = {**_counts(train, data), **_sizes(shape, train, machine, data)}
    problems = list(steps.problems(data, train))
    remarks = list(steps.remarks(data, train))
    if shape is None:
        remarks.append("the model's files do not say enough of its shape: memory and time are not estimated")
    elif machine is not None:
        problems += misfit(shape, train, machine, longest=_longest(train, data))
        remarks += filter(None, [fit.tight(shape, train, machine, _longest(train, data))])
    found |= {"device": _device(train, machine), "seconds_expected": None, "flops": None}
    if shape is not None and found["steps"] and found["tokens_per_step"]:
        total = found["tokens_per_step"] * found["steps"]
        done = expected.work(shape, train, data, total, found["steps"], validates=validates)
        found["flops"] = _flops(shape, train, data, done)
        rate = machine and ((earlier and expected.measured(found, earlier)) or expected.typical(train, machine))
        if rate:
            low, high = expected.seconds(done, rate, train.processes)
            found["seconds_expected"] = {"low": round(low, 1), "high": round(high, 1), "source": rate.source}
        elif machine is not None:
            remarks.append(f"no peak is known of {found['device']}: no expected time")
    return {"schema": 1, **found, "problems": problems, "remarks": remarks}


def _counts(train: TrainSpec, data: steps.Rows) -> dict[str, Any]:
    units = data.units(train)
    enough = units is not None and units >= train.processes
    epoch = steps.steps_per_epoch(units, train) if units is not None and enough else None
    total = steps.total_steps(units, train) if units is not None and enough else train.max_steps
    return {
        "rows": data.rows,
        "rows_dropped": data.dropped,
        "rows_cut": data.cut,
        "rows_exact": data.exact,
        "longest_row": data.longest,
        "tokens_per_epoch": data.tokens,
        "packed_rows": data.packed,
        "val_rows": data.val_rows,
        "steps_per_epoch": epoch,
        "steps": total,
        "tokens_per_step": round(data.tokens / epoch) if data.tokens and epoch else None,
        "exact": train.max_steps is not None or data.steps_exact(train),
        "processes": train.processes,
        "gpus": train.gpus,
        "precision": train.precision,
        "tuner": train.tuner,
        "quantization": train.quantization,
    }


def _sizes(shape: ModelShape | None, train: TrainSpec, machine: Machine | None, data: steps.Rows) -> dict[str, Any]:
    here = fit.room(train, machine).bytes if machine and (machine.gpus or not train.gpus) else None
    if shape is None:
        return {"parameters": None, "trainable": None, "trainable_share": None, "memory": None, "gpu_memory": here}
    trained = memory.trainable(shape, train)
    added = trained if train.tuner == "lora" else 0
    need = memory.estimate(shape, train, processes=train.processes, tokens=_longest(train, data))
    return {
        "parameters": shape.parameters,
        "trainable": trained,
        "trainable_share": trained / (shape.parameters + added),  # as swift has it: of base and adapter together
        "memory": dict(need.rows()),
        "gpu_memory": here,
    }


def _longest(train: TrainSpec, data: steps.Rows) -> int | None:
    """Where not every row was measured, one of max_length may come."""
    return min(data.longest, train.max_length) if data.longest else None


def _flops(shape: ModelShape, train: TrainSpec, data: steps.Rows, done: expected.Work) -> dict[str, float]:
    mean = (data.tokens or 0) / max(data.kept, 1)
    return {
        "per_token": speed.flops_per_token(shape, train, mean),
        "per_token_hardware": speed.hardware_flops_per_token(shape, train, mean),
        "total": done.train_flops + done.eval_flops,
    }


def _device(train: TrainSpec, machine: Machine | None) -> str | None:
    if machine is None:
        return None
    if not train.gpus:
        return f"CPU, {machine.cpus} cores"
    return ", ".join(sorted({gpu.name for gpu in machine.gpus})) or None


def _rows(path: Path) -> int:
    """Lines of a JSONL file; 0 where there is none."""
    if not path.is_file():
        return 0
    with path.open("rb") as stream:
        return sum(1 for line in stream if line.strip())


def _data(folder: Path, tokens: Path | None) -> steps.Rows:
    if tokens is None:
        return steps.uncounted(_rows(folder / "train.jsonl"), _rows(folder / "val.jsonl"))
    found: Mapping[str, Any] = json.loads((tokens / "tokens.json").read_text(encoding="utf-8"))
    return steps.counted(found)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.training.forecast",
        description="Work out what a training will take: steps, memory, time. Writes plan.json and plan.md.",
        allow_abbrev=False,
    )
    parser.add_argument("outdir", metavar="OUTDIR", type=Path, help="folder for plan.json and plan.md")
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="the model's folder")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with train.jsonl")
    parser.add_argument("--settings", type=Path, required=True, metavar="FILE", help="JSON: train, machine, validates")
    parser.add_argument("--tokens", type=Path, metavar="DIR", help="folder with tokens.json, where tokens were counted")
    parser.add_argument("--earlier", type=Path, metavar="DIR", help="a runs folder, for how fast trainings here were")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments().parse_args(argv)
    settings = json.loads(options.settings.read_text(encoding="utf-8"))
    machine = settings["machine"]
    plan = forecast(
        read(options.model),
        TrainSpec.model_validate_json(json.dumps(settings["train"])),
        Machine.model_validate(machine) if machine else None,
        _data(options.data, options.tokens),
        validates=settings["validates"],
        earlier=options.earlier.resolve() if options.earlier else None,
    )
    write_json(options.outdir / PLAN, plan)
    write_text(options.outdir / "plan.md", plan_text.page(plan))
    print("\n".join(plan_text.lines(plan)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
