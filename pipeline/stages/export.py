"""Stage `export`: one whole model folder of what was trained.

LoRA: adapter and base merged by `swift export --merge_lora`. All weights trained: there is nothing to merge, so
`pipeline.training.whole` copies the checkpoint's weights in the data type and the shards that were asked for.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from pipeline.command import Command, flags
from pipeline.errors import OutputError
from pipeline.recipe import ExportSpec, ModelSpec
from pipeline.sources import weight_problems
from pipeline.stage import CPU_ENV, Paths, Source, Stage
from pipeline.stages import train
from pipeline.training import selection

TOKENIZER = (
    "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json chat_template.jinja "
    "vocab.json merges.txt tokenizer.model generation_config.json"
).split()


def stage(
    spec: ExportSpec,
    model: ModelSpec,
    *,
    base: Stage | Source,
    trained: Stage,
    checkpoint: int | Literal["best"] | None = None,
) -> Stage:
    """The last checkpoint of `trained`, the best one, or the one of step `checkpoint`."""
    full = trained.args["tuner_type"] == "full"
    settings = _copied(spec) if full else _merged(spec, model)
    return Stage(
        name="export",
        program=("python", "-m", "pipeline.training.whole") if full else ("swift", "export"),
        args=settings | ({} if checkpoint is None else {"checkpoint": checkpoint}),
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


def adapter(stage: Stage, trained: Path) -> Path:
    """Folder of the adapter, or of the model, that an export takes; `trained` is the place of its dep `adapter`."""
    return train.checkpoint(trained.parent, stage.args.get("checkpoint"))


def _merged(spec: ExportSpec, model: ModelSpec) -> dict[str, Any]:
    args: dict[str, Any] = {
        "merge_lora": True,
        # A trained adapter's args.json may name plugins, which swift would import and run. And it holds how the base
        # was quantized for the training (QLoRA), while the merge is into the whole one.
        "load_args": False,
        "safe_serialization": True,
        "max_shard_size": spec.max_shard_size,
    }
    if spec.precision != "model":
        args["torch_dtype"] = spec.precision
    return args | model.swift_args | dict(spec.extra_args)


def _copied(spec: ExportSpec) -> dict[str, Any]:
    return {"dtype": spec.precision, "max_shard_size": spec.max_shard_size, **spec.extra_args}


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    # swift keeps and uses whatever lies in an existing output folder under --exist_ok, so that flag is never given:
    # the folder is new for every attempt.
    paths = {"model": deps["model"], "adapters": adapter(stage, deps["adapter"]), "output_dir": merged(out)}
    words = flags({flag: str(path) for flag, path in paths.items()})
    settings = {key: value for key, value in stage.args.items() if key != "checkpoint"}
    return Command((*stage.program, *words, *flags(settings)), env=dict(stage.env))


def _finish(out: Path, deps: Paths) -> None:
    """transformers 5 folds some tokenizer files into others; readers on transformers 4 still want the base's own."""
    for name in TOKENIZER:
        if (deps["model"] / name).is_file() and not (merged(out) / name).is_file() and merged(out).is_dir():
            shutil.copyfile(deps["model"] / name, merged(out) / name)


def _collect(out: Path, stage: Stage, deps: Paths) -> dict[str, Any]:
    folder = merged(out)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise OutputError(f"{folder}: {' '.join(stage.program)} ended well but left no config.json or no safetensors")
    problems = weight_problems(folder)
    if problems:
        raise OutputError("\n".join(problems))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {
        **_chosen(stage, deps),
        "dtype": config.get("dtype") or config.get("torch_dtype"),
        "shards": len(list(folder.glob("*.safetensors"))),
        "bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
    }


def _chosen(stage: Stage, deps: Paths) -> dict[str, Any]:
    """Which checkpoint it is, its step, and its eval_loss where it was validated."""
    which = stage.args.get("checkpoint", "last")
    checkpoint = adapter(stage, deps["adapter"])
    step = selection.step(checkpoint)
    losses = selection.eval_losses(checkpoint)
    loss = None if step is None else losses.get(step)
    found = {"checkpoint": which, "step": step, "eval_loss": loss}
    if which != "best":
        return found
    last = selection.eval_losses(deps["adapter"])
    end = max(last, default=None)
    words = "" if end is None or end == step or loss is None else f", against {last[end]:.4g} at step {end}"
    return found | {"remarks": [f"the best checkpoint is step {step}: eval_loss {loss:.4g}{words}"]}
