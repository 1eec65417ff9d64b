"""What a run has to do: a job for each stage that has to be there at the end. Nothing is started here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.execute import Work
from pipeline.stage import Stage
from pipeline.store import Store

State = Literal["waiting", "running", "done", "failed", "skipped"]
Record = dict[str, Any]


@dataclass
class Job:
    """A stage that has to be there at the end; one per folder, whatever labels it has."""

    stage: Stage
    label: str
    before: tuple[str, ...]
    """Keys of the jobs it waits for."""
    found: Record | None
    """The record that was there already."""
    state: State = "waiting"
    gpus: tuple[str, ...] = ()
    work: Work | None = None
    busy_until: float = 0.0
    told: bool = False
    """That another pipeline is making it."""


def jobs(targets: Iterable[Stage], labels: Mapping[str, str], store: Store) -> dict[str, Job]:
    """By folder name: the targets and, where something is to be made, all it waits for; these come before it."""
    found: dict[str, Job] = {}

    def visit(stage: Stage) -> str:
        key = store.folder(stage).name
        if key not in found:
            record = store.result(stage)
            before = () if record else tuple(dict.fromkeys(visit(earlier) for earlier in stage.before))
            found[key] = Job(stage, labels.get(key, stage.name), before, record)
        return key

    for stage in targets:
        visit(stage)
    return found
