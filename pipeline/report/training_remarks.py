"""What a reader should know about the training itself, as sentences: of its plan, its health and its merge. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def training_remarks(
    plan: Mapping[str, Any] | None, train: Mapping[str, Any] | None, merge: Mapping[str, Any] | None
) -> Iterator[str]:
    """The results of the stages `plan`, `train` and `check.export`, where they are done."""
    for name, result, keys in (
        ("plan", plan, ("problems", "remarks")),
        ("training", train, ("remarks",)),
        ("merge", merge, ("problems", "remarks")),
    ):
        for key in keys:
            yield from (f"{name}: {remark}" for remark in (result or {}).get(key) or ())
