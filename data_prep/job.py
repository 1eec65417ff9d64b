"""What a conversion is to do, as inert data that any process can be handed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from data_prep.blocks import STEP, TextFile
from data_prep.rules import Rules
from data_prep.sources import FormatName

Dedup: TypeAlias = Literal["none", "exact", "near"]

DUPLICATES, CONTAMINATED = "duplicates.jsonl", "contaminated.jsonl"


@dataclass(frozen=True)
class Reading:
    """How the rows of one source are read."""

    format: FormatName
    columns: Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """All that the work on a block depends on."""

    files: tuple[TextFile, ...]
    readings: tuple[Reading, ...]
    """One per source."""
    folder: Path
    """Where the drafts of the output files are."""
    rules: Rules = field(default_factory=Rules)
    system: str | None = None
    val_fraction: float = 0.0
    seed: int = 42
    max_tokens: int | None = None
    tokenizer: Path | None = None
    dedup: Dedup = "none"
    index: Path | None = None
    """Folder of the contamination index; rows that overlap it are marked."""
    sampled: bool = False
    """Whether a source has a weight or a limit."""
    step: int = STEP

    @property
    def spooled(self) -> bool:
        """True when which rows are written is decided after all have been read."""
        return self.dedup != "none" or self.index is not None or self.sampled
