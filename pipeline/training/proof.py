"""Proof that a finished training learned something, from its files alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.causes import KEPT
from pipeline.errors import OutputError
from pipeline.files import read_json
from pipeline.training import adapter, curve, full, health
from pipeline.training.spec import Action


def proof(chosen: Path, attempts: Sequence[Path], base: Path, *, diverged: Action = "stop") -> dict[str, Any]:
    """Finite losses and gradients, all steps made, a whole checkpoint, weights that moved; else OutputError.

    `chosen` is the last checkpoint, `attempts` the folders of all attempts up to the one that ended, oldest first,
    `base` the model that was trained. A curve that diverged passes where the recipe does not stop for it (`diverged`);
    weights that are NaN do not. The steps are those that the trainer set out to make; whether these are the ones of the
    plan stage, which may itself be an estimate, the report says.
    """
    problem = adapter.checkpoint_problem(chosen) if chosen.exists() else "missing"
    if problem:
        raise OutputError(f"{chosen}: swift sft ended well but left no whole checkpoint: {problem}")
    log = attempts[-1] / curve.LOG
    points = curve.stitched(attempts)
    wrong = health.diverged(points, fp16=curve.loss_scaled(attempts[-1]), ended=True)
    if wrong and diverged == "stop":
        raise OutputError(f"{log}: {wrong}\n{KEPT}")
    # Of steps between two records only this tells.
    mean = next((record["train_loss"] for record in curve.records(log) if "train_loss" in record), 0.0)
    if not math.isfinite(float(mean)) and diverged == "stop":
        raise OutputError(
            f"{log}: training diverged: train_loss, the mean of all steps, is {mean}, though none that was logged is; "
            f"lower train.learning_rate, and train.logging_steps to see where\n{KEPT}"
        )
    state = json.loads((chosen / "trainer_state.json").read_text(encoding="utf-8"))
    problem = _short(state, read_json(attempts[-1] / "args.json") or {})
    if problem:
        raise OutputError(f"{chosen / 'trainer_state.json'}: {problem}")
    whole = not (chosen / "adapter_model.safetensors").is_file()
    problem = full.unmoved(chosen, base) if whole else adapter.untrained(chosen)
    if problem:
        raise OutputError(f"{chosen}: {problem}")
    losses = [p["loss"] for p in points if "loss" in p]
    evals = [p["eval_loss"] for p in points if "eval_loss" in p]
    return {
        "checkpoint": chosen.resolve().name,
        "steps": state["global_step"],
        "epochs": state.get("epoch"),
        "first_loss": _finite(losses[:1]),
        "last_loss": _finite(losses[-1:]),
        "last_eval_loss": _finite(evals[-1:]),
    }


def _finite(values: Sequence[float]) -> float | None:
    """The only value; None if there is none, or none that JSON could hold."""
    return values[0] if values and math.isfinite(values[0]) else None


def _short(state: Mapping[str, Any], args: Mapping[str, Any]) -> str | None:
    """Why the training did not make the steps it should have; it may stop early where it was told to."""
    steps, wanted = state["global_step"], state.get("max_steps")
    early = [name for name in ("early_stop_interval", "max_epochs") if args.get(name)]
    if wanted and steps < wanted and not early:
        return (
            f"training ended after {steps} of {wanted} steps: it was told to stop from outside (SIGTERM), or the log "
            "tells why; it has saved them, and the same command goes on from there"
        )
    return None
