"""The rows of one file of a benchmark: JSON Lines, a JSON array, CSV, TSV or Parquet."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO, Any

import msgspec

from data_prep.errors import InputError
from data_prep.eval_files import EvalFile

QUESTION_FIELDS = tuple("question question_stem ctx goal sentence problem query prompt input passage".split())
"""Columns that hold what is asked, the first that an item has counts; `ctx` before `query`, which harnesses add."""
_MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")
_HEADER_WORDS = frozenset({*QUESTION_FIELDS, "text", "content", "instruction", "messages"})
_CSV_FIELD_LIMIT = 16 << 20


@cache
def spelt(key: str) -> str:
    """The name of a column in lower case with underscores."""
    return key.strip().lower().replace("-", "_").replace(" ", "_")


def read_records(file: EvalFile) -> Iterator[Mapping[str, Any]]:
    """The rows of a data file: JSON Lines, a JSON array, CSV, TSV (each plain or gzip) or Parquet.

    Raises InputError for anything else, with the row that is broken.
    """
    suffixes = [suffix.lower() for suffix in file.path.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    try:
        if suffix == ".parquet":
            yield from _parquet(file.path)
            return
        with _text(file.path) as stream:
            if suffix in {".csv", ".tsv"}:
                yield from _table(file.path, stream, "\t" if suffix == ".tsv" else ",")
            else:
                yield from _json(file.path, stream)
    except UnicodeDecodeError as error:
        raise InputError(f"{file.path}: not UTF-8 text ({error.reason} at byte {error.start}): convert it") from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise InputError(f"{file.path}: a broken gzip file ({error}): fetch it again") from error


def _text(path: Path) -> IO[str]:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    opened = gzip.open(path, "rb") if packed else path.open("rb")  # noqa: SIM115 - closed by the wrapper
    # Only "\n" ends a line of JSON Lines, and the csv module wants line ends as they are.
    return io.TextIOWrapper(opened, encoding="utf-8-sig", newline="\n")


def _json(path: Path, stream: IO[str]) -> Iterator[Mapping[str, Any]]:
    first = next((line for line in stream if line.strip()), "")
    if first.lstrip().startswith("["):
        yield from _objects(path, _decoded(path, first + stream.read(), "the file"))
        return
    if first.strip() == "{" or (first.lstrip().startswith("{") and not first.rstrip().endswith("}")):
        yield from _wrapped(path, _decoded(path, first + stream.read(), "the file"))
        return
    number = 0
    for line in chain([first], stream):
        if not line.strip():
            continue
        number += 1
        value = _decoded(path, line, f"row {number}")
        if not isinstance(value, dict):
            raise InputError(f"{path}: row {number} is no JSON object, so it is no item: take it out")
        yield value


def _wrapped(path: Path, value: object) -> Iterator[Mapping[str, Any]]:
    """The rows of one object: its only list of objects, or the object itself."""
    lists = [inner for inner in value.values() if isinstance(inner, list)] if isinstance(value, dict) else []
    lists = [inner for inner in lists if inner and all(isinstance(row, dict) for row in inner)]
    if len(lists) != 1:
        raise InputError(
            f"{path}: one JSON object with {len(lists)} lists of objects; save the items as one array or as JSON Lines"
        )
    yield from _objects(path, lists[0])


def _objects(path: Path, value: object) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(value if isinstance(value, list) else [value], 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}: row {number} is no JSON object, so it is no item: take it out")
        yield row


def _decoded(path: Path, text: str, what: str) -> object:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        lfs = text.startswith("version https://git-lfs")
        why = (
            "a git-lfs pointer, not the data: fetch it again (git lfs pull)" if lfs else f"{what} is no JSON ({error})"
        )
        raise InputError(f"{path}: {why}") from error


def _table(path: Path, stream: IO[str], delimiter: str) -> Iterator[Mapping[str, Any]]:
    import csv

    csv.field_size_limit(_CSV_FIELD_LIMIT)
    try:
        rows = csv.reader(stream, delimiter=delimiter)
        first = next(rows, None)
        if first is None:
            return
        columns: Sequence[str] = first
        if not any(spelt(cell) in _HEADER_WORDS for cell in first):
            # MMLU as its authors publish it has no header.
            if len(first) != len(_MMLU_COLUMNS):
                raise InputError(
                    f"{path}: its first line names no column that holds a question ({', '.join(first[:6])[:200]}): "
                    f"add a header such as question,A,B,C,D,answer"
                )
            columns = _MMLU_COLUMNS
            yield dict(zip(columns, first, strict=False))
        for row in rows:
            if row:
                yield dict(zip(columns, row, strict=False))
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error}): save it again as CSV or as JSON Lines") from error


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"{path}: Parquet needs pyarrow (pip install pyarrow), or save it as JSON Lines") from error
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield _without_bytes(row)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: Parquet that cannot be read ({error}): fetch it again") from error


def _without_bytes(value: Any) -> Any:
    """Pictures and sounds are no text, and would swell what is kept of an item."""
    if isinstance(value, dict):
        return {key: _without_bytes(inner) for key, inner in value.items() if not isinstance(inner, bytes)}
    if isinstance(value, list):
        return [_without_bytes(inner) for inner in value if not isinstance(inner, bytes)]
    return value
