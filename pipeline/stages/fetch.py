"""Stage `model`: a model from a hub, whole and verified; later stages read it as a local folder.

A local folder needs no stage, and neither does a model that a server runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.command import Command
from pipeline.endpoint import Endpoint
from pipeline.errors import OutputError
from pipeline.recipe import ModelSpec
from pipeline.sources import code_problems, weight_problems
from pipeline.stage import Paths, Source, Stage

SECRETS = ("MODELSCOPE_API_TOKEN", "HF_TOKEN")


def stage(spec: ModelSpec, *, trust_remote_code: bool) -> Stage | Source | Endpoint:
    """A local folder is a Source, a URL an Endpoint (nothing to run); a hub id becomes a download."""
    served = endpoint(spec)
    if served:
        return served
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


def repository(args: dict[str, Any]) -> Stage:
    """A repository into its hub's cache and no more: what needs it later finds it there."""
    return Stage(
        name="fetch",
        program=("python", "-m", "pipeline.hub"),
        args=args,
        deps={},
        command=_command,
        collect=lambda out, _stage, _deps: dict(json.loads((out / "snapshot.json").read_text(encoding="utf-8"))),
        secrets=SECRETS,
    )


def endpoint(spec: ModelSpec) -> Endpoint | None:
    if spec.url is None or spec.served_as is None:
        return None
    return Endpoint(spec.url, spec.served_as, spec.revision, spec.key_env, spec.tokenizer)


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
