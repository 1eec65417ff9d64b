"""The plan as text: the resolved settings with their reasons, then every command, paste-able into a shell."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.errors import PreflightError
from pipeline.plan import Plan
from pipeline.resolve import Choice
from pipeline.stage import Source, Stage
from pipeline.store import Store

MAX_SETTING = 40
"""Columns of a setting and its value; a longer one pushes only its own reason to the right."""


def told(plan: Plan, store: Store) -> dict[str, list[str]]:
    """What stages that are done have to say beforehand, by label: the plan of a training."""
    found = {}
    for label, stage in plan.stages.items():
        if stage.tell is Stage.tell or not any(store.root.glob(f"stages/{stage.name}-*/result.json")):
            continue  # before anything is digested: that reads the model and the data
        try:
            record = store.result(stage)
        except PreflightError:
            continue  # an input is missing, which a dry run does not mind
        if record:
            found[label] = list(stage.tell(record["result"]))
    return found


def render(
    plan: Plan,
    labels: Sequence[str],
    choices: Sequence[Choice],
    told: Mapping[str, Sequence[str]] | None = None,
    gpus: Sequence[str] = (),
) -> str:
    """A shell script: set RUNS to a folder and run it, and it does by hand what the pipeline would do.

    Places are symbolic ($RUNS/<label>), so the text is the same on every machine that resolves to the same settings.
    A stage that takes fewer than the visible `gpus` (`slots.visible`) is shown the first ones: left with all of them,
    its tool would use all of them.
    """
    names = {id(stage): label for label, stage in plan.stages.items()}
    lines = ["# settings that were `auto`"] if choices else []
    width = min(max((len(f"{c.where} = {c.value}") for c in choices), default=0), MAX_SETTING)
    lines += [f"#   {f'{c.where} = {c.value}':<{width}}  ({c.reason})" for c in choices]
    lines += ["", 'RUNS="${RUNS:-runs/by-hand}"']
    for label in _with_dependencies(plan, labels, names):
        stage = plan.stages[label]
        out = _out(label)
        places = {role: _place(dep, names) for role, dep in stage.deps.items()}
        lines += ["", f"# {label}", *(f"#   {line}" for line in (told or {}).get(label, ())), f'mkdir -p "{out}"']
        command = stage.command(stage, out, places)
        if 0 < stage.gpus < len(gpus):
            command = replace(command, env={"CUDA_VISIBLE_DEVICES": ",".join(gpus[: stage.gpus]), **command.env})
        lines.append(str(command))
    return "\n".join(lines).lstrip("\n") + "\n"


def _with_dependencies(plan: Plan, labels: Sequence[str], names: dict[int, str]) -> list[str]:
    needed: set[str] = set()

    def visit(label: str) -> None:
        needed.add(label)
        for earlier in plan.stages[label].before:
            visit(names[id(earlier)])

    for label in labels:
        visit(label)
    return [label for label in plan.stages if label in needed]


def _out(label: str) -> Path:
    return Path("$RUNS") / label / "output"


def _place(dep: Stage | Source, names: dict[int, str]) -> Path:
    if isinstance(dep, Stage):
        return dep.output(_out(names[id(dep)]))
    path = Path(os.path.relpath(dep.path)) if dep.path.is_absolute() else dep.path
    return dep.path if ".." in path.parts and dep.path.is_absolute() else path
