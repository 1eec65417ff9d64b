"""Files that wrap rows in something else (gzip, CSV, TSV, Parquet): unpacked into plain JSON text, in bounded memory.

What a file is, its first bytes say; only CSV and TSV, which have no mark of their own, are known by their names.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, TypeAlias, cast

from data_prep.errors import InputError, RejectedError
from data_prep.tables import csv_lines, parquet_lines

DATA_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".csv", ".tsv", ".parquet")
"""How the names of the files end that are taken from a folder; the hubs' metadata files are not told apart here."""
NESTED = frozenset({"conversations", "conversation", "messages", "history", "tools"})
"""Columns of CSV and TSV whose cells are JSON text where they can be."""
_HEAD = 512
_CHUNK = 1 << 20
_SAY_SECONDS = 2.0
_GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_TABLES = {".csv": ",", ".tsv": "\t"}
_MARKS = {
    b"PK\x03\x04": "a zip archive: unpack it first (unzip)",
    b"\x28\xb5\x2f\xfd": "zstd: unpack it first (unzstd)",
    b"\xfd7zXZ\x00": "xz: unpack it first (unxz)",
    b"BZh": "bzip2: unpack it first (bunzip2)",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it first (7z x)",
    b"\xff\xfe": "UTF-16 or UTF-32: save it as UTF-8 first",
    b"\xfe\xff": "UTF-16: save it as UTF-8 first",
    b"\x00\x00\xfe\xff": "UTF-32: save it as UTF-8 first",
    b"PARE": "encrypted Parquet: decrypt it, or save it as JSON Lines first",
    b"ARROW1": "an Arrow file: save it as JSON Lines or Parquet first",
    b"SQLite format 3": "an SQLite database: export the table as JSON Lines or CSV first",
    b"%PDF-": "a PDF, not rows of data",
    b"version https://git-lfs": "a git-lfs pointer, not the data: fetch it again (git lfs pull)",
}
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
# JSON text begins with an ASCII mark, so a NUL beside it is half of a UTF-16 character.
_WIDE = tuple(mark for char in b'{["' for mark in (bytes((char, 0)), bytes((0, char))))

Say: TypeAlias = Callable[[str], None]


def foreign(head: bytes) -> str | None:
    """What a file that begins with ``head`` is and what to do about it, when it can be read by no means here.

    None for JSON text, gzip, Parquet and anything unknown. 265 bytes of ``head`` suffice for every mark.
    """
    for mark, advice in _MARKS.items():
        if head.startswith(mark):
            return advice
    if head.startswith(_WIDE):
        return "UTF-16: save it as UTF-8 first"
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first (tar -xf)"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGES):
        return "a web page or XML, not data: download it again"
    return None


def is_data_name(name: str) -> bool:
    """True when a file called ``name`` is one that a folder scan takes."""
    return name.lower().endswith(DATA_SUFFIXES)


def unpacked(path: Path, folder: Path, *, nested: Collection[str] = NESTED, say: Say | None = None) -> Path | None:
    """The rows of ``path`` as a new plain file in ``folder``, or None when ``path`` is plain text to be read in place.

    A gzip file gives its content as it is, JSON Lines or an array. CSV, TSV and Parquet give one line per row, so that
    line n is row n below the header; a row of CSV that is wrong gives a line that is no object, or no UTF-8, and is
    refused as such with its text. Cells of CSV are strings, but for those in the columns ``nested`` that hold JSON
    text. ``say`` gets a line every two seconds. The caller deletes the file; after an error there is none.

    Raises InputError for what can be read by no means here, and RejectedError for a file that is cut off or broken.
    """
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
        if (what := foreign(head)) is not None:
            raise InputError(f"{path}: this is {what}")
        progress = Progress(path, say)
        if head.startswith(_GZIP):
            stream.seek(0)
            return written(path, folder, gunzip(path, cast("IO[bytes]", progress.watched(stream))))
        if head.startswith(_PARQUET):
            return written(path, folder, parquet_lines(path, progress.rows))
        separator = _TABLES.get(path.suffix.lower())
        if separator is None or head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"[")):
            return None
        stream.seek(0)
        return written(path, folder, csv_lines(path, progress.watched(stream), separator, frozenset(nested), say))


def gunzip(path: Path, stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of all members of the gzip file ``stream``, piece by piece."""
    inner = path.with_suffix("").suffix.lower() if path.suffix.lower() in (".gz", ".gzip") else ""
    if inner in _TABLES:
        raise InputError(f"{path}: this is a gzip of a {inner[1:].upper()} file: unpack it first (gunzip)")
    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as unzipped:
            piece = unzipped.read(_CHUNK)
            what = "Parquet: unpack it first (gunzip)" if piece.startswith(_PARQUET) else foreign(piece)
            if piece.startswith(_GZIP):
                what = "gzip once more: unpack it first (gunzip)"
            if what is not None:
                raise InputError(f"{path}: this is gzip, and inside is {what}")
            while piece:
                yield piece
                piece = unzipped.read(_CHUNK)
    except EOFError as error:
        raise RejectedError(f"{path}: this gzip file is truncated: fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise RejectedError(f"{path}: this gzip file is broken ({error}): fetch it again") from error


def written(path: Path, folder: Path, pieces: Iterator[bytes]) -> Path:
    """Write ``pieces`` to a new file in ``folder``, named after ``path``; nothing is left of it after an error."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".jsonl", dir=folder)
    with removed_on_error(Path(name)) as target, os.fdopen(descriptor, "wb") as out:
        for piece in pieces:
            out.write(piece)
    return target


@contextmanager
def removed_on_error(path: Path) -> Iterator[Path]:
    """Delete ``path`` when the block does not end well."""
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


class Progress:
    """Says every two seconds how much of a file has been read."""

    def __init__(self, path: Path, say: Say | None) -> None:
        self._path, self._say = path, say
        self._began = self._said = time.monotonic()

    def rows(self, done: int, total: int) -> None:
        """Take notice that ``done`` of ``total`` units have been read."""
        now = time.monotonic()
        if self._say is None or now - self._said < _SAY_SECONDS or not done:
            return
        self._said = now
        left = (now - self._began) * (total - done) / done
        self._say(f"{self._path.name}: unpacking, {done / total:.0%}, about {left:.0f} s left")

    def watched(self, stream: BinaryIO) -> Watched:
        """``stream``, with the bytes taken from it noticed."""
        return Watched(stream, self._path.stat().st_size, self.rows)


class Watched:
    """A binary file that tells how far it has been read."""

    def __init__(self, stream: BinaryIO, size: int, notice: Callable[[int, int], None]) -> None:
        self._stream, self._size, self._notice = stream, size, notice
        self._done = 0

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes."""
        return self._count(self._stream.read(size))

    def readline(self, size: int = -1) -> bytes:
        """One line, or ``size`` bytes of it."""
        return self._count(self._stream.readline(size))

    def _count(self, data: bytes) -> bytes:
        self._done += len(data)
        self._notice(self._done, self._size)
        return data
