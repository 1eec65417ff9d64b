"""How to make a report again: its recipe, its command lines, and what it was made with. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.report import tables
from pipeline.report.compile import Report
from pipeline.report.phrases import Phrase, say
from pipeline.report.table import Table
from pipeline.report.wording import clean

AGAIN = "python -m pipeline.run recipe.yaml"


@dataclass(frozen=True)
class CommandText:
    label: str
    folder: str
    text: str


def commands(report: Report) -> list[CommandText]:
    """Of every stage that ran: what was started, as it can be pasted into a shell."""
    return [
        CommandText(clean(stage.label), clean(stage.folder), stage.command) for stage in report.stages if stage.command
    ]


def details(report: Report) -> list[tuple[Phrase, Table]]:
    found = [
        (say("What the scores are of"), tables.implementations(report)),
        (say("Stages and time"), tables.stage_lines(report)),
        (say("What `auto` became, and why"), tables.auto_choices(report)),
        (say("Seeds"), tables.seeds(report)),
        (say("Versions and machine"), tables.provenance(report)),
    ]
    return [(name, table) for name, table in found if table.rows]
