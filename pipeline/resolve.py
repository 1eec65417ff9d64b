"""resolve(recipe, machine): the recipe without any `auto`, and the reason for each choice.

Pure, but for the task YAML files of an `include_path`, which alone say what data a task of the user's own reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import bank_resolve, checkpoints
from pipeline.dataset import DataSpec
from pipeline.errors import PreflightError
from pipeline.evaluation_sets import local_sets
from pipeline.fields import Precision
from pipeline.machine import Machine
from pipeline.recipe import DialogueSpec, ExportSpec, ModelSpec, Recipe
from pipeline.suite_names import settle
from pipeline.suites import EvalSpec
from pipeline.training.spec import TrainSpec

FLASH = {"flash_attention_2": (8, 0), "flash_attention_3": (9, 0), "flash_attention_4": (9, 0)}
"""Implementations, the proven first, with the least compute capability each runs on."""

AUTO_MICRO_BATCH = 8
"""Most that `auto` takes; memory is not looked at, so large models want a number of their own."""

CORES_PER_STAGE = 8
"""With fewer for each, two stages on the CPU take longer side by side than one after the other."""


@dataclass(frozen=True)
class Choice:
    """One setting that was `auto` (or is derived): where, what, why."""

    where: str
    value: str
    reason: str


def resolve(recipe: Recipe, machine: Machine) -> tuple[Recipe, list[Choice]]:
    """Decide every `auto` from the machine's facts; PreflightError lists settings this machine cannot run."""
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
        update["train"] = _train(recipe.train, machine, choices, problems)
        update["export"] = _export(recipe.export, recipe.train, choices, problems)
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
        precision, why = _precision(machine.model_copy(update={"gpus": ()}) if on_cpu else machine)
        new["precision"] = precision
        choices.append(Choice(f"{where}.precision", precision, why))
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


def _export(export: ExportSpec, train: TrainSpec, choices: list[Choice], problems: list[str]) -> ExportSpec:
    steps, wrong = checkpoints.exported_steps(export, train)
    problems.extend(wrong)
    if export.checkpoints == "all" and not wrong:
        why = f"every {train.save_steps} steps before {train.max_steps}"
        choices.append(Choice("export.checkpoints", ", ".join(map(str, steps)) or "none", why))
    return export.model_copy(update={"checkpoints": steps})


def accumulation(train: TrainSpec) -> int:
    """Forward passes per optimizer step and GPU: global_batch_size / (micro_batch_size x GPUs x nodes)."""
    assert isinstance(train.gpus, int)
    assert isinstance(train.micro_batch_size, int)
    return train.global_batch_size // (train.micro_batch_size * max(train.gpus, 1) * train.nodes)


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


def _weakest(machine: Machine) -> str:
    return min(machine.gpus, key=lambda gpu: gpu.compute_capability).name


def _precision(machine: Machine) -> tuple[Precision, str]:
    if not machine.gpus:
        if machine.system == "Darwin":
            return "float32", "macOS: runs on the CPU; the tools' MPS path is not tested here and not used"
        return "float32", "no GPU: bf16 is no faster on CPUs, and fp16 gives infinities"
    if machine.bf16:
        return "bfloat16", f"{machine.gpus[0].name} has bf16"
    return "float16", f"{_weakest(machine)} has no bf16 (compute capability below 8.0)"


def _train(train: TrainSpec, machine: Machine, choices: list[Choice], problems: list[str]) -> TrainSpec:
    new: dict[str, object] = {}

    def choose(field: str, value: object, reason: str) -> None:
        new[field] = value
        choices.append(Choice(f"train.{field}", str(value).lower(), reason))

    gpus = train.gpus
    if gpus == "auto":
        gpus = len(machine.gpus)
        choose("gpus", gpus, f"{gpus} visible" if gpus else "none visible: CPU")
    if gpus > len(machine.gpus):
        problems.append(f"train.gpus: {gpus} asked for, {len(machine.gpus)} visible on this machine")
    world = max(gpus, 1) * train.nodes
    micro = train.micro_batch_size
    if micro == "auto":
        share = max(train.global_batch_size // world, 1)
        micro = max(size for size in range(1, min(share, AUTO_MICRO_BATCH) + 1) if share % size == 0)
        choose("micro_batch_size", micro, f"global batch of {train.global_batch_size} over {world} processes")
    assert isinstance(micro, int)
    if train.global_batch_size % (micro * world):
        problems.append(
            f"train.global_batch_size: {train.global_batch_size} is not a multiple of micro_batch_size x GPUs x nodes"
            f" = {micro} x {max(gpus, 1)} x {train.nodes} = {micro * world}"
        )
    cpu_or_machine = machine if gpus else machine.model_copy(update={"gpus": ()})
    precision, why = _precision(cpu_or_machine)
    if train.precision == "auto":
        choose("precision", precision, why)
    problems.extend(_impossible(train, gpus, machine))
    flash = next((f for f in FLASH if _runs(f, machine)), None) if gpus else None
    attention: str = train.attention
    if attention == "auto":
        attention = flash or "sdpa"
        if flash:
            why = f"{flash} imports"
        elif gpus and machine.flash_attention:
            why = f"{machine.flash_attention[0]} does not run on {_weakest(machine)}"
        else:
            why = "flash-attention does not import here" if gpus else "flash-attention needs a GPU"
        choose("attention", attention, why)
    if train.packing == "auto":
        packs = attention in FLASH
        why = "fewer padded tokens" if packs else "packing needs flash-attention (rows would see each other)"
        choose("packing", packs, f"{attention}: {why}")
    if train.deepspeed == "auto":
        sharded = gpus * train.nodes > 1
        why = f"{gpus * train.nodes} GPUs: optimizer state and gradients are sharded" if sharded else "one process"
        choose("deepspeed", "zero2" if sharded else "none", why)
    if train.gradient_checkpointing == "auto":
        choose("gradient_checkpointing", bool(gpus), "GPU memory" if gpus else "CPU: compute is dearer than memory")
    return train.model_copy(update=new)


def _runs(flash: str, machine: Machine) -> bool:
    return flash in machine.flash_attention and all(gpu.compute_capability >= FLASH[flash] for gpu in machine.gpus)


def _impossible(train: TrainSpec, gpus: int, machine: Machine) -> Iterator[str]:
    """Settings that the tools would accept and then fail on, or silently ignore."""
    attention = train.attention
    if train.packing is True and attention not in (*FLASH, "auto"):
        yield f"train.packing: needs flash-attention, but train.attention is {attention}"
    if train.packing is True and attention == "auto" and not (gpus and any(_runs(f, machine) for f in FLASH)):
        yield "train.packing: needs flash-attention, which does not import here (see scripts/flash_attn_wheel.py)"
    if attention in FLASH and not (gpus and _runs(attention, machine)):
        yield f"train.attention: {attention} does not import or run on this machine (see scripts/flash_attn_wheel.py)"
    if train.precision == "float16" and not gpus:
        yield "train.precision: float16 on a CPU makes every gradient infinite; use float32 or auto"
    if train.precision == "bfloat16" and gpus and not machine.bf16:
        yield f"train.precision: {_weakest(machine)} has no bf16; use float16 or auto"
    if train.deepspeed not in ("auto", "none") and machine.system != "Linux":
        yield f"train.deepspeed: {train.deepspeed} needs Linux, this is {machine.system}"
