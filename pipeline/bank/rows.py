"""The rows of a bank's file with the line each begins on: JSON Lines, a JSON array, CSV or TSV, in UTF-8."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CELL_LIMIT = 16 << 20


@dataclass(frozen=True)
class Raw:
    """One row, or the reason why there is none."""

    line: int
    values: Mapping[str, Any]
    """By column, in lower case with underscores."""
    problem: str = ""


def read(path: Path) -> Iterator[Raw]:
    """Every row, blank lines left out. What is no row is one with a `problem`; OSError where the file is not there."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield Raw(line, {}, f"not UTF-8 ({error.reason}); save the file as UTF-8")
        return
    if text.startswith("version https://git-lfs"):
        yield Raw(1, {}, "a git-lfs pointer, not the data; fetch it (git lfs pull)")
    elif path.suffix.lower() in (".csv", ".tsv"):
        yield from _table(text, "\t" if path.suffix.lower() == ".tsv" else ",")
    elif text.lstrip().startswith("["):
        yield from _array(text)
    else:
        for number, row in enumerate(text.split("\n"), 1):
            if row.strip():
                yield _row(number, *_decode(row))


def _decode(text: str) -> tuple[object, str]:
    try:
        return json.loads(text), ""
    except (ValueError, RecursionError) as error:
        return None, f"no JSON ({error}); mend the line, or give the file its true ending (.jsonl, .json, .csv, .tsv)"


def _array(text: str) -> Iterator[Raw]:
    """Elements one by one, so that each has its line and a broken one is named."""
    decoder = json.JSONDecoder()
    at, line, counted = text.index("[") + 1, 1, 0
    while True:
        at = _skip(text, at)
        line, counted = line + text.count("\n", counted, at), at
        if text[at : at + 1] == "]":
            if text[at + 1 :].strip():
                yield Raw(line, {}, "the array ends here, but the file goes on; give one array, or one object per line")
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield Raw(line, {}, f"no JSON ({error}); the rest of the array cannot be read")
            return
        yield _row(line, value, "")
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at += 1
        elif text[at : at + 1] != "]":
            yield Raw(line, {}, "the array is cut off, or a comma is missing after this element")
            return


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _row(line: int, value: object, problem: str) -> Raw:
    if not problem and not isinstance(value, dict):
        problem = "no JSON object; a row is {...}"
    if problem or not isinstance(value, dict):
        return Raw(line, {}, problem)
    names = [_spelt(str(key)) for key in value]
    twice = next((name for name in names if names.count(name) > 1), None)
    return Raw(
        line, dict(zip(names, value.values(), strict=True)), f"two columns are called {twice!r}" if twice else ""
    )


def _table(text: str, delimiter: str) -> Iterator[Raw]:
    csv.field_size_limit(CELL_LIMIT)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            yield Raw(line, {}, f"no CSV ({error}); save the file again, with quotes around cells that hold quotes")
            return
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [_spelt(cell) for cell in cells]
            twice = next((name for name in header if header.count(name) > 1), None)
            if twice is not None:
                yield Raw(line, {}, f"two columns are called {twice!r}; rename one")
                return
        elif len(cells) > len(header):
            yield Raw(line, {}, f"{len(cells)} cells under {len(header)} columns; quote cells that hold {delimiter!r}")
        else:
            yield Raw(line, dict(zip(header, cells, strict=False)))


def _spelt(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
