"""Which checkpoint of a training is its best, from the trainer's own record. Reads two small files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pipeline.files import read_json


def step(checkpoint: Path) -> int | None:
    """Optimizer steps behind a checkpoint, which may be a link to it."""
    found = _state(checkpoint).get("global_step")
    return found if isinstance(found, int) else None


def eval_losses(checkpoint: Path) -> dict[int, float]:
    """Step -> eval_loss of every validation up to this checkpoint, over all attempts that led to it.

    The trainer validates before it saves, so the checkpoint's own step is among them.
    """
    found = {}
    for record in _state(checkpoint).get("log_history", ()):
        loss, at = record.get("eval_loss"), record.get("step")
        if isinstance(loss, int | float) and isinstance(at, int) and math.isfinite(loss):
            found[at] = float(loss)
    return found


def best_step(last: Path) -> int | None:
    """Step with the lowest eval_loss of a training whose last checkpoint this is, the first of equals."""
    losses = eval_losses(last)
    return min(losses, key=lambda at: (losses[at], at)) if losses else None


def _state(checkpoint: Path) -> dict[str, Any]:
    found = read_json(checkpoint / "trainer_state.json")
    return found if isinstance(found, dict) else {}
