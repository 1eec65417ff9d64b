"""One call of the pipeline: makes sure of some stages, informs stages.json and the tracker, ends with the report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline import preflight, run_folder, submission
from pipeline.console import Console
from pipeline.errors import CommandFailedError, GateFailedError, OutputError
from pipeline.execute import Executor
from pipeline.files import write_json, write_text
from pipeline.gate import refusal
from pipeline.plan import Plan
from pipeline.recipe import Recipe
from pipeline.recipe_file import dump_recipe
from pipeline.report.compile import Report
from pipeline.resolve import Choice
from pipeline.run_folder import pending
from pipeline.schedule import Schedule
from pipeline.stage import Stage
from pipeline.store import Store
from pipeline.tracking.follower import Follower, tracking


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
        gpus: Sequence[str],
    ) -> None:
        """`gpus` are the visible ones, as CUDA_VISIBLE_DEVICES names them."""
        self.recipe, self.choices, self.plan, self.store = recipe, choices, planned, store
        self.run_dir, self.env, self.console, self.gpus = run_dir, env, console, gpus
        self.folders = {store.folder(stage).name: label for label, stage in planned.stages.items()}
        self.states = {
            store.folder(stage).name: "cached" if store.result(stage) else "pending"
            for stage in planned.stages.values()
        }
        self.told: set[str] = set()
        self.tracking = tracking(recipe, store.root, env)
        self.follower = Follower(self.tracking, run_dir, env)

    def execute(self, labels: Sequence[str], *, submit: bool = False) -> int:
        """Make sure of the stages of these labels; then report, archive (``submit``) and gate."""
        missing = pending(self.plan, self.store, labels)
        if missing:
            preflight.check(self.recipe, missing, self.store, self.env)
            self.follower.check()
            for remark in [*preflight.warnings(self.recipe, self.env), self.tracking.remark]:
                if remark:
                    self.console.say(f"note: {remark}")
            for choice in self.choices:
                self.console.say(f"{choice.where} = {choice.value}  ({choice.reason})")
            self._name_damage(missing)
        run_folder.keep_history(self.run_dir, self.plan, self.store)
        write_text(self.run_dir / "recipe.yaml", dump_recipe(self.recipe))
        self._write_states()
        runtime = self.recipe.runtime
        assert isinstance(runtime.workers, int)
        executor = Executor(self.store, self.env, self.console, show_logs=runtime.log_level == "full")
        schedule = Schedule(executor, self.gpus, runtime.workers, self._on_state)
        needed = {id(stage) for stage in missing}
        ok, failed = False, None
        try:
            schedule.run(
                [stage for label, stage in self.plan.stages.items() if label in labels or id(stage) in needed],
                self.folders,
            )
            if self.follower.is_behind(self.folders):
                self.follower.start()
            ok = True
        except (CommandFailedError, OutputError) as error:
            failed = error
        finally:
            report, items = run_folder.gather(self.recipe, self.choices, self.plan, self.store)
            table = run_folder.write(self.run_dir, report, items)
            where = self.follower.end(ok=ok)
        print(table)
        print(f"report: {short(self.run_dir / 'report.html')}")
        if where:
            print(where)
        if failed:
            raise failed
        if submit:
            print(f"submission: {short(submission.write(self.run_dir, self.store, self.plan.stages))}")
        self._gate(report)
        return 0

    def _gate(self, report: Report) -> None:
        """GateFailedError when all is evaluated and the recipe's bounds are not kept."""
        evaluated = all(line.done for line in report.stages if line.label.startswith("eval."))
        problem = refusal(self.recipe.gate, report.gate) if self.recipe.gate and evaluated else None
        if problem:
            raise GateFailedError(problem)

    def _name_damage(self, stages: Iterable[Stage]) -> None:
        for stage in stages:
            problem = self.store.damage(stage)
            if problem:
                folder = self.store.folder(stage)
                self.console.say(f"{self.folders[folder.name]}: {short(folder)}: {problem}: not used, made again")

    def _on_state(self, stage: Stage, state: str) -> None:
        folder = self.store.folder(stage).name
        label = self.folders[folder]
        known, self.states[folder] = self.states[folder], state
        if state == "running":
            self._write_states()
            self.follower.start()
            self.console.say(f"{label}: started  ({self.store.folder(stage) / 'log.txt'})")
        elif state == "done" and stage.tell is not Stage.tell:
            self._tell(stage, label)
        elif state == "cached":
            if known == "done":
                self.states[folder] = known  # made by this very call
            elif label not in self.told:
                self.told.add(label)
                self.console.say(f"{label}: already done")
        self._write_states()

    def _tell(self, stage: Stage, label: str) -> None:
        record = self.store.result(stage)
        for line in stage.tell(record["result"]) if record else ():
            self.console.say(f"{label}: {line}")

    def _write_states(self) -> None:
        stages = [
            {
                "label": label,
                "name": stage.name,
                "dir": os.path.relpath(self.store.folder(stage), self.run_dir),
                "status": self.states[self.store.folder(stage).name],
            }
            for label, stage in self.plan.stages.items()
        ]
        write_json(self.run_dir / "stages.json", {"schema": 1, "recipe": self.recipe.name, "stages": stages})


def short(path: Path) -> str:
    """The path as the user would type it."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
