"""The runs folder: what `done` means, and that a death at any moment of a publish leaves nothing that lies."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import files
from pipeline.command import Command
from pipeline.sources import digest
from pipeline.stage import Source, Stage
from pipeline.store import Store

RECORD = {"label": "made", "started": "2026-01-01T00:00:00+00:00", "seconds": 1.0, "result": {"answer": 42}}


class Death(BaseException):
    """What kill -9 looks like from inside: nothing after it runs that could tidy up."""


def stage(**args: Any) -> Stage:
    return Stage(
        name="made", program=("tool",), args={"a": 1, **args}, deps={},
        command=lambda _stage, _out, _deps: Command(("tool",)), collect=lambda _out, _stage, _deps: {},
    )  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs", digest)


def attempt(runs: Store, made: Stage, text: str = "whole") -> Path:
    folder, _ = runs.next_attempt(made)
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text(text)
    (folder / "sub" / "b.bin").write_bytes(text.encode() * 3)
    (folder / "link").symlink_to("a.txt")
    return folder


def vouched(runs: Store, made: Stage) -> dict[str, Any] | None:
    """The record, after checking that every byte it vouches for is there."""
    record = runs.result(made)
    if record:
        assert record["result"] == RECORD["result"]
        assert [entry["path"] for entry in record["manifest"]] == ["a.txt", "sub/b.bin"]
        for entry in record["manifest"]:
            data = (runs.folder(made) / "output" / entry["path"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == entry["sha256"]
            assert len(data) == entry["size"]
    return record


def test_published_result_is_found_with_its_manifest(runs: Store) -> None:
    made = stage()
    assert runs.result(made) is None
    assert runs.state(made) == "missing"
    runs.publish(made, attempt(runs, made), RECORD)
    record = vouched(runs, made)
    assert record is not None
    assert record["result"] == {"answer": 42}
    assert [entry["path"] for entry in record["manifest"]] == ["a.txt", "sub/b.bin"]
    assert (runs.folder(made) / "output" / "link").is_symlink()
    assert runs.state(made) == "done"
    assert runs.result(stage(a=2)) is None


def _die_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Die at the number-th call of anything that changes the disk; returns the calls seen."""
    seen: list[str] = []

    def fatal(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            if len(seen) == number:
                raise Death
            return original(*args, **kwargs)

        return call

    for place, name in (
        (os, "rename"), (os, "replace"), (os, "fsync"), (os, "unlink"), (os, "mkdir"), (os, "rmdir"), (shutil, "rmtree"),
        (json, "dumps"), (Path, "rename"), (Path, "replace"), (Path, "unlink"), (files, "sync_folder"),
    ):  # fmt: skip
        monkeypatch.setattr(place, name, fatal(name, getattr(place, name)))
    return seen


@pytest.mark.parametrize("before", ["nothing", "a cut publish", "a result"])
def test_death_at_any_step_of_a_publish_never_lies_and_the_next_one_succeeds(tmp_path: Path, before: str) -> None:
    made = stage()
    deaths = 0
    for number in range(1, 100):
        runs = Store(tmp_path / str(number), digest)
        if before != "nothing":
            runs.publish(made, attempt(runs, made, "old"), RECORD)
        if before == "a cut publish":
            (runs.folder(made) / "result.json").unlink()
        runs.discard(made)
        folder = attempt(runs, made, "new")
        with pytest.MonkeyPatch.context() as patch:
            seen = _die_at(patch, number)
            try:
                runs.publish(made, folder, RECORD)
                died = False
            except Death:
                died = True
        record = vouched(runs, made)
        if record:
            assert (runs.folder(made) / "output" / "a.txt").read_text() == "new"
        if not died:
            assert record
            assert len(seen) < number
            break
        deaths += 1
        if not record:
            runs.discard(made)
            runs.publish(made, attempt(runs, made, "again"), RECORD)
        assert vouched(runs, made)
    assert deaths >= 6
    assert not died


def test_death_at_any_step_of_a_discard_never_lies(tmp_path: Path) -> None:
    made = stage()
    for number in range(1, 50):
        runs = Store(tmp_path / str(number), digest)
        runs.publish(made, attempt(runs, made), RECORD)
        with pytest.MonkeyPatch.context() as patch:
            _die_at(patch, number)
            try:
                runs.discard(made)
            except Death:
                vouched(runs, made)
                continue
        assert runs.result(made) is None
        assert not (runs.folder(made) / "output").exists()
        return
    pytest.fail("discard never ended")


def test_what_no_longer_counts_becomes_an_attempt_again(runs: Store) -> None:
    """A training whose publish was cut, or one file of which was lost, goes on from the checkpoints that are whole."""
    made = stage()
    runs.publish(made, attempt(runs, made), RECORD)
    (runs.folder(made) / "output" / "sub" / "b.bin").unlink()
    assert runs.result(made) is None
    runs.discard(made)
    _, earlier = runs.next_attempt(made)
    assert [path.name for path in earlier] == ["1"]
    assert (earlier[0] / "a.txt").read_text() == "whole"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "output" / "a.txt").unlink(),
        lambda folder: (folder / "output" / "a.txt").write_text("cut"),
        lambda folder: shutil.rmtree(folder / "output"),
        lambda folder: (folder / "result.json").write_text((folder / "result.json").read_text()[:-20]),
        lambda folder: (folder / "result.json").write_text("[]"),
        lambda folder: (folder / "result.json").write_text('{"schema": 1}'),
        lambda folder: (folder / "result.json").write_text(
            json.dumps({"schema": 1, "fingerprint": json.loads((folder / "result.json").read_text())["fingerprint"]})
        ),
        lambda folder: (folder / "result.json").write_text(
            (folder / "result.json").read_text().replace('"fingerprint": "', '"fingerprint": "0')
        ),
        lambda folder: (folder / "result.json").write_text(
            (folder / "result.json").read_text().replace('"schema": 1', '"schema": 99')
        ),
    ],
)
def test_a_damaged_result_is_no_result(runs: Store, damage: Callable[[Path], None]) -> None:
    made = stage()
    runs.publish(made, attempt(runs, made), RECORD)
    damage(runs.folder(made))
    assert runs.result(made) is None
    assert runs.state(made) == "damaged"
    assert runs.damage(made)
    runs.discard(made)
    runs.publish(made, attempt(runs, made), RECORD)
    assert vouched(runs, made)


