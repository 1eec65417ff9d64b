"""Proof that a finished training learned something, from its files alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError
from pipeline.training import adapter, curve
from pipeline.training.resume import LOG


def proof(chosen: Path, attempts: Sequence[Path]) -> dict[str, Any]:
    """Finite losses and gradients, a whole adapter, lora_B not all zero; else OutputError.

    `chosen` is the last checkpoint, `attempts` the folders of all attempts up to the one that ended, oldest first.
    """
    problem = adapter.checkpoint_problem(chosen) if chosen.exists() else "missing"
    if problem:
        raise OutputError(f"{chosen}: swift sft ended well but left no whole checkpoint: {problem}")
    points = curve.stitch(curve.read(path / LOG) for path in attempts)
    bad = [f"step {p['step']}: {key} = {p[key]}" for p in points for key in curve.non_finite(p)]
    if bad:
        raise OutputError(
            f"{attempts[-1] / LOG}: training diverged: {'; '.join(bad[:3])}{' ...' if len(bad) > 3 else ''}\n"
            "Lower train.learning_rate, or look at the data around that step. Nothing is exported or evaluated."
        )
    problem = adapter.untrained(chosen)
    if problem:
        raise OutputError(f"{chosen}: {problem}")
    state = json.loads((chosen / "trainer_state.json").read_text(encoding="utf-8"))
    losses = [p["loss"] for p in points if "loss" in p]
    evals = [p["eval_loss"] for p in points if "eval_loss" in p]
    return {
        "checkpoint": chosen.resolve().name,
        "steps": state["global_step"],
        "epochs": state.get("epoch"),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "last_eval_loss": evals[-1] if evals else None,
    }
