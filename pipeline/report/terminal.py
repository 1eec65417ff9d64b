"""The closing table of a run, as plain text that lines up in a terminal, also with Chinese task names. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from pipeline.report.compile import Report
from pipeline.report.tables import Board, boards, tiles, train_facts, unmatched
from pipeline.report.wording import Comparison, Line, chance_note, clean, comparison, count, headlines, percent, unique

GAP = "  "
MIN_TEXT = 10
"""Columns a name keeps before other columns give way."""
_ASCII = str.maketrans({"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "→": ">", "±": "~"})


def to_terminal(report: Report, width: int = 100) -> str:
    """What a user sees at the end of a run; no line is wider than `width` columns (at least 60)."""
    width = max(width, 60)
    compared = comparison(report)
    verdict = f": {report.verdict}" if report.verdict else ""
    blocks = [[f"{clean(report.recipe)}{verdict}", *(f"  {s}: {text}" for s, text in headlines(report, compared))]]
    for suite in unique(entry.row.suite for entry in compared.all_lines):
        blocks.append(_suite(suite, compared, percent(report.confidence), width))
    for board in boards(report):
        blocks += _board(board, width)
    lone = unmatched(report).rows
    if lone:
        blocks.append([f"not compared, only one model has it: {row[0]} {row[2]} ({row[3]} {row[5]})" for row in lone])
    if not report.scores:
        facts = [f"{name}: {value}" for name, value in tiles(report) if not name.endswith("loss")]
        facts += [f"{name}: {value}" for name, value in train_facts(report.train).rows if "loss" in name]
        blocks.append([", ".join(facts)] if facts else ["nothing finished yet"])
    notes = [*filter(None, [chance_note(compared)]), *map(clean, report.remarks)]
    blocks.append([f"- {note}" for note in notes])
    text = "\n\n".join("\n".join(part for row in block for part in wrap(row, width)) for block in blocks if block)
    return text + "\n"


def display_width(text: str) -> int:
    """Terminal columns: 2 for East Asian wide characters, 0 for combining ones."""
    return sum(_cells(character) for character in text)


def pad(text: str, columns: int, *, right: bool = False) -> str:
    fill = " " * max(0, columns - display_width(text))
    return fill + text if right else text + fill


def chunks(text: str, columns: int) -> list[str]:
    """`text` in pieces of at most `columns` (2 or more), broken after a separator where one is near the end."""
    pieces: list[str] = []
    rest = text
    while display_width(rest) > columns:
        used = end = 0
        while used + _cells(rest[end]) <= columns:
            used += _cells(rest[end])
            end += 1
        cut = max((i + 1 for i in range(end // 2, end) if rest[i] in " ,/_-"), default=end)
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
    while sum(widths[:texts]) > spare and max(widths[:texts]) > MIN_TEXT:
        widest = max(range(texts), key=lambda i: widths[i])
        widths[widest] -= 1
    lines = []
    for row in table:
        cells = [chunks(cell, widths[i]) if i < texts else [cell] for i, cell in enumerate(row)]
        for k in range(max(map(len, cells))):
            parts = [pad(c[k] if k < len(c) else "", widths[i], right=i >= texts) for i, c in enumerate(cells)]
            lines.append("  " + GAP.join(parts).rstrip())
    return lines


def _suite(suite: str, compared: Comparison, level: str, width: int) -> list[str]:
    lines = [entry for entry in compared.lines if entry.row.suite == suite]
    folds = [fold for fold in compared.folds if fold.suite == suite]
    notes = list(dict.fromkeys(entry.why for entry in lines if entry.why))
    header = ["task", "metric", "n", "base", "tuned", "change", f"{level} interval", "p", "tuned is"]
    keep = list(range(len(header)))
    rows = [_cells_of(entry, notes) for entry in lines]
    # Names need room: on a narrow terminal p goes first (the last word says what it says), then n.
    for column in (7, 2):
        numbers = sum(max(display_width(row[i]) for row in [header, *rows]) for i in keep if i > 1)
        if width - 2 - numbers - len(GAP) * (len(keep) - 1) < 3 * MIN_TEXT:
            keep.remove(column)
    title = unique(entry.harness for entry in [*lines, *(e for fold in folds for e in fold.lines)])
    result = [", ".join(title)]
    result += layout([header[i] for i in keep], [[row[i] for i in keep] for row in rows], 2, width)
    result += [f"  ({i}) {note}" for i, note in enumerate(notes, 1)]
    if any(entry.lower_is_better for entry in lines):
        result.append("  * lower is better")
    for fold in folds:
        rows_left = count(len(fold.lines), "row")
        result.append(f"  {rows_left} of subsets of {fold.task} left out: see report.html or scores.csv")
    return result


def _cells_of(entry: Line, notes: list[str]) -> list[str]:
    interval = f"[{entry.interval[0]}, {entry.interval[1]}]" if entry.interval else ""
    word = f"{entry.word} ({notes.index(entry.why) + 1})" if entry.why else entry.word
    metric = f"{entry.metric}*" if entry.lower_is_better else entry.metric
    return [entry.task, metric, entry.n, entry.base, entry.tuned, entry.delta, interval, entry.p, word]


def _board(board: Board, width: int) -> list[list[str]]:
    """A block per set of models that fits the width."""
    columns = [max(map(display_width, (m, *(e.cells[i] for e in board.lines)))) for i, m in enumerate(board.models)]
    most = max(1, (width - 5 * MIN_TEXT) // (max(columns, default=1) + len(GAP)))
    blocks = []
    for start in range(0, len(board.models), most):
        part = slice(start, start + most)
        # A model's name may be long: it is cut, its number in the list stays.
        models = [m if display_width(m) <= 24 else f"{chunks(m, 22)[0]}.." for m in board.models[part]]
        rows = [[e.task, f"{e.metric}*" if e.lower_is_better else e.metric, e.n, *e.cells[part]] for e in board.lines]
        blocks.append([board.suite, *layout(["task", "metric", "n", *models], rows, 2, width)])
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
