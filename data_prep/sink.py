"""Where the rows of a block go: into the output files at once, or into a spool until it is decided which stay."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import msgspec

from data_prep.cook import Cooked
from data_prep.job import Job
from data_prep.split import validation_rows
from data_prep.stats import SplitTally

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data_prep.marks import Marker

_Item = TypeVar("_Item")

RAW_LIMIT = 64 * 1024
"""Bytes of a refused row that ``rejects.jsonl`` keeps."""
REJECTS = "rejects.jsonl"
DIRECT = ("train.jsonl", "val.jsonl", REJECTS)
SPOOLED = ("rows.spool", "index.spool", REJECTS)


def draft(folder: Path, name: str) -> Path:
    """Where the output ``name`` is while it is written."""
    return folder / f"{name}.tmp"


def shown(data: bytes) -> str:
    """The bytes of a refused row as text; what is not UTF-8 shows as ``\\xNN``."""
    cut = "" if len(data) <= RAW_LIMIT else f" ... ({len(data)} bytes)"
    return data[:RAW_LIMIT].decode("utf-8", "backslashreplace") + cut


class SystemPrompt:
    """Puts a system prompt in front of the encoded rows that have none."""

    _OPENING = b'{"messages":['
    _HAS = _OPENING + b'{"role":"system",'

    def __init__(self, system: str | None) -> None:
        turn = b"" if system is None else msgspec.json.encode({"role": "system", "content": system}) + b","
        self._opening = self._OPENING + turn
        self.changes = system is not None

    def put(self, line: bytes) -> bytes:
        """``line`` with the prompt."""
        if not self.changes or line.startswith(self._HAS):
            return line
        return self._opening + line[len(self._OPENING) :]


@dataclass
class SourceCounts:
    """Rows of one source as they were read."""

    rows_in: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)


@dataclass
class Tallies:
    """What one process, or all of them, counted."""

    sources: list[SourceCounts]
    train: SplitTally = field(default_factory=SplitTally)
    val: SplitTally = field(default_factory=SplitTally)

    @staticmethod
    def total(several: Sequence[Tallies]) -> Tallies:
        """The sum of all."""
        sums = Tallies([SourceCounts() for _ in several[0].sources])
        for tallies in several:
            sums.train.merge(tallies.train)
            sums.val.merge(tallies.val)
            for counts, more in zip(sums.sources, tallies.sources, strict=True):
                counts.rows_in += more.rows_in
                counts.rejected.update(more.rejected)
                counts.repaired.update(more.repaired)
        return sums


class Prepared(NamedTuple):
    """What a block adds to the outputs."""

    parts: tuple[bytes, ...]
    records: NDArray[Any] | None = None
    """Of a spool: its index, numbered from the beginning of the block."""
    validation: Sequence[int] = ()
    """Positions of the rows for validation."""


class Booked(NamedTuple):
    """Bytes for each output and where they go."""

    parts: tuple[bytes, ...]
    offsets: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the outputs with these bytes in them."""
        return tuple(offset + len(part) for offset, part in zip(self.offsets, self.parts, strict=True))


class Sink:
    """The outputs of one process; several may write into the same files, each where it has booked."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._names = SPOOLED if job.spooled else DIRECT
        self._files: list[int] = []
        self._prompt = SystemPrompt(job.system)
        self._marker: Marker | None = None
        if job.spooled:
            from data_prep.marks import Marker

            self._marker = Marker(job)
        self.tallies = Tallies([SourceCounts() for _ in job.readings])

    @staticmethod
    def outputs(job: Job) -> int:
        """How many outputs there are."""
        return len(SPOOLED if job.spooled else DIRECT)

    def __enter__(self) -> Self:
        self._files = [os.open(draft(self._job.folder, name), os.O_WRONLY) for name in self._names]
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._files:
            os.close(fd)

    def prepare(self, cooked: Cooked) -> Prepared:
        """All that can be done for a block before it is known what comes before it."""
        if self._marker is not None:
            return Prepared((_joined(cooked.lines),), self._marker.records(cooked))
        job, lines = self._job, cooked.lines
        # The side is chosen before the system prompt is put in, so that another prompt moves no row.
        validation = validation_rows(lines, job.val_fraction, job.seed)
        if job.system is not None:
            lines = [self._prompt.put(line) for line in lines]
        train, val = _parted(lines, validation)
        return Prepared((_joined(train), _joined(val)), validation=validation)

    def book(self, cooked: Cooked, prepared: Prepared, file: int, number: int, offsets: tuple[int, ...]) -> Booked:
        """Count the rows of a block, the first of which comes ``number`` rows into the file, and lay them out."""
        counts = self.tallies.sources[self._job.files[file].source]
        counts.rows_in += len(cooked.lines) + len(cooked.rejected)
        counts.repaired.update(cooked.repaired)
        rejects = []
        for at, reason, raw in sorted(cooked.rejected, key=lambda item: item[0]):
            counts.rejected[reason.value] += 1
            line = {
                "source": self._job.files[file].label,
                "line": number + at,
                "reason": reason.value,
                "raw": shown(raw),
            }
            rejects.append(msgspec.json.encode(line) + b"\n")
        parts = prepared.parts
        if prepared.records is not None:
            prepared.records["number"] += number
            prepared.records["file"] = file
            parts = (*parts, prepared.records.tobytes())
        else:
            self._count_sides(cooked, prepared.validation)
        return Booked((*parts, b"".join(rejects)), offsets)

    def _count_sides(self, cooked: Cooked, validation: Sequence[int]) -> None:
        added = len(self._job.system or "")
        chars, conversations = _parted(cooked.chars, validation), _parted(cooked.conversations, validation)
        self.tallies.train.add(chars[0], conversations[0], added)
        self.tallies.val.add(chars[1], conversations[1], added)

    def write(self, booked: Booked) -> None:
        """Write what was booked."""
        for fd, part, offset in zip(self._files, booked.parts, booked.offsets, strict=True):
            done = 0
            while done < len(part):
                done += os.pwrite(fd, memoryview(part)[done:], offset + done)


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"\n".join([*lines, b""]) if lines else b""


def _parted(items: list[_Item], at: Sequence[int]) -> tuple[list[_Item], list[_Item]]:
    """``items`` without those at the few positions ``at``, which ascend; and those."""
    if not at:
        return items, []
    rest = items.copy()
    taken = [rest.pop(position) for position in reversed(at)]
    return rest, taken[::-1]
