"""Process trees: nothing that a stage started outlives it, whatever session its workers are in."""

from __future__ import annotations

import os
import signal
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
# A launcher whose worker is told by SIGUSR1 to end, with a loader below it that inherits the handler, as forks do.
LISTENER = """
import os, signal, subprocess, sys, time
def note(pid): open(sys.argv[1], "a").write(f"{pid}\\n")
if os.fork():
    note(os.getpid())
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
def asked(*_):
    os.kill(loader, 0)  # it lives
    open(sys.argv[1] + ".saved", "w").write("whole")
    os.kill(loader, signal.SIGKILL)
    os._exit(0)
signal.signal(signal.SIGUSR1, asked)
loader = os.fork()
if loader:
    note(loader)
    note(os.getpid())
time.sleep(600)
# subprocess
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


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("memory.max", "1000000", 1_000_000), ("memory.max", "max", None),
    ("memory/memory.limit_in_bytes", "2000000", 2_000_000), ("memory/memory.limit_in_bytes", "9223372036854771712", None),
])  # fmt: skip
def test_the_machines_memory_is_that_of_the_container(
    tmp_path: Path, name: str, text: str, expected: int | None
) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / name).write_text(text)
    assert processes.all_memory(tmp_path) == (expected or psutil.virtual_memory().total)


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


@pytest.mark.skipif(not Path("/proc").exists(), reason="which signals a process handles Linux alone tells")
def test_who_listens_is_asked_first_alone_and_in_time(pids: Path) -> None:
    saved = pids.with_name("pids.saved")
    process = _start(pids, LISTENER, "tag-h")
    processes.stop(process, "tag-h", ask=signal.SIGUSR1)
    assert saved.read_text() == "whole"
    assert _living(pids) == []


def test_who_is_in_a_hurry_or_hears_nothing_gets_no_question(pids: Path, tmp_path: Path) -> None:
    process = _start(pids, LISTENER, "tag-i")
    processes.stop(process, "tag-i", hurry=lambda: True, ask=signal.SIGUSR1)
    assert not pids.with_name("pids.saved").exists()
    other = tmp_path / "other"
    other.touch()
    process = _start(other, SLEEPER, "tag-j")
    processes.stop(process, "tag-j", ask=signal.SIGUSR1)
    assert process.poll() is not None
    assert _living(pids) == _living(other) == []


def test_a_second_signal_while_stopping_kills_at_once(pids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = _start(pids, DEAF + LAUNCHER, "tag-c")

    def interrupted(*_args: object, **_kwargs: object) -> None:
        raise Interrupted(2)

    monkeypatch.setattr(psutil, "wait_procs", interrupted)
    with pytest.raises(Interrupted):
        processes.stop(process, "tag-c")
    wait_for(lambda: _living(pids) == [])  # killed, and dead a moment later


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
