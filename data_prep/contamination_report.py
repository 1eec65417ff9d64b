"""Which items of which benchmark the rows of a data set overlap, counted, and the worst pairs for a reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from data_prep.contamination import Index, Match
from data_prep.contamination_build import (
    BOILERPLATE_SHARE,
    BOILERPLATE_TEXTS,
    SHARED_QUESTIONS,
    WORDS_LONG,
    WORDS_SHORT,
)
from data_prep.contamination_excerpt import Excerpt, excerpt, longest_run, span
from data_prep.eval_items import filled, question, question_sha256, segments
from data_prep.words import words

SplitName: TypeAlias = Literal["train", "val"]
Action: TypeAlias = Literal["report", "fail"]
WORST_PAIRS = 20
"""Pairs per benchmark, each of another item."""


def _beside(row: str, raw: bytes) -> tuple[str, tuple[int, int, int]]:
    """The text of the item ``raw`` and the longest run of words it has in common with ``row``.

    The item's texts as they stand, unless the run is longer in one with its blank filled, or in the question with one
    of the answers. The run has at least `WORDS_SHORT` words, or the row would not overlap the item.
    """
    record = msgspec.json.decode(raw)
    asked, texts = question(record), segments(record)
    hashes = words([row]).hashes.tolist()
    beside = ["\n".join(texts), *filled(record, texts), *(f"{asked}\n{other}" for other in texts if other != asked)]
    runs = [longest_run(hashes, words([text]).hashes.tolist()) for text in beside]
    best = max(range(len(runs)), key=lambda at: runs[at][2])
    return beside[best], runs[best]


class Overlaps:
    """Collects the rows that overlap items; it keeps numbers and places, never the rows."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._rows: dict[SplitName, int] = {"train": 0, "val": 0}
        self._rows_hit: dict[SplitName, int] = {"train": 0, "val": 0}
        self._benchmark_rows: dict[tuple[str, SplitName], int] = {}
        self._items: dict[int, ItemHits] = {}

    def count(self, split: SplitName, rows: int) -> None:
        """Add ``rows`` to the rows that were looked at."""
        self._rows[split] += rows

    def add(self, split: SplitName, line: int, offset: int, matches: Sequence[Match]) -> None:
        """Note what the row on ``line`` (from 1; it begins ``offset`` bytes into the file) overlaps."""
        self._rows_hit[split] += 1
        for name in {self._index.benchmark_of(match.item).name for match in matches}:
            self._benchmark_rows[name, split] = self._benchmark_rows.get((name, split), 0) + 1
        for match in matches:
            hits = self._items.setdefault(match.item, ItemHits({"train": 0, "val": 0}))
            hits.rows[split] += 1
            hits.worst = max(hits.worst, (split == "train", match.containment, match.shared, -line, offset))

    def result(self, action: Action, row_at: Callable[[SplitName, int], str]) -> Report:
        """The whole report; ``row_at`` gives the text of the row that begins at an offset of a split's file."""
        benchmarks = {}
        for stats in self._index.benchmarks:
            own = {item: hits for item, hits in self._items.items() if self._index.benchmark_of(item) is stats}
            order = sorted(own, key=lambda item: (*(-value for value in own[item].worst[:3]), item))
            benchmarks[stats.name] = BenchmarkReport(
                files=stats.files,
                items=stats.items,
                checkable=stats.checkable,
                too_short=stats.too_short,
                boilerplate_only=stats.boilerplate_only,
                boilerplate_grams=stats.boilerplate_grams,
                train=self._hits(stats.name, "train", own),
                val=self._hits(stats.name, "val", own),
                worst=[self._pair(item, own[item], row_at) for item in order[:WORST_PAIRS]],
                contaminated=[self._contaminated(item, own[item]) for item in sorted(own) if own[item].rows["train"]],
            )
        return Report(
            action=action,
            method=METHOD,
            rows=self._rows,
            rows_hit=self._rows_hit,
            benchmarks=benchmarks,
        )

    def _hits(self, name: str, split: SplitName, items: dict[int, ItemHits]) -> Hits:
        items_hit = sum(hits.rows[split] > 0 for hits in items.values())
        return Hits(items_hit, self._benchmark_rows.get((name, split), 0))

    def _pair(self, item: int, hits: ItemHits, row_at: Callable[[SplitName, int], str]) -> Pair:
        train, containment, shared, line, offset = hits.worst
        split: SplitName = "train" if train else "val"
        row = row_at(split, offset)
        own, (at_row, at_item, length) = _beside(row, self._index.raw(item))
        return Pair(
            item=self._index.place(item),
            file=f"{split}.jsonl",
            line=-line,
            containment=containment,
            shared_grams=shared,
            words_running=length,
            row_text=excerpt(row, *span(row, at_row, length)),
            item_text=excerpt(own, *span(own, at_item, length)),
        )

    def _contaminated(self, item: int, hits: ItemHits) -> Contaminated:
        raw = self._index.raw(item)
        asked = question(msgspec.json.decode(raw))
        _, containment, _, line, _ = hits.worst
        return Contaminated(
            item=self._index.place(item),
            rows=hits.rows["train"],
            line=-line,
            containment=containment,
            question_sha256=question_sha256(asked),
            question=asked,
            raw=msgspec.Raw(raw),
        )


@dataclass
class ItemHits:
    """The rows that overlap one item: how many of each split, and the worst of them, those of training first."""

    rows: dict[SplitName, int]
    worst: tuple[bool, float, int, int, int] = (False, -1.0, 0, 0, 0)
    """In training, containment, shared grams, -line, offset."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A row and an item side by side."""

    item: str
    """Label of the item's file, and its row from 1."""
    file: str
    line: int
    containment: float
    """Share of the item's n-grams that the row has."""
    shared_grams: int
    words_running: int
    """The longest run of words that both have."""
    row_text: Excerpt
    item_text: Excerpt


class Contaminated(msgspec.Struct, frozen=True, kw_only=True):
    """An item that rows of train.jsonl overlap."""

    item: str
    rows: int
    line: int
    """The worst row in train.jsonl."""
    containment: float
    question_sha256: str
    """Of `question` with white space folded."""
    question: str
    raw: msgspec.Raw
    """The item's whole row, to find it again among a harness's samples."""


class Hits(msgspec.Struct, frozen=True):
    """What one file overlaps of one benchmark."""

    items_hit: int
    rows_hit: int


class BenchmarkReport(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark; ``items`` = ``checkable`` + ``too_short`` + ``boilerplate_only``."""

    files: list[str]
    items: int
    checkable: int
    too_short: int
    boilerplate_only: int
    boilerplate_grams: int
    train: Hits
    val: Hits
    worst: list[Pair]
    contaminated: list[Contaminated]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of ``contamination.json``; ``rows`` and ``rows_hit`` are by file, ``benchmarks`` by name."""

    schema: int = 1
    action: Action
    method: dict[str, Any]
    rows: dict[SplitName, int]
    rows_hit: dict[SplitName, int]
    benchmarks: dict[str, BenchmarkReport]


METHOD: dict[str, Any] = {
    "words_running": WORDS_LONG,
    "short_question_words": WORDS_SHORT,
    "boilerplate_texts": BOILERPLATE_TEXTS,
    "boilerplate_share": BOILERPLATE_SHARE,
    "shared_questions": SHARED_QUESTIONS,
}
"""What makes an overlap; see `contamination_build`."""
