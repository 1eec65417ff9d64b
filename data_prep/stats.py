"""What was kept and what was refused, counted while rows stream by; ``stats.json`` is `Stats` as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from data_prep.conversation import Conversation


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
        self.tools = self.masks = False
        """Whether any row has tools, or a turn that is not learned."""

    def add(self, chars: Sequence[int], conversations: Sequence[Conversation | None], system: int = 0) -> None:
        """Count rows that were written; those without a system prompt got one of ``system`` characters.

        ``chars`` are the characters of each row that is one question and one answer, and 0 of any other.
        """
        pairs = [length + system for length in chars if length]
        self.turns += 2 * len(pairs)
        self.assistant_turns += len(pairs)
        self.lengths.update(pairs)
        if len(pairs) == len(chars):
            return
        for conversation in (item for length, item in zip(chars, conversations, strict=True) if not length and item):
            count = counted(conversation)
            self.turns += count.turns
            self.assistant_turns += count.assistant_turns
            self.tools = self.tools or count.tools
            self.masks = self.masks or count.masks
            self.lengths[count.chars if count.system else count.chars + system] += 1

    def merge(self, other: SplitTally) -> None:
        """Add the counts of another."""
        self.turns += other.turns
        self.assistant_turns += other.assistant_turns
        self.lengths.update(other.lengths)
        self.tools, self.masks = self.tools or other.tools, self.masks or other.masks

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


class Count(NamedTuple):
    """What one conversation counts for."""

    chars: int
    turns: int
    assistant_turns: int
    system: bool
    tools: bool
    masks: bool


def counted(conversation: Conversation) -> Count:
    """Characters over all roles, turns but the system prompt, assistant turns that are learned."""
    messages = conversation.messages
    chars = learned = 0
    masks = False
    for message in messages:
        chars += len(message.content)
        if message.loss is False:
            masks = True
        elif message.role in ("assistant", "tool_call"):
            learned += 1
    system = messages[0].role == "system"
    return Count(chars, len(messages) - system, learned, system, conversation.tools is not None, masks)


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


class Fates(NamedTuple):
    """What became of the readable rows of one source."""

    kept: int
    exact: int = 0
    near: int = 0
    decontaminated: int = 0
    unsampled: int = 0
    repeated: int = 0
    """Further copies of kept rows."""


class SourceStats(msgspec.Struct, frozen=True, kw_only=True):
    """One source, by the name it was given. ``rows_kept`` of its rows are in the output, some of them repeatedly.

    ``rows_in == rows_kept + rows_rejected + rows_deduplicated + rows_decontaminated + rows_unsampled``
    """

    source: str
    format: str
    files: list[str]
    weight: float
    limit: int | None
    rows_in: int
    rows_kept: int
    rows_rejected: int
    rejected: dict[str, int]
    rows_deduplicated: int
    rows_decontaminated: int
    rows_unsampled: int
    rows_repeated: int


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of ``stats.json``, in which every row that was read is accounted for: see `adds_up`."""

    schema: int = 2
    rows_in: int
    rows_train: int
    rows_val: int
    rows_rejected: int
    rows_deduplicated: int
    rows_decontaminated: int
    rows_unsampled: int
    rows_repeated: int
    """Lines that are there because a source's weight is over 1."""
    reject_fraction: float
    rejected: dict[str, int]
    repaired: dict[str, int]
    dedup: str
    near_threshold: float | None
    deduplicated: dict[str, int]
    decontaminated: dict[str, int]
    """Rows per benchmark; a row that overlaps two counts for both."""
    val_fraction: float
    seed: int
    sources: list[SourceStats]
    train: SplitStats
    val: SplitStats

    @property
    def adds_up(self) -> bool:
        """Whether no row was lost or made up."""
        gone = self.rows_rejected + self.rows_deduplicated + self.rows_decontaminated + self.rows_unsampled
        return self.rows_in + self.rows_repeated == self.rows_train + self.rows_val + gone
