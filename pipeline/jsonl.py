"""JSON and JSON Lines files, some of other programs: what is missing, cut or wrong is named by file and line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError

REMEDY = "remove its stage folder and run again"


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """What is of another shape than expected inside becomes an OutputError that names the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise OutputError(f"{path}: not of the expected form ({type(error).__name__}: {error}); {REMEDY}") from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of every line that is not blank.

    Only a newline ends a line: an answer may hold U+2028, which is no end of line in JSON Lines.
    """
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            yield number, line


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Every line as a JSON object. Raises OutputError with file and line."""
    for number, line in lines(path):
        yield _object(line, f"{path}, line {number}")


def record(path: Path) -> dict[str, Any]:
    """The JSON object that is the whole file. Raises OutputError with the file."""
    return _object(_text(path), str(path))


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise OutputError(f"{where}: cut or no JSON ({error}); {REMEDY}") from error
    if not isinstance(found, dict):
        raise OutputError(f"{where}: no JSON object; {REMEDY}")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OutputError(f"{path}: missing or not to be read ({error}); {REMEDY}") from error
