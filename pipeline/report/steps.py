"""At which step of a training a model was saved."""

from __future__ import annotations

import re

_STEP = re.compile(r"(?P<of>|.*[^a-zA-Z0-9])(?:step|tuned|checkpoint)[-_]?(?P<step>\d+)")


def training_step(model: str, last: object) -> int | None:
    """By the model's label: 0 for the base, `last` for the tuned one, n of tuned-<n> or <...>step-<n>; else None."""
    if model in ("base", "tuned"):
        return 0 if model == "base" else last if isinstance(last, int) else None
    match = _STEP.fullmatch(model)
    return int(match["step"]) if match else None


def training_of(model: str) -> str:
    """Which training a model is of, by its label: pythia-160m of pythia-160m-step-1000; "" of the recipe's own."""
    match = _STEP.fullmatch(model)
    return match["of"].rstrip("-_@/. ") if match else ""
