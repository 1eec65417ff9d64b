"""Which local data the evaluations of a recipe read, and which of their benchmarks are not on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.bank.spec import BankSpec
from pipeline.catalog.installed import load
from pipeline.catalog.task_index import scan
from pipeline.dataset import EvaluationSet
from pipeline.harnesses.base import benchmarks
from pipeline.recipe import Recipe
from pipeline.suites import Benchmark, EvalSpec, LmEvalSpec

SPLITS = ("test_split", "validation_split")
"""Of a task's YAML, the split that is asked: lm-eval takes the first that is given."""
NO_BANKS: Mapping[str, BankSpec] = MappingProxyType({})


def local_sets(suites: Iterable[EvalSpec], banks: Mapping[str, BankSpec] = NO_BANKS) -> tuple[EvaluationSet, ...]:
    """Every local data file or folder once, under the name of the first benchmark that reads it.

    A name that other data have already gets a number. Reads the task YAML files of an `include_path`, for they alone
    say which data a task of the user's own reads, and relative to the working directory, as lm-eval does.
    """
    found: dict[Path, str] = {}
    for suite in suites:
        for name, path in _paths(suite, banks):
            if path not in found:
                taken = set(found.values())
                numbered = (f"{name}-{number}" for number in range(2, len(found) + 3))
                found[path] = next(text for text in (name, *numbered) if text not in taken)
    return tuple(EvaluationSet(name=name, path=path) for path, name in found.items())


def unchecked(recipe: Recipe) -> list[str]:
    """Benchmarks of a resolved recipe that no training row is compared with: most lie on a hub, not here."""
    checked = recipe.data.contamination.benchmarks if recipe.data else ()
    assert checked != "auto"
    names, paths = {entry.name for entry in checked}, {entry.path for entry in checked}
    entries = [entry for suite in recipe.eval for entry in benchmarks(suite)]
    return list(dict.fromkeys(e.name for e in entries if e.name not in names and e.path not in paths))


def _paths(suite: EvalSpec, banks: Mapping[str, BankSpec]) -> Iterator[tuple[str, Path]]:
    own = _own_tasks(suite.include_path) if isinstance(suite, LmEvalSpec) and suite.include_path else {}
    for entry in benchmarks(suite):
        if entry.name in banks:
            yield entry.name, banks[entry.name].path
        elif entry.path:
            yield entry.name, entry.path
        elif entry.name in own:
            yield from ((entry.name, path) for path in _data_of(entry, own[entry.name]))


def _own_tasks(folder: Path) -> dict[str, Mapping[str, Any]]:
    """YAML of the folder's tasks; {} for one that is no YAML: lm-eval says what is wrong with it."""
    return {name: load(Path(at.file)) for name, at in scan(folder).items() if at.file}


def _data_of(entry: Benchmark, task: Mapping[str, Any]) -> Iterator[Path]:
    """Files or folder of the split that is asked; nothing where the data come from a hub."""
    config = {**task, **entry.args}
    kwargs = config.get("dataset_kwargs")
    files = kwargs.get("data_files") if isinstance(kwargs, dict) else None
    if isinstance(files, dict):
        split = next((config[key] for key in SPLITS if isinstance(config.get(key), str)), None)
        files = files.get(split) if split in files else list(files.values())
    names = [files] if isinstance(files, str) else files if isinstance(files, list) else [config.get("dataset_path")]
    for name in names:
        # A hub id is a relative path, too: what does not exist is not here.
        if isinstance(name, str) and Path(name).exists():
            yield Path(name)
