"""Which checkpoints of a training are evaluated besides the last, and the models in a folder of checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.recipe import ExportSpec, ModelSpec
from pipeline.training.spec import TrainSpec

_CHECKPOINT = re.compile(r"(?:checkpoint|step)-(\d+)")


def exported_steps(export: ExportSpec, train: TrainSpec) -> tuple[tuple[int, ...], list[str]]:
    """Steps of the checkpoints that are merged besides the last, ascending, and what is wrong with the choice.

    `all` is every `save_steps` before the last step, which is known beforehand only where `max_steps` is given.
    """
    last, every = train.max_steps, train.save_steps
    if export.checkpoints == "last":
        return (), []
    if export.checkpoints == "all":
        if last is None:
            return (), [
                "export.checkpoints: with `all`, train.max_steps has to be given: how many steps `epochs` makes is "
                "known only once the rows are counted; or list the steps"
            ]
        steps = tuple(range(every, last, every))
    else:
        steps = tuple(sorted(set(export.checkpoints)))
    problems = [
        f"export.checkpoints: {step} is no checkpoint: they come every {every} steps (train.save_steps)"
        + (f" before {last} (train.max_steps), whose model is `tuned`" if last else "")
        for step in steps
        if step < 1 or step % every or (last is not None and step >= last)
    ]
    if not problems and steps and train.save_total_limit < (kept := _kept(steps, last, every)):
        problems.append(
            f"export.checkpoints: train.save_total_limit {train.save_total_limit} would remove some of them "
            f"before they are merged; it has to be at least {kept}"
        )
    return steps, problems


def _kept(steps: tuple[int, ...], last: int | None, every: int) -> int:
    """Checkpoints there are from the first one wanted to the last of all; those that come later push it out."""
    if last is None:  # as many as wanted, the last of all, and what else comes between: unknown, so at least these
        return (steps[-1] - steps[0]) // every + 2
    return len(range(steps[0], last, every)) + 1


def in_folder(model: ModelSpec) -> tuple[tuple[ModelSpec, ...], list[str]]:
    """A model per `checkpoint-<step>` or `step-<step>` folder in a model's `path`, by step, and what is wrong."""
    if model.checkpoints != "all":
        return (model,), []
    assert model.path is not None
    steps = [(_CHECKPOINT.fullmatch(path.name), path) for path in _folders(model.path)]
    found = sorted((int(match[1]), path) for match, path in steps if match)
    if not found:
        return (), [f"{model.path}: `checkpoints: all`, but it holds no folder checkpoint-<step> or step-<step>"]
    adapters = [path for _, path in found if not (path / "config.json").is_file()]
    if adapters:
        return (), [
            f"{adapters[0]}: no config.json, so this is not a whole model; checkpoints of a LoRA training are merged "
            "by the recipe that trains them: export.checkpoints: all"
        ]
    alone = model.model_copy(update={"checkpoints": None})
    return tuple(
        alone.model_copy(update={"path": path, "name": f"{model.label}-step-{step}"}) for step, path in found
    ), []


def _folders(path: Path) -> list[Path]:
    return [inner for inner in path.iterdir() if inner.is_dir()] if path.is_dir() else []
