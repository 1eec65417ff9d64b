"""From one block of a file to the rows that come of it: kept ones as output lines, refused ones with their reasons."""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from data_prep.blocks import Block, TextFile, read_block
from data_prep.conversation import Conversation, Reason, Reject
from data_prep.decode import RawRow
from data_prep.errors import RejectedError
from data_prep.fast import are_whole, fast_path, split_lines
from data_prep.fast_shapes import Taken
from data_prep.job import Job
from data_prep.read import array_rows
from data_prep.rows import RowReader
from data_prep.rules import suspicious

if TYPE_CHECKING:
    from data_prep.token_count import TokenCounter


_OPENING = len('{"messages":[')


@dataclass
class Cooked:
    """The rows of one block. Row numbers count from 1 within it."""

    begin: int
    """Offset in the file of the first row."""
    end: int
    """Offset of the row after the last."""
    sure: bool = True
    """False when the rows could not be told apart from a guessed beginning: see `Cook.again`."""
    numbers: int = 0
    """Lines or elements, blank lines included."""
    conversations: list[Conversation | None] = field(default_factory=list)
    """The kept rows; None for those with `chars` when only lines are wanted."""
    lines: list[bytes] = field(default_factory=list)
    """The conversations as JSON, without line end and without the system prompt of the job."""
    chars: list[int] = field(default_factory=list)
    """Characters of each that is one question and one answer; 0 of any other."""
    at: list[int] = field(default_factory=list)
    """The number of each."""
    rejected: list[tuple[int, Reason, bytes]] = field(default_factory=list)
    repaired: Counter[str] = field(default_factory=Counter)
    broken: str | None = None
    """What is wrong with the file as a whole; nothing after this block can be read."""


