"""Parts of the executor that a whole run does not reach: logs, causes, finding programs."""

from __future__ import annotations

import io
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.progress import Progress
from pipeline import causes, execute, processes
from pipeline.command import Command
from pipeline.console import Console
from pipeline.errors import CommandFailedError, OutputError, PreflightError
from pipeline.execute import Executor
from pipeline.schedule import Schedule
from pipeline.slots import kin
from pipeline.stage import Stage
from pipeline.store import Store
from pipeline.toollog import TAIL_LINES, ToolLog


class FullDisk(io.StringIO):
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def _read(code: str, log: io.StringIO, hidden: list[str]) -> ToolLog:
    process = processes.start([sys.executable, "-c", code], {"PATH": ""}, Path.cwd(), "test-execute")
    assert process.stdout is not None
    output = ToolLog(process.stdout, log, hidden)
    output.join()
    assert process.wait(timeout=10) == 0
    return output


def test_a_full_disk_does_not_stop_the_reading() -> None:
    # More than a pipe holds: a tool whose output nobody reads would hang here.
    tail = _read("for i in range(20_000): print('line', i)", FullDisk(), []).tail
    assert len(tail) == TAIL_LINES
    assert tail[-1] == "line 19999"


def test_log_is_redacted_decoded_and_without_progress_bars() -> None:
    log = io.StringIO()
    code = (
        "import sys; w = sys.stdout.buffer.write\n"
        r"w(b'10%\r50%\r100%|done\n'); w(b'bad \xff byte\n'); w('gr\u00fcn \u7ea2\n'.encode()); w(b'key=geheim-123\n\n')"
    )
    tail = list(_read(code, log, ["geheim-123"]).tail)
    assert tail == ["100%|done", "bad � byte", "grün 红", "key=***"]
    assert log.getvalue() == "\n".join([*tail, "", ""])


def test_the_progress_bar_is_seen_before_its_newline() -> None:
    bar = r"'Running requests:  45%|####      | 200/448 [00:20<00:25,  9.80it/s]'"
    code = f"import sys, time; sys.stderr.write('\\rRunning requests:   1%|   | 1/448 [00:00<?, ?it/s]\\r' + {bar}); time.sleep(60)"
    process = processes.start([sys.executable, "-c", code], {"PATH": ""}, Path.cwd(), "test-bar")
    assert process.stdout is not None
    output = ToolLog(process.stdout, log := io.StringIO())
    deadline = time.monotonic() + 10
    while not output.progress.startswith("45") and time.monotonic() < deadline:
        time.sleep(0.02)
    processes.stop(process, "test-bar")
    output.join()
    assert output.progress == "45% 200/448 [00:20<00:25,  9.80it/s]"
    assert log.getvalue().count("\n") == 1


def test_data_preps_own_bar_is_understood() -> None:
    line = Progress("reading", 100, print)
    line.advance(45, 1234)
    code = f"print({line.line(2.0)!r}); print('45 rows [refused]  12%  ')"
    assert _read(code, io.StringIO(), []).progress == "reading 45% 1,234 rows, 617 rows/s, ETA 0:02"


def test_output_without_newlines_does_not_fill_the_memory() -> None:
    log = io.StringIO()
    _read("import sys; [sys.stdout.write('x' * 100_000) for _ in range(50)]", log, [])
    assert len(log.getvalue().replace("\n", "")) == 5_000_000
    assert log.getvalue().count("\n") >= 4


@pytest.mark.parametrize(
    ("status", "line", "cause"),
    [
        (1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "GPU memory ran out"),
        (1, "OSError: [Errno 28] No space left on device", "the disk is full"),
        (1, "safetensors_rust.SafetensorError: Error while deserializing header", "a weight file is cut or damaged"),
        (1, "RuntimeError: NCCL error: unhandled system error", "NCCL"),
        (1, "OSError: [Errno 98] Address already in use", "a port is taken"),
        (1, "requests.exceptions.ProxyError: HTTPSConnectionPool", "network"),
        (1, "ModuleNotFoundError: No module named 'deepspeed'", "a Python package is missing"),
        (1, "numpy.core._exceptions.MemoryError", "main memory ran out"),
        (1, "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory", "main memory ran out"),
        (-9, "", "killed, most likely because main memory ran out"),
        (137, "", "killed, most likely"),
        (247, "", "killed, most likely"),
        (2, "nothing known", None),
    ],
)
def test_failure_names_the_cause(status: int, line: str, cause: str | None) -> None:
    command = Command(("tool", "--token", "geheim-123"))
    error = causes.failure("train", command, status, ["before", line], Path("log.txt"), ["geheim-123"])
    text = str(error)
    head = text.splitlines()[0]
    assert (error.kind == causes.MEMORY) == ("memory ran out" in head), "what a smaller batch may cure"
    assert head.startswith(f"train: the tool ended with status {status}")
    assert (cause in head) if cause else re.fullmatch(r"train: the tool ended with status 2", head)
    assert "geheim" not in text


def test_programs_are_found_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / name for name in ("named", "interpreter", "path")]
    for place in places:
        place.mkdir()
        (place / "tool").write_text("#!/bin/sh\n")
        (place / "tool").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(places[1] / "python"))
    env = {"PIPELINE_TOOLS": str(places[0]), "PATH": str(places[2])}
    for place in places:
        assert execute.find_program("tool", env) == str(place / "tool")
        (place / "tool").unlink()
    with pytest.raises(PreflightError, match="tool: not found; run `make setup`"):
        execute.find_program("tool", env)
    assert execute.find_program("python", env) == str(places[1] / "python")


