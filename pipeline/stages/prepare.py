"""Stage `data`: raw rows to messages JSONL by `python -m data_prep`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.command import Command
from pipeline.errors import OutputError
from pipeline.recipe import DataSpec, SourceSpec
from pipeline.stage import Paths, Source, Stage

SECRETS = ("MODELSCOPE_API_TOKEN", "HF_TOKEN")


def stage(spec: DataSpec) -> Stage:
    hubs = any(source.id for source in spec.sources)
    return Stage(
        name="data",
        program=("python", "-m", "data_prep"),
        args={
            "sources": [_identity(source) for source in spec.sources],
            "val_fraction": spec.val_fraction,
            "seed": spec.split_seed,
            "system": spec.system,
        },
        # A limit that stops the stage does not change what it writes when it does not.
        plumbing={"max_reject_fraction": spec.max_reject_fraction},
        deps={f"source{i}": Source(source.path) for i, source in enumerate(spec.sources) if source.path},
        command=_command,
        collect=_collect,
        secrets=SECRETS if hubs else (),
    )


def train_file(out: Path) -> Path:
    return out / "train.jsonl"


def val_file(out: Path) -> Path:
    return out / "val.jsonl"


def _identity(source: SourceSpec) -> dict[str, str | None]:
    if source.path:
        return {"format": source.format, "id": None}
    return {
        "format": source.format,
        "id": f"{source.hub}:{source.id}" + (f"@{source.revision}" if source.revision else ""),
    }


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    args = stage.args
    pairs = [(s["format"], s["id"] or str(deps[f"source{i}"])) for i, s in enumerate(args["sources"])]
    argv = [*stage.program, *pairs[0], str(out)]
    for pair in pairs[1:]:
        argv += ["--also", *pair]
    argv += ["--val-fraction", str(args["val_fraction"]), "--seed", str(args["seed"])]
    argv += ["--max-reject-fraction", str(stage.plumbing["max_reject_fraction"])]
    if args["system"] is not None:
        argv.append(f"--system={args['system']}")
    return Command(tuple(argv))


def _collect(out: Path, stage: Stage, _deps: Paths) -> dict[str, Any]:
    path = out / "stats.json"
    if not path.is_file():
        raise OutputError(f"{path}: missing, though data_prep ended well")
    stats: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if stats["rows_in"] != stats["rows_train"] + stats["rows_val"] + stats["rows_rejected"]:
        raise OutputError(f"{path}: rows do not add up: in = train + val + rejected is violated")
    if stage.args["val_fraction"] and not stats["rows_val"]:
        raise OutputError(
            f"{path}: none of {stats['rows_train']} conversations fell into val.jsonl; "
            "raise data.val_fraction, or set it to 0 to train without validation"
        )
    return stats
