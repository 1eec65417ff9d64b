"""Everything that can be known before the first tool starts; all problems at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from pipeline import capability, dialogues, endpoint, settings
from pipeline.catalog.task_index import scan
from pipeline.errors import PreflightError
from pipeline.execute import find_program
from pipeline.files import read_json
from pipeline.harnesses import HARNESSES
from pipeline.harnesses.base import benchmarks
from pipeline.hub import fetching
from pipeline.provenance import version
from pipeline.recipe import Recipe
from pipeline.sources import code_problems, weight_problems
from pipeline.stage import Source, Stage
from pipeline.stages import evaluate, fetch, train
from pipeline.store import Store
from pipeline.suites import LmEvalSpec
from pipeline.training import checks

DEMO_MODEL = "SmolLM2-135M-Instruct"
SECTIONS = {
    "against": "data.contamination.benchmarks",
    "path": "dialogues.path",
    "tokenizer": "model.tokenizer",
}
"""Where a recipe names a local input, by its role's first letters."""
DISTRIBUTIONS = {"swift": "ms-swift", "lm_eval": "lm-eval", "evalscope": "evalscope"}


def check_sources(recipe: Recipe, planned: Iterable[Stage], root: Path, env: Mapping[str, str]) -> None:
    """PreflightError if local inputs are missing: without them not even what is already done can be told.

    The message also holds what `check` would find, so that all of it can be put right at once.
    """
    stages = list(planned)
    missing = list(_missing(stages))
    if missing:
        others = [*_tools(stages, env), *_suites(recipe, stages, env), *_disk(recipe, root)]
        raise PreflightError(_unique([*missing, *others]))


def check(recipe: Recipe, pending: Iterable[Stage], store: Store, env: Mapping[str, str]) -> None:
    """PreflightError naming every problem of the stages still to run; nothing has been started yet."""
    stages = list(pending)
    problems = [
        *_tools(stages, env),
        *_models(recipe, stages, store),
        *_checkpoints(stages, store),
        *train.stop_file(stages),
        *_offline(recipe, stages, store),
        *_nodes(recipe, stages),
        *_suites(recipe, stages, env),
        *_servers(recipe, stages, env),
        *_dialogues(recipe, stages),
        *_places(stages, store),
        *checks.elsewhere(stages, store),
        *_disk(recipe, store.root),
    ]
    if problems:
        raise PreflightError(_unique(problems))


def warnings(recipe: Recipe, env: Mapping[str, str]) -> list[str]:
    """What is allowed, but worth a word."""
    origins = [*recipe.models, *(recipe.data.sources if recipe.data else ())]
    newest = [
        f"{o.id}: no revision given, so the newest one is used; name a revision to make the run repeatable"
        for o in origins
        if o.id and not o.revision
    ]
    return [*newest, *capability.remarks(recipe, capability.Installed(settings.cache_dir(env)))]


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
        if stage.name == "train":
            yield from checks.libraries(stage)


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


def _checkpoints(stages: Iterable[Stage], store: Store) -> Iterator[str]:
    for stage in stages:
        trained = stage.deps.get("adapter")
        if not isinstance(trained, Stage) or "checkpoint" not in stage.args or store.result(trained) is None:
            continue
        place = train.checkpoint(store.place(trained).parent, stage.args["checkpoint"])
        if not place.is_dir():
            yield (
                f"export.checkpoints: {place} is not there: the training that is done kept fewer checkpoints. Choose "
                f"among those it kept, or delete {store.folder(trained)} to train again (train.save_total_limit)"
            )


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
                section = next((text for start, text in SECTIONS.items() if role.startswith(start)), "data.sources")
                asked = path in evaluated and role != "tokenizer"
                yield f"{path}: no such file or folder; check {'eval' if asked else section}"


def _local(stage: Stage) -> Iterator[tuple[str, Path]]:
    for role, dep in stage.deps.items():
        if isinstance(dep, Source):
            yield role, dep.path


