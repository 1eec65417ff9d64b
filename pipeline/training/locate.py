"""Where the shape of the model to be trained comes from, so that a run decides by the model's own files alone.

What `auto` becomes is part of the training's identity. Were it decided before the download by what is published of a
model, and after it by its files, a second call might train again. So a run has the model fetched first, where that
matters, and only a dry run or `status` goes by what is published.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.machine import Machine
from pipeline.recipe import Recipe
from pipeline.stage import Stage
from pipeline.stages import fetch
from pipeline.store import Store
from pipeline.training import shape
from pipeline.training.placement import ShapeSource
from pipeline.training.settings import needs_shape
from pipeline.training.shape import ModelShape


class Located(NamedTuple):
    shape: ModelShape | None
    source: ShapeSource
    missing: Stage | None = None
    """The stage that brings the files which some `auto` of the training waits for."""


def locate(recipe: Recipe, machine: Machine, store: Store | None) -> Located:
    """`store` knows what was fetched; None: go by what is published, and by local folders.

    Raises nothing: what is wrong with a folder, preflight says.
    """
    if recipe.train is None or len(recipe.models) != 1:
        return Located(None, "files")
    model = recipe.models[0]
    made = fetch.stage(model, trust_remote_code=recipe.trust_remote_code)
    if not isinstance(made, Stage):
        found = shape.of(model, model.path)
        return Located(found, "files" if found or (model.path and model.path.is_dir()) else "absent")
    if store is not None and store.result(made):
        return Located(shape.read(store.place(made)), "files")
    known = shape.of(model)
    waits = made if needs_shape(recipe.train, machine) else None
    return Located(known, "table" if known else "absent", waits)