class Cook:
    """Works on the blocks of one job; holds nothing that one block could hand to the next."""

    def __init__(self, job: Job) -> None:
        self._step = job.step
        self._readers = [RowReader(reading.format, reading.columns, job.rules) for reading in job.readings]
        self._suspicion = suspicious(job.rules)
        self._fast = [
            None
            if self._suspicion.everything
            else fast_path(reading.format, reading.columns, only_lines=not job.spooled and job.max_tokens is None)
            for reading in job.readings
        ]
        self._encode = msgspec.json.Encoder().encode
        self._max_tokens = job.max_tokens
        self._counter: TokenCounter | None = None
        if job.max_tokens is not None and job.tokenizer is not None:
            from data_prep.token_count import TokenCounter

            self._counter = TokenCounter(job.tokenizer)

    def block(self, fd: int, file: TextFile, index: int) -> Cooked:
        """The rows of one block of ``file``, open as ``fd``."""
        block = read_block(fd, file, index, self._step)
        if file.array:
            return self._elements(file, block)
        fast = self._fast[file.source]
        taken = left(split_lines(block.data)) if fast is None else fast.lines(block.data)
        cooked = Cooked(block.begin, block.begin + len(block.data))
        self._fill(cooked, file.source, taken, data=block.data)
        if block.large is not None:
            cooked.numbers += 1
            cooked.rejected.append((cooked.numbers, Reason.TOO_LARGE, block.large))
        return cooked

    def _elements(self, file: TextFile, block: Block) -> Cooked:
        fast = self._fast[file.source]
        doubtful = Cooked(block.begin, block.begin, sure=False)
        if block.end is None or fast is None or file.cut is None:
            return doubtful
        cooked = Cooked(block.begin, block.end)
        data = block.data
        if block.end == file.size:
            data = data.rstrip()
            if not data.endswith(b"]"):
                return Cooked(block.begin, block.end) if block.begin == file.size else doubtful
            data = data[:-1]
        if not data.strip():
            return cooked
        found = fast.elements(data, file.cut, file.indent)
        if found is None or (self._leave_suspects(found) and not are_whole(found.raw)):
            return doubtful
        self._fill(cooked, file.source, found)
        return cooked

    def again(self, file: TextFile, index: int, begin: int, passed: int) -> Cooked:
        """The rows of one block of an array, the first of which begins at ``begin`` and has ``passed`` before it."""
        high = file.size if file.cut is None else min(file.start + (index + 1) * self._step, file.size)
        cooked = Cooked(begin, begin)
        if begin >= high:
            return cooked  # an element that began before covers the whole block
        rows: list[RawRow] = []
        with file.path.open("rb") as stream:
            stream.seek(begin)
            try:
                for row, end in array_rows(stream, file.path, None if index == 0 else passed):
                    rows.append(row)
                    cooked.end = file.size if end is None else end
                    if end is not None and end >= high:
                        break
                    if len(rows) >= 512:
                        self._fill_rows(cooked, file, rows)
                        rows = []
            except RejectedError as error:
                cooked.broken = str(error)
        self._fill_rows(cooked, file, rows)
        return cooked

    def _fill_rows(self, cooked: Cooked, file: TextFile, rows: Sequence[RawRow]) -> None:
        fast = self._fast[file.source]
        raw = [b"" if row.fault else row.data for row in rows]
        taken = left(raw) if fast is None else fast.each(raw, indent=file.indent)
        self._fill(cooked, file.source, taken, rows=rows)

    def _fill(
        self, cooked: Cooked, source: int, taken: Taken, *, data: bytes | None = None, rows: Sequence[RawRow] = ()
    ) -> None:
        """Add rows to ``cooked``: as the fast path took them, or by the general one.

        ``data`` are the lines they were taken from; ``rows`` what is known of elements that were cut out one by one.
        """
        conversations, lines, chars, raw = taken
        self._leave_suspects(taken)
        base = cooked.numbers
        cooked.numbers += len(lines)
        if None in lines:
            for at, line in enumerate(lines):
                if line is not None:
                    continue
                row = rows[at] if rows else RawRow(0, raw[at].strip(), None)
                if data is not None:
                    if not row.data:
                        continue  # a blank line
                    row = row._replace(last=at == len(lines) - 1 and not data.endswith(b"\n"))
                parsed, repairs = self._readers[source].read(row)
                if isinstance(parsed, Reject):
                    cooked.rejected.append((base + at + 1, parsed.reason, row.data))
                    continue
                cooked.repaired.update(repairs)
                conversations[at], lines[at], chars[at] = parsed, self._encode(parsed), 0
        if self._counter is not None:
            self._refuse_long(cooked, base, taken, raw)
        if None in lines:
            kept = [at for at, line in enumerate(lines) if line is not None]
            cooked.at += [base + at + 1 for at in kept]
            cooked.chars += [chars[at] for at in kept]
            cooked.conversations += [conversations[at] for at in kept]
        else:
            cooked.at += range(base + 1, base + 1 + len(lines))
            cooked.chars += chars
            cooked.conversations += conversations
        cooked.lines += filter(None, lines)

    def _leave_suspects(self, taken: Taken) -> bool:
        """Take back what the fast path took and the rules may have something to say about; whether there was any."""
        lines = taken.lines
        # Without the opening of a line, whose bracket would be found in every one.
        searched = [line[_OPENING:] for line in lines if line is not None]
        ends: list[int] = []
        for spot in self._suspicion.spots(b"\n".join(searched)):
            if not ends:
                ends = list(itertools.accumulate(len(text) + 1 for text in searched))
                kept = [at for at, line in enumerate(lines) if line is not None]
            at = kept[bisect.bisect_right(ends, spot)]
            taken.conversations[at] = lines[at] = None
        return bool(ends)

    def _refuse_long(self, cooked: Cooked, base: int, taken: Taken, raw: Sequence[bytes]) -> None:
        assert self._counter is not None
        assert self._max_tokens is not None
        for at, conversation in enumerate(taken.conversations):
            if conversation is not None and not self._counter.fits(conversation, self._max_tokens):
                cooked.rejected.append((base + at + 1, Reason.OVER_LENGTH, raw[at].strip()))
                taken.conversations[at] = taken.lines[at] = None


def left(raw: Sequence[bytes]) -> Taken:
    """Rows of which the fast path took none."""
    return Taken([None] * len(raw), [None] * len(raw), [0] * len(raw), raw)
