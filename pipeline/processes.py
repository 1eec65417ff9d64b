"""Child processes as trees: start one in its own session, stop all of it, and find what a dead supervisor left.

A launcher such as `swift` starts torchrun, which starts each worker in a session of its own: a signal to the
launcher, or SIGKILL to its group, leaves the workers running. So the tree is remembered before it is signalled, and
every child carries a tag in its environment by which strays are found afterwards.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

TAG = "PIPELINE_STAGE_DIR"
GRACE_S = 35.0
"""torchrun itself waits 30 s for its workers."""
LAST_WORDS_S = 5.0
"""For workers whose launcher died without ending them."""
_HURRY_POLL_S = 0.2
_VMSTAT = Path("/proc/vmstat")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Rank:
    """One of the processes that train together."""

    number: int
    pid: int
    status: str
    """As psutil names it: running, sleeping, stopped, zombie, disk-sleep, ..."""
    node: range
    """Numbers of all that should be on this machine."""


def start(argv: Sequence[str], env: Mapping[str, str], cwd: Path, tag: str) -> subprocess.Popen[bytes]:
    """Start the program with stdout and stderr in one pipe, tagged, in a session of its own."""
    return subprocess.Popen(
        list(argv),
        env={**env, TAG: tag},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def stop(
    process: subprocess.Popen[bytes],
    tag: str,
    grace_s: float = GRACE_S,
    hurry: Callable[[], bool] = lambda: False,
    ask: signal.Signals | None = None,
) -> None:
    """TERM the group, wait, TERM what is left elsewhere, KILL the remembered tree, sweep by tag until nothing is left.

    Before that those that handle the signal `ask`, if there are any, are asked by it to end, and have `grace_s` to do
    so. An exception ends the waiting, not the killing; so does `hurry`, which is asked all the while (a second signal).
    """
    remembered = _tree(process.pid)
    try:
        group = [child for child in remembered if _group(child.pid) == process.pid]
        asked = []
        if ask and not hurry():
            asked = listeners(remembered, ask)
            for child in asked:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.send_signal(ask)
        _wait(group if asked else [], grace_s, hurry)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        _wait(group, GRACE_S if asked else grace_s, hurry)  # torchrun ends its workers, then itself
        for child in remembered:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()
        _wait(remembered, LAST_WORDS_S, hurry)
    finally:
        _kill(remembered)
        sweep(tag)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)


def listeners(tree: Sequence[psutil.Process], signum: int) -> list[psutil.Process]:
    """Those of the tree that handle the signal, as Linux tells, without their children, which inherit a handler."""
    handling = {process.pid for process in tree if _handles(process.pid, signum)}
    return [process for process in tree if process.pid in handling and _parent(process) not in handling]


def sweep(tag: str, attempts: int = 50) -> int:
    """Kill every process of this user that carries the tag; returns how many there were."""
    killed: set[int] = set()
    for _ in range(attempts):
        found = tagged(tag)
        if not found:
            break
        killed.update(process.pid for process in found)
        _kill(found)
        time.sleep(0.05)
    return len(killed)


def tagged(tag: str) -> list[psutil.Process]:
    """Living processes whose environment has the tag, this one excepted."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.pid != os.getpid() and process.environ().get(TAG) == tag
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone, or another user's
    return found


def ranks(tag: str) -> list[Rank]:
    """The tagged processes that torchrun has numbered, in that order; of a worker and its own children the oldest."""
    found: dict[int, Rank] = {}
    for process in sorted(tagged(tag), key=_born):
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            env = process.environ()
            number = int(env.get("RANK", "-1"))
            if number >= 0 and number not in found:
                first = number - int(env.get("LOCAL_RANK", number))
                node = range(first, first + int(env.get("LOCAL_WORLD_SIZE", "1")))
                found[number] = Rank(number, process.pid, process.status(), node)
    return [found[number] for number in sorted(found)]


def tree_rss(pid: int) -> int:
    """Resident bytes of a process and all below it, shared pages counted for each that maps them."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.Error, OSError):
            total += process.memory_info().rss
    return total


def oom_kills() -> int | None:
    """How many processes the kernel has killed for want of memory since it started; None where it does not count."""
    try:
        found = re.search(r"^oom_kill (\d+)$", _VMSTAT.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def all_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes of main memory there are: of the machine, or of the container where that has a limit."""
    limits = [_number(cgroup / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    return min([int(psutil.virtual_memory().total), *(limit for limit in limits if limit is not None)])


def free_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes that can still be had: of the machine, or of the container where that has a limit."""
    free = int(psutil.virtual_memory().available)
    for limit, used, stat, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (*(f"memory/memory.{name}" for name in ("limit_in_bytes", "usage_in_bytes", "stat")), "total_inactive_file"),
    ):
        most, taken = _number(cgroup / limit), _number(cgroup / used)
        if most is not None and taken is not None:  # pages of files that are given up when memory is short do not count
            free = min(free, max(0, most - taken + (_number(cgroup / stat, cache) or 0)))
    return free


def _number(path: Path, name: str = "") -> int | None:
    """The number in a file of the kernel's, or of the line that begins with `name`; None where there is none."""
    try:
        found = re.search(rf"^{name} ?(\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _handles(pid: int, signum: int) -> bool:
    try:
        found = re.search(
            r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"), re.MULTILINE
        )
    except (OSError, ValueError):
        return False
    return bool(found and int(found[1], 16) >> (signum - 1) & 1)


def _parent(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.NoSuchProcess:
        return None


def _born(process: psutil.Process) -> float:
    try:
        return float(process.create_time())
    except psutil.Error:
        return 0.0


def _tree(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _wait(processes: Iterable[psutil.Process], timeout_s: float, hurry: Callable[[], bool]) -> None:
    end = time.monotonic() + timeout_s
    left = list(processes)
    while left and not hurry() and time.monotonic() < end:
        _, left = psutil.wait_procs(left, timeout=min(_HURRY_POLL_S, max(0.0, end - time.monotonic())))
        left = [process for process in left if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    """Whether it does anything: an orphan that is dead stays a zombie until some init process gets round to it."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
