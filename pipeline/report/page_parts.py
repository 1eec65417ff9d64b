"""What the HTML page needs besides tables and figures: its contents, and which tables go under which heading. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report import data_tables as data
from pipeline.report import token_tables as tokens
from pipeline.report import ways_tables
from pipeline.report.browser import shorten
from pipeline.report.compile import Report
from pipeline.report.items import BOTH_RIGHT, BOTH_WRONG, GAINED, GRADED, LOST, SPLIT
from pipeline.report.phrases import Phrase, recall, say
from pipeline.report.table import Table
from pipeline.report.wording import clean

STATES = (
    (LOST, say("turned wrong"), "worse"),
    (GAINED, say("turned right"), "better"),
    (SPLIT, say("models disagree"), "unclear"),
    (BOTH_WRONG, say("wrong"), "unclear"),
    (BOTH_RIGHT, say("right"), "unclear"),
    (GRADED, say("graded"), "untested"),
    ("contaminated", say("in the training data"), "untested"),
)
"""(state of an item, its name, its colour)."""


def remarks(report: Report) -> list[str]:
    return [recall(clean(remark)) for remark in report.remarks]


def data_tables(report: Report) -> list[tuple[Phrase, Table]]:
    found = [
        (say("Rows"), data.data_rows(report.data)),
        (say("Why rows were rejected"), data.reject_reasons(report.data)),
        (say("Repaired"), data.repairs(report.data)),
        (say("Dropped for a benchmark"), data.decontaminated(report.data)),
        (say("Sources"), data.data_sources(report.data)),
        (say("Length of the texts"), data.text_sizes(report.data)),
    ]
    return [(name, table) for name, table in found if table.rows]


def length_tables(report: Report) -> list[tuple[Phrase, Table]]:
    found = [
        (say("Rows"), tokens.lengths(report.tokens)),
        (say("One epoch"), tokens.epoch(report.tokens)),
        (say("Languages"), tokens.languages(report.tokens)),
    ]
    return [(name, table) for name, table in found if table.rows]


def ways(report: Report) -> Ways | None:
    """None unless one benchmark was asked in several ways."""
    page = report.ways
    if page is None:
        return None
    found = [
        (say("What counts as right"), ways_tables.rules(page)),
        (say("The likeliest token is none of the four letters"), ways_tables.lenience(page)),
        (say("The five examples in another order"), ways_tables.orders(page)),
    ]
    return Ways(
        ways_tables.standings(page),
        ways_tables.order_flips(page),
        [(name, table) for name, table in found if table.rows],
        shorten(page.question),
        ways_tables.prompts(page),
    )


@dataclass(frozen=True)
class Ways:
    """The part on one benchmark in several implementations."""

    standings: Table
    flips: list[Phrase]
    tables: list[tuple[Phrase, Table]]
    question: str
    prompts: list[ways_tables.Prompt]


def contents(report: Report, parts: Mapping[str, Any]) -> list[tuple[str, Phrase]]:
    """(anchor, name) of the sections there are."""
    return [(anchor, name) for anchor, name, there in _sections(report, parts) if there]


def _tabled(parts: Mapping[str, Any]) -> bool:
    return any(parts[name].rows for name in ("train", "speed", "planned"))


def _sections(report: Report, parts: Mapping[str, Any]) -> Iterator[tuple[str, Phrase, Any]]:
    yield "comparison", say("comparison"), report.rows
    yield "flips", say("flips"), parts["flips"]
    yield "subjects", say("subjects"), parts["subjects"]
    yield "models", say("scores"), parts["boards"]
    yield "steps", say("by step"), parts["climbs"]
    yield "leaderboard", say("leaderboard"), parts["ladders"]
    yield "clean", say("clean part"), parts["clean"].rows
    yield "reconciled", say("implementations"), parts["reconciled"].rows
    yield "merge", say("merge"), parts["merge_verdict"][0]
    yield "ways", say("MMLU three ways"), parts["ways"]
    yield "dialogues", say("dialogues"), parts["dialogues"]
    yield "training", say("training"), any(parts[name] for name in ("loss", "rate")) or _tabled(parts)
    yield "data", say("data"), parts["data_tables"]
    yield "tokens", say("lengths"), parts["token_tables"]
    yield "contamination", say("contamination"), parts["overlaps"].rows or report.unchecked
    yield "items", say("items"), parts["browser"]
    yield "details", say("how it was made"), parts["details"]
