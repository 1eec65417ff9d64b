"""The folder of one recipe's run: the report made of what there is now, its files, and those of earlier variants."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import provenance, samples, submission
from pipeline.files import read_json, write_json, write_text
from pipeline.plan import Plan
from pipeline.recipe import Recipe
from pipeline.report.compile import Report, StageLine, compile_report
from pipeline.resolve import Choice
from pipeline.results import Sample
from pipeline.stage import Stage
from pipeline.stages import train
from pipeline.store import Store
from pipeline.training import curve, shape, throughput

FILES = (
    *("report.json", "report.md", "report.html", "scores.csv", "errors.csv", "recipe.yaml", "stages.json"),
    submission.NAME,
)


def pending(plan: Plan, store: Store, labels: Sequence[str]) -> list[Stage]:
    """What would run for these labels, without starting anything."""
    found: dict[int, Stage] = {}

    def visit(stage: Stage) -> None:
        if id(stage) not in found and store.result(stage) is None:
            found[id(stage)] = stage
            for earlier in stage.before:
                visit(earlier)

    for label in labels:
        visit(plan.stages[label])
    return list(found.values())


def keep_history(run_dir: Path, plan: Plan, store: Store) -> None:
    """The report of another variant of this recipe (--set ...) is kept when this one takes its place."""
    before = read_json(run_dir / "stages.json") or {}
    old = [line["dir"] for line in before.get("stages", [])]
    new = [os.path.relpath(store.folder(stage), run_dir) for stage in plan.stages.values()]
    if old and old != new and (run_dir / "report.json").is_file():
        kept = run_dir / "history"
        place = kept / str(1 + max((int(path.name) for path in kept.glob("*") if path.name.isdigit()), default=0))
        place.mkdir(parents=True)
        for name in FILES:
            with contextlib.suppress(FileNotFoundError):
                (run_dir / name).rename(place / name)


def gather(
    recipe: Recipe, choices: Sequence[Choice], plan: Plan, store: Store
) -> tuple[Report, dict[str, list[Sample]]]:
    """The report of what there is now, and the items of its evaluations by label."""
    needed = {id(stage) for stage in pending(plan, store, plan.select(()))}
    records: dict[str, dict[str, Any]] = {}
    items: dict[str, list[Sample]] = {}
    damaged: list[str] = []
    lines = []
    for label, stage in plan.stages.items():
        record = store.result(stage)
        folder = store.folder(stage)
        if damage := store.damage(stage):
            damaged.append(f"{label}: {damage}; not used, run again")
        lines.append(
            StageLine(
                label=label,
                done=record is not None,
                needed=id(stage) in needed,
                seconds=record["seconds"] if record else None,
                folder=str(folder.relative_to(store.root)),
                fingerprint=str(record["fingerprint"]) if record else "",
                command=str((read_json(folder / "stage.json") or {}).get("command", "")),
            )
        )
        if record:
            records[label] = record
        if record and label.startswith("eval."):
            items[label] = samples.read(folder / "output" / samples.FILE, record["result"]["samples"])
    found = _curve(plan, store), provenance.collect(), _throughput(recipe, plan, store, records)
    report = compile_report(recipe, choices, lines, records, items, *found)
    return report.model_copy(update={"remarks": [*damaged, *report.remarks]}), items


def write(run_dir: Path, report: Report, items: dict[str, list[Sample]]) -> str:
    """The report's files; returns the table for the terminal."""
    from pipeline.report import render

    write_json(run_dir / "report.json", report.model_dump(mode="json", by_alias=True))
    write_text(run_dir / "report.md", render.to_markdown(report))
    write_text(run_dir / "report.html", render.to_html(report, items))
    write_text(run_dir / "scores.csv", render.to_csv(report))
    write_text(run_dir / "errors.csv", render.to_errors(report, items))
    return render.to_terminal(report)


def _curve(plan: Plan, store: Store) -> list[curve.Point]:
    return curve.stitched([path.parent for path in _logs(plan, store)])


def _throughput(
    recipe: Recipe, plan: Plan, store: Store, records: Mapping[str, Mapping[str, Any]]
) -> throughput.Throughput | None:
    """None unless something was trained."""
    logs = [list(curve.records(path)) for path in _logs(plan, store)]
    if recipe.train is None or not any(logs):
        return None
    planned, data = (records.get(label, {}).get("result") for label in ("plan", "data"))
    return throughput.measure(
        logs,
        recipe.train,
        record=records.get("train"),
        plan=planned,
        shape=shape.of(recipe.models[0], store.place(plan.stages["train"].deps["model"])),
        conversations=(data or {}).get("rows_train"),
        price=recipe.runtime.gpu_hour_price,
        currency=recipe.runtime.currency,
    )


def _logs(plan: Plan, store: Store) -> list[Path]:
    """Of every attempt of the training, oldest first."""
    if "train" not in plan.stages:
        return []
    folder = store.folder(plan.stages["train"])
    attempts = store.attempts(plan.stages["train"])
    return [train.log_file(out) for out in [*attempts, folder / "output"]]
