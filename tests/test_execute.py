"""Parts of the executor that a whole run does not reach: logs, causes, finding programs."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from data_prep.progress import Progress
from pipeline import causes, execute, processes
from pipeline.command import Command
from pipeline.console import Console
from pipeline.errors import CommandFailedError, Interrupted, OutputError, PreflightError
from pipeline.execute import Executor
from pipeline.processes import Rank
from pipeline.schedule import Schedule
from pipeline.signals import Halt
from pipeline.slots import kin
from pipeline.stage import Signs, Stage, Trouble
from pipeline.store import Store
from pipeline.toollog import TAIL_LINES, ToolLog
from tests.worlds import wait_for


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
        (1, "torch.AcceleratorError: CUDA error: out of memory", "GPU memory ran out"),
        (
            1,
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "GPU memory ran out",
        ),
        (1, "ncclUnhandledCudaError: Cuda failure 2 'out of memory'", "GPU memory ran out"),
        (
            1,
            "NCCL WARN Error while creating shared memory segment /dev/shm/nccl-Xa (size 9637888)",
            "no room in /dev/shm",
        ),
        (
            1,
            "NCCL WARN Call to posix_fallocate failed: /dev/shm/nccl-Xa: No space left on device",
            "no room in /dev/shm",
        ),
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


# ---- what stops, hangs and dies


SUMMARY = """\
Failures:
[1]:
  time      : 2026-11-21_14:17:59
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 29825)
[rank0]: torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp, remote process exited
Root Cause (first observed failure):
[0]:
  time      : 2026-11-21_14:17:51
  host      : node
  rank      : 1 (local_rank: 1)
  exitcode  : {} (pid: 29827)
  error_file: <N/A>
  traceback : Signal 9 (SIGKILL) received by PID 29827"""


@pytest.mark.parametrize(
    ("status", "code", "out_of_memory", "kind", "words"),
    [
        (1, -9, False, causes.KILLED, "rank 1 (pid 29827) was killed (SIGKILL), by somebody"),
        (1, -9, True, causes.MEMORY, "rank 1 (pid 29827) was killed (SIGKILL), because main memory ran out"),
        (1, -9, None, causes.MEMORY, "most likely because main memory ran out (see dmesg): lower micro_batch_size"),
        (1, 1, False, "nccl", "the GPUs lost each other"),
        (247, 1, True, causes.MEMORY, "killed, because main memory ran out"),
        (247, 1, False, causes.KILLED, "killed, by somebody"),
    ],
)
def test_a_death_is_told_from_what_it_does_to_the_others(
    status: int, code: int, out_of_memory: bool | None, kind: str, words: str
) -> None:
    tail = SUMMARY.format(code).splitlines()
    error = causes.failure("train", Command(("x",)), status, tail, Path("log"), [], out_of_memory=out_of_memory)
    assert error.kind == kind
    assert words in str(error).splitlines()[0]


def test_a_rank_that_raised_is_named_where_nothing_more_telling_is_there() -> None:
    tail = SUMMARY.format(1).replace("NCCL", "").splitlines()
    error = causes.failure("train", Command(("x",)), 1, tail, Path("log"), [], out_of_memory=False)
    assert (error.kind, "rank 1 (pid 29827) failed first, with status 1" in str(error)) == ("", True)


@pytest.mark.parametrize(
    ("states", "words"),
    [
        (["sleeping", "stopped"], "rank 1 (pid 11) was stopped by somebody (SIGSTOP)"),
        (["running", "disk-sleep"], "rank 1 (pid 11) waits for a disk"),
        (["running", None], "rank 1 is gone"),
        (["running", "sleeping"], "they wait for each other: rank 0 (pid 10) running, rank 1 (pid 11) sleeping"),
        ([], "wait for something that does not come"),
    ],
)
def test_the_process_that_hangs_is_named(states: list[str | None], words: str) -> None:
    ranks = [Rank(n, 10 + n, state, range(len(states))) for n, state in enumerate(states) if state]
    error = causes.hang("train", "no progress for 9m", ranks, ["step 5/8"])
    assert (error.kind, error.exit_code) == (causes.HANG, 4)
    assert words in str(error).splitlines()[0]
    assert str(error).splitlines()[-1] == "  | step 5/8"


class AtTheEnd:
    """Has something to say of a work that came to its end."""

    def __init__(self, _out: Path) -> None:
        self.seen = list[bool]()

    def look(self, signs: Signs) -> Iterator[Trouble]:
        if signs.ended:
            yield Trouble("nothing was learned")


def test_a_tool_that_crashed_is_not_judged_as_if_it_had_come_to_its_end(tmp_path: Path) -> None:
    """Or its cause would be hidden behind what half a work looks like, and no second try made."""
    with pytest.raises(OutputError, match="nothing was learned"):
        _run(tmp_path, _stage("train", WRITES.format(0), watch=AtTheEnd))
    code = "import sys; print('torch.OutOfMemoryError: CUDA out of memory.'); sys.exit(1)"
    with pytest.raises(CommandFailedError, match="GPU memory ran out"):
        _run(tmp_path, _stage("train", code, watch=AtTheEnd))


class Moody:
    """Finds trouble when the tool has written a file of that name."""

    def __init__(self, out: Path) -> None:
        self.out, self.told = out, set[str]()

    def look(self, signs: Signs) -> Iterator[Trouble]:
        for name in ("warning", "nonsense", "hang"):
            if (self.out / name).exists() and name not in self.told:
                self.told.add(name)
                yield Trouble(f"{name} at {signs.bar}", stop=name != "warning", hang=name == "hang")


BAR = (
    "import time; print('  5%|#   | 3/60 [00:01<00:20]', flush=True); time.sleep(0.3); open(sys.argv[1] + '/{}', 'w'); "
)


def _moody(name: str, rest: str) -> Stage:
    return _stage("train", "import sys;" + BAR.format(name) + rest, watch=Moody)


def test_a_watch_warns_stops_and_fails(tmp_path: Path) -> None:
    warned = _moody("warning", WRITES.format(0))
    _run(tmp_path, warned)
    record = _store(tmp_path).result(warned)
    assert record
    assert record["result"]["remarks"] == ["warning at 5% 3/60"]
    assert 1e6 < record["peak_rss_bytes"] < 1e9
    clock = time.monotonic()
    with pytest.raises(OutputError, match=r"the\.label: stopped while it ran\. nonsense at 5% 3/60"):
        _run(tmp_path, _moody("nonsense", "time.sleep(60)"))
    with pytest.raises(CommandFailedError, match=r"the\.label: hang at 5% 3/60, so it was stopped: "):
        _run(tmp_path, _moody("hang", "time.sleep(60)"))
    assert time.monotonic() - clock < 20


def test_what_a_watch_finds_at_the_end_counts_too_and_more_than_a_status(tmp_path: Path) -> None:
    for status in (0, 1):
        with pytest.raises(OutputError, match=r"the\.label: nonsense at"):
            _run(tmp_path, _moody("nonsense", WRITES.format(status)))


def test_some_failures_are_worth_the_same_again_but_not_for_ever(tmp_path: Path) -> None:
    count = f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); "
    fails = "import sys; " + count + "print('NCCL error'); sys.exit(1)"
    with pytest.raises(CommandFailedError, match="the GPUs lost each other"):
        _run(tmp_path, _stage("train", fails, retries={"nccl": 2}))
    assert (tmp_path / "starts").read_text() == "xxx"
    with pytest.raises(CommandFailedError):
        _run(tmp_path, _stage("train", fails + " ", retries={"killed": 1}))
    assert (tmp_path / "starts").read_text() == "xxxx"


@pytest.mark.parametrize(("grace", "saved"), [(0.1, False), (20.0, True)])
def test_a_stage_says_how_long_its_tool_may_take_to_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: float, saved: bool
) -> None:
    monkeypatch.setattr(processes, "LAST_WORDS_S", 0.1)
    code = (
        "import signal, sys, time\n"
        f"def end(*_): time.sleep(2); open({str(tmp_path / 'saved')!r}, 'w').close(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"open({str(tmp_path / 'up')!r}, 'w').close()\n"
        "time.sleep(60)"
    )
    halt = Halt()
    work = execute.Work(_stage("train", code, grace_s=grace), "the.label", halt)
    executor = Executor(_store(tmp_path), {"PATH": ""}, Console())
    with ThreadPoolExecutor() as threads:
        made = threads.submit(executor.make, work)
        wait_for((tmp_path / "up").exists, 30)
        halt.note(signal.SIGTERM)
        assert isinstance(made.exception(), Interrupted)
    assert (tmp_path / "saved").exists() == saved


def test_a_cause_above_the_summary_of_torchrun_is_found(tmp_path: Path) -> None:
    """With eight ranks that summary alone is longer than what is shown."""
    lines = [
        "[rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        *(f"torchrun line {n}" for n in range(80)),
        "Root Cause (first observed failure):",
        "[0]:",
        "  rank      : 3 (local_rank: 3)",
        "  exitcode  : 1 (pid: 4711)",
    ]
    error = causes.failure("train", Command(("swift", "sft")), 1, lines, tmp_path / "log.txt", ())
    assert error.kind == "memory"
    assert "GPU memory ran out" in str(error)
    assert "torchrun line 79" in str(error)
    assert len(str(error).splitlines()) < 30
    # What is shown tells more than what came before.
    nearer = causes.failure("train", Command(("swift", "sft")), 1, [*lines, "NCCL error in: x"], tmp_path / "l", ())
    assert nearer.kind == "nccl"


def test_a_timeout_of_nccl_has_a_name(tmp_path: Path) -> None:
    line = "[rank1]: [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9, OpType=ALLREDUCE)"
    assert causes.failure("train", Command(("swift",)), 1, [line], tmp_path / "log.txt", ()).kind == "nccl"


NODE = {"WORLD_SIZE": "10", "LOCAL_WORLD_SIZE": "2"}


def test_ranks_are_found_by_what_torchrun_tells_them(tmp_path: Path) -> None:
    # A worker of its own, as a data loader's, with the same environment.
    code = (
        "import subprocess, sys, time\n"
        "if len(sys.argv) < 2: subprocess.Popen([*sys.orig_argv, 'x'], start_new_session=True)\n"
        "time.sleep(60)"
    )
    started = [
        processes.start(
            [sys.executable, "-c", code], {**NODE, "RANK": str(8 + n), "LOCAL_RANK": str(n)}, tmp_path, "test-ranks"
        )
        for n in (1, 0)
    ]
    try:
        wait_for(lambda: len(processes.tagged("test-ranks")) == 4)
        os.kill(started[0].pid, signal.SIGSTOP)
        wait_for(lambda: processes.ranks("test-ranks")[1].status == "stopped")
        found = processes.ranks("test-ranks")
        assert [(rank.number, rank.pid) for rank in found] == [(8, started[1].pid), (9, started[0].pid)]
        assert {rank.node for rank in found} == {range(8, 10)}, "of the second machine, with ranks 8 and 9"
        assert processes.tree_rss(started[1].pid) > psutil.Process(started[1].pid).memory_info().rss > 1e6, (
            "and its own"
        )
    finally:
        for process in started:
            processes.stop(process, "test-ranks", hurry=lambda: True)
            assert process.stdout
            process.stdout.close()
