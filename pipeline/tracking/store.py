"""What the tracker leaves on disk: RUN_DIR/tracking.json, and experiments in the log directory, rows included."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.tracking.view import read_json

DATABASE = "runs.swanlab"
"""SQLite, in the log directory: the local dashboard lists the experiments with a row here, whatever else lies there."""

# What the local dashboard shows first, as beginnings of keys: columns of its table, and charts it pins to the top.
# Charts that hold a single number of little interest go to its folded "hidden" section.
_COLUMNS = ("tuned/", "base/", "delta/", "train/loss", "val/loss", "train/", "val/", "data/rows")
_PINNED = (
    "train/loss",
    "val/loss",
    "train/",
    "val/",
    "report/",
    "data/summary",
    "contamination/",
    "tokens/histogram",
    "tokens/summary",
)
_HIDDEN = (
    "train/epoch", "ci_low/", "ci_high/", "p_value/", "data/rows", "data/chars", "seconds/", "contaminated/",
    "tokens/mean", "tokens/p95", "tokens/over", "tokens/steps",
)  # fmt: skip

_RUN_FOLDER = re.compile(r"run-\d{8}_\d{6}-[^/]+")


def read(run_dir: Path) -> dict[str, Any]:
    return read_json(run_dir / "tracking.json")


def update(run_dir: Path, changes: dict[str, Any]) -> None:
    """Change keys of tracking.json, atomically."""
    path = run_dir / "tracking.json"
    data = {"schema": 1, **read(run_dir), **changes}
    temporary = path.with_name(f".tracking.json.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def resumable_id(before: dict[str, Any], folders: dict[str, str]) -> str | None:
    """Id of the experiment to go on with; None where a stage known by both is another one now (the recipe changed).

    Online, a value at a step that is there already is never replaced, so other numbers need another experiment.
    """
    known = before.get("stages")
    if not isinstance(known, dict) or any(known.get(label, folder) != folder for label, folder in folders.items()):
        return None
    return before.get("id") or None


def superseded_by(before: dict[str, Any], mode: str, run_id: str | None) -> list[str]:
    """Folders of experiments which the one that goes on as `run_id` makes obsolete, because it repeats all they hold.

    Other modes' are kept, and so is an experiment of other stages (an earlier variant of the recipe).
    """
    found = [*(before.get("superseded") or []), (before.get("runs") or {}).get(mode) if run_id else None]
    return [path for path in dict.fromkeys(found) if path]


def remove_experiment(run: Path) -> bool:
    """Delete an experiment's folder and its rows in the dashboard. True if nothing of it is left.

    Anything but a real folder with the name and the data file of a swanlab run is left alone.
    """
    if not _RUN_FOLDER.fullmatch(run.name) or run.is_symlink():
        return False
    try:
        # Rows first: a row without a folder is an error page, a folder without a row is merely not shown.
        with closing(_connect(run.parent)) as database, database:
            database.execute("DELETE FROM experiment WHERE run_id = ?", (run.name,))
            # The cascade takes everything of the experiment but charts shared by experiments, once nobody is in them.
            database.execute(
                "DELETE FROM chart WHERE project_id IS NOT NULL AND id NOT IN (SELECT chart_id FROM source)"
            )
    except FileNotFoundError:
        pass  # offline and online runs have no dashboard
    except sqlite3.Error:
        return False
    if run.is_dir() and any(run.glob("run-*.swanlab")):
        shutil.rmtree(run, ignore_errors=True)
    return not run.exists()


def rename_experiment(run: Path, name: str) -> None:
    """Give the local experiment the name it asked for, which its predecessor had as long as both were there."""
    try:
        with closing(_connect(run.parent)) as database, database:
            database.execute("UPDATE OR IGNORE experiment SET name = ? WHERE run_id = ?", (name, run.name))
    except (FileNotFoundError, sqlite3.Error):
        return  # the name with a number is only less pretty


def arrange_dashboard(run: Path) -> None:
    """Sort the experiment's charts and columns. Only what has no place yet is touched, so the user's own pins stay."""
    try:
        with closing(_connect(run.parent)) as database, database:
            found = database.execute("SELECT id, create_time FROM experiment WHERE run_id = ?", (run.name,)).fetchone()
            if found is None:
                return
            unsorted = "SELECT id, name FROM chart WHERE sort IS NULL AND (experiment_id = ? OR project_id IS NOT NULL)"
            for chart, name in database.execute(unsorted, found[:1]).fetchall():
                status = -1 if _rank(name, _HIDDEN) < len(_HIDDEN) else int(_rank(name, _PINNED) < len(_PINNED))
                place = _rank(name, _PINNED) * 10_000 + chart
                database.execute("UPDATE chart SET status = ?, sort = ? WHERE id = ?", (status, place, chart))
            tags = database.execute("SELECT id, name FROM tag WHERE experiment_id = ?", found[:1]).fetchall()
            # The table has no order of columns but the time they were created at.
            began = datetime.fromisoformat(found[1])
            for place, (_, tag) in enumerate(sorted((_rank(name, _COLUMNS), tag) for tag, name in tags)):
                moment = (began + timedelta(microseconds=place)).isoformat(timespec="microseconds")
                database.execute("UPDATE tag SET create_time = ? WHERE id = ?", (moment, tag))
    except (FileNotFoundError, sqlite3.Error):
        return  # another order is only less pretty


def _rank(name: str, beginnings: tuple[str, ...]) -> int:
    """Place of the first beginning that fits; behind all of them if none does."""
    return next((place for place, beginning in enumerate(beginnings) if name.startswith(beginning)), len(beginnings))


def _connect(log_dir: Path) -> sqlite3.Connection:
    path = log_dir / DATABASE
    if not path.is_file():
        raise FileNotFoundError(path)
    connection = sqlite3.connect(path, timeout=10)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection
