"""The command line: python -m pipeline.run RECIPE [TARGET ...]. The only place where errors become exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import curve, dryrun, housekeeping, preflight, provenance, settings
from pipeline.console import Console
from pipeline.errors import Interrupted, PipelineError, PreflightError, RecipeError
from pipeline.execute import Executor, signals_stop
from pipeline.files import locked, read_json, write_json, write_text
from pipeline.follower import Follower, tracking
from pipeline.machine import probe, read_machine
from pipeline.plan import TARGETS, Plan, plan
from pipeline.recipe import Recipe
from pipeline.recipe_file import dump_recipe, load_recipe
from pipeline.report.compile import Report, StageLine, compile_report
from pipeline.resolve import Choice, resolve
from pipeline.sources import digest
from pipeline.stage import Stage
from pipeline.stages import train
from pipeline.store import Store

COMMANDS = ("status", "gc")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    console = Console()
    try:
        with signals_stop():
            return _run(arguments, console)
    except PipelineError as error:
        console.say(f"error: {error}" if "\n" not in str(error) else f"error:\n{error}")
        return error.exit_code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.run",
        description="From raw data to a fine-tuned model and a trustworthy answer to: did it help?",
        epilog="exit codes: 0 done, 2 recipe, 3 preflight, 4 a tool failed, 5 its output is wrong, 6 gate, 130 stopped",
    )
    parser.add_argument("recipe", type=Path, help="recipe file, e.g. recipes/demo.yaml")
    parser.add_argument(
        "targets", nargs="*", choices=[*TARGETS, *COMMANDS, []], metavar="TARGET",
        help=f"{', '.join(TARGETS)} (none = all), or {' or '.join(COMMANDS)}",
    )  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="key.path=value", help="override a setting")
    parser.add_argument("--dry-run", action="store_true", help="print every command, start nothing")
    parser.add_argument("--machine", type=Path, metavar="FILE", help="machine facts as JSON instead of probing")
    parser.add_argument("--runs-dir", type=Path, metavar="DIR", help="where results go (default: runs, or PIPELINE_RUNS)")
    parser.add_argument("--yes", action="store_true", help="gc: do not ask")
    return parser.parse_intermixed_args(argv)  # `RECIPE --set a=b train` is as good as `RECIPE train --set a=b`


def _run(arguments: argparse.Namespace, console: Console) -> int:
    env = settings.load()
    recipe = load_recipe(arguments.recipe, arguments.set, env)
    machine = read_machine(arguments.machine) if arguments.machine else probe(env)
    recipe, choices = resolve(recipe, machine)
    planned = plan(recipe)
    targets = tuple(arguments.targets)
    unknown = [t for t in targets if t in TARGETS[:-1] and not any(s.split(".")[0] == t for s in planned.stages)]
    if unknown:
        raise RecipeError(f"{arguments.recipe}: the recipe has no {unknown[0]} section, so there is nothing to {unknown[0]}")
    labels = planned.select(tuple(t for t in targets if t not in COMMANDS))
    if arguments.dry_run:
        print(dryrun.render(planned, labels, choices), end="")
        return 0
    root = (arguments.runs_dir or Path(env.get("PIPELINE_RUNS") or "runs")).absolute()
    preflight.check_sources(recipe, planned.stages.values(), root, env)
    store = Store(root, _cached_digest())
    if "status" in targets:
        print(housekeeping.status(planned, store))
        return 0
    if "gc" in targets:
        housekeeping.gc(root, print, lambda question: arguments.yes or _ask(question))
        return 0
    run_dir = root / recipe.name
    with locked(run_dir / ".lock", provenance.holder(), wait=False) as free:
        if free is None:
            other = (run_dir / ".lock").read_text(encoding="utf-8")
            raise PreflightError(f"{recipe.name}: {other} is running this recipe in {root}; wait for it, or stop it")
        return Run(recipe, choices, planned, store, run_dir, env, console).execute(labels)


class Run:
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
        self.follower = Follower(tracking(recipe, store.root, env), run_dir, env)

    def execute(self, labels: Sequence[str]) -> int:
        pending = self._pending(labels)
        if pending:
            preflight.check(self.recipe, pending, self.store.root, self.env)
            self.follower.check()
            for remark in [*preflight.warnings(self.recipe), tracking(self.recipe, self.store.root, self.env).remark]:
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
            for label in labels:
                executor.ensure(self.plan.stages[label], label, self.folders)
            ok = True
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
                for dep in stage.deps.values():
                    if isinstance(dep, Stage):
                        visit(dep)

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
        from pipeline.report import render  # noqa: PLC0415 - jinja2 is needed only here

        report = self.report()
        write_json(self.run_dir / "report.json", report.model_dump(mode="json", by_alias=True))
        write_text(self.run_dir / "report.md", render.to_markdown(report))
        write_text(self.run_dir / "report.html", render.to_html(report))
        write_text(self.run_dir / "scores.csv", render.to_csv(report))
        self.terminal = render.to_terminal(report)

    def report(self) -> Report:
        records: dict[str, dict[str, Any]] = {}
        lines = []
        for label, stage in self.plan.stages.items():
            record = self.store.result(stage)
            folder = str(self.store.folder(stage).relative_to(self.store.root))
            lines.append(StageLine(label=label, done=record is not None, seconds=record and record["seconds"], folder=folder))
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
        print(f"report: {_short(self.run_dir / 'report.html')}")
        if tracker:
            print(tracker)


def _cached_digest() -> Any:
    known: dict[Path, str] = {}

    def cached(source: Any) -> str:
        if source.path not in known:
            known[source.path] = digest(source)
        return known[source.path]

    return cached


def _ask(question: str) -> bool:
    return sys.stdin.isatty() and input(question).strip().lower() in ("y", "yes")


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


if __name__ == "__main__":
    sys.exit(main())
