"""What the installed harnesses have and what they declare of it, read from their own files without importing them.

lm-eval: its task YAML files (task_index.py). EvalScope: the JSON it ships for each data set.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

from pipeline.catalog.entry import HarnessName
from pipeline.catalog.task_index import Declared, Names, indexed, scan
from pipeline.provenance import version

Kind: TypeAlias = Literal["likelihood", "generate", "judge", "code"]
TASKS = Path(__file__).parents[1] / "tasks"
"""Tasks of our own for lm-eval."""

_PLACES: Mapping[str, tuple[str, str]] = {"lm_eval": ("tasks", "lm-eval"), "evalscope": ("benchmarks", "evalscope")}
SPLITS = ("test", "validation", "fewshot", "training")
_LIKELIHOOD = ("multiple_choice", "loglikelihood", "loglikelihood_rolling")


@dataclass(frozen=True)
class Task:
    """What a harness declares about one of its tasks or data sets."""

    name: str
    needs: frozenset[Kind]
    hub: tuple[str, ...]
    """Hub ids of the data."""
    splits: Mapping[str, str]
    """What for (test, validation, training, fewshot) -> name of the split."""
    few_shot: int
    """Examples in the prompt unless the suite says otherwise."""
    examples_within: bool = False
    """The examples are part of the task, and of no split."""
    subsets: tuple[str, ...] = ()
    """Subsets (EvalScope), or the tasks of a group (lm-eval)."""
    configs: tuple[str, ...] = ()
    """Configurations of the data set that are read (lm-eval's dataset_name)."""
    title: str = ""


def folder(harness: HarnessName) -> Path | None:
    """The harness's folder of tasks; None where it is not installed."""
    spec = find_spec(harness)
    return Path(spec.origin).parent / _PLACES[harness][0] if spec and spec.origin else None


def names(harness: HarnessName, cache_dir: Path | None, own: Sequence[Path] = ()) -> Names:
    """Every name the installed harness knows; empty where it is not installed.

    `own`: folders of the user's (and our) lm-eval tasks, which come on top.
    """
    place = folder(harness)
    if place is None:
        return {}
    if harness == "evalscope":
        index = json.loads((place / "_index.json").read_text(encoding="utf-8"))
        return {name: Declared(str(place / "_meta" / f"{name}.json")) for name in index}
    found = dict(indexed(place, version(_PLACES["lm_eval"][1]) or "", cache_dir))
    for path in own:
        found |= scan(path)
    return found


def known(word: str, found: Names) -> bool:
    """Whether lm-eval would find tasks for the word: a name, a pattern of names, or a YAML file."""
    return word in found or bool(fnmatch.filter(found, word)) or Path(word).is_file()


def lm_eval_task(name: str, found: Names) -> Task | None:
    """Of an lm-eval task or group, out of its YAML with what it includes; None if there is no such file."""
    leaves = list(_leaves(name, found))
    if not leaves:
        return None
    kinds = [leaf.get("output_type", None if "class" in leaf else "generate_until") for leaf in leaves]
    needs: set[Kind] = {"likelihood" if kind in _LIKELIHOOD else "generate" for kind in kinds if kind}
    if any(leaf.get("unsafe_code") for leaf in leaves):
        needs.add("code")
    first = leaves[0]
    shots = first.get("fewshot_config")
    return Task(
        name=name,
        needs=frozenset(needs),
        hub=tuple(dict.fromkeys(str(leaf["dataset_path"]) for leaf in leaves if leaf.get("dataset_path"))),
        splits={use: first[f"{use}_split"] for use in SPLITS if isinstance(first.get(f"{use}_split"), str)},
        few_shot=int(first.get("num_fewshot") or 0),
        examples_within=isinstance(shots, dict) and "samples" in shots,
        subsets=tuple(dict.fromkeys(str(leaf["task"]) for leaf in leaves)) if len(leaves) > 1 else (),
        configs=tuple(dict.fromkeys(str(leaf["dataset_name"]) for leaf in leaves if leaf.get("dataset_name"))),
    )


def lm_eval_data(name: str, found: Names) -> list[tuple[str, str | None, dict[str, Any]]]:
    """What an lm-eval task hands to `datasets.load_dataset`: path, configuration, further arguments; each once."""
    sources = [
        (str(leaf["dataset_path"]), leaf.get("dataset_name"), dict(leaf.get("dataset_kwargs") or {}))
        for leaf in _leaves(name, found)
        if leaf.get("dataset_path")
    ]
    return [source for i, source in enumerate(sources) if source not in sources[:i]]


def evalscope_set(name: str) -> Task | None:
    """Of an EvalScope data set, out of the JSON that EvalScope ships for it."""
    place = folder("evalscope")
    path = place / "_meta" / f"{name}.json" if place else None
    if path is None or not path.is_file():
        return None
    meta = json.loads(path.read_text(encoding="utf-8"))["meta"]
    needs: set[Kind] = {"generate"}
    if meta.get("requires_judge"):
        needs.add("judge")
    if meta.get("sandbox_config"):
        needs.add("code")
    return Task(
        name=name,
        needs=frozenset(needs),
        hub=(meta["dataset_id"],) if "/" in meta["dataset_id"] else (),
        splits={"test": meta["eval_split"], **({"fewshot": meta["train_split"]} if meta["train_split"] else {})},
        few_shot=int(meta["few_shot_num"] or 0),
        examples_within=not meta["train_split"],
        subsets=tuple(meta["subset_list"]),
        title=str(meta["pretty_name"]),
    )


def _leaves(name: str, found: Names, above: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """YAML of every task behind a name; `above` are the groups on the way, since a group may name itself."""
    if name in above:
        return
    above = (*above, name)
    if name not in found:  # a pattern of names or the path of a YAML file, as lm-eval takes them, too
        for match in fnmatch.filter(found, name):
            yield from _leaves(match, found, above)
    declared = found.get(name, Declared(name if Path(name).is_file() else ""))
    for member in declared.members:
        yield from _leaves(member, found, above)
    if not declared.file:
        return
    config = load(Path(declared.file))
    if "group" not in config or "class" in config:
        yield config
        return
    for member in _listed(config.get("task")):
        if isinstance(member, str):
            yield from _leaves(member, found, above)
        elif isinstance(member, dict):
            # A group within the group, or a task with overrides.
            inside = _listed(member.get("task"))
            inner = [str(task.get("task") if isinstance(task, dict) else task) for task in inside]
            settings = {} if isinstance(member.get("task"), list) else member
            yield from ({**leaf, **settings} for task in inner for leaf in _leaves(task, found, above))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def load(path: Path) -> dict[str, Any]:
    """A task YAML with what it includes; tags such as `!function` are passed over. {} if it is not YAML."""
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe loader that passes over tags
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    if not isinstance(config, dict):
        return {}
    includes = config.pop("include", None) or []
    for name in _listed(includes):
        config = {**_loaded(str(path.parent / str(name))), **config}
    return config


@cache
def _loaded(path: str) -> dict[str, Any]:
    return load(Path(path))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc] # the C one is 10 times as fast
    """Passes over tags such as lm-eval's `!function`."""


_Loader.add_multi_constructor("", lambda _loader, _suffix, _node: None)
