"""Stage `plan`: what the training will take and come to, by `python -m pipeline.training.forecast`, before it starts.

What it says does not depend on what is to be done about it: `train.misfit` is asked by the verdict alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.command import Command, flags
from pipeline.errors import OutputError
from pipeline.machine import Machine
from pipeline.stage import Paths, Source, Stage
from pipeline.training import plan_text
from pipeline.training.forecast import PLAN
from pipeline.training.spec import TrainSpec

SETTINGS = (
    "tuner", "quantization", "rank", "dropout", "target_modules", "dora", "epochs", "max_steps", "max_length",
    "truncation", "global_batch_size", "micro_batch_size", "gpus", "cpu_processes", "nodes", "precision", "attention",
    "packing", "padding_free", "liger", "deepspeed", "gradient_checkpointing", "eval_steps", "extra_args",
)  # fmt: skip
"""Those of `train` that steps, memory or time depend on: another learning rate makes no other plan."""


def stage(
    spec: TrainSpec, machine: Machine | None, *, base: Stage | Source, data: Stage, tokens: Stage | None
) -> Stage:
    """`spec` is resolved: no `auto` left. Without a `machine` nothing is said of what fits; without `tokens` little."""
    whole = spec.model_dump(mode="json")
    return Stage(
        name="plan",
        program=("python", "-m", "pipeline.training.forecast"),
        args={
            "train": {name: whole[name] for name in SETTINGS},
            "machine": _facts(machine) if machine else None,
            "validates": data.args["val_fraction"] > 0,
        },
        deps={"model": base, "data": data, **({"tokens": tokens} if tokens else {})},
        command=_command,
        collect=_collect,
        verdict=_refused if spec.misfit == "refuse" else Stage.verdict,
        tell=plan_text.lines,
    )


def _facts(machine: Machine) -> dict[str, Any]:
    whole = machine.model_dump(mode="json")
    return {name: whole[name] for name in ("system", "cpus", "memory_gb", "gpus", "liger")}


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    settings = out / "settings.json"
    words: dict[str, Any] = {"model": str(deps["model"]), "data": str(deps["data"]), "settings": str(settings)}
    words |= {"tokens": str(deps["tokens"])} if "tokens" in deps else {}
    # The data are in <runs>/stages/data-*/output, by hand in <runs>/by-hand/data/output.
    words |= {"earlier": str(deps["data"].parents[1] / "..")}
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in stage.args.items()]
    files = {settings: "{" + ",\n ".join(lines) + "}\n"}
    return Command((*stage.program, str(out), *flags(words)), files=files)


def _collect(out: Path, _stage: Stage, _deps: Paths) -> dict[str, Any]:
    path = out / PLAN
    if not path.is_file():
        raise OutputError(f"{path}: missing, though the forecast ended well")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _refused(plan: Mapping[str, Any]) -> str | None:
    problems = plan["problems"]
    if not problems:
        return None
    return "\n".join([*problems, "Set train.misfit: warn to train all the same"])
