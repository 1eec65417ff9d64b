"""Which stages run at the same time: what each one takes of the machine, and who comes first. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.catalog.entry import HarnessName
from pipeline.catalog.lookup import find
from pipeline.stage import Stage

Kind = Literal["gpu", "cpu", "net"]

CHECKS = ("bank", "asked", "data", "contamination", "tokens", "plan", "smoke")
"""Stages that read and check what the user gave. They come first: a mistake shows before an hour of evaluations."""

DOWNLOADS = 1
"""At a time; several would share the same line."""

SECONDS = {
    "model": 300.0, "data": 60.0, "contamination": 30.0, "plan": 2.0, "train": 3600.0, "export": 120.0,
    "merge-check": 30.0,
}  # fmt: skip
"""What a kind of stage takes, roughly; 30 where it is not here. It only puts them in order."""

ITEM_SECONDS = {"lm_eval": 0.05, "evalscope": 0.5}
"""An item whose choices are compared, and one that is answered in writing."""

ITEMS, ITEMS_OF_SUBJECT = 2000, 250
"""In a task without `limit`, and in each of the subjects of a group, to which its `limit` applies one by one."""


@dataclass(frozen=True)
class Wish:
    """A stage that may start now, or soon: as soon as checks and downloads that it waits for are done."""

    key: str
    kind: Kind
    count: int
    ready: bool


def kind(stage: Stage) -> Kind:
    if stage.gpus:
        return "gpu"
    return "net" if stage.name == "model" else "cpu"


def count(stage: Stage) -> int:
    """Slots of its kind: GPUs, or one worker, or one download."""
    return stage.gpus or 1


def visible(env: Mapping[str, str], gpus: int) -> tuple[str, ...]:
    """The words by which CUDA_VISIBLE_DEVICES names each GPU: the user's own (indices, UUIDs), else 0, 1, ..."""
    words = [word.strip() for word in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    return tuple((words or [str(index) for index in range(gpus)])[:gpus])


def choose(wishes: Iterable[Wish], free: Mapping[Kind, int]) -> list[str]:
    """Keys of those that start now, of wishes in order of precedence.

    GPUs that somebody with precedence still waits for are kept for them: a training on all GPUs would otherwise wait
    for ever behind evaluations that take one each. Whatever is left over is used.
    """
    left = dict(free)
    chosen = []
    for wish in wishes:
        if wish.ready and wish.count <= left[wish.kind]:
            chosen.append(wish.key)
            left[wish.kind] -= wish.count
        elif wish.kind == "gpu":
            left["gpu"] = max(0, left["gpu"] - wish.count)
    return chosen


def precedence(
    stages: Mapping[str, Stage], before: Mapping[str, Sequence[str]], known: Mapping[str, float]
) -> list[str]:
    """Keys in order: checks, then those with the longest way to the end of the run behind them, then as given.

    `before` names for each key those that it waits for; `known` are seconds by `kin`.
    """
    way: dict[str, float] = {}
    behind: dict[str, list[str]] = {key: [] for key in stages}
    for key, earlier in before.items():
        for other in earlier:
            behind[other].append(key)

    def length(key: str) -> float:
        if key not in way:
            way[key] = estimate(stages[key], known) + max(map(length, behind[key]), default=0.0)
        return way[key]

    place = {key: index for index, key in enumerate(stages)}
    return sorted(stages, key=lambda key: (stages[key].name not in CHECKS, -length(key), place[key]))


def kin(name: str, args: Mapping[str, Any]) -> str:
    """Equal for stages that do the same work, on whatever model or data."""
    return json.dumps([name, args], sort_keys=True)


def estimate(stage: Stage, known: Mapping[str, float]) -> float:
    """Seconds: what the same work took before, else a guess by the kind of stage and the size of the suite."""
    before = known.get(kin(stage.name, stage.args))
    if before is not None:
        return before
    if stage.name != "eval" or stage.tool is None:
        return SECONDS.get(stage.name, 30.0)
    harness: Any = stage.tool[0]
    names = [entry["name"] for key in ("tasks", "datasets") for entry in stage.args.get(key, [])]
    return 10.0 + sum(_items(name, harness, stage.args.get("limit")) for name in names) * ITEM_SECONDS[harness]


def _items(name: str, harness: HarnessName, limit: int | None) -> int:
    named = find(name, harness)
    subjects = len(named.entry.subsets) if named and not named.subset else 0
    return subjects * (limit or ITEMS_OF_SUBJECT) if subjects else limit or ITEMS
