"""The `data` section of a recipe: where the rows come from, what is refused, and what they are checked against."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.fields import Auto, FilePath, Origin, Section


def _columns(value: dict[str, str]) -> dict[str, str]:
    for name, column in value.items():
        # They travel as NAME=COLUMN,NAME=COLUMN.
        if not name or not column or set(f"{name}{column}") & set("=,"):
            raise ValueError(f"{name!r}: {column!r}: names of fields and columns have neither '=' nor ','")
    return value


def _once(value: tuple[EvaluationSet, ...]) -> tuple[EvaluationSet, ...]:
    names = [entry.name for entry in value]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"two benchmarks are called {twice!r}: give each its own `name`")
    return value


class SourceSpec(Origin):
    """One file of rows, a folder of them, or a hub data set of training conversations."""

    format: Literal["auto", "alpaca", "sharegpt", "messages", "query", "xtuner"] = "auto"
    """What a row looks like; `auto` looks at the first rows and says what it took it for."""
    columns: Annotated[dict[str, str], AfterValidator(_columns)] = Field(default_factory=dict)
    """Field of the format -> this source's name for it: {instruction: question, output: answer}."""
    file: str | None = Field(default=None, min_length=1)
    """Name or glob of the files to take from a folder or hub data set; all row files when absent."""
    limit: int | None = Field(default=None, ge=1)
    """Rows: of those that are good, at most this many, chosen by hash of their content; the rest is counted apart."""
    weight: float = Field(default=1.0, gt=0)
    """How often each row is taken: 2 = twice, 0.5 = half of the rows, chosen by hash of their content."""


class EvaluationSet(Section):
    """Local data of one benchmark."""

    name: str = Field(pattern=r"^[^\s=][^=]*$")
    """What the report calls it; the harness's own name of the task lets the two be matched."""
    path: FilePath
    """A data file or a folder of them."""


class ContaminationSpec(Section):
    """Do training rows hold items of the evaluation sets? Shared runs of 13 words, or the whole of a short item."""

    action: Literal["report", "drop", "fail"] = "report"
    """`drop` removes such rows before training (so a new benchmark then trains anew); `fail` lets no training start;
    `report` says it, no more."""
    benchmarks: Auto | Annotated[tuple[EvaluationSet, ...], AfterValidator(_once)] = "auto"
    """`auto`: every evaluation set of this recipe that lies on this machine. [] = no check."""


class DataSpec(Section):
    sources: tuple[SourceSpec, ...] = Field(min_length=1)
    val_fraction: float = Field(default=0.02, ge=0, lt=1)
    """Share of the conversations that goes to val.jsonl, chosen by hash of the content. 0 = no validation."""
    split_seed: int = 42
    """Of the split, and of what `limit` and `weight` choose."""
    system: str | None = None
    """System prompt for conversations that have none."""
    max_reject_fraction: float = Field(default=0.05, ge=0, le=1)
    """More rejected rows than this share end the stage with a table of reasons."""
    dedup: Literal["none", "exact", "near"] = "exact"
    """Of equal rows the first stays. `exact`: equal but for case and spaces; `near`: also rows that share most of their
    words, which keeps them from lying on both sides of the split."""
    near_threshold: float = Field(default=0.7, gt=0, le=1)
    """Share of common runs of words (Jaccard) from which two rows count as nearly equal."""
    consecutive_turns: Literal["reject", "merge"] = "reject"
    """Two turns of one role in a row: refuse the conversation, or join them."""
    think: Literal["keep", "strip", "require"] = "keep"
    """<think> blocks in answers: trained as they are, taken out, or rows without one refused."""
    special_tokens: Literal["reject", "keep"] = "reject"
    """Control tokens such as <|im_end|> inside a turn, which the trainer would take for the end of it."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Tokens: longer rows are refused, counted exactly by the model's tokenizer, which makes this stage wait for the
    model. Absent, they are train.max_length's and train.truncation's matter."""
    contamination: ContaminationSpec = Field(default_factory=ContaminationSpec)
    tokens: Literal["sample", "exact", "off"] = "sample"
    """Token lengths in the report: of some rows with an error bar, of all of them, or none. It never retrains."""
