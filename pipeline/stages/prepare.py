"""Stage `data`: raw rows to messages JSONL by `python -m data_prep`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.command import Command, flags
from pipeline.dataset import DataSpec, EvaluationSet, SourceSpec
from pipeline.errors import OutputError
from pipeline.stage import Paths, Source, Stage

SECRETS = ("MODELSCOPE_API_TOKEN", "HF_TOKEN")
IN = ("rows_in", "rows_repeated")
OUT = (
    "rows_train",
    "rows_val",
    "rows_rejected",
    "rows_deduplicated",
    "rows_decontaminated",
    "rows_unsampled",
)
"""Every row that came in, or was taken once more for its weight, is in exactly one of these."""


def stage(spec: DataSpec, *, model: Stage | Source | None) -> Stage:
    """`spec` is resolved: no `auto` left. It waits for the model only where rows are counted by its tokenizer.

    `model` is None for one behind a URL, which comes without a tokenizer.
    """
    hubs = any(source.id for source in spec.sources)
    drops = spec.contamination.action == "drop"
    against = benchmarks(spec) if drops else ()
    return Stage(
        name="data",
        program=("python", "-m", "data_prep"),
        args={
            "sources": [_identity(source) for source in spec.sources],
            "val_fraction": spec.val_fraction,
            "seed": spec.split_seed,
            "system": spec.system,
            "dedup": spec.dedup,
            "near_threshold": spec.near_threshold,
            "consecutive_turns": spec.consecutive_turns,
            "think": spec.think,
            "special_tokens": spec.special_tokens,
            "max_tokens": spec.max_tokens,
            # Only what is dropped changes the data: with any other action the benchmarks are another stage's.
            "decontaminate": [entry.name for entry in against],
        },
        # A limit that stops the stage does not change what it writes when it does not.
        plumbing={"max_reject_fraction": spec.max_reject_fraction},
        deps={
            **{f"source{i}": Source(source.path) for i, source in enumerate(spec.sources) if source.path},
            **against_deps(against),
            **({"model": model} if model and spec.max_tokens is not None else {}),
        },
        command=_command,
        collect=_collect,
        secrets=SECRETS if hubs else (),
    )


def train_file(out: Path) -> Path:
    return out / "train.jsonl"


def val_file(out: Path) -> Path:
    return out / "val.jsonl"


def benchmarks(spec: DataSpec) -> tuple[EvaluationSet, ...]:
    """The evaluation sets that training rows are compared with."""
    assert spec.contamination.benchmarks != "auto"
    return spec.contamination.benchmarks


def against_deps(sets: tuple[EvaluationSet, ...]) -> dict[str, Source]:
    """Evaluation sets as dependencies, by role: their position."""
    return {f"against{i}": Source(entry.path) for i, entry in enumerate(sets)}


def against_words(flag: str, names: list[str], deps: Paths) -> list[str]:
    """`--flag NAME=PATH` for each set."""
    return [word for i, name in enumerate(names) for word in flags({flag: f"{name}={deps[f'against{i}']}"})]


def _identity(source: SourceSpec) -> dict[str, Any]:
    revision = f"@{source.revision}" if source.revision else ""
    return {
        "format": source.format,
        "id": None if source.path else f"{source.hub}:{source.id}{revision}",
        "columns": dict(source.columns),
        "file": source.file,
        "limit": source.limit,
        "weight": source.weight,
    }


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    args = stage.args
    argv = list(stage.program)
    for index, source in enumerate(args["sources"]):
        words = [source["format"], source["id"] or str(deps[f"source{index}"])]
        argv += ["--also", *words] if index else [*words, str(out)]
        argv += _source_words(source)
    argv += flags({
        "val-fraction": args["val_fraction"],
        "seed": args["seed"],
        "max-reject-fraction": stage.plumbing["max_reject_fraction"],
        "dedup": args["dedup"],
        "near-threshold": args["near_threshold"],
        "consecutive-turns": args["consecutive_turns"],
        "think": args["think"],
        "special-tokens": args["special_tokens"],
    })  # fmt: skip
    if args["system"] is not None:
        argv.append(f"--system={args['system']}")
    if args["max_tokens"] is not None:
        argv += flags({"tokenizer": str(deps["model"]), "max-tokens": args["max_tokens"]})
    return Command((*argv, *against_words("decontaminate", args["decontaminate"], deps)))


def _source_words(source: Mapping[str, Any]) -> list[str]:
    """Options of one input, after it; what is at its default is not said."""
    columns = ",".join(f"{name}={column}" for name, column in source["columns"].items())
    given = {"columns": columns, "file": source["file"], "limit": source["limit"]}
    words = {key: value for key, value in given.items() if value}
    return list(flags(words | ({"weight": source["weight"]} if source["weight"] != 1 else {})))


def _collect(out: Path, stage: Stage, _deps: Paths) -> dict[str, Any]:
    path = out / "stats.json"
    if not path.is_file():
        raise OutputError(f"{path}: missing, though data_prep ended well")
    stats: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if sum(stats[key] for key in IN) != sum(stats[key] for key in OUT):
        counted = ", ".join(f"{key} {stats[key]}" for key in (*IN, *OUT))
        raise OutputError(f"{path}: rows do not add up: {' + '.join(IN)} is not the sum of the others ({counted})")
    if stage.args["val_fraction"] and not stats["rows_val"]:
        raise OutputError(
            f"{path}: none of {stats['rows_train']} conversations fell into val.jsonl; "
            "raise data.val_fraction, or set it to 0 to train without validation"
        )
    return stats
