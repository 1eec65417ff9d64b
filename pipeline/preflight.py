"""Everything that can be known before the first tool starts; all problems at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from pipeline.errors import PreflightError
from pipeline.execute import find_program
from pipeline.files import read_json
from pipeline.harnesses.base import benchmarks
from pipeline.provenance import version
from pipeline.recipe import Recipe
from pipeline.sources import code_problems, weight_problems
from pipeline.stage import Source, Stage
from pipeline.store import Store

DEMO_MODEL = "SmolLM2-135M-Instruct"
DISTRIBUTIONS = {"swift": "ms-swift", "lm_eval": "lm-eval", "evalscope": "evalscope"}


def check_sources(recipe: Recipe, planned: Iterable[Stage], root: Path, env: Mapping[str, str]) -> None:
    """PreflightError if local inputs are missing: without them not even what is already done can be told.

    The message also holds what `check` would find, so that all of it can be put right at once.
    """
    stages = list(planned)
    missing = list(_missing(stages))
    if missing:
        raise PreflightError(_unique([*missing, *_tools(stages, env), *_disk(recipe, root)]))


def check(recipe: Recipe, pending: Iterable[Stage], store: Store, env: Mapping[str, str]) -> None:
    """PreflightError naming every problem of the stages still to run; nothing has been started yet."""
    stages = list(pending)
    problems = [
        *_tools(stages, env),
        *_models(recipe, stages, store),
        *_offline(recipe, stages),
        *_nodes(recipe, stages),
        *_disk(recipe, store.root),
    ]
    if problems:
        raise PreflightError(_unique(problems))


def warnings(recipe: Recipe) -> list[str]:
    """What is allowed, but worth a word."""
    origins = [*recipe.models, *(recipe.data.sources if recipe.data else ())]
    return [
        f"{o.id}: no revision given, so the newest one is used; name a revision to make the run repeatable"
        for o in origins
        if o.id and not o.revision
    ]


def _tools(stages: Iterable[Stage], env: Mapping[str, str]) -> Iterator[str]:
    for program in dict.fromkeys(stage.program[0] for stage in stages):
        try:
            find_program(program, env)
        except PreflightError as error:
            yield str(error)
            continue
        if program in DISTRIBUTIONS and not env.get("PIPELINE_TOOLS"):
            found, wanted = version(DISTRIBUTIONS[program]), _pinned(DISTRIBUTIONS[program])
            if found and wanted and found != wanted:
                yield f"{program}: version {found} is installed, {wanted} is needed; run `make setup`"
    for stage in stages:
        if str(stage.args.get("deepspeed", "none")) != "none" and version("deepspeed") is None:
            yield f"train.deepspeed: {stage.args['deepspeed']} needs deepspeed; run `make setup`, or set it to none"
        if stage.args.get("use_liger_kernel") and version("liger-kernel") is None:
            yield "train.extra_args.use_liger_kernel: liger-kernel is not installed; pip install '.[gpu]'"


def _pinned(distribution: str) -> str | None:
    """The version this project's own metadata pins a tool to."""
    try:
        requirements = metadata.requires("finetune-pipeline") or []
    except metadata.PackageNotFoundError:
        return None
    for requirement in requirements:
        name, equals, pin = requirement.split(";")[0].partition("==")
        if equals and name.split("[")[0].strip() == distribution:
            return pin.strip()
    return None


def _models(recipe: Recipe, stages: Iterable[Stage], store: Store) -> Iterator[str]:
    deps = [stage.deps["model"] for stage in stages if "model" in stage.deps]
    # What lies in a stage that is to run again will be replaced: only its finished output counts.
    known = [dep for dep in deps if isinstance(dep, Source) or store.result(dep)]
    for folder in sorted({path for dep in known if (path := store.place(dep)).exists()}):
        if not (folder / "config.json").is_file():
            yield f"{folder}: no config.json, so this is not a model folder"
            continue
        for path in sorted(folder.glob("*.json")):
            if not isinstance(read_json(path), dict | list):
                yield f"{path}: not JSON, so it is cut or something else; fetch it again"
        if not list(folder.glob("*.safetensors")):
            yield f"{folder}: no *.safetensors (pickled weights are not loaded: they can run code)"
        yield from weight_problems(folder)
        if not recipe.trust_remote_code:
            yield from code_problems(folder)


def _missing(stages: Sequence[Stage]) -> Iterator[str]:
    evaluated = {path for stage in stages if stage.name == "eval" for _, path in _local(stage)}
    for stage in stages:
        for role, path in _local(stage):
            if path.exists():
                continue
            if role == "model":
                hint = "`make demo-model` makes it" if path.name == DEMO_MODEL else "check model.path"
                yield f"{path}: no such model folder; {hint}"
            else:
                # The harnesses take a wrong path for a hub id and fail only after trying to download it.
                section = "data.sources" if role.startswith("source") else "data.contamination.benchmarks"
                yield f"{path}: no such file or folder; check {'eval' if path in evaluated else section}"


def _local(stage: Stage) -> Iterator[tuple[str, Path]]:
    for role, dep in stage.deps.items():
        if isinstance(dep, Source):
            yield role, dep.path


def _offline(recipe: Recipe, stages: Iterable[Stage]) -> Iterator[str]:
    if not recipe.runtime.offline:
        return
    names = {stage.name for stage in stages}
    for suite in recipe.eval if "eval" in names else ():
        if suite.harness == "evalscope":
            for benchmark in benchmarks(suite):
                if benchmark.path is None:
                    yield f"{benchmark.name}: runtime.offline is true, but EvalScope would ask its hub; give a `path`"
    for section, origins in (("model", recipe.models), ("data", recipe.data.sources if recipe.data else ())):
        for origin in origins:
            if origin.id and section in names:
                yield f"{origin.id}: runtime.offline is true, but this comes from {origin.hub}; use a local path"


def _nodes(recipe: Recipe, stages: Iterable[Stage]) -> Iterator[str]:
    if recipe.train and recipe.train.nodes > 1 and any(stage.name == "train" for stage in stages):
        # Started on one node alone, it would train with a part of the global batch and nobody would notice.
        yield f"train.nodes: {recipe.train.nodes} nodes can be planned, but not started yet; use 1"


def _unique(problems: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(problems))


def _disk(recipe: Recipe, root: Path) -> Iterator[str]:
    place = root
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    if free < recipe.runtime.min_free_gb:
        yield (
            f"{root}: {free:.1f} GB free, runtime.min_free_gb asks for {recipe.runtime.min_free_gb}; "
            "free some (`python -m pipeline.run RECIPE gc`), or give another --runs-dir"
        )
