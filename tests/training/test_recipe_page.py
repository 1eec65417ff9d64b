"""docs/recipes.md names every key of the sections that a training reads, with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from pipeline.fields import Section
from pipeline.recipe import CompareSpec, DialogueSpec, ExportSpec, ModelSpec, Recipe, RuntimeSpec, TrackingSpec
from pipeline.training.spec import HealthSpec, TrainSpec

PAGE = (Path(__file__).resolve().parents[2] / "docs/recipes.md").read_text(encoding="utf-8")
SECTIONS: dict[str, tuple[type[Section], str]] = {
    "Top level": (Recipe, ""),
    "model, and each entry of a list of models": (ModelSpec, ""),
    "train": (TrainSpec, ""),
    "export": (ExportSpec, ""),
    "dialogues": (DialogueSpec, ""),
}
LATER: dict[str, tuple[type[Section], str, str]] = {
    "health": (HealthSpec, "train", "health."),
    "compare": (CompareSpec, "compare, runtime, tracking (no identity)", "compare."),
    "runtime": (RuntimeSpec, "compare, runtime, tracking (no identity)", "runtime."),
    "tracking": (TrackingSpec, "compare, runtime, tracking (no identity)", "tracking."),
}
OTHERWISE = {"learning_rate"}
"""Written as people write it: 1e-4."""
CASES = [(model, head, prefix) for head, (model, prefix) in SECTIONS.items()] + list(LATER.values())


def table(head: str) -> dict[str, list[str]]:
    """Key -> the other cells of its row, out of the section under that head."""
    text = PAGE.partition(f"\n## {head}\n")[2].partition("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| `")]
    return {key: [cell.strip() for cell in cells] for first, *cells in rows for key in re.findall(r"`([^`]+)`", first)}


def documented(field: FieldInfo) -> Iterator[str]:
    """Ways in which a table may give a plain default; none for sections, `None` and empty lists."""
    value: Any = field.default
    if isinstance(value, bool):
        yield f"`{str(value).lower()}`"
    elif isinstance(value, int | float):
        yield f"{value:g}"
    elif isinstance(value, str) and value:
        yield f"`{value}`"


@pytest.mark.parametrize(("model", "head", "prefix"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_every_key_has_a_row_with_its_default(model: type[Section], head: str, prefix: str) -> None:
    rows = table(head)
    sections = {"health"} if model is TrainSpec else set[str]()
    missing = [name for name in model.model_fields if prefix + name not in rows and name not in sections]
    assert not missing
    for name, field in model.model_fields.items():
        for text in documented(field):
            if name not in OTHERWISE:
                assert text in " | ".join(rows[prefix + name]), name
    known = {prefix + name for name in model.model_fields}
    stray = {key for key in rows if key.startswith(prefix) and "." not in key.removeprefix(prefix)} - known
    assert not stray, "a row of a key that does not exist"
