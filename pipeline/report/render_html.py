"""A report as one HTML file that needs nothing else: no font, no picture, no request. Pure.

Its one script is allowed by its hash alone, so nothing that gets into the page with a text can run. Both languages are
in the page; CSS shows one. Without the script everything but the sample browser works.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report import (
    contamination_tables,
    headlines,
    made,
    merge_tables,
    page_parts,
    tables,
    token_tables,
    training_tables,
    trust,
)
from pipeline.report.browser import browser
from pipeline.report.compile import Report
from pipeline.report.figures import WIDTH, chart, forest
from pipeline.report.flips import flips
from pipeline.report.ladder import HEIGHT, climbs, ladders
from pipeline.report.phrases import Phrase, chinese, count, say
from pipeline.report.subjects import by_subject
from pipeline.report.wording import BETTER, INCOMPARABLE, UNCLEAR, UNTESTED, WORSE, clean, comparison, percent, plain
from pipeline.results import Sample

TEMPLATES = Path(__file__).parent / "templates"
KINDS = {
    BETTER: "better", WORSE: "worse", UNCLEAR: "unclear", UNTESTED: "untested", INCOMPARABLE: "untested",
    "PASS": "better", "FAIL": "worse", "INCONCLUSIVE": "unclear",
}  # fmt: skip
"""word -> CSS class, which gives colour; the shape of the mark tells the same to who sees no colours."""


def to_html(report: Report, samples: Mapping[str, Sequence[Sample]] | None = None) -> str:
    """The whole report; every text out of it is escaped. `samples` by label of the evaluation stage."""
    compared = comparison(report)
    verdict = report.verdict or ""
    items = browser(report, samples or {})
    script, script_hash = _script()
    parts: dict[str, Any] = {
        "compared": compared,
        "panels": forest(compared.lines),
        "flips": flips(compared.lines),
        "subjects": by_subject(report),
        "boards": tables.boards(report),
        "climbs": climbs(report),
        "ladders": ladders(report),
        "unmatched": tables.unmatched(report),
        "clean": trust.clean_part(report),
        "reconciled": trust.reconciled(report),
        "differences": trust.differences(report),
        "ways": page_parts.ways(report),
        "dialogues": trust.dialogues(report),
        "loss": chart(report.curve, (("loss", say("training")), ("eval_loss", say("validation"))), 220),
        "rate": chart(report.curve, (("learning_rate", say("learning rate")),), 70),
        "train": tables.train_facts(report.train),
        "speed": training_tables.speed_facts(report),
        "speed_note": training_tables.speed_note(report),
        "planned": training_tables.planned(report),
        "memory_parts": training_tables.memory_parts(report),
        "merge": merge_tables.merge_facts(report),
        "merge_verdict": merge_tables.merge_verdict(report),
        "merge_distance": "logits" in (report.merge or {}),
        "templates": merge_tables.template_differences(report),
        "data_tables": page_parts.data_tables(report),
        "token_tables": page_parts.length_tables(report),
        "lengths": token_tables.drawn(report.tokens),
        "lengths_note": token_tables.caption(report.tokens),
        "overlaps": contamination_tables.overlaps(report.contamination),
        "method": contamination_tables.method(report.contamination),
        "pairs": contamination_tables.pairs(report.contamination),
        "unchecked": ", ".join(map(clean, report.unchecked)),
        "browser": items,
        "details": made.details(report),
        "commands": made.commands(report),
    }
    return _environment().get_template("report.html.jinja").render(
        report=report,
        title=clean(report.recipe),
        description=clean(report.description),
        verdict=headlines.WORDS.get(verdict, clean(verdict)),
        verdict_kind=KINDS.get(verdict, "unclear"),
        verdict_says=headlines.VERDICTS.get(verdict, ""),
        bounds=headlines.bounds(report.gate),
        words=headlines.WORDS,
        headlines=headlines.headlines(report, compared),
        chance=headlines.chance_note(compared),
        remarks=page_parts.remarks(report),
        tiles=tables.tiles(report),
        contents=page_parts.contents(report, parts),
        level=percent(report.confidence),
        legend=[(word, KINDS[word]) for word in (BETTER, WORSE, UNCLEAR, UNTESTED)],
        width=WIDTH,
        climb_height=HEIGHT,
        states=page_parts.STATES,
        browser_data=Markup(items.data) if items else "",  # noqa: S704 - JSON that cannot end its element
        shown_items=plain(items.shown) if items else "",
        total_items=plain(items.total) if items else "",
        recipe_text=report.recipe_yaml,
        again=made.AGAIN,
        made=plain(report.provenance.get("time")) if report.provenance.get("time") else "",
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=script_hash,
        **parts,
    )  # fmt: skip


@cache
def _script() -> tuple[str, str]:
    """The page's script, and its hash for the Content-Security-Policy."""
    text = (TEMPLATES / "browser.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"sha256-{digest}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_both,
    )
    environment.globals |= {"kinds": KINDS, "count": count, "t": say}
    environment.filters |= {"en": str, "zh": lambda text: str(chinese(text))}
    return environment


def _both(value: object) -> object:
    """A phrase is written in both languages, of which CSS shows one."""
    if isinstance(value, Phrase) and value != value.zh:
        return Markup('<span lang="en">{}</span><span lang="zh">{}</span>').format(str(value), value.zh)
    return value
