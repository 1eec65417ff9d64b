"""From which checkpoint an interrupted training goes on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.training import adapter, curve

LOG = "logging.jsonl"


def newest_checkpoint(attempts: Sequence[Path]) -> Path | None:
    """The newest one to go on from: whole, from before any divergence, and not the last step's.

    The trainer saves nothing when there is no step left to make, so a finished training that was killed before it
    was published goes back one checkpoint.
    """
    found = [
        path
        for attempt in attempts
        for path in attempt.glob("checkpoint-*")
        if 0 < _step(path) <= _finite_until(attempt)
    ]
    found.sort(key=lambda path: (_step(path), str(path)), reverse=True)
    return next((path for path in found if not adapter.checkpoint_problem(path) and not _complete(path)), None)


def _finite_until(attempt: Path) -> float:
    """Last logged step before the first NaN or infinity; infinite where there is none."""
    last = 0.0
    for point in curve.read(attempt / LOG):
        if curve.non_finite(point):
            return last
        last = point["step"]
    return math.inf


def _complete(path: Path) -> bool:
    state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state.get("max_steps", math.inf))


def _step(path: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return int(match.group(1)) if match else -1