def test_attempts_are_numbered_as_numbers(runs: Store) -> None:
    made = stage()
    for number in (1, 2, 9, 10):
        (runs.folder(made) / "attempts" / str(number)).mkdir(parents=True)
    (runs.folder(made) / "attempts" / ".stray").mkdir()
    folder, earlier = runs.next_attempt(made)
    assert folder.name == "11"
    assert [path.name for path in earlier] == ["1", "2", "9", "10"]
    assert runs.state(made) == "interrupted"


def test_state_is_running_while_the_lock_is_held(runs: Store) -> None:
    made = stage()
    folder = runs.folder(made)
    with files.locked(folder / ".lock", "somebody", wait=False) as held:
        assert held is not None
        assert runs.state(made) == "running"
        assert (folder / ".lock").read_text() == "somebody", "asking must not wipe the holder's name"
    assert runs.state(made) == "missing"


def test_identity_is_content_not_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.json").write_text("[]")
    first, second = (
        Stage(
            name="made", program=("tool",), args={}, deps={"data": Source(tmp_path / name)},
            command=lambda _stage, _out, _deps: Command(("tool",)), collect=lambda _out, _stage, _deps: {},
            plumbing={"device": name}, env={"X": name},
        )
        for name in ("one", "two")
    )  # fmt: skip
    assert first.fingerprint(digest) == second.fingerprint(digest)
    (tmp_path / "two" / "data.json").write_text("[1]")
    assert first.fingerprint(digest) != second.fingerprint(digest)
    assert stage().fingerprint(digest) != stage(b=None).fingerprint(digest)


# ---- files


def test_write_text_leaves_the_old_text_when_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    files.write_json(path, {"n": 1})
    for number in range(1, 20):
        with pytest.MonkeyPatch.context() as patch:
            _die_at(patch, number)
            try:
                files.write_json(path, {"n": 2})
            except Death:
                assert files.read_json(path) in ({"n": 1}, {"n": 2})
                continue
        break
    assert files.read_json(path) == {"n": 2}


def test_write_text_fails_loudly_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    files.write_json(path, {"n": 1})

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            files.write_json(path, {"n": 2})
    assert files.read_json(path) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


def test_data_reach_the_disk_before_the_name_and_the_name_before_we_go_on(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        seen = _die_at(patch, 0)
        files.write_json(tmp_path / "state.json", {})
    order = [name for name in seen if name in ("fsync", "replace", "sync_folder")]
    assert [order[0], order[-2], order[-1]] == ["fsync", "sync_folder", "fsync"]
    assert "replace" in order[1:-2]


def test_json_with_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert files.read_json(tmp_path / "x.json") is None


@pytest.mark.parametrize(
    ("record", "told"), [("{}", "{}"), ('{"seconds": 1}', "{}"), ("[]", '{"name": "a"}'), ("{", "")]
)
def test_foreign_files_tell_no_durations(runs: Store, record: str, told: str) -> None:
    folder = runs.root / "stages" / "eval-0"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(record)
    (folder / "stage.json").write_text(told)
    assert runs.durations() == {}
