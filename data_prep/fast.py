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
from io import BytesIO
from itertools import pairwise
from typing import Any

import msgspec

from data_prep.fast_shapes import AlpacaShape, Taken, TurnsShape, is_text
from data_prep.read import MAX_ROW_BYTES

_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_LETTER_ESCAPE = re.compile(rb"\\u00[4-7]")
"""In a key that is spelled with escapes there is one of these: all characters of our keys are letters."""
_FEW = 8
"""With more doubtful rows than one in this many, one check of the whole block is cheaper."""


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

    def lines(self, data: bytes) -> Taken:
        """Take rows out of ``data``, whole lines; blank ones count as rows, and are left."""
        raw = split_lines(data)
        try:
            rows: list[Any] = self._decode_lines(data)
        except _BROKEN:
            return self.each(raw, end=1)
        if len(rows) != len(raw):
            return self.each(raw, end=1)
        return self._checked(data, rows, *self._shape.take(rows, raw, indent=0, end=1))

    def each(self, raw: Sequence[bytes], *, indent: int = 0, end: int = 0) -> Taken:
        """Take rows out of ``raw``, one at a time; ``indent`` and ``end`` are those of `AlpacaShape.take`."""
        rows = [self._decoded(data) for data in raw]
        return self._checked(None, rows, *self._shape.take(rows, raw, indent=indent, end=end))

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
        taken = self._checked(data, rows, *self._shape.take(rows, raw, indent=indent, end=0))
        if None in taken.lines and not are_whole(raw):
            return None
        return taken

    def _decoded(self, data: bytes) -> Any:
        try:
            return self._decode(data)
        except _BROKEN:
            return None

    def _checked(self, data: bytes | None, rows: Sequence[Any], taken: Taken, doubtful: Sequence[int]) -> Taken:
        """What was taken, without the ``doubtful`` rows that hold more than was read."""
        raw = taken.raw
        if data is not None and len(doubtful) * _FEW > len(raw) and _one_each(raw) and self._single(data, rows):
            return taken
        for at in doubtful:
            if not self._single(raw[at], [rows[at]]):
                taken.conversations[at] = taken.lines[at] = None
        return taken

    def _single(self, data: bytes, rows: Sequence[Any]) -> bool:
        """True when no key that is read occurs twice in one object of ``data``, which was decoded to ``rows``."""
        # Every key read is there at least as often as its values, so no key is repeated where the sums are equal.
        if any(data.count(key) != values for key, values in self._shape.keys(rows)):
            return False
        if _LETTER_ESCAPE.search(data):
            return False
        return is_text(data)


def are_whole(elements: Sequence[bytes]) -> bool:
    """Whether each of ``elements`` is one JSON value, so that no cut between them is wrong."""
    try:
        for element in elements:
            msgspec.json.decode(element, type=msgspec.Raw)
    except _BROKEN:
        return False
    return True


def _one_each(raw: Sequence[bytes]) -> bool:
    """Whether each of ``raw``, which together are as many objects, is one of them.

    No part of an object both begins and ends like a whole one: after a brace that closes no other opens.
    """
    return all(piece.startswith(b"{") and piece.rstrip().endswith(b"}") for piece in raw)


def split_lines(data: bytes) -> list[bytes]:
    """The lines of ``data``, each with its end; the last gets one if it lacks it."""
    lines = BytesIO(data).readlines()  # three times as fast as to split
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += b"\n"
    return lines
