"""Stage `model`: a model from a hub, whole and verified; later stages read it as a local folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.command import Command
from pipeline.errors import OutputError
from pipeline.recipe import ModelSpec
from pipeline.sources import code_problems, weight_problems
from pipeline.stage import Paths, Source, Stage

SECRETS = ("MODELSCOPE_API_TOKEN", "HF_TOKEN")


def stage(spec: ModelSpec, *, trust_remote_code: bool) -> Stage | Source:
    """A local folder is a Source (nothing to run); a hub id becomes a download."""
    if spec.path is not None:
        return Source(spec.path)
    assert spec.id is not None
    name = spec.id.split("/")[-1]
    return Stage(
        name="model",
        program=("python", "-m", "pipeline.hub"),
        args={"kind": "model", "hub": spec.hub, "id": spec.id, "revision": spec.revision or "default"},
        plumbing={"trust_remote_code": trust_remote_code},
        deps={},
        command=_command,
        collect=_collect,
        # The link's name is the model's: ms-swift tells related model types apart by the folder's name.
        output=lambda out: out / name,
        secrets=SECRETS,
    )


def _command(stage: Stage, out: Path, _deps: Paths) -> Command:
    args = stage.args
    revision = () if args["revision"] == "default" else ("--revision", args["revision"])
    return Command((*stage.program, args["kind"], args["hub"], args["id"], *revision, "--out", str(out)))


def _collect(out: Path, stage: Stage, _deps: Paths) -> dict[str, Any]:
    snapshot: dict[str, Any] = json.loads((out / "snapshot.json").read_text(encoding="utf-8"))
    problems = weight_problems(stage.output(out))
    if not stage.plumbing["trust_remote_code"]:
        problems += code_problems(stage.output(out))
    if problems:
        raise OutputError("\n".join(problems))
    return snapshot
