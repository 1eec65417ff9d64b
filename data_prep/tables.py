"""CSV, TSV and Parquet, row by row as JSON Lines, in bounded memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from data_prep.errors import InputError, RejectedError

MAX_RECORD = 16 << 20
"""Bytes of one record of CSV; a longer one has lost a quote, or is no row."""
_BATCH = 512


def csv_lines(
    path: Path, stream: Lines, separator: str, nested: frozenset[str], say: Callable[[str], None] | None
) -> Iterator[bytes]:
    """Yield each record below the header as a line of JSON.

    A record becomes an object of strings, with the columns ``nested`` decoded where they hold JSON. One with more or
    fewer cells than the header, or with a stray quote, becomes a string, one that is not UTF-8 keeps its bytes: both
    are refused when the lines are read, and their text is in ``rejects.jsonl``. Raises InputError for a header that is
    none, RejectedError where the records cannot be told apart.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD))
    lines = TextLines(path, stream)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    names = header(path, reader, lines, separator)
    encode = msgspec.json.Encoder().encode
    bad: list[int] = []
    while True:
        lines.begin()
        try:
            cells = next(reader)
            if not cells:
                continue
            # Another number of cells than names is a ValueError, as is a cell that is not UTF-8.
            yield encode({n: cell(c) if n in nested else c for n, c in zip(names, cells, strict=True)}) + b"\n"
        except StopIteration:
            break
        except (csv.Error, ValueError) as error:
            if lines.ended:
                raise RejectedError(
                    f"{path}: the file ends inside the quoted cell of the row that begins at line {lines.first}: it is "
                    f"truncated, or a quote is missing there. Fetch it again, or repair it there"
                ) from error
            bad.append(lines.first)
            text = "".join(lines.taken).rstrip("\r\n")
            yield json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
    if bad and say is not None:
        say(
            f"{path}: {len(bad)} rows are refused, because they do not have the {len(names)} cells of the header, have "
            f"a stray quote or are not UTF-8; they begin at line {', '.join(map(str, bad[:5]))}"
            + (", ..." if len(bad) > 5 else "")
        )


def header(path: Path, reader: Iterator[list[str]], lines: TextLines, separator: str) -> list[str]:
    """The names of the columns, without blanks around them."""
    cells: list[str] = []
    try:
        while not cells:
            lines.begin()
            cells = next(reader)
    except StopIteration:
        raise InputError(f"{path}: the file is empty: a table begins with the names of its columns") from None
    except csv.Error as error:
        raise InputError(
            f"{path}: line {lines.first}, the names of the columns: {error}. Quote names with commas or line "
            f"breaks, and end lines with LF or CRLF"
        ) from error
    text = "".join(lines.taken)
    names = [name.strip() for name in cells]
    if any("\udc80" <= char <= "\udcff" for char in text):
        raise InputError(f"{path}: line {lines.first} is not UTF-8 (GBK from Excel?): save it as 'CSV UTF-8'")
    for other, what in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
        if len(names) == 1 and other in text and other != separator:
            raise InputError(
                f"{path}: its cells seem to stand between {what}: use commas in .csv and tabs in .tsv files"
            )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: two columns are called {twice[0]!r} in line {lines.first}: rename one of them")
    return names


def cell(text: str) -> object:
    """The JSON list or object that ``text`` is, null for a blank, else the text."""
    stripped = text.strip()
    if not stripped:
        return None
    if stripped[0] in "[{":
        try:
            return msgspec.json.decode(stripped)
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
            return text
    return text


def parquet_lines(path: Path, notice: Callable[[int, int], None]) -> Iterator[bytes]:
    """Yield each row of a Parquet file as a line of JSON: lists and structs as they nest, NaN as null.

    ``notice`` gets the rows done and the rows there are. Raises InputError for columns that JSON cannot hold, and
    RejectedError for a file that is cut off or broken.
    """
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"{path}: Parquet needs pyarrow: pip install pyarrow") from error

    encode = msgspec.json.Encoder().encode
    done = 0
    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as table:
            refuse_binary(path, table.schema_arrow)
            total = table.metadata.num_rows
            for batch in table.iter_batches(batch_size=_BATCH, use_threads=False):
                yield b"".join(encode(row) + b"\n" for row in batch.to_pylist(maps_as_pydicts="strict"))
                done += batch.num_rows
                notice(done, total)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise RejectedError(
            f"{path}: this Parquet file is truncated or broken after row {done} ({error}): fetch it again"
        ) from error
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: one of the rows {done + 1} to {done + _BATCH} has no form in JSON ({error}): save the columns "
            f"that matter as JSON Lines"
        ) from error


def refuse_binary(path: Path, schema: Any) -> None:
    """InputError when a column, or a field in one, holds bytes, as pictures and sound do."""
    for field in schema:
        if (name := binary_field(field)) is not None:
            raise InputError(
                f"{path}: column {name!r} holds binary data, such as pictures or sound: only text can be trained on "
                f"here. Save the text columns alone (as text: a column of UTF-8 strings), or take another data set"
            )


def binary_field(field: Any) -> str | None:
    """The dotted name of the first field at or below the Arrow field ``field`` that holds bytes, None without any."""
    import pyarrow as pa

    kind = field.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return str(field.name)
    for index in range(kind.num_fields):
        if (name := binary_field(kind.field(index))) is not None:
            return f"{field.name}.{name}"
    return None


class Lines(Protocol):
    """A binary file that is read by line."""

    def readline(self, size: int = -1, /) -> bytes:
        """One line with its end, ``size`` bytes of a longer one, nothing at the end."""


class TextLines:
    """The lines of a file as text, remembering those of the current record; bytes that are not UTF-8 as surrogates."""

    def __init__(self, path: Path, stream: Lines) -> None:
        self._path, self._stream = path, stream
        self._line = self._size = 0
        self.taken: list[str] = []
        self.first = 1
        """The line at which the current record begins, from 1."""
        self.ended = False
        """True when the current record wanted more lines than there are."""

    def begin(self) -> None:
        """Forget the record before."""
        self.taken, self._size, self.first = [], 0, self._line + 1

    def __iter__(self) -> TextLines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_RECORD + 1)
        if not line:
            self.ended = bool(self.taken)
            raise StopIteration
        self._line += 1
        self._size += len(line)
        if self._size > MAX_RECORD:
            raise RejectedError(
                f"{self._path}: the row that begins at line {self.first} goes on for more than {MAX_RECORD >> 20} MiB: "
                f"a quote that opens a cell there is not closed, or the lines do not end with LF. Repair it there"
            )
        text = line.decode("utf-8", "surrogateescape")
        self.taken.append(text.removeprefix("\ufeff") if self._line == 1 else text)
        return self.taken[-1]
