"""resolve(recipe, machine): the recipe without any `auto`, and the reason for each choice.

Pure, but for the task YAML files of an `include_path`, which alone say what data a task of the user's own reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import checkpoints
from pipeline.bank import resolve as bank_resolve
from pipeline.dataset import DataSpec
from pipeline.errors import PreflightError
from pipeline.evaluation_sets import local_sets
from pipeline.machine import Machine
from pipeline.recipe import DialogueSpec, ExportSpec, ModelSpec, Recipe
from pipeline.suite_names import settle
from pipeline.suites import EvalSpec
from pipeline.training.abilities import FLASH, precision, runs
from pipeline.training.placement import ShapeSource
from pipeline.training.settings import resolve_train
from pipeline.training.shape import ModelShape
from pipeline.training.spec import TrainSpec

CORES_PER_STAGE = 8
"""With fewer for each, two stages on the CPU take longer side by side than one after the other."""


@dataclass(frozen=True)
class Choice:
    """One setting that was `auto` (or is derived): where, what, why."""

    where: str
    value: str
    reason: str


def resolve(
    recipe: Recipe, machine: Machine, shape: ModelShape | None = None, source: ShapeSource = "files"
) -> tuple[Recipe, list[Choice]]:
    """Decide every `auto` from the machine's facts and the shape of the model to be trained (training/locate.py).

    PreflightError lists settings this machine cannot run.
    """
    choices: list[Choice] = []
    problems: list[str] = []
    update: dict[str, object] = {}
    recipe = _settled(recipe, choices, problems)
    banks = bank_resolve.settle(recipe)
    update["benchmarks"] = banks.banks
    choices += [Choice(*choice) for choice in banks.choices]
    problems += banks.problems
    if any(model.checkpoints for model in recipe.models):
        update["model"] = _in_folders(recipe, choices, problems)
    if recipe.data:
        update["data"] = _data(recipe.data, recipe, choices)
    if recipe.train:
        update["train"] = _train(recipe.train, machine, shape, source, choices, problems)
        update["export"] = _export(recipe, recipe.train, choices, problems)
    served = all(model.url for model in recipe.models)  # the server chose where and in which data type it runs
    suites = []
    for index, suite in enumerate(recipe.eval):
        new = {} if served else _placed(suite, f"eval[{index}]", machine, choices, problems)
        if new.get("device", suite.device) == "cuda" and suite.gpus > len(machine.gpus) > 0:
            problems.append(f"eval[{index}].gpus: {suite.gpus} asked for, {len(machine.gpus)} visible on this machine")
        suites.append(suite.model_copy(update=new))
    update["eval"] = tuple(suites)
    if recipe.dialogues and not served:
        new = _placed(recipe.dialogues, "dialogues", machine, choices, problems)
        update["dialogues"] = recipe.dialogues.model_copy(update=new)
    if recipe.runtime.workers == "auto":
        workers = max(1, machine.cpus // CORES_PER_STAGE)
        update["runtime"] = recipe.runtime.model_copy(update={"workers": workers})
        choices.append(Choice("runtime.workers", str(workers), f"{machine.cpus} cores, {CORES_PER_STAGE} a stage"))
    if problems:
        raise PreflightError(problems)
    return recipe.model_copy(update=update), choices


def _placed(
    spec: EvalSpec | DialogueSpec, where: str, machine: Machine, choices: list[Choice], problems: list[str]
) -> dict[str, object]:
    """Device and data type of what a model is run for."""
    new: dict[str, object] = {}
    if spec.device == "auto":
        new["device"] = "cuda" if machine.gpus else "cpu"
        choices.append(Choice(f"{where}.device", str(new["device"]), _visible(machine)))
    elif spec.device == "cuda" and not machine.gpus:
        problems.append(f"{where}.device: cuda asked for, but no GPU is visible on this machine")
    if spec.precision == "auto":
        on_cpu = new.get("device", spec.device) == "cpu"
        value, why = precision(machine.model_copy(update={"gpus": ()}) if on_cpu else machine)
        new["precision"] = value
        choices.append(Choice(f"{where}.precision", value, why))
    asked = getattr(spec, "attention", "auto")
    if asked in FLASH:
        if new.get("device", spec.device) == "cpu" or not runs(asked, machine):
            problems.append(f"{where}.attention: {asked} does not import or run on this machine; leave it at auto")
        elif new.get("precision", spec.precision) == "float32":
            problems.append(
                f"{where}.attention: {asked} computes in 16 bit, but precision is float32; leave it at auto"
            )
    return new


def _settled(recipe: Recipe, choices: list[Choice], problems: list[str]) -> Recipe:
    """Suites with the harness's own names and with local data out of `data_root`."""
    suites = []
    for index, suite in enumerate(recipe.eval):
        found = settle(suite, f"eval[{index}]", banks=recipe.benchmarks)
        choices += [Choice(*choice) for choice in found.choices]
        problems += found.problems
        suites.append(found.suite)
    return recipe.model_copy(update={"eval": tuple(suites)})


def _in_folders(recipe: Recipe, choices: list[Choice], problems: list[str]) -> tuple[ModelSpec, ...]:
    """Every model that is a folder of checkpoints as one model per checkpoint."""
    models: list[ModelSpec] = []
    for model in recipe.models:
        found, wrong = checkpoints.in_folder(model)
        problems.extend(wrong)
        models += found
        if model.checkpoints and found:
            names = ", ".join(one.label for one in found)
            choices.append(Choice("model.checkpoints", f"{len(found)} models", names))
    labels = [model.label for model in models]
    twice = dict.fromkeys(label for label in labels if labels.count(label) > 1)
    problems.extend(f"model: two models would be called {label}; rename one folder" for label in twice)
    return tuple(models)


def _export(recipe: Recipe, train: TrainSpec, choices: list[Choice], problems: list[str]) -> ExportSpec:
    export = recipe.export
    validates = bool(recipe.data and recipe.data.val_fraction)
    steps, wrong = checkpoints.exported_steps(export, train, validates=validates)
    problems.extend(wrong)
    if export.checkpoints == "all" and not wrong:
        why = f"every {train.save_steps} steps before {train.max_steps}"
        choices.append(Choice("export.checkpoints", ", ".join(map(str, steps)) or "none", why))
    return export.model_copy(update={"checkpoints": steps})


def _data(data: DataSpec, recipe: Recipe, choices: list[Choice]) -> DataSpec:
    if data.contamination.benchmarks != "auto":
        return data
    sets = local_sets(recipe.eval, recipe.benchmarks)
    why = "the evaluation sets on this machine" if sets else "no evaluation set of this recipe lies on this machine"
    choices.append(Choice("data.contamination.benchmarks", ", ".join(entry.name for entry in sets) or "none", why))
    return data.model_copy(update={"contamination": data.contamination.model_copy(update={"benchmarks": sets})})


def _visible(machine: Machine) -> str:
    count = len(machine.gpus)
    return "1 GPU visible" if count == 1 else f"{count} GPUs visible"


def _train(
    train: TrainSpec,
    machine: Machine,
    shape: ModelShape | None,
    source: ShapeSource,
    choices: list[Choice],
    problems: list[str],
) -> TrainSpec:
    def choose(field: str, value: object, reason: str) -> None:
        choices.append(Choice(f"train.{field}", str(value).lower(), reason))

    return resolve_train(train, machine, shape, choose, problems, source)
