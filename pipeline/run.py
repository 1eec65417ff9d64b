"""The command line: python -m pipeline.run RECIPE [TARGET ...]. The only place where errors become exit codes."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import dryrun, housekeeping, preflight, provenance, run_folder, settings
from pipeline.console import Console
from pipeline.errors import PipelineError, PreflightError, RecipeError
from pipeline.execute import Executor
from pipeline.files import held_by, locked
from pipeline.hub import fetching
from pipeline.machine import Machine, probe, read_machine
from pipeline.plan import TARGETS, Plan, plan
from pipeline.recipe import Recipe
from pipeline.recipe_file import load_recipe
from pipeline.resolve import Choice, resolve
from pipeline.schedule import Schedule
from pipeline.session import Session
from pipeline.signals import signals_stop
from pipeline.slots import visible
from pipeline.sources import digest
from pipeline.stage import Stage
from pipeline.store import Store
from pipeline.training import checks
from pipeline.training.locate import Located, locate

COMMANDS = ("status", "gc", "fetch")
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EIO)
"""What a full, read-only or broken disk says: not a bug of ours."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    console = Console()
    try:
        with signals_stop():
            return _run(arguments, console)
    except PipelineError as error:
        console.say(f"error: {error}" if "\n" not in str(error) else f"error:\n{error}")
        return error.exit_code
    except OSError as error:
        if error.errno not in DISK:
            raise
        console.say(f"error: {error.filename or 'disk'}: {error.strerror}; free some space or give another --runs-dir")
        return PreflightError.exit_code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.run",
        description="From raw data to a fine-tuned model and a trustworthy answer to: did it help?",
        epilog="exit codes: 0 done, 2 recipe, 3 preflight, 4 a tool failed, 5 its output is wrong, 6 gate, 130 stopped",
    )
    parser.add_argument("recipe", type=Path, help="recipe file, e.g. recipes/demo.yaml")
    parser.add_argument(
        "targets", nargs="*", choices=[*TARGETS, *COMMANDS, []], metavar="TARGET",
        help=f"{', '.join(TARGETS)} (none = all), or {', '.join(COMMANDS)}",
    )  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="key.path=value", help="override a setting")
    parser.add_argument("--dry-run", action="store_true", help="print every command, start nothing")
    parser.add_argument("--machine", type=Path, metavar="FILE", help="machine facts as JSON instead of probing")
    parser.add_argument("--runs-dir", type=Path, metavar="DIR", help="where results go (default: runs)")
    parser.add_argument("--yes", action="store_true", help="gc: do not ask")
    return parser.parse_intermixed_args(argv)  # `RECIPE --set a=b train` is as good as `RECIPE train --set a=b`


def _run(arguments: argparse.Namespace, console: Console) -> int:
    env = settings.load()
    recipe = load_recipe(arguments.recipe, arguments.set, env)
    root = (arguments.runs_dir or Path(env.get("PIPELINE_RUNS") or "runs")).absolute()
    if "gc" in arguments.targets:
        housekeeping.gc(root, print, lambda question: arguments.yes or _ask(question))
        return 0
    machine = read_machine(arguments.machine) if arguments.machine else probe(env)
    store = Store(root, _cached_digest())
    written, found = recipe, locate(recipe, machine, store)
    recipe, choices = resolve(written, machine, found.shape, found.source)
    if "fetch" in arguments.targets:
        return _fetch(arguments, recipe, choices, root, env, console)
    planned = plan(recipe, machine)
    targets = tuple(arguments.targets)
    sections = {label.split(".")[0] for label in planned.stages} | {"report"}
    unknown = [t for t in targets if t in TARGETS and {"submission": "eval"}.get(t, t) not in sections]
    if unknown:
        raise RecipeError(f"{arguments.recipe}: the recipe has no such section, so there is nothing to {unknown[0]}")
    labels = planned.select(tuple(t for t in targets if t not in COMMANDS))
    gpus = visible(env, len(machine.gpus))
    if arguments.dry_run:
        told = dryrun.told(planned, store)
        if recipe.train:
            problems = checks.misfits(recipe.train, machine, found)
            told["train"] = [*told.get("train", []), *(f"problem: {problem}" for problem in problems)]
        print(dryrun.render(planned, labels, choices, told, gpus), end="")
        return 0
    preflight.check_sources(recipe, planned.stages.values(), root, env)
    if "status" in targets:
        print(housekeeping.status(planned, store))
        return 0
    run_dir = root / recipe.name
    with locked(run_dir / ".lock", provenance.holder(), wait=False) as free:
        if free is None:
            other = held_by(run_dir / ".lock")
            raise PreflightError(f"{recipe.name}: {other} is running this recipe in {root}; wait for it, or stop it")
        pending = run_folder.pending(planned, store, labels)
        trains = any(stage.name == "train" for stage in pending)
        if trains:
            _fits(recipe, machine, found, console)
        if found.missing and trains:
            _fetch_model(found.missing, recipe, pending, store, env, console)
            found = locate(written, machine, store)
            recipe, choices = resolve(written, machine, found.shape, found.source)
            planned = plan(recipe, machine)
            _fits(recipe, machine, found, console)
        session = Session(recipe, choices, planned, store, run_dir, env, console, gpus)
        return session.execute(labels, submit="submission" in targets)


def _fits(recipe: Recipe, machine: Machine, found: Located, console: Console) -> None:
    if recipe.train:
        for problem in checks.check_fit(recipe.train, machine, found):
            console.say(f"note: {problem}")


def _fetch_model(
    missing: Stage, recipe: Recipe, pending: Sequence[Stage], store: Store, env: Mapping[str, str], console: Console
) -> None:
    """The model alone, ahead of the run, since settings of the training depend on its files (training/locate.py)."""
    preflight.check(recipe, pending, store, env)  # nothing is downloaded for a run that could not start
    folder = store.folder(missing)
    console.say(f"model: fetched first, as settings of the training depend on it  ({folder / 'log.txt'})")
    Schedule(Executor(store, env, console), gpus=(), workers=1).run([missing], {folder.name: "model"})


def _fetch(
    arguments: argparse.Namespace,
    recipe: Recipe,
    choices: Sequence[Choice],
    root: Path,
    env: Mapping[str, str],
    console: Console,
) -> int:
    if len(arguments.targets) > 1:
        raise RecipeError("fetch goes before a run, in a call of its own: give it alone")
    if arguments.dry_run:
        wanted = fetching.stages(recipe)
        print(dryrun.render(Plan(wanted), list(wanted), choices), end="")
        return 0
    return fetching.run(recipe, Store(root, _cached_digest()), env, console)


def _cached_digest() -> Any:
    known: dict[Path, str] = {}

    def cached(source: Any) -> str:
        if source.path not in known:
            known[source.path] = digest(source)
        return known[source.path]

    return cached


def _ask(question: str) -> bool:
    return sys.stdin.isatty() and input(question).strip().lower() in ("y", "yes")


if __name__ == "__main__":
    sys.exit(main())
