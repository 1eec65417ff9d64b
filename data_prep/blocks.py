"""Cutting a file into blocks that can be read and decoded independently of each other.

Block k of a file covers its bytes from ``start + k * step`` to ``start + (k + 1) * step`` and holds the rows that
begin there. In JSON Lines a line end is a line end. In an array a cut is a guess: the first place that looks like the
end of one element and the beginning of the next. The guess is proved by what comes of it: when the text from a true
beginning of an element to a cut reads as a list of whole elements, the cut is true, and with it the beginning of the
next block.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_prep.read import MAX_ROW_BYTES, text_kind

STEP = 256 * 1024
"""Bytes of a block; with larger ones the rows of a block leave the processor's cache before they are written."""
_MORE = 64 * 1024
_ROOM = 4 * 1024
_LAYOUT = re.compile(rb'\[\n( +)\{\n( +)"')
_FIRST_KEY = re.compile(rb'\{\s*("(?:[^"\\]|\\.)*")', re.DOTALL)


@dataclass(frozen=True)
class TextFile:
    """One file to read, and how it is cut."""

    source: int
    """Which source it belongs to, from 0."""
    label: str
    path: Path
    start: int
    """Offset of the first byte after a byte-order mark."""
    size: int
    """Bytes of the file."""
    array: bool
    cut: bytes | None = None
    """Of an array: pattern of the end of an element, a comma (group 1 ends there) and the next one's beginning."""
    indent: int = 0
    """Of an array with one field a line: spaces per level."""

    def blocks(self, step: int) -> int:
        """Number of blocks; an array whose elements have no known beginning is one block."""
        if self.array and self.cut is None:
            return 1
        return max(1, -(-(self.size - self.start) // step))


class Block(NamedTuple):
    """The rows that begin in one block, undecoded."""

    data: bytes
    """Whole lines, or array elements with the commas between them."""
    begin: int
    """Offset in the file of the first row."""
    end: int | None
    """Offset of the first row after them; None where it was not found."""
    large: bytes | None = None
    """Beginning of a last row that is longer than MAX_ROW_BYTES."""


def text_file(source: int, label: str, path: Path) -> TextFile:
    """Look at the beginning of ``path``; InputError when it is no JSON text."""
    start, array = text_kind(path)
    cut, indent = None, 0
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if array:
            stream.seek(start)
            head = stream.read(_MORE)
            if (layout := _LAYOUT.match(head)) is not None and len(layout[2]) == 2 * len(layout[1]):
                indent = len(layout[1])
            if (match := _FIRST_KEY.search(head)) is not None:
                # The first key of the first element keeps a nested "},{" from being taken for a cut.
                cut = rb"\}\s*(,)\s*\{\s*" + re.escape(match[1])
    return TextFile(source, label, path, start, size, array, cut, indent)


def read_block(fd: int, file: TextFile, index: int, step: int) -> Block:
    """Block ``index`` of ``file``, which is open as ``fd``."""
    low = file.start + index * step
    high = min(low + step, file.size)
    return _elements(fd, file, low, high, first=index == 0) if file.array else _lines(fd, low, high, first=index == 0)


def _lines(fd: int, low: int, high: int, *, first: bool) -> Block:
    # One byte before, to see whether a line begins right at the beginning; and room for the end of the last line.
    before = 0 if first else 1
    data = _read(fd, low - before, high - low + before + _ROOM)
    begin = 0 if first else data.find(b"\n", 0, high - low + before) + 1
    if (begin == 0 and not first) or begin + low - before >= high:
        return Block(b"", high, high)
    inside = high - low + before - 1  # of the last byte of the block, in `data`
    while (end := data.find(b"\n", inside) + 1) == 0:
        last = max(begin, data.rfind(b"\n", begin, inside) + 1)
        if len(data) - last > MAX_ROW_BYTES:
            break
        more = _read(fd, low - before + len(data), max(_MORE, len(data)))
        if not more:
            end = len(data)
            break
        inside = len(data)
        data += more
    last = max(begin, data.rfind(b"\n", begin, (end or len(data)) - 1) + 1)
    if len(data[last : end or len(data)].rstrip(b"\n")) > MAX_ROW_BYTES:
        return Block(data[begin:last], low - before + begin, None, data[last : last + 4096])
    return Block(data[begin:end], low - before + begin, low - before + end)


def _elements(fd: int, file: TextFile, low: int, high: int, *, first: bool) -> Block:
    if file.cut is None:
        return Block(b"", low, None)
    window = _Window(fd, low, re.compile(file.cut), _read(fd, low, high - low + _MORE))
    begin = low + window.data.index(b"[") + 1 if first else window.after_cut(low)
    end = file.size if high >= file.size else window.after_cut(high)
    if begin is None or end is None:
        return Block(b"", low if begin is None else begin, None)
    comma = int(end != file.size)
    return Block(window.data[begin - low : max(begin, end - comma) - low], begin, end)


class _Window:
    """Part of a file, from ``low`` on, read further as needed."""

    def __init__(self, fd: int, low: int, cut: re.Pattern[bytes], data: bytes) -> None:
        self._fd, self._low, self._cut, self.data = fd, low, cut, data

    def after_cut(self, wanted: int) -> int | None:
        """The offset after the comma of the first cut from ``wanted`` on, or the size of the file when none follows.

        None when the next MAX_ROW_BYTES hold none.
        """
        while True:
            match = self._cut.search(self.data, wanted - self._low)
            if match is not None:
                return self._low + match.end(1)
            if len(self.data) - (wanted - self._low) > MAX_ROW_BYTES:
                return None
            more = _read(self._fd, self._low + len(self.data), STEP)
            if not more:
                return self._low + len(self.data)
            self.data += more


def _read(fd: int, offset: int, length: int) -> bytes:
    """``length`` bytes from ``offset``; fewer only at the end of the file."""
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
