"""The options of a conversion, and whether they make sense."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.blocks import STEP
from data_prep.errors import InputError
from data_prep.job import Dedup
from data_prep.rules import Rules
from data_prep.sources import FORMATS, Source

_WORTH = 32 << 20
"""Bytes of input below which a second process costs more than it saves."""
_MOST_PROCESSES = 16


@dataclass(frozen=True)
class Options:
    """How to convert; the command line's options of the same names."""

    val_fraction: float = 0.02
    """In [0, 1)."""
    seed: int = 42
    system: str | None = None
    """Put before every conversation that has no system prompt; it moves no row between train and validation."""
    max_reject_fraction: float = 0.05
    """In [0, 1]."""
    dedup: Dedup = "exact"
    near_threshold: float = 0.7
    """Least Jaccard similarity of near-duplicates, over word 5-grams; in (0, 1]."""
    rules: Rules = field(default_factory=Rules)
    tokenizer: Path | None = None
    """Folder of the model's tokenizer: its special tokens are those that texts must not hold."""
    max_tokens: int | None = None
    """Rows with more tokens are refused."""
    decontaminate: tuple[tuple[str, Path], ...] = ()
    """(name, path) of benchmarks; rows that overlap them are dropped."""
    processes: int | None = None
    """None: as many as there are cores, for inputs that are worth it. The output is the same for any number."""
    step: int = STEP
    """Bytes of a block; the output is the same for any number."""


def check_arguments(sources: Sequence[Source], options: Options) -> None:
    """InputError for the first argument that is out of range."""
    if not sources:
        raise InputError("no source was given")
    for source in sources:
        if source.format not in FORMATS:
            raise InputError(f"{source.format!r} is no format; there are {', '.join(FORMATS)}")
        if source.limit is not None and source.limit < 1:
            raise InputError(f"{source.location}: limit (--limit) is {source.limit}, but must be at least 1")
        if not 0 < source.weight <= 1000:
            raise InputError(
                f"{source.location}: weight (--weight) is {source.weight}, but must be over 0, at most 1000"
            )
    if not 0 <= options.val_fraction < 1:
        raise InputError(f"val_fraction (--val-fraction) is {options.val_fraction}, but must be at least 0 and under 1")
    if not 0 <= options.max_reject_fraction <= 1:
        raise InputError(
            f"max_reject_fraction (--max-reject-fraction) is {options.max_reject_fraction}, but must be in 0 to 1"
        )
    if not 0 < options.near_threshold <= 1:
        raise InputError(
            f"near_threshold (--near-threshold) is {options.near_threshold}, but must be over 0, at most 1"
        )
    if options.system is not None and not options.system.strip():
        raise InputError("system (--system) is blank: leave it out, or give a text")
    if options.max_tokens is not None and (options.max_tokens < 1 or options.tokenizer is None):
        raise InputError("max_tokens (--max-tokens) must be at least 1, and needs a tokenizer (--tokenizer)")
    if options.processes is not None and options.processes < 1:
        raise InputError(f"processes (--processes) is {options.processes}, but must be at least 1")


def process_count(options: Options, size: int) -> int:
    """How many processes to use for ``size`` bytes of input."""
    if options.processes is not None:
        return options.processes
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_PROCESSES) if size >= _WORTH else 1
