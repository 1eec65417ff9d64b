"""A suite as the harness is to get it: its own names for common ones, local folders out of `data_root`, and what such a
folder asks for (splits and configurations that it lacks).

Looks at the folders, and at nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.catalog import local_data, lookup
from pipeline.catalog.entry import HarnessName
from pipeline.harnesses.base import benchmarks
from pipeline.suites import Benchmark, EvalScopeSpec, LmEvalSpec


@dataclass(frozen=True)
class Settled:
    suite: LmEvalSpec | EvalScopeSpec
    choices: list[tuple[str, str, str]] = field(default_factory=list)
    """(where, what, why) of everything that was not said in so many words."""
    problems: list[str] = field(default_factory=list)


def settle(suite: LmEvalSpec | EvalScopeSpec, where: str, *, banks: Collection[str]) -> Settled:
    """`banks`: names of the recipe's own question banks, which are left alone. The same suite settles to itself."""
    section = "tasks" if suite.harness == "lm_eval" else "datasets"
    choices: list[tuple[str, str, str]] = []
    problems: list[str] = []
    new = []
    for given in benchmarks(suite):
        if given.name in banks:
            new.append(given)
            continue
        entry, at = lookup.translate(given, suite.harness), f"{where}.{section}.{given.name}"
        if entry != given:
            choices.append((at, _said(entry), f"what {suite.harness} calls it"))
        if entry.path is None and suite.data_root:
            found = _folder(given.name, entry.name, suite.harness, suite.data_root)
            if found:
                entry = entry.model_copy(update={"path": found})
                choices.append((at, str(found), "found in data_root"))
        if suite.harness == "lm_eval" and entry.path and entry.path.is_dir():
            missing = dict(_missing(entry, entry.path))
            added = {key: value for key, value in missing.items() if key not in entry.args}
            if added:
                entry = entry.model_copy(update={"args": {**added, **entry.args}})
                choices.append((at, ", ".join(f"{key}: null" for key in added), f"{entry.path} has no such data"))
        new.append(entry)
    if suite.harness == "evalscope":
        new, clashes = lookup.merged(new)
        problems += [f"{where}.{section}: {clash}" for clash in clashes]
    asked = tuple(entry if entry.path or entry.args else entry.name for entry in new)
    return Settled(suite.model_copy(update={section: asked}), choices, problems)


def _said(entry: Benchmark) -> str:
    subsets = entry.args.get("subset_list")
    return f"{entry.name} {subsets}" if subsets else entry.name


def _folder(given: str, own: str, harness: HarnessName, root: Path) -> Path | None:
    named = lookup.find(given, harness)
    places = [named.entry.folder, named.entry.name] if named else []
    return next((root / place for place in (*places, given, own) if (root / place).is_dir()), None)


def _missing(entry: Benchmark, folder: Path) -> Iterator[tuple[str, Any]]:
    """Keys of the task's YAML that name what the folder has not, to be set to null: lm-eval fails on them."""
    named = lookup.find(entry.name, "lm_eval")
    task = named.entry.lm_eval if named else None
    if task is None or named is None:
        return
    declared = local_data.configs(folder)
    config = named.subset if task.group else task.config
    if config and not declared:
        yield "dataset_name", None
    there = local_data.splits(folder, config)
    if there:
        yield from ((key, None) for key, split in task.splits.items() if split not in there)
