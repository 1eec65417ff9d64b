"""Stage `export`: adapter and base merged into one model folder by `swift export --merge_lora`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.command import Command, flags
from pipeline.errors import OutputError
from pipeline.recipe import ExportSpec, ModelSpec
from pipeline.sources import weight_problems
from pipeline.stage import CPU_ENV, Paths, Source, Stage
from pipeline.stages import train

TOKENIZER = (
    "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json chat_template.jinja "
    "vocab.json merges.txt tokenizer.model generation_config.json"
).split()


def stage(
    spec: ExportSpec, model: ModelSpec, *, base: Stage | Source, trained: Stage, checkpoint: int | None = None
) -> Stage:
    """The last checkpoint of `trained`, or the one of step `checkpoint`."""
    args: dict[str, Any] = {
        "merge_lora": True,
        # A trained adapter's args.json may name plugins, which swift would import and run.
        "load_args": False,
        "safe_serialization": True,
        "max_shard_size": spec.max_shard_size,
    }
    if spec.precision != "model":
        args["torch_dtype"] = spec.precision
    args |= model.swift_args
    step = {} if checkpoint is None else {"checkpoint": checkpoint}
    return Stage(
        name="export",
        program=("swift", "export"),
        args=args | dict(spec.extra_args) | step,
        deps={"model": base, "adapter": trained},
        command=_command,
        collect=_collect,
        output=merged,
        # Merging happens on the CPU: it needs no GPU, and a GPU would be taken from an evaluation.
        env={"HF_HUB_OFFLINE": "1", **CPU_ENV},
        finish=_finish,
    )


def merged(out: Path) -> Path:
    return out / "merged"


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    # swift keeps and uses whatever lies in an existing output folder under --exist_ok, so that flag is never given:
    # the folder is new for every attempt.
    adapter = deps["adapter"]
    if "checkpoint" in stage.args:
        adapter = train.checkpoint(adapter.parent, stage.args["checkpoint"])
    words = flags({"model": str(deps["model"]), "adapters": str(adapter), "output_dir": str(merged(out))})
    settings = {key: value for key, value in stage.args.items() if key != "checkpoint"}
    return Command((*stage.program, *words, *flags(settings)), env=dict(stage.env))


def _finish(out: Path, deps: Paths) -> None:
    """transformers 5 folds some tokenizer files into others; readers on transformers 4 still want the base's own."""
    for name in TOKENIZER:
        if (deps["model"] / name).is_file() and not (merged(out) / name).is_file() and merged(out).is_dir():
            shutil.copyfile(deps["model"] / name, merged(out) / name)


def _collect(out: Path, _stage: Stage, _deps: Paths) -> dict[str, Any]:
    folder = merged(out)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise OutputError(f"{folder}: swift export ended well but left no config.json or no safetensors")
    problems = weight_problems(folder)
    if problems:
        raise OutputError("\n".join(problems))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {
        "dtype": config.get("dtype") or config.get("torch_dtype"),
        "shards": len(list(folder.glob("*.safetensors"))),
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
    }
