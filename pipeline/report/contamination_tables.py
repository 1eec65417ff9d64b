"""What of the evaluation sets the training rows hold: contamination.json in tables and pairs of texts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.phrases import say
from pipeline.report.table import Table, mapping
from pipeline.report.wording import clean, plain

SHOWN_PAIRS = 5
"""Per benchmark: contamination.json has more."""
AROUND = 200
"""Characters shown before and after a shared text."""
TURN_SEPARATOR = "\x1f"
"""Between the turns of a row, as data_prep writes it."""


def overlaps(contamination: Mapping[str, Any] | None) -> Table:
    """A line per benchmark: its items, how many can be looked for, and what was found of them."""
    rows = []
    for name, benchmark in mapping((contamination or {}).get("benchmarks")).items():
        train, val = mapping(benchmark.get("train")), mapping(benchmark.get("val"))
        numbers = (
            benchmark.get("items"), benchmark.get("checkable"), train.get("items_hit"), train.get("rows_hit"),
            val.get("rows_hit"),
        )  # fmt: skip
        rows.append((clean(name), *map(plain, numbers)))
    header = (
        say("benchmark"), say("items"), say("long enough to look for"), say("found"), say("in training rows"),
        say("in validation rows"),
    )  # fmt: skip
    return Table(header, tuple(rows), numeric=tuple(range(1, len(header))))


def method(contamination: Mapping[str, Any] | None) -> str:
    """What makes an overlap, by the numbers that the check was made with."""
    used = mapping((contamination or {}).get("method"))
    long, short = used.get("words_running"), used.get("short_question_words")
    if not (isinstance(long, int) and isinstance(short, int)):
        return ""
    return say(
        "A row holds an item when both have {long} words running in common, or when a question of {short} to "
        "{most} words is in the row as a whole. Case, spacing and punctuation do not matter; a Chinese or Japanese "
        "character is a word. Shorter items are not looked for.",
        long=long,
        short=short,
        most=long - 1,
    )


def pairs(contamination: Mapping[str, Any] | None) -> list[Pair]:
    """The worst of each benchmark, those with the largest share of an item first."""
    benchmarks = mapping((contamination or {}).get("benchmarks"))
    return [
        Pair(
            benchmark=clean(name),
            row=f"{clean(pair.get('file', ''))}:{plain(pair.get('line'))}",
            item=clean(pair.get("item", "")),
            share=f"{100 * float(pair.get('containment') or 0):.3g}%",
            running=plain(pair.get("words_running")),
            row_text=_marked(mapping(pair.get("row_text"))),
            item_text=_marked(mapping(pair.get("item_text"))),
        )
        for name, benchmark in benchmarks.items()
        for pair in (benchmark.get("worst") or [])[:SHOWN_PAIRS]
    ]


def _marked(excerpt: Mapping[str, Any]) -> Marked:
    text = str(excerpt.get("text", ""))
    begin, end = int(excerpt.get("begin") or 0), int(excerpt.get("end") or 0)
    first, last = max(begin - AROUND, 0), min(end + AROUND, len(text))
    before, match, after = (_line(part) for part in (text[first:begin], text[begin:end], text[end:last]))
    cut_before, cut_after = excerpt.get("cut_before") or first, excerpt.get("cut_after") or last < len(text)
    return Marked(f"{'…' if cut_before else ''}{before}", match, f"{after}{'…' if cut_after else ''}")


def _line(text: str) -> str:
    """On one line, as `clean` makes it, but with the spaces at its ends: it is a part of a longer text."""
    text = text.replace(TURN_SEPARATOR, " ¶ ")
    inner = clean(text)
    before = " " if text[:1].isspace() else ""
    return f"{before}{inner}{' ' if inner and text[-1:].isspace() else ''}"


@dataclass(frozen=True)
class Marked:
    """A text in three parts; the middle one is what both sides share."""

    before: str
    match: str
    after: str


@dataclass(frozen=True)
class Pair:
    """A training (or validation) row and an item of a benchmark, side by side."""

    benchmark: str
    row: str
    """File and line."""
    item: str
    """File and row."""
    share: str
    """Of the item's runs of words, how many the row has."""
    running: str
    """Words of the longest shared run."""
    row_text: Marked
    item_text: Marked
