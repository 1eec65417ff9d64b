"""From which checkpoint an interrupted training goes on: the newest that is whole, and why not a newer one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.training import adapter, curve, health
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
    found = [path for attempt in attempts for path in attempt.glob("checkpoint-*") if step(path) > 0]
    # Of two of the same step the later attempt's; attempts come oldest first.
    order = {attempt: number for number, attempt in enumerate(attempts)}
    found.sort(key=lambda path: (step(path), order[path.parent]), reverse=True)
    passed: list[str] = []
    for path in found:
        reason = next(_reasons(path, settings, judged=diverged == "stop"), None)
        if reason is None:
            return Way(path, tuple(passed))
        passed.append(f"{path.name} of attempt {path.parent.name}: {reason}")
    return Way(None, tuple(passed))


def _reasons(path: Path, args: Mapping[str, Any], *, judged: bool) -> Iterator[str]:
    """Why training does not go on from it, the cheapest to find first."""
    if judged:
        until = health.good_until(curve.read(path.parent / LOG), fp16=curve.loss_scaled(path.parent))
        if step(path) > until:
            yield f"the training had diverged; the last good step in the log is {until:.0f}"
    # Before the files are counted by it: another number of processes is no damage.
    other = adapter.other_training(path, args)
    if other:
        yield other
    problem = adapter.checkpoint_problem(path, args.get("processes")) or adapter.non_finite(path)
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
