"""The lengths of many rows in the model's tokens, by one process or several, in the rows' order."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_prep.files import to_stderr
from data_prep.languages import language
from data_prep.line_sample import Line, records
from data_prep.template import EncodeError, RowTemplate, TemplateSpec

SPREAD = 20_000
"""Rows from which further processes are worth the seconds that each takes to start."""
_CHUNK = 200
_SAY_SECONDS = 2.0


def measure_all(
    path: Path, lines: Sequence[Line], template: RowTemplate, spec: TemplateSpec, processes: int
) -> Iterator[Measured]:
    """Each of ``lines`` measured, in this order, by one process or several; says how far it is."""
    chunks = [lines[at : at + _CHUNK] for at in range(0, len(lines), _CHUNK)]
    began = said = time.monotonic()
    done = 0
    for measured in measure_chunks(path, chunks, template, spec, processes if len(lines) >= SPREAD else 1):
        yield from measured
        done += len(measured)
        now = time.monotonic()
        if now - said >= _SAY_SECONDS:
            said = now
            left = (now - began) * (len(lines) - done) / done
            to_stderr(f"{path.name}: {done} of {len(lines)} rows, {done / (now - began):.0f} rows/s, {left:.0f} s left")


def measure_chunks(
    path: Path, chunks: Sequence[Sequence[Line]], template: RowTemplate, spec: TemplateSpec, processes: int
) -> Iterator[list[Measured]]:
    """`measure` of each chunk, in order."""
    if processes == 1:
        for chunk in chunks:
            yield measure(template, path, chunk)
        return
    # Spawned, not forked: the tokenizer's threads and torch's do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=load, initargs=(spec,)) as pool:
        yield from pool.map(partial(measure_here, path), chunks)


def load(spec: TemplateSpec) -> None:
    """Load the template of this worker process."""
    global _TEMPLATE
    _TEMPLATE = RowTemplate(spec)


def measure_here(path: Path, lines: Sequence[Line]) -> list[Measured]:
    """`measure` with the template of this worker process."""
    assert _TEMPLATE is not None
    return measure(_TEMPLATE, path, lines)


def measure(template: RowTemplate, path: Path, lines: Sequence[Line]) -> list[Measured]:
    """The lengths of the rows in ``lines`` of ``path``."""
    measured: list[Measured] = []
    for number, record in records(path, lines):
        spoken = language(spoken_text(record))
        try:
            encoded = template.encode(record)
        except EncodeError as error:
            measured.append(Measured(number, None, 0, 0, 0, spoken, str(error)))
        else:
            learned = [place for place, trained in enumerate(encoded.trained) if trained and place] or [0]
            ends = learned[0], learned[-1]
            measured.append(Measured(number, len(encoded.ids), sum(encoded.trained), *ends, spoken, ""))
    return measured


def spoken_text(record: dict[str, object]) -> str:
    """The user and assistant turns of a row: what it has in a language, without prompts, calls and responses."""
    messages = record["messages"]
    assert isinstance(messages, list)
    turns = [turn for turn in messages if isinstance(turn, dict) and turn.get("role") in ("user", "assistant")]
    return "\n".join(text for turn in turns if isinstance(text := turn.get("content"), str))


class Measured(NamedTuple):
    """One row: its line, its tokens (None when it cannot be encoded, with the error), those learned, its language.

    ``first`` and ``last`` are places of learned tokens, see `lengths.trained_length`.
    """

    line: int
    tokens: int | None
    trained: int
    first: int
    last: int
    language: str
    error: str


_TEMPLATE: RowTemplate | None = None