def _stage(name: str, code: str, **more: Any) -> Stage:
    return Stage(
        name=name, program=("python", "-c", code), args={}, deps={},
        command=lambda stage, out, _: Command((*stage.program, str(out))),
        collect=lambda out, _stage, _deps: {"text": (out / "x").read_text()},
        **more,
    )  # fmt: skip


WRITES = "import sys; open(sys.argv[1] + '/x', 'w').write('found'); sys.exit({})"


def _run(root: Path, stage: Stage, states: list[str] | None = None) -> None:
    """Makes the stage and all it waits for; `states` gets what is told of them."""
    told = states if states is not None else []
    executor = Executor(_store(root), {"PATH": ""}, Console())
    schedule = Schedule(executor, (), 1, lambda stage, state: told.append(f"{stage.name} {state}"))
    schedule.run([stage], {executor.store.folder(stage).name: "the.label"})


def test_a_check_that_does_not_pass_stops_each_time_and_keeps_its_result(tmp_path: Path) -> None:
    check = _stage("check", WRITES.format(5), whole=(0, 5), verdict=lambda result: f"not with {result['text']}")
    for states in (["check running", "check done", "check failed"], ["check cached", "check failed"]):
        told: list[str] = []
        with pytest.raises(OutputError, match="the.label: not with found"):
            _run(tmp_path, check, told)
        assert told == states
    # The same work, found done, where nobody minds.
    _run(tmp_path, replace(check, verdict=Stage.verdict), told := [])
    assert told == ["check cached"]
    assert _store(tmp_path).result(check)["result"] == {"text": "found"}  # type: ignore[index]


def test_shown_logs_say_whose_they_are(tmp_path: Path) -> None:
    stage = _stage("talks", "print('first'); print('second');" + WRITES.format(0))
    executor = Executor(_store(tmp_path), {"PATH": ""}, Console(stream := io.StringIO()), show_logs=True)
    Schedule(executor, (), 1).run([stage], {executor.store.folder(stage).name: "the.label"})
    assert stream.getvalue().splitlines()[:2] == ["the.label | first", "the.label | second"]


def test_other_statuses_are_failures(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="status 4"):
        _run(tmp_path, _stage("check", WRITES.format(4), whole=(0, 5)))
    with pytest.raises(CommandFailedError, match="status 5"):
        _run(tmp_path, _stage("check", WRITES.format(5)))


def test_a_stage_waits_for_its_checks_without_reading_them(tmp_path: Path) -> None:
    check = _stage("check", WRITES.format(0))
    trained = _stage("train", WRITES.format("0"), after=(replace(check, verdict=lambda _: "no"),))
    told: list[str] = []
    with pytest.raises(OutputError, match="check: no"):
        _run(tmp_path, trained, told)
    assert told == ["check running", "check done", "check failed"]
    _run(tmp_path, replace(trained, after=(check,)), told)
    assert told[-2:] == ["train running", "train done"]
    assert trained.fingerprint(lambda _: "") == replace(trained, after=()).fingerprint(lambda _: "")


# ---- what a result vouches for


def _store(root: Path) -> Store:
    return Store(root, lambda _: "")


def _cut(folder: Path) -> None:
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text[: len(text) // 2])


def _altered(folder: Path) -> None:
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text.replace('"found"', '"bound"'))


def _edited_samples(folder: Path) -> None:
    path = folder / "output" / "samples.jsonl"
    path.write_text(path.read_text().replace("1", "0"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, "result.json is cut, or something else"),
        (_altered, "result.json was changed after it was written"),
        (lambda folder: (folder / "output" / "x").write_text("foun"), "output/x has 4 bytes instead of 5"),
        (lambda folder: (folder / "output" / "x").unlink(), "output/x is gone"),
        (_edited_samples, "output/samples.jsonl was changed after it was written"),
    ],
)
def test_a_damaged_result_is_named_and_made_again(tmp_path: Path, damage: Any, words: str) -> None:
    code = WRITES.format("0").replace(
        "; sys.exit", "; open(sys.argv[1] + '/samples.jsonl', 'w').write('{1}'); sys.exit"
    )
    stage, store = _stage("eval", code), _store(tmp_path)
    _run(tmp_path, stage)
    assert (store.state(stage), store.damage(stage)) == ("done", None)
    damage(store.folder(stage))
    assert store.result(stage) is None
    assert (store.state(stage), store.damage(stage)) == ("damaged", words)
    _run(tmp_path, stage, told := [])
    assert told == ["eval running", "eval done"]
    assert store.result(stage)["result"] == {"text": "found"}  # type: ignore[index]


def test_durations_are_those_of_the_same_work_on_any_model(tmp_path: Path) -> None:
    stage = _stage("eval", WRITES.format("0"))
    _run(tmp_path, stage)
    other = replace(stage, program=("python", "-c", f"{stage.program[2]}#"))
    assert other.fingerprint(lambda _: "") != stage.fingerprint(lambda _: "")
    known = _store(tmp_path).durations()
    assert 0 < known[kin(other.name, other.args)] < 60
    assert kin("train", other.args) not in known
