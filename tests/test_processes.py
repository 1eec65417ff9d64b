"""Process trees: nothing that a stage started outlives it, whatever session its workers are in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline import processes
from pipeline.errors import Interrupted
from tests.worlds import wait_for

SLEEPER = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"
# A launcher like torchrun's: its worker is in a session of its own, and a TERM to the launcher is not passed on.
LAUNCHER = f"""
import subprocess, sys, time
sleeper = {SLEEPER!r}
for own_session in (True, False):
    subprocess.Popen([sys.executable, "-c", sleeper, sys.argv[1]], start_new_session=own_session)
open(sys.argv[1], "a").write(f"{{__import__('os').getpid()}}\\n")
time.sleep(600)
"""
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pids"
    path.touch()
    yield path
    for pid in _living(path):
        psutil.Process(pid).kill()


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever starts a process reads its output and closes it; the tests here do not read."""
    found = []
    start = processes.start

    def remember(*args: Any) -> subprocess.Popen[bytes]:
        found.append(start(*args))
        return found[-1]

    monkeypatch.setattr(processes, "start", remember)
    yield
    for process in found:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(timeout=10)


def _living(path: Path) -> list[int]:
    found = []
    for line in path.read_text().split():
        try:
            if psutil.Process(int(line)).status() != psutil.STATUS_ZOMBIE:
                found.append(int(line))
        except psutil.NoSuchProcess:
            continue
    return found


def _start(pids: Path, code: str, tag: str) -> subprocess.Popen[bytes]:
    env = {"PATH": os.environ["PATH"]}
    process = processes.start([sys.executable, "-c", code, str(pids)], env, pids.parent, tag)
    wait_for(lambda: len(_living(pids)) == (3 if "subprocess" in code else 1))
    return process


@pytest.mark.parametrize(("files", "expected"), [
    ({"memory.max": "max", "memory.current": "9"}, None),
    ({}, None),
    ({"memory.max": "1000000", "memory.current": "700000", "memory.stat": "anon 1\ninactive_file 200000\n"}, 500_000),
    ({"memory.max": "1000000", "memory.current": "1200000"}, 0),
    ({"memory/memory.limit_in_bytes": "1000000", "memory/memory.usage_in_bytes": "600000",
      "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 100000\n"}, 500_000),
    ({"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "6"}, None),
])  # fmt: skip
def test_free_memory_is_that_of_the_container(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = processes.free_memory(tmp_path)
    assert found == expected if expected is not None else found > 50_000_000


def test_stop_ends_workers_in_other_sessions_quickly(pids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LAST_WORDS_S", 60.0)
    process = _start(pids, LAUNCHER, "tag-a")
    clock = time.monotonic()
    processes.stop(process, "tag-a")
    assert _living(pids) == []
    assert time.monotonic() - clock < processes.GRACE_S
    assert process.poll() is not None


def test_stop_kills_what_does_not_listen(pids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LAST_WORDS_S", 0.3)
    process = _start(pids, DEAF + SLEEPER, "tag-b")
    processes.stop(process, "tag-b", grace_s=0.3)
    assert _living(pids) == []


def test_a_second_signal_while_stopping_kills_at_once(pids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = _start(pids, DEAF + LAUNCHER, "tag-c")

    def interrupted(*_args: object, **_kwargs: object) -> None:
        raise Interrupted(2)

    monkeypatch.setattr(psutil, "wait_procs", interrupted)
    with pytest.raises(Interrupted):
        processes.stop(process, "tag-c")
    assert _living(pids) == []


def test_sweep_finds_what_a_dead_launcher_left_and_nothing_else(pids: Path, tmp_path: Path) -> None:
    process = _start(pids, LAUNCHER, "tag-d")
    other = tmp_path / "other"
    other.touch()
    innocent = _start(other, SLEEPER, "tag-dd")
    process.kill()
    process.wait()
    assert len(_living(pids)) == 2
    assert processes.sweep("tag-d") == 2
    assert _living(pids) == []
    assert innocent.poll() is None
    assert processes.sweep("tag-d") == 0
    processes.stop(innocent, "tag-dd", grace_s=2)
    assert _living(other) == []


def test_output_of_both_streams_arrives_and_stdin_is_closed() -> None:
    code = "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr); print(repr(sys.stdin.read()))"
    process = processes.start([sys.executable, "-c", code], {"PATH": ""}, Path.cwd(), "tag-e")
    output, _ = process.communicate(timeout=20)
    assert output.split() == [b"out", b"err", b"''"]
    assert process.returncode == 0


def test_stop_of_a_process_that_is_gone_does_nothing() -> None:
    process = processes.start(["true"], {"PATH": os.environ["PATH"]}, Path.cwd(), "tag-f")
    process.wait()
    processes.stop(process, "tag-f")
    assert process.returncode == 0
