"""The closing table of a run, as plain text that lines up in a terminal, also with Chinese task names. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from pipeline.report.compile import Report
from pipeline.report.headlines import Bound, bounds, chance_note, headlines
from pipeline.report.phrases import count
from pipeline.report.tables import Board, boards, tiles, train_facts, unmatched
from pipeline.report.training_tables import speed_facts
from pipeline.report.wording import Comparison, Line, clean, comparison, percent, unique

GAP = "  "
FIRST, THEN = ("tokens/s per GPU", "tokens/s per process", "GPU hours"), ("MFU", "peak memory of a GPU", "cost")
"""What of a training's figures goes on its line, units and names; the report has them all."""
MIN_NAME = 18
"""Columns a score's name keeps before other columns give way."""
MAX_MODEL = 24
"""Columns of a model's name above its scores."""
_ASCII = str.maketrans({"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "→": "->", "±": "+/-"})


def to_terminal(report: Report, width: int = 100) -> str:
    """What a user sees at the end of a run; no line is wider than `width` columns (at least 60)."""
    width = max(width, 60)
    compared = comparison(report)
    verdict = f": {report.verdict}" if report.verdict else ""
    blocks = [[f"{clean(report.recipe)}{verdict}", *(f"  {s}: {text}" for s, text in headlines(report, compared))]]
    blocks[0] += [_bound(bound) for bound in bounds(report.gate)]
    suites = unique(entry.row.suite for entry in compared.all_lines)
    blocks += [_suite(suite, compared, percent(report.confidence), width) for suite in suites]
    for board in boards(report):
        blocks += _board(board, width)
    lone = unmatched(report).rows
    if lone:
        blocks.append([f"not compared, only one model has it: {row[0]} {row[2]} ({row[3]} {row[5]})" for row in lone])
    if not report.scores:
        facts = [f"{name}: {value}" for name, value in tiles(report) if not name.endswith("loss")]
        facts += [f"{name}: {value}" for name, value in train_facts(report.train).rows if "loss" in name]
        blocks.append([", ".join(facts)] if facts else ["nothing finished yet"])
    if took := training(report):
        blocks.append([took])
    notes = [*filter(None, [chance_note(compared)]), *map(clean, report.remarks)]
    blocks.append([f"- {note}" for note in notes])
    text = "\n\n".join("\n".join(part for row in block for part in wrap(row, width)) for block in blocks if block)
    return text + "\n"


def training(report: Report) -> str:
    """One line on what the training took; "" without one that was measured."""
    found = report.throughput
    if found is None or not found.tokens_per_second:
        return ""
    facts = {row[0]: row[1] for row in speed_facts(report).rows}
    parts = [f"{facts[name]} {name}" for name in FIRST if name in facts]
    return "training: " + ", ".join(parts + [f"{name} {facts[name]}" for name in THEN if name in facts])


def display_width(text: str) -> int:
    """Terminal columns: 2 for East Asian wide characters, 0 for combining ones."""
    return sum(_cells(character) for character in text)


def pad(text: str, columns: int, *, right: bool = False) -> str:
    fill = " " * max(0, columns - display_width(text))
    return fill + text if right else text + fill


def chunks(text: str, columns: int) -> list[str]:
    """`text` in pieces of at most `columns` (2 or more), broken between words, or after a separator."""
    pieces: list[str] = []
    rest = text
    while display_width(rest) > columns:
        used = end = 0
        while used + _cells(rest[end]) <= columns:
            used += _cells(rest[end])
            end += 1
        words = [i for i in range(max(end // 3, 1), end + 1) if rest[i] == " "]
        cut = words[-1] if words else max((i + 1 for i in range(end // 2, end) if rest[i] in ",/_-"), default=end)
        pieces.append(rest[:cut].rstrip())
        rest = rest[cut:].lstrip()
    return [*pieces, rest]


def wrap(text: str, columns: int) -> list[str]:
    """A line that is too long goes on below, indented by two more than it starts with."""
    text = text.translate(_ASCII).rstrip()
    if display_width(text) <= columns:
        return [text]
    indent = len(text) - len(text.lstrip()) + 2
    first, *_ = chunks(text, columns)
    rest = chunks(text[len(first) :].strip(), columns - indent)
    return [first, *(" " * indent + piece for piece in rest)]


def layout(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int, width: int) -> list[str]:
    """A table whose first `texts` columns hold names and share what the numbers leave; names wrap within their cell."""
    table = [[cell.translate(_ASCII) for cell in row] for row in (header, *rows)]
    widths = [max(display_width(row[i]) for row in table) for i in range(len(header))]
    spare = width - 2 - sum(widths[texts:]) - len(GAP) * (len(header) - 1)
    while sum(widths[:texts]) > spare and max(widths[:texts]) > 2:
        widest = max(range(texts), key=lambda i: widths[i])
        widths[widest] -= 1
    lines = []
    for row in table:
        cells = [chunks(cell, widths[i]) if i < texts else [cell] for i, cell in enumerate(row)]
        for k in range(max(map(len, cells))):
            parts = [pad(c[k] if k < len(c) else "", widths[i], right=i >= texts) for i, c in enumerate(cells)]
            lines.append("  " + GAP.join(parts).rstrip())
    return lines


def _bound(bound: Bound) -> str:
    why = f"; {bound.why}" if bound.why else ""
    return f"  {bound.verdict}: {bound.what} {bound.rule}: {bound.gain} ({bound.interval}){why}"


def _suite(suite: str, compared: Comparison, level: str, width: int) -> list[str]:
    lines = [entry for entry in compared.lines if entry.row.suite == suite]
    folds = [fold for fold in compared.folds if fold.suite == suite]
    notes = unique(entry.why for entry in lines if entry.why)
    header = ["score", "n", "base", "tuned", "change", f"{level} interval", "p (Holm)", "tuned is"]
    keep = list(range(len(header)))
    rows = [_cells_of(entry, notes) for entry in lines]
    # Names need room: on a narrow terminal n goes first, then p (the last word says what it says).
    for column in (header.index("n"), header.index("p (Holm)")):
        numbers = sum(max(display_width(row[i]) for row in [header, *rows]) for i in keep if i)
        if width - 2 - numbers - len(GAP) * (len(keep) - 1) < MIN_NAME:
            keep.remove(column)
    result = [", ".join(unique(entry.harness for entry in [*lines, *(e for fold in folds for e in fold.lines)]))]
    if lines:
        result += layout([header[i] for i in keep], [[row[i] for i in keep] for row in rows], 1, width)
    result += [f"  ({i}) {note}" for i, note in enumerate(notes, 1)]
    if any(entry.lower_is_better for entry in lines):
        result.append("  * lower is better")
    for fold in folds:
        rows_left = count(len(fold.lines), "row")
        result.append(f"  {rows_left} of subsets of {fold.task} left out: see report.html or scores.csv")
    return result


def _cells_of(entry: Line, notes: list[str]) -> list[str]:
    interval = f"[{entry.interval[0]}, {entry.interval[1]}]" if entry.interval else ""
    name = f"{entry.task} {entry.metric}{'*' if entry.lower_is_better else ''}"
    p = entry.p if entry.row.p_adjusted is None else entry.p_adjusted
    name += f" ({notes.index(entry.why) + 1})" if entry.why else ""
    return [name, entry.n, entry.base, entry.tuned, entry.delta, interval, p, entry.word]


def _board(board: Board, width: int) -> list[list[str]]:
    """A block per set of models that fits the width."""
    # A model's name may be a long path: it is cut.
    models = [m if display_width(m) <= MAX_MODEL else f"{chunks(m, MAX_MODEL - 2)[0]}.." for m in board.models]
    rows = [[f"{e.task} {e.metric}{'*' if e.lower_is_better else ''}", e.n, *e.cells] for e in board.lines]
    rows = [[cell.translate(_ASCII) for cell in row] for row in [["score", "n", *models], *rows]]
    columns = [max(display_width(row[i]) for row in rows) + len(GAP) for i in range(len(rows[0]))]
    room = width - 2 - columns[1] - min(columns[0], 2 * MIN_NAME)
    parts: list[list[int]] = []
    left = 0
    for i in range(2, len(columns)):
        if not parts or columns[i] > left:
            parts.append([])
            left = room
        parts[-1].append(i)
        left -= columns[i]
    blocks = []
    for part in parts:
        header, *body = [[row[i] for i in (0, 1, *part)] for row in rows]
        blocks.append([board.suite, *layout(header, body, 1, width)])
    if any(entry.lower_is_better for entry in board.lines):
        blocks[-1].append("  * lower is better")
    blocks[-1] += [f"  {e.task} {e.metric}: models differ in {', '.join(e.differs)}" for e in board.lines if e.differs]
    if board.folded:
        blocks[-1].append(f"  {count(len(board.folded), 'row')} of subsets left out: see report.html or scores.csv")
    return blocks


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
