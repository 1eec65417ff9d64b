"""A report as one HTML file that needs nothing else: no script, no font, no picture from anywhere. Pure."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.report import tables
from pipeline.report.compile import Report
from pipeline.report.figures import WIDTH, chart, forest
from pipeline.report.wording import (
    BETTER,
    INCOMPARABLE,
    UNCLEAR,
    UNTESTED,
    WORSE,
    chance_note,
    clean,
    comparison,
    count,
    headlines,
    percent,
    plain,
)

TEMPLATES = Path(__file__).parent / "templates"
KINDS = {BETTER: "better", WORSE: "worse", UNCLEAR: "unclear", UNTESTED: "untested", INCOMPARABLE: "untested"}
"""word -> CSS class, which gives colour; the shape of the mark tells the same to who sees no colours."""


def to_html(report: Report) -> str:
    """The whole report; every text out of it is escaped."""
    compared = comparison(report)
    data = report.data
    return _environment().get_template("report.html.jinja").render(
        report=report,
        title=clean(report.recipe),
        description=clean(report.description),
        verdict=clean(report.verdict or ""),
        level=percent(report.confidence),
        headlines=headlines(report, compared),
        tiles=tables.tiles(report),
        compared=compared,
        chance=chance_note(compared),
        panels=forest(compared.lines),
        boards=tables.boards(report),
        unmatched=tables.unmatched(report),
        loss=chart(report.curve, (("loss", "training"), ("eval_loss", "validation")), 220),
        rate=chart(report.curve, (("learning_rate", "learning rate"),), 70),
        width=WIDTH,
        train=tables.train_facts(report.train),
        data_tables=[
            ("Rows", tables.data_rows(data)),
            ("Why rows were rejected", tables.reject_reasons(data)),
            ("Sources", tables.data_sources(data)),
            ("Length of the texts", tables.text_sizes(data)),
        ],
        implementations=tables.implementations(report),
        stages=tables.stage_lines(report),
        choices=tables.auto_choices(report),
        remarks=[clean(remark) for remark in report.remarks],
        provenance=tables.provenance(report),
        made=plain(report.provenance.get("time")) if report.provenance.get("time") else "",
    )  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["kinds"] = KINDS
    environment.globals["count"] = count
    return environment
