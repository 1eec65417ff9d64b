"""Stages side by side: who gets which GPU, in what order, and what becomes of the others when one fails or all stop."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline import slots
from pipeline.catalog.entries import ENTRIES
from pipeline.command import Command
from pipeline.console import Console, clipped
from pipeline.errors import CommandFailedError, Interrupted, OutputError, PreflightError
from pipeline.execute import Executor
from pipeline.schedule import Schedule
from pipeline.slots import Wish
from pipeline.stage import Stage
from pipeline.store import Store
from tests.worlds import wait_for

# ---- pure: what is chosen, in what order


@pytest.mark.parametrize(
    ("gpus", "visible", "words"),
    [
        (0, "", ()),
        (2, "", ("0", "1")),
        (2, "4,5", ("4", "5")),
        (4, "4,5,6,7", ("4", "5", "6", "7")),
        (1, "GPU-aaaa, GPU-bbbb", ("GPU-aaaa",)),
        (2, "GPU-bbbb,MIG-cccc", ("GPU-bbbb", "MIG-cccc")),
        (4, "6,7", ("6", "7")),
    ],
)
def test_gpus_are_called_what_the_user_calls_them(gpus: int, visible: str, words: tuple[str, ...]) -> None:
    assert slots.visible({"CUDA_VISIBLE_DEVICES": visible}, gpus) == words


FREE: Mapping[slots.Kind, int] = {"gpu": 2, "cpu": 1, "net": 1}


@pytest.mark.parametrize(
    ("wishes", "chosen"),
    [
        ([Wish("a", "gpu", 1, True), Wish("b", "gpu", 1, True), Wish("c", "gpu", 1, True)], ["a", "b"]),
        ([Wish("a", "cpu", 1, True), Wish("b", "cpu", 1, True), Wish("c", "gpu", 1, True)], ["a", "c"]),
        # A training that waits only for its data keeps its GPUs: an evaluation runs beside it only if one is left.
        ([Wish("train", "gpu", 2, False), Wish("base", "gpu", 1, True)], []),
        ([Wish("train", "gpu", 1, False), Wish("base", "gpu", 1, True), Wish("more", "gpu", 1, True)], ["base"]),
        # One that does not fit now is not passed by for ever.
        ([Wish("large", "gpu", 3, True), Wish("base", "gpu", 1, True), Wish("data", "cpu", 1, True)], ["data"]),
        (
            [Wish("fetch", "net", 1, True), Wish("other", "net", 1, True), Wish("data", "cpu", 1, True)],
            ["fetch", "data"],
        ),
        ([], []),
    ],
)
def test_slots_are_given_in_order_and_kept_for_who_comes_first(wishes: list[Wish], chosen: list[str]) -> None:
    assert slots.choose(wishes, FREE) == chosen


def _named(name: str, *, tool: str = "", **args: Any) -> Stage:
    return Stage(
        name=name, program=(), args=args, deps={}, command=lambda *_: Command(()), collect=lambda *_: {},
        tool=(tool, "1") if tool else None,
    )  # fmt: skip


def test_checks_come_first_then_the_longest_way_to_the_end() -> None:
    short, long = ({"tasks": [{"name": name}], "limit": limit} for name, limit in (("piqa", 10), ("piqa", 500)))
    stages = {
        "short.base": _named("eval", tool="lm_eval", **short), "long.base": _named("eval", tool="lm_eval", **long),
        "train": _named("train"), "short.tuned": _named("eval", tool="lm_eval", **short),
        "contamination": _named("contamination"), "data": _named("data"),
    }  # fmt: skip
    before = {"train": ["data"], "short.tuned": ["train"], "contamination": ["data"]}
    order = ["data", "contamination", "train", "long.base", "short.base", "short.tuned"]
    assert slots.precedence(stages, before, {}) == order
    # What was seen counts more than the guess.
    known = {slots.kin("eval", stages["short.base"].args): 9000.0}
    seen = slots.precedence(stages, before, known)
    assert seen.index("short.base") < seen.index("long.base")


def test_the_guess_knows_groups_limits_and_written_answers() -> None:
    def guess(harness: str, name: str, limit: int | None = None) -> float:
        key = "tasks" if harness == "lm_eval" else "datasets"
        return slots.estimate(_named("eval", tool=harness, **{key: [{"name": name}], "limit": limit}), {})

    assert guess("lm_eval", "piqa", 10) < guess("lm_eval", "piqa", 100) < guess("lm_eval", "piqa")
    assert guess("lm_eval", "mmlu", 10) == guess("lm_eval", "piqa", 10 * len(ENTRIES["mmlu"].subsets))
    assert guess("lm_eval", "mmlu_anatomy", 10) == guess("lm_eval", "piqa", 10)
    assert guess("evalscope", "gsm8k") > guess("lm_eval", "gsm8k")


# ---- the table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_table_stays_below_what_is_said_and_goes_away() -> None:
    stream = Terminal()
    console = Console(stream)
    console.table(["a: 10%", "b: 20%"], "2 running")
    console.say("event")
    console.table([])
    text = stream.getvalue()
    up = "\x1b[3F\x1b[J"
    table = "a: 10%\nb: 20%\n2 running\n"
    assert text == f"{table}{up}event\n{table}{up}"


def test_lines_of_the_table_never_wrap() -> None:
    assert clipped("中文 abc", 5) == "中文 "
    assert clipped("中文 abc", 3) == "中"
    assert clipped("abc", 80) == "abc"
    stream = Terminal()
    Console(stream).table(["x" * 500])
    assert max(map(len, stream.getvalue().splitlines())) < 80


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 131.0, 132.0, 162.0, 193.0])
    monkeypatch.setattr("pipeline.console.time.monotonic", lambda: next(clock))
    stream = io.StringIO()
    console = Console(stream)
    for text in ("1", "2", "3", "3"):
        console.table([f"a: {text}", "b: same"], "2 running")
    assert stream.getvalue().splitlines() == ["a: 1", "b: same", "a: 3"]


# ---- real processes

CODE = """
import json, os, signal, sys, time
out, times, seconds, status = sys.argv[1:5]
if os.environ.get("DEAF"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
row = {"out": out, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "start": time.time()}
open(times + ".pids", "a").write(f"{os.getpid()}\\n")
time.sleep(float(seconds))
open(times, "a").write(json.dumps(row | {"end": time.time()}) + "\\n")
open(out + "/x", "w").write("found")
sys.exit(int(status))
"""


class Bench:
    """Stages that sleep, on a runs folder of its own."""

    def __init__(self, folder: Path, gpus: tuple[str, ...] = ("3", "GPU-b"), workers: int = 1) -> None:
        self.folder, self.times = folder, folder / "times"
        self.stream = io.StringIO()
        self.states: list[tuple[str, str]] = []
        self.threads: set[str] = set()
        store = Store(folder / "runs", lambda _: "")
        executor = Executor(store, {"PATH": os.environ["PATH"]}, Console(self.stream))
        self.schedule = Schedule(executor, gpus, workers, self._told)

    def _told(self, stage: Stage, state: str) -> None:
        self.states.append((stage.name, state))
        self.threads.add(threading.current_thread().name)

    def stage(self, name: str, seconds: float = 0.3, status: int = 0, **more: Any) -> Stage:
        code = ("python", "-c", CODE)
        return Stage(**{
            "name": name, "program": code, "args": {}, "deps": {},
            "command": lambda stage, out, _: Command(
                (*code, str(out), str(self.times), str(seconds), str(status)), env=dict(stage.env)
            ),
            "collect": lambda out, _stage, _deps: {"text": (out / "x").read_text()},
            **more,
        })  # fmt: skip

    def run(self, *stages: Stage) -> None:
        self.schedule.run(stages, {self.schedule.executor.store.folder(s).name: s.name for s in stages})

    def rows(self) -> dict[str, dict[str, Any]]:
        lines = self.times.read_text().splitlines() if self.times.exists() else []
        return {Path(row["out"]).parents[1].name.split("-")[0]: row for row in map(json.loads, lines)}

    def last(self) -> dict[str, str]:
        return dict(self.states)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def overlap(rows: list[dict[str, Any]]) -> bool:
    ordered = sorted(rows, key=lambda row: row["start"])
    return any(later["start"] < earlier["end"] for earlier, later in pairwise(ordered))


def test_six_evaluations_on_two_gpus_never_share_one(bench: Bench) -> None:
    bench.run(*(bench.stage(f"e{i}", gpus=1, args={"i": i}) for i in range(6)))
    rows = list(bench.rows().values())
    assert len(rows) == 6
    by_gpu = {gpu: [row for row in rows if row["gpus"] == gpu] for gpu in ("3", "GPU-b")}
    assert min(len(found) for found in by_gpu.values()) >= 2, "both were used all the time"
    assert not any(overlap(found) for found in by_gpu.values())
    assert overlap(rows), "two ran at a time"
    assert set(bench.last().values()) == {"done"}
    assert bench.threads == {threading.current_thread().name}, "states are told by one thread"


def test_on_the_cpu_as_many_run_as_there_are_workers(tmp_path: Path) -> None:
    one = Bench(tmp_path / "one", gpus=())
    one.run(*(one.stage(f"e{i}") for i in range(3)))
    assert not overlap(list(one.rows().values()))
    assert {row["gpus"] for row in one.rows().values()} == {""}, "no GPU is seen by a stage that takes none"
    two = Bench(tmp_path / "two", gpus=(), workers=2)
    two.run(*(two.stage(f"e{i}") for i in range(3)))
    assert overlap(list(two.rows().values()))


def test_a_failure_stops_only_what_depends_on_it(bench: Bench) -> None:
    data = bench.stage("data", 0.1)
    train = bench.stage("train", 0.1, status=1, gpus=1, deps={"data": data})
    export = bench.stage("export", 0.1, deps={"adapter": train})
    tuned = bench.stage("tuned", 0.1, gpus=1, deps={"model": export})
    base, broken = bench.stage("base", 0.5, gpus=1), bench.stage("broken", 0.1, status=7, gpus=1)
    with pytest.raises(CommandFailedError) as caught:
        bench.run(tuned, base, broken)
    assert bench.last() == {"data": "done", "train": "failed", "base": "done", "broken": "failed"}
    text = str(caught.value)
    assert "train: the tool ended with status 1" in text
    assert "broken: the tool ended with status 7" in text
    assert text.endswith("not run, for want of that: export, tuned")
    assert "what does not depend on it goes on" in bench.stream.getvalue()


def test_the_first_failure_decides_about_the_class(bench: Bench) -> None:
    def nothing(*_: object) -> dict[str, Any]:
        raise OutputError("no score")

    with pytest.raises(OutputError, match=r"no score\n\nlate: the tool ended"):
        bench.run(bench.stage("late", 1.0, status=1, gpus=1), bench.stage("early", 0.0, gpus=1, collect=nothing))


def test_a_training_gets_its_gpus_before_the_evaluations(bench: Bench) -> None:
    data = bench.stage("data", 0.6)
    train = bench.stage("train", 0.2, gpus=2, deps={"data": data})
    bench.run(train, *(bench.stage(f"e{i}", 0.2, gpus=1) for i in range(2)))
    rows = bench.rows()
    assert rows["train"]["gpus"] == "3,GPU-b"
    assert min(rows["e0"]["start"], rows["e1"]["start"]) > rows["train"]["end"]


def test_a_base_evaluation_runs_beside_a_training_that_leaves_a_gpu(bench: Bench) -> None:
    data = bench.stage("data", 0.6)
    bench.run(bench.stage("train", 0.2, gpus=1, deps={"data": data}), bench.stage("base", 0.2, gpus=1))
    order = [state for state in bench.states if state[1] != "done" or state[0] == "data"]
    assert order == [("data", "running"), ("base", "running"), ("data", "done"), ("train", "running")]


def test_more_gpus_than_there_are_is_said_before_anything_starts(bench: Bench) -> None:
    with pytest.raises(PreflightError, match="large: takes 3 GPUs, but 2 are visible"):
        bench.run(bench.stage("small", gpus=1), bench.stage("large", gpus=3))
    assert bench.states == []


HOLDER = """
import fcntl, sys, time
stream = open(sys.argv[1], "w")
fcntl.flock(stream, fcntl.LOCK_EX)
stream.write("process 7 on elsewhere")
stream.flush()
print("held", flush=True)
time.sleep(60)
"""


def test_a_lock_held_elsewhere_holds_nobody_else_up(bench: Bench) -> None:
    busy, free = bench.stage("busy", 0.1), bench.stage("free", 0.1)
    lock = bench.schedule.executor.store.folder(busy) / ".lock"
    lock.parent.mkdir(parents=True)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    said = "busy: waiting for process 7 on elsewhere, which is making the same thing"

    def let_go() -> None:
        wait_for(lambda: "free" in bench.rows() and said in bench.stream.getvalue())
        holder.kill()

    with ThreadPoolExecutor() as threads:
        waiter = threads.submit(let_go)
        bench.run(busy, free)
        waiter.result()
    holder.communicate()
    rows = bench.rows()
    assert rows["busy"]["start"] > rows["free"]["end"]
    assert bench.stream.getvalue().count(said) == 1


def test_out_of_memory_is_tried_again_with_half_the_batch(bench: Bench) -> None:
    code = (
        "import sys; size = int(sys.argv[2]); open(sys.argv[1] + '/x', 'w').write(str(size));"
        "size > 4 and (print('torch.OutOfMemoryError: CUDA out of memory. Tried'), sys.exit(1))"
    )
    plain = bench.stage(
        "eval", program=("python", "-c", code), plumbing={"batch_size": 16, "device": "cuda"},
        command=lambda stage, out, _: Command((*stage.program, str(out), str(stage.plumbing["batch_size"]))),
    )  # fmt: skip
    with pytest.raises(CommandFailedError, match="GPU memory ran out"):
        bench.run(plain)
    kinds = []

    def half(kind: str, plumbing: Mapping[str, Any]) -> Mapping[str, Any] | None:
        kinds.append(kind)
        size = plumbing["batch_size"] // 2
        return {**plumbing, "batch_size": size} if size else None

    bench.run(replace(plain, retry=half))
    record = bench.schedule.executor.store.result(plain)
    assert record is not None
    remarks = [f"batch_size {a} -> {b} after out of memory" for a, b in ((16, 8), (8, 4))]
    assert record["result"] == {"text": "4", "remarks": remarks}
    assert kinds == ["memory", "memory"]
    assert all(f"eval: {remark}; starting it again" in bench.stream.getvalue() for remark in remarks)


RUNNER = """
import signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from pipeline.errors import Interrupted
from tests.test_slots import Bench
bench = Bench(Path(sys.argv[1]))
try:
    deaf = "deaf" in sys.argv
    bench.run(*(bench.stage(f"e{i}", 60, gpus=1, env={"DEAF": "1" if deaf else ""}) for i in range(4)))
except Interrupted as stop:
    print(sorted(bench.states), flush=True)
    sys.exit(stop.exit_code)
"""


def _alive(bench: Bench) -> list[int]:
    path = Path(f"{bench.times}.pids")
    return [pid for pid in map(int, path.read_text().split() if path.exists() else []) if _lives(pid)]


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]


def _several(bench: Bench, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUNNER, str(bench.folder), str(Path(__file__).parents[1]), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: len(_alive(bench)) == 2)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_that_run_at_once(bench: Bench, number: int) -> None:
    process = _several(bench)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)  # the tools would sleep for 60 s
    assert process.returncode == 128 + number, output
    assert _alive(bench) == []
    assert output.count("'failed'") == 2, output
    assert bench.rows() == {}


def test_a_second_signal_kills_what_does_not_listen(bench: Bench) -> None:
    process = _several(bench, "deaf")
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert len(_alive(bench)) == 2, "they have time for last words"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)  # less than the 35 s that one signal leaves them
    assert _alive(bench) == []
    assert process.returncode == 130


def test_what_a_killed_run_left_is_ended_before_anything_starts(bench: Bench) -> None:
    process = _several(bench)
    process.kill()
    process.communicate()
    strays = _alive(bench)
    assert len(strays) == 2
    # Two other stages of that run are asked for first: the strays would have been on their GPUs.
    bench.run(*(bench.stage(f"e{i}", 0.2, gpus=1) for i in (3, 2, 1, 0)))
    assert not set(strays) & set(_alive(bench))
    said = bench.stream.getvalue()
    assert said.count("ended 1 processes that an earlier, killed run had left") == 2
    assert len(bench.rows()) == 4


def test_interrupted_is_raised_here_too(bench: Bench) -> None:
    timer = threading.Timer(0.8, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Interrupted):
        bench.run(bench.stage("e", 60, gpus=1))
    assert bench.last() == {"e": "failed"}
    assert "stopping 1 running stages" in bench.stream.getvalue()
