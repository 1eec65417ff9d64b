"""Stage `tokens`: how long training rows are in the model's tokens, by `python -m data_prep tokens`.

For the report alone: nothing depends on it, so none of its settings ever trains anything again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_prep.template import SETTINGS
from pipeline.command import Command, flags
from pipeline.dataset import DataSpec
from pipeline.errors import OutputError
from pipeline.recipe import ModelSpec
from pipeline.stage import CPU_ENV, Paths, Source, Stage
from pipeline.training.spec import TrainSpec

SAMPLE_ROWS = 2000
"""The mean of as many rows is good to some 2 %, in seconds instead of minutes."""


def stage(
    spec: DataSpec, train: TrainSpec, model: ModelSpec, *, base: Stage | Source, data: Stage, chat_template: bool
) -> Stage:
    """`train` is resolved: no `auto` left. What `swift sft` is told about its template, this is told, too."""
    template = {"use_chat_template": chat_template, **train.extra_args}
    return Stage(
        name="tokens",
        program=("python", "-m", "data_prep", "tokens"),
        args={
            "max_length": train.max_length,
            "truncation": train.truncation,
            "packing": train.packing,
            "global_batch_size": train.global_batch_size,
            "sample": SAMPLE_ROWS if spec.tokens == "sample" else None,
            "seed": spec.split_seed,
            **model.swift_args,
            "template_settings": {name: template[name] for name in SETTINGS if name in template},
        },
        deps={"data": data, "model": base},
        command=_command,
        collect=_collect,
        env={"HF_HUB_OFFLINE": "1", **CPU_ENV},
        version=3,  # unlearned
    )


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    args = stage.args
    words: dict[str, Any] = {"model": str(deps["model"])}
    words |= {key.replace("_", "-"): args[key] for key in ("model_type", "template") if key in args}
    words |= {key.replace("_", "-"): args[key] for key in ("max_length", "truncation", "global_batch_size")}
    words |= {"packing": None} if args["packing"] else {}
    words |= {"exact": None} if args["sample"] is None else {"sample": args["sample"]}
    words |= {"seed": args["seed"]}
    settings = [word for name, value in args["template_settings"].items() for word in flags({"set": pair(name, value)})]
    return Command((*stage.program, str(deps["data"]), str(out), *flags(words), *settings), env=dict(stage.env))


def pair(name: str, value: Any) -> str:
    """A template setting as a word of data_prep's `--set`."""
    return f"{name}={str(value).lower() if isinstance(value, bool) else value}"


def _collect(out: Path, _stage: Stage, _deps: Paths) -> dict[str, Any]:
    path = out / "tokens.json"
    if not path.is_file():
        raise OutputError(f"{path}: missing, though data_prep ended well")
    counted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return counted
