"""The dry-run text of every recipe on typical machines. `python -m tests.golden --write` rewrites the golden files.

golden/<recipe>.<machine>.txt is what `python -m pipeline.run recipes/<recipe>.yaml --dry-run --machine
tests/machines/<machine>.json` prints in the repository's root, without .env and before any model is there. An existing
file is refreshed, a recipe without any gets one for every machine that can run it; an empty file of the right name adds
a machine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pipeline import dryrun
from pipeline.errors import PreflightError
from pipeline.machine import Machine, read_machine
from pipeline.plan import plan
from pipeline.recipe import Recipe
from pipeline.recipe_file import load_recipe
from pipeline.resolve import resolve
from pipeline.slots import visible
from pipeline.training.locate import Located, locate
from pipeline.training.placement import ShapeSource
from pipeline.training.shape import ModelShape

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
MACHINES = sorted((ROOT / "tests/machines").glob("*.json"))


def golden_file(recipe: Path, machine: Path) -> Path:
    return ROOT / "tests/golden" / f"{recipe.stem}.{machine.stem}.txt"


def dry_run(recipe: Path, machine: Path) -> str:
    """The text for one recipe and machine; the working directory must be the root. PreflightError if it cannot run."""
    loaded = load_recipe(recipe.relative_to(ROOT), env={})
    facts = read_machine(machine)
    resolved, choices = resolve(loaded, facts, *before_the_model(loaded, facts))
    planned = plan(resolved, facts)
    return dryrun.render(planned, planned.select(()), choices, gpus=visible({}, len(facts.gpus)))


def before_the_model(recipe: Recipe, facts: Machine) -> tuple[ModelShape | None, ShapeSource]:
    """Shape as a checkout knows it that has fetched and made nothing: that of well-known hub ids."""
    located = Located(None, "absent") if recipe.models[0].path else locate(recipe, facts, None)
    return located.shape, located.source


def main() -> None:
    os.chdir(ROOT)
    for recipe in RECIPES:
        known = [machine for machine in MACHINES if golden_file(recipe, machine).exists()]
        for machine in known or MACHINES:
            try:
                golden_file(recipe, machine).write_text(dry_run(recipe, machine), encoding="utf-8")
            except PreflightError as error:
                print(f"{recipe.stem} does not run on {machine.stem}: {error}")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    main()
