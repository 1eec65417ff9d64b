"""A report as one HTML file that needs nothing else: no script, no font, no picture from anywhere. Pure."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.report import contamination_tables, data_tables, tables, token_tables
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
            ("Rows", data_tables.data_rows(data)),
            ("Why rows were rejected", data_tables.reject_reasons(data)),
            ("Repaired", data_tables.repairs(data)),
            ("Dropped for a benchmark", data_tables.decontaminated(data)),
            ("Sources", data_tables.data_sources(data)),
            ("Length of the texts", data_tables.text_sizes(data)),
        ],
        overlaps=contamination_tables.overlaps(report.contamination),
        method=contamination_tables.method(report.contamination),
        pairs=contamination_tables.pairs(report.contamination),
        unchecked=", ".join(map(clean, report.unchecked)),
        lengths=token_tables.drawn(report.tokens),
        lengths_note=token_tables.caption(report.tokens),
        token_tables=[
            ("Rows", token_tables.lengths(report.tokens)),
            ("One epoch", token_tables.epoch(report.tokens)),
            ("Languages", token_tables.languages(report.tokens)),
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
