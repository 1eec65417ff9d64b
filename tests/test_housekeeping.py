"""`gc` and locks: what is still needed stays, and nobody holds a lock that is no longer there."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.console import Console
from pipeline.errors import CommandFailedError
from pipeline.files import held_by, locked
from pipeline.housekeeping import unneeded
from pipeline.hub import fetching
from pipeline.recipe import Recipe
from pipeline.sources import digest
from pipeline.store import Store


def listing(root: Path, *lines: tuple[str, str, str]) -> None:
    """A report `r` whose stages are (kind, folder, status), each with a folder of its own."""
    stages: list[dict[str, Any]] = []
    for name, folder, status in lines:
        (root / "stages" / folder).mkdir(parents=True)
        stages.append({"label": folder, "name": name, "dir": f"../stages/{folder}", "status": status})
    (root / "r").mkdir()
    (root / "r" / "stages.json").write_text(json.dumps({"stages": stages}))


@pytest.mark.parametrize(("status", "goes"), [("pending", []), ("running", []), ("failed", []), ("done", ["export-1"])])
def test_a_merged_model_stays_for_the_dialogues_that_are_still_to_come(
    tmp_path: Path, status: str, goes: list[str]
) -> None:
    listing(tmp_path, ("export", "export-1", "done"), ("eval", "eval-1", "done"), ("dialogues", "dialogues-1", status))
    assert [folder.name for folder, _ in unneeded(tmp_path)] == goes


def test_what_was_fetched_beforehand_stays_for_the_offline_run(tmp_path: Path) -> None:
    listing(tmp_path, ("eval", "eval-1", "done"))
    for name in ("fetch-1", "model-1", "train-1"):
        (tmp_path / "stages" / name).mkdir()
    assert [folder.name for folder, _ in unneeded(tmp_path)] == ["train-1"]


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path: Path) -> None:
    path = tmp_path / "stage" / ".lock"
    inside, done = threading.Event(), threading.Event()

    def second() -> None:
        inside.set()
        with locked(path, "second", wait=True):
            assert path.read_text() == "second"
            done.set()

    thread = threading.Thread(target=second)
    with locked(path, "gc", wait=False):
        thread.start()
        inside.wait(5)
        threading.Event().wait(0.2)  # it has opened the file and waits for the lock
        shutil.rmtree(path.parent)
    thread.join(5)
    assert done.is_set()


def test_a_busy_lock_without_a_name_is_still_somebodys(tmp_path: Path) -> None:
    assert held_by(tmp_path / ".lock") == "another process"
    (tmp_path / ".lock").write_text("")
    assert held_by(tmp_path / ".lock") == "another process"
    (tmp_path / ".lock").write_text("process 7")
    assert held_by(tmp_path / ".lock") == "process 7"


def test_a_fetch_that_fails_leaves_what_was_fetched_before(tmp_path: Path) -> None:
    model = {"id": "a/one", "revision": "r", "hub": "huggingface"}
    task = {"harness": "lm_eval", "tasks": [{"name": "t", "path": "t.jsonl"}]}
    recipe = Recipe.model_validate_json(json.dumps({"name": "r", "model": model, "eval": [task]}))
    store = Store(tmp_path / "runs", digest)
    [stage] = fetching.stages(recipe).values()
    attempt = store.folder(stage) / "attempts" / "1"
    (attempt / "one").mkdir(parents=True)
    before = store.publish(stage, attempt, {"seconds": 1.0, "result": {"bytes": 7}})
    env = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path), "PATH": ""}
    with pytest.raises(CommandFailedError):
        fetching.run(recipe, store, env, Console())
    assert store.result(stage) == before
    assert [path.name for path in (tmp_path / "runs" / "stages").iterdir()] == [store.folder(stage).name]
