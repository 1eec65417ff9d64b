"""From a file to undecoded rows, in bounded memory: JSON Lines by line, a JSON array element by element.

Which of the two a file is, its first bytes say, never its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from data_prep.containers import foreign
from data_prep.conversation import Reason
from data_prep.decode import RawRow
from data_prep.errors import InputError, RejectedError

MAX_ROW_BYTES = 16 << 20
"""A longer row is refused and never held in memory as a whole."""
_CHUNK = 1 << 20
_KEEP = 4096
_BOM = b"\xef\xbb\xbf"
# One token: a whole string, a string whose end is not in the buffer yet, or a mark that nests or separates.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)


def read_rows(path: Path) -> Iterator[RawRow]:
    """Yield every row of ``path`` undecoded; blank lines are no rows.

    Raises InputError when it is no JSON text at all, RejectedError when an array is broken as a whole: then how many
    rows are missing cannot be known, and each row up to there has been yielded.
    """
    start, array = text_kind(path)
    with path.open("rb") as stream:
        stream.seek(start)
        if array:
            yield from (row for row, _ in array_rows(stream, path))
        else:
            yield from line_rows(stream)


def text_kind(path: Path) -> tuple[int, bool]:
    """Where the text of ``path`` begins (after a byte-order mark), and whether it is one JSON array."""
    with path.open("rb") as stream:
        head = stream.read(512)
        if (advice := foreign(head)) is not None:
            raise InputError(f"{path}: this is {advice}")
        start = len(_BOM) if head.startswith(_BOM) else 0
        stream.seek(start)
        return start, is_array(stream)


def is_array(stream: BinaryIO) -> bool:
    """True when the text is one JSON array, false when it is lines, even if the first line is a list."""
    line = b""
    while not line.strip():
        line = stream.readline(_CHUNK)
        if not line:
            return False
    if not line.lstrip().startswith(b"["):
        return False
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return True
    return not any(rest.strip() for rest in iter(lambda: stream.readline(_CHUNK), b""))


def line_rows(stream: BinaryIO) -> Iterator[RawRow]:
    """Yield the lines of JSON Lines, numbered from 1."""
    number = 0
    while line := stream.readline(MAX_ROW_BYTES + 1):
        number += 1
        ended = line.endswith(b"\n")
        if len(line) > MAX_ROW_BYTES and not ended:
            while (rest := stream.readline(_CHUNK)) and not rest.endswith(b"\n"):
                pass
            yield RawRow(number, line[:_KEEP], Reason.TOO_LARGE)
        elif line := line.strip():
            yield RawRow(number, line, None, not ended)


def array_rows(stream: BinaryIO, path: Path, passed: int | None = None) -> Iterator[tuple[RawRow, int | None]]:
    """Yield the elements of one JSON array, each with the offset in the file after its comma, None for the last.

    ``stream`` stands before the array, or inside it at the beginning of an element with ``passed`` others before it.
    See `read_rows` for the errors.
    """
    buffer, start, at = b"", 0, 0  # the element's beginning and where to look for the next token, in `buffer`
    depth, number = (0, 0) if passed is None else (1, passed)
    large = False
    read = stream.tell()
    while True:
        match = _TOKEN.search(buffer, at)
        token = b"" if match is None else match[0]
        if match is None or token == b'"':
            chunk = stream.read(_CHUNK)
            if not chunk:
                break
            read += len(chunk)
            buffer, at = buffer[start:], (len(buffer) if match is None else match.start()) - start
            start = 0
            if large or len(buffer) > MAX_ROW_BYTES:
                # Of a string that goes on, its quote stays (and a backslash that escapes what comes), to see its end.
                opened = b"" if match is None else b'"' + _dangling(buffer)
                buffer, large = buffer[:_KEEP] + opened, True
                at = len(buffer) - len(opened)
            buffer += chunk
            continue
        at = match.end()
        if token in (b"[", b"{"):
            depth += 1
            start = at if depth == 1 else start
        elif token in (b"]", b"}") and depth > 1:
            depth -= 1
        elif token in (b"]", b"}", b",") and depth == 1:
            text = buffer[start : match.start()].strip()
            if text or token == b",":
                number += 1
                row = RawRow(number, text[:_KEEP] if large else text, Reason.TOO_LARGE if large else None)
                yield row, read - (len(buffer) - at) if token == b"," else None
            start, large = at, False
            if token == b",":
                continue
            if token == b"]" and not buffer[at:].strip() and not _has_more(stream):
                return
            raise RejectedError(
                f"{path}: the array is closed after element {number}, but the file goes on: it is not one JSON array. "
                f"Give one array, or one object per line"
            )
    number += 1
    yield RawRow(number, buffer[start:].strip()[:_KEEP], Reason.TRUNCATED), None
    raise RejectedError(
        f"{path}: the file ends inside element {number} of its array: it is cut off, or a quote or bracket is missing "
        f"there, so how many rows are lost is unknown. Fetch it again, or repair it there"
    )


def _dangling(buffer: bytes) -> bytes:
    """The backslash at the end of ``buffer`` that escapes the byte after it, or nothing."""
    backslashes = len(buffer) - len(buffer.rstrip(b"\\"))
    return b"\\" if backslashes % 2 else b""


def _has_more(stream: BinaryIO) -> bool:
    return any(chunk.strip() for chunk in iter(lambda: stream.read(_CHUNK), b""))
