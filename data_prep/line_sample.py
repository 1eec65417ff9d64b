"""Lines of a JSON Lines file, chosen by content: the same whatever else is in the file, and wherever they stand."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from data_prep.errors import InputError


def sample(path: Path, size: int | None, seed: int) -> tuple[int, list[Line]]:
    """How many rows ``path`` has, and ``size`` of them (all when there are fewer, or for None), in the file's order.

    Those with the smallest hashes of ``seed`` and line: a simple random sample without replacement, where no two
    lines are equal. Memory grows with the sample, not with the file.
    """
    key = str(seed).encode()
    chosen: list[tuple[int, Line]] = []  # a heap with the largest hash on top, negated
    everything: list[Line] = []
    rows = 0
    for line, data in lines(path):
        rows += 1
        if size is None:
            everything.append(line)
            continue
        digest = -int.from_bytes(hashlib.blake2b(data.strip(), digest_size=8, key=key).digest(), "big")
        if len(chosen) < size:
            heapq.heappush(chosen, (digest, line))
        elif digest > chosen[0][0]:
            heapq.heapreplace(chosen, (digest, line))
    return rows, everything if size is None else sorted(line for _, line in chosen)


def lines(path: Path) -> Iterator[tuple[Line, bytes]]:
    """The lines of ``path`` that are not blank, each with its place."""
    try:
        stream = path.open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file. Give the folder that `python -m data_prep` wrote") from error
    with stream:
        offset = 0
        for number, data in enumerate(stream, 1):
            if data.strip():
                yield Line(number, offset, len(data)), data
            offset += len(data)


def records(path: Path, wanted: Iterable[Line]) -> Iterator[tuple[int, dict[str, object]]]:
    """The number and the decoded object of each line in ``wanted``; InputError for one that holds none."""
    with path.open("rb") as stream:
        for line in wanted:
            stream.seek(line.offset)
            try:
                record = msgspec.json.decode(stream.read(line.size))
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise InputError(f"{path}, line {line.number}: {error}. Run `python -m data_prep` again") from error
            if not isinstance(record, dict) or not isinstance(record.get("messages"), list):
                raise InputError(
                    f"{path}, line {line.number}: no object with a list `messages`: not written by data_prep"
                )
            yield line.number, record


class Line(NamedTuple):
    """Where a line is: its number from 1, its first byte, its bytes with the line end."""

    number: int
    offset: int
    size: int
