"""Which checkpoints of a training are evaluated besides the last, and the models in a folder of checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.recipe import ExportSpec, ModelSpec
from pipeline.training.spec import TrainSpec

_CHECKPOINT = re.compile(r"(?:checkpoint|step)-(\d+)")


def exported_steps(
    export: ExportSpec, train: TrainSpec, *, validates: bool = True
) -> tuple[tuple[int, ...], list[str]]:
    """Steps of the checkpoints that are merged besides `tuned`, ascending, and what is wrong with either choice.

    `all` is every `save_steps` before the last step, which is known beforehand only where `max_steps` is given.
    """
    chosen = export.checkpoint
    problems = _best_problems(train, validates=validates) if chosen == "best" else []
    last, every = train.max_steps, train.save_steps
    tuned = chosen if isinstance(chosen, int) else None
    if tuned is not None:
        problems += _no_checkpoint("export.checkpoint", tuned, train, end=last)
    if export.checkpoints == "last":
        steps: tuple[int, ...] = ()
    elif export.checkpoints == "all":
        if last is None:
            return (), [
                *problems,
                "export.checkpoints: with `all`, train.max_steps has to be given: how many steps `epochs` makes is "
                "known only once the rows are counted; or list the steps",
            ]
        steps = tuple(step for step in range(every, last, every) if step != tuned)
    else:
        steps = tuple(sorted(set(export.checkpoints)))
        end = None if last is None else last - 1
        for step in steps:
            problems += _no_checkpoint("export.checkpoints", step, train, end=end)
            if step == tuned:
                problems.append(f"export.checkpoints: {step} is `tuned` already (export.checkpoint); leave it out here")
    wanted = tuple(sorted({*steps, *([] if tuned is None else [tuned])}))
    if not problems and wanted and train.save_total_limit < (kept := _kept(wanted, last, every)):
        name = "export.checkpoints" if steps else "export.checkpoint"
        problems.append(
            f"{name}: train.save_total_limit {train.save_total_limit} would remove some of them "
            f"before they are merged; it has to be at least {kept}"
        )
    return steps, problems


def _best_problems(train: TrainSpec, *, validates: bool) -> list[str]:
    """Why the one with the lowest eval_loss would not be there in the end: the trainer keeps it, if it saves it."""
    where = "export.checkpoint: best"
    problems = []
    if not validates:
        problems.append(f"{where} is the one with the lowest eval_loss, which needs data.val_fraction above 0")
    if train.eval_steps % train.save_steps:
        problems.append(
            f"{where}: train.eval_steps {train.eval_steps} has to be a multiple of train.save_steps "
            f"{train.save_steps}, else the best model may have been validated but not saved"
        )
    metric = train.extra_args.get("metric_for_best_model", "loss")
    if metric not in ("loss", "eval_loss"):
        problems.append(
            f"{where}: with extra_args metric_for_best_model {metric} the trainer keeps the best by that, not the one "
            "with the lowest eval_loss; leave it out, or name a step"
        )
    return problems


def _no_checkpoint(where: str, step: int, train: TrainSpec, *, end: int | None) -> list[str]:
    """Why there is no checkpoint of that step at most `end`; the last step's is there in any case."""
    last, every = train.max_steps, train.save_steps
    if step == last == end or (step >= 1 and step % every == 0 and (end is None or step <= end)):
        return []
    before = "" if last is None else f" up to {last} (train.max_steps)"
    if last is not None and end != last:
        before = f" before {last} (train.max_steps), the last one"
    return [f"{where}: {step} is no checkpoint: they come every {every} steps (train.save_steps){before}"]


def _kept(steps: tuple[int, ...], last: int | None, every: int) -> int:
    """Checkpoints there are from the first one wanted to the last of all; those that come later push it out.

    The best one, and the one of an interruption, come on top: the trainer is given room for the former, and the latter
    is there only before the last one is.
    """
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
