"""A process keeps the memory that it has freed, where the C library can be told to."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from data_prep import allocator

FAULTS = """
import resource
from data_prep.allocator import keep_freed_memory

def faults(blocks):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(blocks):
        lines = [bytes(700) for _ in range(5000)]
        del lines
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults(10)
keep_freed_memory()
faults(2)
print(usual, faults(10))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="glibc's allocator")
def test_memory_of_a_block_is_not_fetched_again() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    usual, kept = map(int, done.stdout.split())
    assert kept < usual / 20


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: SimpleNamespace())
    allocator.keep_freed_memory()
