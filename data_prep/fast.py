"""The typed fast path: rows of the usual shape, decoded straight into structs and checked a block at a time.

It takes a row or leaves it; what it leaves goes to `rows.RowReader`, which is slower and knows every rule. A row it
takes comes out as `RowReader` would give it, without any repair. Whether it takes a row depends on that row alone,
never on its neighbours: a check of the whole block only saves checking its rows one by one.

Decoding into a struct cannot see two things: a key that occurs twice, and broken text in a field that nobody reads.
Both show in the length of a row: what was read says how long the row must be, and a repeated or unknown field makes it
longer. Only rows of another length are searched for their keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from data_prep.conversation import Conversation
from data_prep.fast_shapes import AlpacaShape, Read, Sizes, TurnsShape
from data_prep.read import MAX_ROW_BYTES

_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_LETTER_ESCAPE = re.compile(rb"\\u00[4-7]")
"""In a key that is spelled with escapes there is one of these: all characters of our keys are letters."""
_LINE_SIZES = 2
"""How many `Sizes` a row on one line has; one that may be indented has more."""
_FEW = 8
"""With more doubtful rows than one in this many, one check of the whole block is cheaper."""


class Taken(NamedTuple):
    """What became of the rows of a block, one entry per row in each list."""

    conversations: list[Conversation | None]
    """None where `lines` has None, and of any row when only lines are wanted."""
    lines: list[bytes | None]
    """The rows as they are written, without line end; None is left to `RowReader`."""
    chars: list[int]
    """Characters of a row that is one question and one answer; 0 of any other."""
    raw: Sequence[bytes]
    """The rows as they were read."""


def fast_path(format_name: str, columns: Mapping[str, str], *, only_lines: bool) -> FastPath | None:
    """The fast path for a format under a mapping of columns (field -> the file's name), None when there is none.

    With ``only_lines`` it makes no conversations of the rows for which it gives characters.
    """
    if format_name == "alpaca" and AlpacaShape.takes(columns):
        return FastPath(AlpacaShape(columns, only_lines=only_lines))
    if format_name in ("sharegpt", "messages") and not columns:
        return FastPath(TurnsShape(format_name))
    return None


class FastPath:
    """Takes rows of one shape."""

    def __init__(self, shape: AlpacaShape | TurnsShape) -> None:
        self._shape = shape
        row = shape.row
        self._decode_lines = msgspec.json.Decoder(row).decode_lines
        self._decode_list = msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]
        self._decode = msgspec.json.Decoder(row).decode
        self._encode = msgspec.json.Encoder().encode

    def lines(self, data: bytes) -> Taken:
        """Take rows out of ``data``, whole lines; blank ones count as rows, and are left."""
        raw = split_lines(data)
        try:
            rows: list[Any] = self._decode_lines(data)
        except _BROKEN:
            return self.each(raw)
        if len(rows) != len(raw):
            return self.each(raw)
        read = self._shape.take(rows)
        return self._checked(data, raw, rows, read, self._encoded(read.rows))

    def each(self, raw: Sequence[bytes]) -> Taken:
        """Take rows out of ``raw``, one at a time."""
        rows = [self._decoded(data) for data in raw]
        read = self._shape.take(rows)
        return self._checked(None, raw, rows, read, self._encoded(read.rows))

    def elements(self, data: bytes, cut: bytes, indent: int) -> Taken | None:
        """Take rows out of ``data``, elements of an array with commas between.

        ``cut`` and ``indent`` are those of `blocks.TextFile`. None when ``data`` is not a whole number of readable
        elements, as after a wrong cut, or when ``cut`` does not find its way through them.
        """
        try:
            rows: list[Any] = self._decode_list(b"[" + data + b"]")
        except _BROKEN:
            return None
        commas = [match.start(1) for match in re.finditer(cut, data)]
        raw = [data[begin + 1 : end].strip() for begin, end in pairwise((-1, *commas, len(data)))]
        if len(rows) != len(raw) or (len(data) > MAX_ROW_BYTES and max(map(len, raw)) > MAX_ROW_BYTES):
            return None
        self._shape.indented(indent)
        read = self._shape.take(rows)
        taken = self._checked(data, raw, rows, read, self._encoded(read.rows))
        if None in taken.lines and not are_whole(raw):
            return None
        return taken

    def _decoded(self, data: bytes) -> Any:
        try:
            return self._decode(data)
        except _BROKEN:
            return None

    def _encoded(self, rows: Sequence[Conversation | bytes | None]) -> list[bytes | None]:
        encode = self._encode
        return [row if row is None or type(row) is bytes else encode(row) for row in rows]

    def _checked(
        self, data: bytes | None, raw: Sequence[bytes], rows: Sequence[Any], read: Read, lines: list[bytes | None]
    ) -> Taken:
        """What was read, without the rows that may hold more than was read."""
        doubtful = [
            at
            for at, (line, source, size) in enumerate(zip(lines, raw, read.sizes, strict=True))
            if line is not None
            and (
                (excess := len(source) - len(line)) not in size
                or (
                    excess != size[0]
                    and not (source.isascii() and len(size) == _LINE_SIZES)
                    and not _fits(source, size)
                )
            )
        ]
        taken = Taken(_conversations(read.rows), lines, read.chars, raw)
        if data is not None and len(doubtful) * _FEW > len(raw) and _one_each(raw) and self._single(data, rows):
            return taken
        for at in doubtful:
            if not self._single(raw[at], [rows[at]]):
                taken.conversations[at] = lines[at] = None
        return taken

    def _single(self, data: bytes, rows: Sequence[Any]) -> bool:
        """True when no key that is read occurs twice in one object of ``data``, which was decoded to ``rows``."""
        # Every key read is there at least as often as its values, so no key is repeated where the sums are equal.
        if any(data.count(key) != values for key, values in self._shape.keys(rows)):
            return False
        if _LETTER_ESCAPE.search(data):
            return False
        if data.isascii():
            return True
        try:
            data.decode()
        except UnicodeDecodeError:
            return False
        return True


def are_whole(elements: Sequence[bytes]) -> bool:
    """Whether each of ``elements`` is one JSON value, so that no cut between them is wrong."""
    try:
        for element in elements:
            msgspec.json.decode(element, type=msgspec.Raw)
    except _BROKEN:
        return False
    return True


def _fits(source: bytes, sizes: Sizes) -> bool:
    """Whether a row that is as long as it would be with white space between its fields has that, and no broken text.

    Otherwise there would be room for a tiny field.
    """
    if len(sizes) > _LINE_SIZES and b"\n" not in source:
        return False
    try:
        source.decode()
    except UnicodeDecodeError:
        return False
    return True


def _one_each(raw: Sequence[bytes]) -> bool:
    """Whether each of ``raw``, which together are as many objects, is one of them.

    No part of an object both begins and ends like a whole one: after a brace that closes no other opens.
    """
    return all(piece.startswith(b"{") and piece.rstrip().endswith(b"}") for piece in raw)


def _conversations(rows: Sequence[Conversation | bytes | None]) -> list[Conversation | None]:
    return [None if type(row) is bytes else row for row in rows]  # type: ignore[misc]


def split_lines(data: bytes) -> list[bytes]:
    """The lines of ``data`` without their ends; the last may lack one."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines
