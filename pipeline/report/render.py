"""A report as Markdown, HTML, CSV and terminal text. Pure.

Markdown is in English; the HTML file has both languages.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from pipeline.report import ways_tables
from pipeline.report.compile import Report
from pipeline.report.contamination_tables import Marked, Pair, method, overlaps, pairs
from pipeline.report.data_tables import data_rows, data_sources, decontaminated, reject_reasons, repairs, text_sizes
from pipeline.report.errors import to_errors
from pipeline.report.flips import flips
from pipeline.report.headlines import VERDICTS, chance_note, gate_table, headlines
from pipeline.report.merge_tables import merge_facts, merge_verdict, template_differences
from pipeline.report.phrases import count
from pipeline.report.render_html import to_html
from pipeline.report.table import Table
from pipeline.report.tables import (
    auto_choices,
    boards,
    implementations,
    provenance,
    seeds,
    stage_lines,
    train_facts,
    unmatched,
)
from pipeline.report.terminal import to_terminal
from pipeline.report.token_tables import epoch, languages, lengths
from pipeline.report.training_tables import memory_parts, planned, speed_facts, speed_note
from pipeline.report.trust import clean_part, dialogues, reconciled
from pipeline.report.wording import Comparison, Line, clean, comparison, percent
from pipeline.results import Implementation

__all__ = ["to_csv", "to_errors", "to_html", "to_markdown", "to_terminal"]

IMPLEMENTATION = tuple(name for name in Implementation.model_fields if name != "harness")
CSV_HEADER = (
    "model", "suite", "task", "harness", "metric", "value", "stderr", "n", "higher_is_better", *IMPLEMENTATION,
)  # fmt: skip
AROUND = 80
"""Characters before and after a shared text."""
TOKEN_TABLES = (lengths, epoch, languages)


def to_csv(report: Report) -> str:
    """scores.csv: a line per score. Numbers are exact (`float(text)` gives them back); None is an empty field.

    Names lose line breaks and control characters, so that a line is a score for line-based tools too.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for score in report.scores:
        own = [getattr(score, name) for name in CSV_HEADER[:9]]
        cells = [*own, *(getattr(score.implementation, name) for name in IMPLEMENTATION)]
        writer.writerow([clean(cell) if isinstance(cell, str) else cell for cell in cells])
    return stream.getvalue()


def to_markdown(report: Report) -> str:
    """The report without figures; subsets of a task with many of them are left out and counted."""
    compared = comparison(report)
    parts = [f"# {_escape(clean(report.recipe))}"]
    if report.description.strip():
        parts.append(_escape(clean(report.description)))
    if report.verdict:
        says = VERDICTS.get(report.verdict)
        parts.append(f"**{_escape(clean(report.verdict))}**" + (f": {says}." if says else ""))
        parts += _tables(gate_table(report))
    summary = [f"**{_escape(suite)}**: {_escape(sentence)}" for suite, sentence in headlines(report, compared)]
    parts += [_bullets(summary or ["No scores yet."])]
    if report.rows:
        parts += ["## Base against tuned", *_compared(report, compared)]
        parts += _flips(compared)
    for board in boards(report):
        header = ("task", "harness", "metric", "n", *board.models)
        rows = []
        for entry in board.lines:
            cells = [f"**{_escape(c)}**" if i in entry.leaders else _escape(c) for i, c in enumerate(entry.cells)]
            metric = entry.metric + (" ↓" if entry.lower_is_better else "")
            rows.append([*map(_escape, (entry.task, entry.harness, metric, entry.n)), *cells])
        parts += [f"## Scores: {_escape(board.suite)}", _grid(header, rows, range(3, len(header)))]
        notes = [
            f"{e.task} {e.metric}: the models' scores differ in {', '.join(e.differs)}"
            for e in board.lines
            if e.differs
        ]
        if board.folded:
            notes.append(f"{count(len(board.folded), 'row')} of subsets left out: see scores.csv or report.json.")
        parts.append(_bullets([_escape(note) for note in notes]))
    parts += _section("Only one model has these scores", unmatched(report))
    parts += _section("Scores on the clean part", clean_part(report))
    parts += _section("The same items through two implementations", reconciled(report))
    if report.ways:
        tables = (make(report.ways) for make in (ways_tables.standings, ways_tables.rules, ways_tables.lenience))
        parts += _section("MMLU in several ways", *tables, ways_tables.orders(report.ways))
        parts.append(_bullets(map(_escape, ways_tables.order_flips(report.ways))))
    parts += _dialogues(report)
    if report.remarks:
        parts += ["## Remarks", _bullets([_escape(clean(remark)) for remark in report.remarks])]
    data = report.data
    counts = (data_rows(data), reject_reasons(data), repairs(data), decontaminated(data))
    parts += _section("Data", *counts, data_sources(data), text_sizes(data))
    parts += _section("Evaluation items in the training data", overlaps(report.contamination))
    parts += [_escape(method(report.contamination)), _bullets(map(_pair, pairs(report.contamination)))]
    if report.unchecked:
        names = ", ".join(map(clean, report.unchecked))
        parts.append(_escape(f"Not compared, because their data are not on this machine: {names}."))
    parts += _section("Length in tokens", *(make(report.tokens) for make in TOKEN_TABLES))
    parts += _section("Training", train_facts(report.train), speed_facts(report))
    parts += [_escape(speed_note(report)), *_tables(planned(report), memory_parts(report))]
    parts += _merge(report)
    parts += _section("What the scores are of", implementations(report))
    parts += _section("Stages", stage_lines(report))
    parts += _section("What `auto` became", auto_choices(report))
    parts += _section("Seeds", seeds(report))
    parts += _section("Made with", provenance(report))
    if report.recipe_yaml:
        parts += ["## The recipe", _code(report.recipe_yaml)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _compared(report: Report, compared: Comparison) -> list[str]:
    level = percent(report.confidence)
    header = (
        "task", "harness", "metric", "n", "base", "tuned", "change", f"{level} interval", "p", "p (Holm)", "tuned is",
    )  # fmt: skip
    parts = [_grid(header, [_cells(entry) for entry in compared.lines], range(3, 10))] if compared.lines else []
    notes = []
    if any(entry.lower_is_better for entry in compared.lines):
        notes.append("↓: lower is better.")
    for fold in compared.folds:
        left = f"{count(len(fold.lines), 'row')} of subsets of {fold.task} ({fold.harness})"
        notes.append(f"{left} left out: see scores.csv or report.json.")
    notes += filter(None, [chance_note(compared)])
    return [*parts, _bullets([_escape(note) for note in notes])]


def _pair(pair: Pair) -> str:
    what = _escape(f"{pair.benchmark}, {pair.share} of item {pair.item} in {pair.row}: ")
    return f"{what}{_excerpt(pair.row_text)}\n  - the item: {_excerpt(pair.item_text)}"


def _excerpt(text: Marked) -> str:
    """The shared words in bold, with some of what stands around them."""
    before = text.before if len(text.before) <= AROUND else f"…{text.before[-AROUND:]}"
    after = text.after if len(text.after) <= AROUND else f"{text.after[:AROUND]}…"
    return f"{_escape(before)}**{_escape(text.match.strip())}**{_escape(after)}"


def _cells(entry: Line) -> list[str]:
    interval = f"{entry.interval[0]} to {entry.interval[1]}" if entry.interval else ""
    metric = entry.metric + (" ↓" if entry.lower_is_better else "")
    word = f"**{entry.word}**" if entry.word in ("better", "worse") else entry.word
    why = "; ".join(filter(None, (entry.why, entry.blind)))
    word = f"{word} ({_escape(why)})" if why else word
    texts = (
        entry.task, entry.harness, metric, entry.n, entry.base, entry.tuned, entry.delta, interval, entry.p,
        entry.p_adjusted,
    )  # fmt: skip
    return [*map(_escape, texts), word]


def _flips(compared: Comparison) -> list[str]:
    found = [
        f"{f.line.task} ({f.line.harness}, {f.line.metric}): {f.gained} turned right, {f.lost} turned wrong"
        for f in flips(compared.lines)
    ]
    return ["Items whose answer flipped, of those both models answered (each is in errors.csv or the HTML report):",
            _bullets(map(_escape, found))] if found else []  # fmt: skip


def _dialogues(report: Report) -> list[str]:
    parts = ["## Sample dialogues"] if report.dialogues else []
    for talk in dialogues(report):
        parts += [_quote(role, text) for role, text in talk.turns]
        parts.append(_bullets(f"**{_escape(who)}**: {_escape(clean(text))}" for who, text, _ in talk.answers))
    return parts


def _merge(report: Report) -> list[str]:
    verdict, _ = merge_verdict(report)
    if not verdict:
        return []
    title = "## Is the merged model the trained one?"
    return [title, _escape(verdict), *_tables(merge_facts(report), template_differences(report))]


def _quote(role: str, text: str) -> str:
    return f"> {_escape(role)}: {_escape(clean(text))}"


def _code(text: str) -> str:
    """A block of text as it is; its fence is longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}yaml\n{text.rstrip()}\n{fence}"


def _section(title: str, *tables: Table) -> list[str]:
    grids = _tables(*tables)
    return [f"## {title}", *grids] if grids else []


def _tables(*tables: Table) -> list[str]:
    return [_grid(t.header, [[_escape(cell) for cell in row] for row in t.rows], t.numeric) for t in tables if t.rows]


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int]) -> str:
    """A table; cells are escaped already, the header is not."""
    rule = ["---:" if i in numeric else "---" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ([_escape(cell) for cell in header], rule, *rows))


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _escape(text: str) -> str:
    """Text that Markdown shows as it is, also inside a table cell. Underscores within words mean nothing there."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|\[\]~$])", r"\\\1", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    # At the start of a list item a heading, a list or a rule would begin.
    return re.sub(r"^(\d*)([-#+=.)])(?=[-#+=\s]|$)", r"\1\\\2", text)
