"""At which step of a training a model was saved."""

from __future__ import annotations

import re

_STEP = re.compile(r"(?:^|.*[^a-zA-Z0-9])(?:step|tuned|checkpoint)[-_]?(\d+)$")


def training_step(model: str, last: object) -> int | None:
    """By the model's label: 0 for the base, `last` for the tuned one, n of tuned-<n> or <...>step-<n>; else None."""
    if model in ("base", "tuned"):
        return 0 if model == "base" else last if isinstance(last, int) else None
    match = _STEP.match(model)
    return int(match[1]) if match else None
