"""The items of a finished evaluation, one a line: samples.jsonl in the output folder of its stage."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from pipeline import jsonl
from pipeline.errors import OutputError
from pipeline.files import write_text
from pipeline.results import Sample

FILE = "samples.jsonl"


def write(path: Path, samples: Iterable[Sample]) -> None:
    """Replace the file; fields at their defaults are left out."""
    write_text(path, "".join(f"{sample.model_dump_json(exclude_defaults=True)}\n" for sample in samples))


def read(path: Path, count: int | None = None) -> list[Sample]:
    """All of them, in the file's order. `count`: how many there have to be.

    Raises OutputError with file and line for what is cut or wrong: a score without all of its items is none.
    """
    found = []
    for number, line in jsonl.lines(path):
        try:
            found.append(Sample.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            problem = f"{where}: {first['msg']}" if where else first["msg"]
            raise OutputError(f"{path}, line {number}: cut or no sample ({problem}); {jsonl.REMEDY}") from error
    if count is not None and len(found) != count:
        raise OutputError(f"{path}: holds {len(found)} of {count} samples; {jsonl.REMEDY}")
    return found
