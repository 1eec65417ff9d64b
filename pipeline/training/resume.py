"""From which checkpoint an interrupted training goes on: the newest that is whole, and why not a newer one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import read_json, write_text
from pipeline.training import adapter, curve, full, health
from pipeline.training.spec import Action

LOG = curve.LOG


@dataclass(frozen=True)
class Way:
    """How a training goes on."""

    checkpoint: Path | None
    """None: from the beginning."""
    passed_over: tuple[str, ...] = ()
    """Newer checkpoints, newest first, each with its reason."""


def newest_checkpoint(
    attempts: Sequence[Path], args: Mapping[str, Any] | None = None, *, diverged: Action = "stop"
) -> Way:
    """The newest one to go on from: whole, of this training, from before any divergence, and not the last step's.

    `args` are the stage's, with the number of processes; None where nothing is known of them. Where a divergence does
    not stop the training (`diverged`), it does not throw it back, either.

    The trainer saves nothing when there is no step left to make, so a finished training that was killed before it was
    published goes back one checkpoint.
    """
    settings = args or {}
    # One that died before its first step changed nothing.
    attempts = [path for path in attempts if (path / LOG).exists() or any(path.glob("checkpoint-*"))]
    found = [path for attempt in attempts for path in attempt.glob("checkpoint-*") if step(path) > 0]
    # Of two of the same step the later attempt's; attempts come oldest first.
    order = {attempt: number for number, attempt in enumerate(attempts)}
    found.sort(key=lambda path: (step(path), order[path.parent]), reverse=True)
    passed: list[str] = []
    for path in found:
        until = _good_until(attempts, order[path.parent], step(path)) if diverged == "stop" else math.inf
        reason = next(_reasons(path, settings, until), None)
        if reason is None:
            return Way(path, tuple(passed))
        passed.append(f"{path.name} of attempt {path.parent.name}: {reason}")
    return Way(None, tuple(passed))


def set_rhythm(checkpoint: Path, steps: Mapping[str, int]) -> None:
    """Have the training that goes on from it save and log as often as it is told to now.

    transformers 5.19 (Trainer._init_training_state) takes these numbers from the checkpoint, whatever the flags say.
    """
    path = checkpoint / "trainer_state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    if {name: state.get(name) for name in steps} != dict(steps):
        write_text(path, json.dumps(state | steps, indent=2) + "\n")


WORLD = frozenset(
    "processes gradient_accumulation_steps per_device_train_batch_size per_device_eval_batch_size deepspeed "
    "ddp_find_unused_parameters gradient_checkpointing torch_dtype".split()
)
"""Settings of a training that another number of processes changes by itself."""


def elsewhere(folder: Path, args: Mapping[str, Any], deps: Mapping[str, str], version: int = 1) -> Iterator[str]:
    """Why a training in `folder`, that has not begun, should not begin: it has, with another number of processes.

    ms-swift goes on from a checkpoint with as many processes as have saved it. To begin anew without a word would throw
    away what there is.
    """
    wanted = json.loads(json.dumps(_but_world(args)))
    for other in sorted(folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*")):
        told = read_json(other / "stage.json") or {}
        made = max((step(path) for path in other.glob("attempts/*/checkpoint-*")), default=0)
        if other == folder or (other / "result.json").exists() or made < 1:
            continue
        before = told.get("args", {})
        same = (told.get("deps"), told.get("version", 1), _but_world(before)) == (dict(deps), version, wanted)
        if same and before.get("processes") != args["processes"]:
            yield (
                f"train: {other} has {made} steps of this training, with {before.get('processes')} processes, "
                f"not {args['processes']}: show as many GPUs (or set train.gpus, cpu_processes, nodes) to go on from "
                "there, or delete that folder, if nothing is training in it, to begin anew"
            )


def _but_world(args: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in args.items() if name not in WORLD}


def _good_until(attempts: Sequence[Path], number: int, at: int) -> float:
    """The last good step of the training of which a checkpoint is a part: that of attempt `number`, at step `at`.

    What came after it tells, too, and what came before: an attempt that went on from one that was already bad is level.
    """
    while number + 1 < len(attempts) and (curve.went_on_from(attempts[number + 1]) or 0) >= at:
        number += 1
    return health.good_until(curve.stitched(attempts[: number + 1]), fp16=curve.loss_scaled(attempts[number]))


def _reasons(path: Path, args: Mapping[str, Any], until: float) -> Iterator[str]:
    """Why training does not go on from it, the cheapest to find first."""
    if step(path) > until:
        yield f"the training had diverged; the last good step in the log is {until:.0f}"
    # Before the files are counted by it: another number of processes is no damage.
    other = adapter.other_training(path, args)
    if other:
        yield other
    not_finite = full.non_finite if args.get("tuner_type") == "full" else adapter.non_finite
    problem = adapter.checkpoint_problem(path, args.get("processes")) or not_finite(path)
    if problem:
        yield problem
    elif _complete(path):
        yield "the training was complete, and no step is left to make"


def _complete(path: Path) -> bool:
    state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state.get("max_steps", math.inf))


def step(path: Path) -> int:
    """Of a folder called checkpoint-<step>; -1 for any other."""
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return int(match.group(1)) if match else -1
