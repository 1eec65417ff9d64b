"""The command `fetch`: models, training data and benchmarks of a recipe, ahead of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.command import Command
from pipeline.console import Console
from pipeline.errors import OutputError
from pipeline.execute import Executor
from pipeline.harnesses.base import benchmarks
from pipeline.hub.fetch_benchmarks import RECORD
from pipeline.recipe import Recipe
from pipeline.schedule import Schedule
from pipeline.stage import Paths, Source, Stage
from pipeline.stages import fetch
from pipeline.store import Store
from pipeline.suites import EvalScopeSpec, LmEvalSpec


def stages(recipe: Recipe) -> dict[str, Stage]:
    """What a hub would be asked for, by label; empty where everything is local."""
    found: dict[str, Stage] = {}
    for model in recipe.models:
        one = fetch.stage(model, trust_remote_code=recipe.trust_remote_code)
        if isinstance(one, Stage):
            found["model" if len(recipe.models) == 1 else f"model.{model.label}"] = one
    for source in recipe.data.sources if recipe.data else ():
        if source.id:
            args = {"kind": "dataset", "hub": source.hub, "id": source.id, "revision": source.revision or "default"}
            found[label(source.id)] = fetch.repository(args)
    for suite in recipe.eval:
        asked = of_suite(suite, recipe.benchmarks)
        if asked:
            found[f"fetch.{suite.entry}"] = asked
    return found


def label(hub_id: str) -> str:
    """Label of the stage that fetches a repository of training data."""
    return f"fetch.{hub_id.replace('/', '--')}"


def of_suite(suite: LmEvalSpec | EvalScopeSpec, banks: Mapping[str, Any]) -> Stage | None:
    """The benchmarks of a suite that lie on a hub; None if there are none."""
    names = [asked.name for asked in benchmarks(suite) if asked.path is None and asked.name not in banks]
    if not names:
        return None
    own = suite.include_path if isinstance(suite, LmEvalSpec) else None
    where = str(suite.extra_args.get("dataset-hub", suite.extra_args.get("dataset_hub", "modelscope")))
    return Stage(
        name="fetch",
        program=("python", "-m", "pipeline.hub.fetch_benchmarks"),
        args={"harness": suite.harness, "names": names, **({"hub": where} if suite.harness == "evalscope" else {})},
        deps={"include_path": Source(own)} if own else {},
        command=_command,
        collect=_collect,
        secrets=fetch.SECRETS,
    )


def run(recipe: Recipe, store: Store, env: Mapping[str, str], console: Console) -> int:
    """Fetch everything, whatever becomes of the rest; the error at the end names all that failed.

    A cache may have been cleared since, so what was fetched before is looked at again; no whole file is loaded twice.
    Where that fails, for want of a network say, it stays as it was.
    """
    wanted = stages(recipe)
    before: dict[Path, Path] = {}
    for name, stage in wanted.items():
        folder = store.folder(stage)
        if store.result(stage):
            console.say(f"{name}: was fetched before; looking whether it is still whole")
            before[folder] = folder.with_name(f".{folder.name}")
            shutil.rmtree(before[folder], ignore_errors=True)
            folder.rename(before[folder])
    labels = {store.folder(stage).name: name for name, stage in wanted.items()}
    try:
        Schedule(Executor(store, env, console), gpus=(), workers=1).run(wanted.values(), labels)
    finally:
        for folder, kept in before.items():
            if (folder / "result.json").is_file():
                shutil.rmtree(kept)
            else:
                shutil.rmtree(folder, ignore_errors=True)
                kept.rename(folder)
    console.say(f"fetched: {', '.join(wanted)}" if wanted else "nothing to fetch: all of this recipe is local")
    return 0


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    args = stage.args
    words = [*stage.program, args["harness"], *args["names"], "--out", str(out)]
    words += ["--hub", args["hub"]] if "hub" in args else []
    words += ["--include-path", str(deps["include_path"])] if "include_path" in deps else []
    return Command(tuple(words))


def _collect(out: Path, _stage: Stage, _deps: Paths) -> dict[str, Any]:
    path = out / RECORD
    if not path.is_file():
        raise OutputError(f"{path}: missing, though everything was fetched")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record