def _offline(recipe: Recipe, stages: Iterable[Stage], store: Store) -> Iterator[str]:
    if not recipe.runtime.offline:
        return
    names = {stage.name for stage in stages}
    done = {label: stage for label, stage in fetching.stages(recipe).items() if store.result(stage)}
    fetched = {stage.args.get("id") for stage in done.values()}
    remedy = "run `python -m pipeline.run RECIPE fetch` where there is a network, or use a local path"
    for suite in recipe.eval if "eval" in names else ():
        own = scan(suite.include_path) if isinstance(suite, LmEvalSpec) and suite.include_path else {}
        for asked in benchmarks(suite) if f"fetch.{suite.entry}" not in done else ():
            if asked.path or asked.name in recipe.benchmarks or asked.name in own:
                continue
            if suite.data_root:
                has = ", ".join(sorted(path.name for path in suite.data_root.glob("*") if path.is_dir())) or "nothing"
                where = f"{suite.data_root} has no folder for it (it has {has})"
                yield f"{asked.name}: runtime.offline is true, but {where}; {remedy}"
            elif suite.harness == "evalscope":  # of lm-eval's data nothing tells whether `datasets` has them
                yield f"{asked.name}: runtime.offline is true, but EvalScope would ask its hub; {remedy}"
    for section, origins in (("model", recipe.models), ("data", recipe.data.sources if recipe.data else ())):
        for origin in origins:
            if origin.id and section in names and origin.id not in fetched:
                yield f"{origin.id}: runtime.offline is true, but this comes from {origin.hub}; {remedy}"


def _nodes(recipe: Recipe, stages: Iterable[Stage]) -> Iterator[str]:
    if recipe.train and recipe.train.nodes > 1 and any(stage.name == "train" for stage in stages):
        # Started on one node alone, it would train with a part of the global batch and nobody would notice.
        yield f"train.nodes: {recipe.train.nodes} nodes can be planned, but not started yet; use 1"


def _suites(recipe: Recipe, stages: Iterable[Stage], env: Mapping[str, str]) -> Iterator[str]:
    """Benchmarks that the harness of a suite does not have or cannot ask, and settings that it cannot honour."""
    if not any(stage.name == "eval" for stage in stages):
        return
    yield from capability.problems(recipe, capability.Installed(settings.cache_dir(env)), env)
    for suite in recipe.eval:
        chat_template = evaluate.applies_template(suite, recipe=recipe.chat_template)
        for model in recipe.models:
            served = fetch.endpoint(model)
            for text in HARNESSES[suite.harness].problems(suite, chat_template=chat_template, endpoint=served):
                yield f"eval.{suite.entry}.{text}"


def _dialogues(recipe: Recipe, stages: Iterable[Stage]) -> Iterator[str]:
    spec = recipe.dialogues
    if spec is None or not any(stage.name == "asked" for stage in stages):
        return
    if not (spec.prompts or spec.path or (recipe.data and recipe.data.val_fraction and spec.from_validation)):
        yield "dialogues: nothing to ask; give dialogues.prompts or dialogues.path, or drop `dialogues`"
    if spec.path and spec.path.is_file():
        yield from dialogues.given(spec.path)[1]


def _servers(recipe: Recipe, stages: Iterable[Stage], env: Mapping[str, str]) -> Iterator[str]:
    asked = any("endpoint" in stage.args for stage in stages)
    for served in filter(None, map(fetch.endpoint, recipe.models)) if asked else ():
        problem = endpoint.problem(served, env)
        if problem:
            yield f"model.url: {problem}"


def _unique(problems: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(problems))


def _places(stages: Iterable[Stage], store: Store) -> Iterator[str]:
    """lm-eval 0.4.13 splits --tasks at commas and takes the path of a task file for a pattern (evaluate_config.py)."""
    files = [
        stage
        for stage in stages
        if stage.tool and stage.tool[0] == "lm_eval"
        and (stage.args.get("banks") or any(task["local"] or task["args"] for task in stage.args["tasks"]))
    ]  # fmt: skip
    wrong = "".join(sorted(set(str(store.root)) & set(",[]*?")))
    if files and wrong:
        yield f"{store.root}: lm-eval finds no task files below a path with {wrong} in it; give another --runs-dir"


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
