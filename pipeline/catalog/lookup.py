"""Well-known benchmarks under one name for both harnesses. Pure; the table is entries.py.

A suite may use the common name (`ceval`, `arc_challenge`, `cmmlu_professional_psychology`) under either harness, or the
harness's own (`ceval-valid`; `arc` with a subset_list); both come to the same settings, and so to the same results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.catalog.entries import ENTRIES
from pipeline.catalog.entry import Entry, HarnessName
from pipeline.suites import Benchmark


@dataclass(frozen=True)
class Named:
    """A name of a recipe, understood."""

    entry: Entry
    subset: str | None = None


def find(name: str, harness: HarnessName) -> Named | None:
    """The benchmark that a common name, or the harness's own name, stands for; None if the catalogue has none."""
    for entry in ENTRIES.values():
        if name in (entry.name, entry.own(harness)):
            return Named(entry)
    for entry in ENTRIES.values():
        for prefix in _prefixes(entry, harness):
            if name.startswith(prefix) and name.removeprefix(prefix) in entry.subsets:
                return Named(entry, name.removeprefix(prefix))
    return None


def translate(benchmark: Benchmark, harness: HarnessName) -> Benchmark:
    """The same with the harness's own name and subsets; unchanged where the catalogue has nothing to say."""
    named = find(benchmark.name, harness)
    if named is None or named.entry.own(harness) is None:
        return benchmark
    entry = named.entry
    if harness == "lm_eval" and entry.lm_eval:
        part = entry.lm_eval.subset
        own = part.format(named.subset) if named.subset and part else entry.lm_eval.name
        return benchmark if own == benchmark.name else benchmark.model_copy(update={"name": own})
    assert entry.evalscope
    subsets = (named.subset,) if named.subset else entry.evalscope.subsets
    if benchmark.name == entry.evalscope.name and not named.subset:
        subsets = ()  # EvalScope's own name: all of it, whatever part of it a common name stands for
    args = {"subset_list": list(subsets), **benchmark.args} if subsets else benchmark.args
    if benchmark.name == entry.evalscope.name and args == benchmark.args:
        return benchmark
    return benchmark.model_copy(update={"name": entry.evalscope.name, "args": args})


def is_group(task: str) -> bool:
    """Whether lm-eval's task of that name is a group of tasks."""
    return any(entry.lm_eval and entry.lm_eval.group and entry.lm_eval.name == task for entry in ENTRIES.values())


def matching(word: str) -> Iterator[Entry]:
    """Entries whose names, title or language hold the word."""
    for entry in ENTRIES.values():
        names = [entry.name, entry.title, *entry.languages, *entry.subsets]
        names += [entry.own("lm_eval") or "", entry.own("evalscope") or ""]
        if word.lower() in " ".join(names).lower():
            yield entry


def merged(benchmarks: list[Benchmark]) -> tuple[list[Benchmark], list[str]]:
    """Entries of one data set joined (arc_easy and arc_challenge: arc with both subsets), and what cannot be joined.

    EvalScope keeps settings and results by data set, so that a second entry would replace the first.
    """
    found: dict[str, Benchmark] = {}
    problems = []
    for new in benchmarks:
        old = found.get(new.name)
        if old is None:
            found[new.name] = new
            continue
        if old.path != new.path or _beside(old) != _beside(new) or not (_subsets(old) and _subsets(new)):
            problems.append(
                f"{new.name} is listed twice with other settings; put one into a second suite with a `name`"
            )
            continue
        subsets = list(dict.fromkeys([*_subsets(old), *_subsets(new)]))
        found[new.name] = old.model_copy(update={"args": {**old.args, "subset_list": subsets}})
    return list(found.values()), problems


def _subsets(benchmark: Benchmark) -> list[Any]:
    value = benchmark.args.get("subset_list")
    return list(value) if isinstance(value, list) else []


def _beside(benchmark: Benchmark) -> dict[str, object]:
    return {key: value for key, value in benchmark.args.items() if key != "subset_list"}


def _prefixes(entry: Entry, harness: HarnessName) -> list[str]:
    own = entry.lm_eval.subset if harness == "lm_eval" and entry.lm_eval else None
    return [*([own.removesuffix("{}")] if own else []), f"{entry.name}_"]
