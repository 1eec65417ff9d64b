"""What was kept and what was refused, counted while rows stream by; ``stats.json`` is `Stats` as JSON."""

from __future__ import annotations

from collections import Counter

import msgspec

from data_prep.conversation import Conversation, Reason


def percentile(counts: Counter[int], share: float) -> int:
    """The smallest value that at least ``share`` (over 0, at most 1) of all values do not exceed; 0 of nothing."""
    left = share * counts.total()
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    return 0


class SplitTally:
    """Counts over the rows of one output file. Lengths are kept as a histogram, so memory does not grow with rows."""

    def __init__(self) -> None:
        self.turns = 0
        self.assistant_turns = 0
        self.lengths: Counter[int] = Counter()

    def add(self, conversation: Conversation) -> None:
        """Count one row that was written."""
        chars = 0
        for message in conversation.messages:
            chars += len(message.content)
            self.turns += message.role != "system"
            self.assistant_turns += message.role in ("assistant", "tool_call")
        self.lengths[chars] += 1

    def result(self) -> SplitStats:
        """The counts so far."""
        rows, chars = self.lengths.total(), sum(length * count for length, count in self.lengths.items())
        return SplitStats(
            rows=rows,
            turns=self.turns,
            assistant_turns=self.assistant_turns,
            chars=chars,
            chars_mean=round(chars / rows, 2) if rows else 0.0,
            chars_p50=percentile(self.lengths, 0.5),
            chars_p95=percentile(self.lengths, 0.95),
            chars_max=max(self.lengths, default=0),
        )


class SourceTally:
    """Counts over the rows of one source."""

    def __init__(self) -> None:
        self.rows_in = 0
        self.rows_kept = 0
        self.rejected: Counter[str] = Counter()

    def reject(self, reason: Reason) -> None:
        """Count one row that was refused."""
        self.rejected[reason.value] += 1

    def result(self, source: str, format_name: str, files: list[str]) -> SourceStats:
        """The counts so far, under the name the user gave the source."""
        refused = self.rejected.total()
        return SourceStats(source, format_name, files, self.rows_in, self.rows_kept, refused, by_count(self.rejected))


def by_count(counts: Counter[str]) -> dict[str, int]:
    """Most frequent first, then by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


class SplitStats(msgspec.Struct, frozen=True):
    """One output file: ``turns`` counts all but system prompts, ``assistant_turns`` those that are learned.

    ``chars`` are characters of content over all roles; the ``chars_`` figures are per row.
    """

    rows: int
    turns: int
    assistant_turns: int
    chars: int
    chars_mean: float
    chars_p50: int
    chars_p95: int
    chars_max: int


class SourceStats(msgspec.Struct, frozen=True):
    """One source, by the name it was given."""

    source: str
    format: str
    files: list[str]
    rows_in: int
    rows_kept: int
    rows_rejected: int
    rejected: dict[str, int]


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of ``stats.json``. ``rows_in == rows_train + rows_val + rows_rejected``, always."""

    schema: int = 1
    rows_in: int
    rows_train: int
    rows_val: int
    rows_rejected: int
    reject_fraction: float
    rejected: dict[str, int]
    val_fraction: float
    seed: int
    sources: list[SourceStats]
    train: SplitStats
    val: SplitStats
