"""One call of the pipeline: makes sure of some stages, informs stages.json and the tracker, ends with the report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import curve, preflight, provenance
from pipeline.console import Console
from pipeline.execute import Executor
from pipeline.files import read_json, write_json, write_text
from pipeline.follower import Follower, tracking
from pipeline.plan import Plan
from pipeline.recipe import Recipe
from pipeline.recipe_file import dump_recipe
from pipeline.report.compile import Report, StageLine, compile_report
from pipeline.resolve import Choice
from pipeline.stage import Stage
from pipeline.stages import train
from pipeline.store import Store


class Session:
    """One call: make sure of the labels, keep stages.json and the tracker informed, end with the report."""

    def __init__(
        self,
        recipe: Recipe,
        choices: Sequence[Choice],
        planned: Plan,
        store: Store,
        run_dir: Path,
        env: Mapping[str, str],
        console: Console,
    ) -> None:
        self.recipe, self.choices, self.plan, self.store = recipe, choices, planned, store
        self.run_dir, self.env, self.console = run_dir, env, console
        self.states = {label: "cached" if store.result(stage) else "pending" for label, stage in planned.stages.items()}
        self.folders = {store.folder(stage).name: label for label, stage in planned.stages.items()}
        self.told: set[str] = set()
        self.tracking = tracking(recipe, store.root, env)
        self.follower = Follower(self.tracking, run_dir, env)

    def execute(self, labels: Sequence[str]) -> int:
        pending = self._pending(labels)
        if pending:
            preflight.check(self.recipe, pending, self.store, self.env)
            self.follower.check()
            for remark in [*preflight.warnings(self.recipe), self.tracking.remark]:
                if remark:
                    self.console.say(f"note: {remark}")
            for choice in self.choices:
                self.console.say(f"{choice.where} = {choice.value}  ({choice.reason})")
        self._keep_history()
        write_text(self.run_dir / "recipe.yaml", dump_recipe(self.recipe))
        self._write_states()
        executor = Executor(
            self.store, self.env, self.console, self._on_state, show_logs=self.recipe.runtime.log_level == "full"
        )
        ok = False
        try:
            needed = {id(stage) for stage in pending}
            # In the plan's order, not the targets': a mistake in the data shows before an hour of evaluations.
            for label, stage in self.plan.stages.items():
                if label in labels or id(stage) in needed:
                    executor.ensure(stage, label, self.folders)
            ok = True
            if self.follower.is_behind(self.folders):
                self.follower.start()
        finally:
            self._report()
            where = self.follower.end(ok=ok)
        self._close(where)
        return 0

    def _pending(self, labels: Sequence[str]) -> list[Stage]:
        """What would run for these labels, without starting anything."""
        found: dict[int, Stage] = {}

        def visit(stage: Stage) -> None:
            if id(stage) not in found and self.store.result(stage) is None:
                found[id(stage)] = stage
                for earlier in stage.before:
                    visit(earlier)

        for label in labels:
            visit(self.plan.stages[label])
        return list(found.values())

    def _on_state(self, stage: Stage, state: str) -> None:
        label = self.folders[self.store.folder(stage).name]
        known, self.states[label] = self.states[label], state
        if state == "running":
            self._write_states()
            self.follower.start()
            self.console.say(f"{label}: started  ({self.store.folder(stage) / 'log.txt'})")
        elif state == "cached":
            if known == "done":
                self.states[label] = known  # made by this very call
            elif label not in self.told:
                self.told.add(label)
                self.console.say(f"{label}: already done")
        self._write_states()

    def _write_states(self) -> None:
        stages = [
            {
                "label": label,
                "name": stage.name,
                "dir": os.path.relpath(self.store.folder(stage), self.run_dir),
                "status": self.states[label],
            }
            for label, stage in self.plan.stages.items()
        ]
        write_json(self.run_dir / "stages.json", {"schema": 1, "recipe": self.recipe.name, "stages": stages})

    def _keep_history(self) -> None:
        """The report of another variant of this recipe (--set ...) is kept when this one takes its place."""
        before = read_json(self.run_dir / "stages.json") or {}
        old = [line["dir"] for line in before.get("stages", [])]
        new = [os.path.relpath(self.store.folder(stage), self.run_dir) for stage in self.plan.stages.values()]
        names = ("report.json", "report.md", "report.html", "scores.csv", "recipe.yaml", "stages.json")
        if old and old != new and (self.run_dir / "report.json").is_file():
            kept = self.run_dir / "history"
            place = kept / str(1 + sum(1 for _ in kept.glob("*")))
            place.mkdir(parents=True)
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    (self.run_dir / name).rename(place / name)

    def _report(self) -> None:
        from pipeline.report import render

        report = self.report()
        write_json(self.run_dir / "report.json", report.model_dump(mode="json", by_alias=True))
        write_text(self.run_dir / "report.md", render.to_markdown(report))
        write_text(self.run_dir / "report.html", render.to_html(report))
        write_text(self.run_dir / "scores.csv", render.to_csv(report))
        self.terminal = render.to_terminal(report)

    def report(self) -> Report:
        needed = {id(stage) for stage in self._pending(self.plan.select(()))}
        records: dict[str, dict[str, Any]] = {}
        lines = []
        for label, stage in self.plan.stages.items():
            record = self.store.result(stage)
            lines.append(
                StageLine(
                    label=label,
                    done=record is not None,
                    needed=id(stage) in needed,
                    seconds=record["seconds"] if record else None,
                    folder=str(self.store.folder(stage).relative_to(self.store.root)),
                )
            )
            if record:
                records[label] = record
        return compile_report(self.recipe, self.choices, lines, records, self._curve(), provenance.collect())

    def _curve(self) -> list[curve.Point]:
        if "train" not in self.plan.stages:
            return []
        folder = self.store.folder(self.plan.stages["train"])
        attempts = sorted((folder / "attempts").glob("*"), key=lambda path: int(path.name))
        return curve.stitch(curve.read(train.log_file(out)) for out in [*attempts, folder / "output"])

    def _close(self, tracker: str | None) -> None:
        print(self.terminal)
        print(f"report: {short(self.run_dir / 'report.html')}")
        if tracker:
            print(tracker)


def short(path: Path) -> str:
    """The path as the user would type it."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
