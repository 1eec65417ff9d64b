"""The words and digits of a report: is a row better or worse, by how much, and which rows are worth a line. Pure."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.compare import Row
from pipeline.paired import SIGNIFICANT_P
from pipeline.report.compile import Report
from pipeline.report.phrases import Phrase, recall, say

BETTER, WORSE, UNCLEAR = say("better"), say("worse"), say("no clear change")
UNTESTED, INCOMPARABLE = say("not tested"), say("not comparable")
FOLD_ABOVE = 8
"""Subsets of one task that are still shown one by one."""
MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"


def clean(value: object) -> str:
    """Text on one line, safe to print: control, format and surrogate characters become U+FFFD."""
    text = " ".join(str(value).split())
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs", "Cf") and c != "\u200d" else c for c in text)


def plain(value: Any) -> str:
    """Any value out of a record: whole numbers grouped, fractions with four significant digits, None as a dash."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"
    return clean(value)


def fixed(value: float | None, decimals: int, *, sign: bool = False) -> str:
    """A number of a table column; zero never has a sign."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{abs(value):.3g}" if abs(value) >= 1e6 else f"{abs(value):.{decimals}f}"
    if not any(c in "123456789" for c in text):
        return text
    return (MINUS if value < 0 else "+" if sign else "") + text


def decimals_for(values: Iterable[float | None], n: int) -> int:
    """Digits after the point for a row of scores: 0.208, but 4 of them where 1/n needs them, and 37.14 for a BLEU."""
    size = max((abs(v) for v in values if v is not None and math.isfinite(v)), default=0.0)
    if size >= 10:
        return max(0, 3 - int(math.log10(size)))
    return 4 if n >= 1000 or 0 < size < 0.1 else 3


def p_text(p: float | None) -> str:
    if p is None:
        return NONE
    if p < 0.001:
        return "<0.001"
    text = f"{p:.3f}"
    return f"{p:.5f}" if text == "0.050" and p < SIGNIFICANT_P else text


def percent(share: float) -> str:
    return f"{share * 100:g}%"


def judge(row: Row) -> Phrase:
    """One of the five words; `better` and `worse` need an interval without 0, and p < 0.05 after the correction."""
    if row.delta is None:
        return INCOMPARABLE
    p = row.p_value if row.p_adjusted is None else row.p_adjusted
    if row.ci_low is None or row.ci_high is None or p is None:
        return UNTESTED
    if p < SIGNIFICANT_P and (row.ci_low > 0 or row.ci_high < 0):
        return BETTER if (row.ci_low > 0) == row.higher_is_better else WORSE
    return UNCLEAR


def line(row: Row) -> Line:
    word = judge(row)
    decimals = decimals_for((row.base, row.tuned), row.n)
    if word in (BETTER, WORSE):
        # A bound that differs from 0 must not read as 0 beside "better".
        bounds = [abs(v) for v in (row.ci_low, row.ci_high) if v]
        while decimals < 6 and any(round(v, decimals) == 0 for v in bounds):
            decimals += 1
    why = recall(clean(row.remark)) or (say("fewer than two items could be paired") if word == UNTESTED else "")
    interval = None
    if row.ci_low is not None and row.ci_high is not None:
        interval = (fixed(row.ci_low, decimals, sign=True), fixed(row.ci_high, decimals, sign=True))
    return Line(
        row=row,
        task=clean(row.task),
        harness=place(row.suite, row.harness),
        metric=clean(row.metric),
        n=plain(row.n),
        base=fixed(row.base, decimals),
        tuned=fixed(row.tuned, decimals),
        delta=fixed(row.delta, decimals, sign=True),
        interval=interval,
        p=p_text(row.p_value),
        p_adjusted=p_text(row.p_adjusted),
        word=word,
        why=why,
        blind=_blind(row, word, decimals),
    )


def _blind(row: Row, word: str, decimals: int) -> str:
    """Why nothing was found: the correction alone, or how small a change may be overlooked."""
    if word != UNCLEAR:
        return ""
    if row.p_value is not None and row.p_value < SIGNIFICANT_P <= (row.p_adjusted or 0):
        return say("clear by itself, not after the correction")
    if not row.mde:
        return ""
    return say("may miss changes below {mde}", mde=fixed(row.mde, decimals))


def place(suite: str, harness: str) -> str:
    """The harness, and the suite where a recipe gives it a name of its own."""
    return clean(harness) if suite == harness else f"{clean(harness)} ({clean(suite)})"


def folded_parents(
    tasks: Iterable[str], owners: Mapping[str, str] | None = None, least: int = FOLD_ABOVE + 1
) -> dict[str, str]:
    """subset -> task, for tasks of one suite that have at least `least` subsets.

    `owners`: task -> the task that sums it up, where that is known. Else a subset is `task/name` (EvalScope) or
    `task_name` (lm-eval) of a task that has a score itself, so that folding never hides everything there is. A task
    that sums up others, and is summed up by none, is no subset, whatever its name: mmlu_helm of mmlu.
    """
    owned = owners or {}
    sums = set(owned.values())
    known = sorted(set(tasks), key=lambda task: (len(task), task))
    parents: dict[str, str] = {}
    roots = set(known)
    for task in known:
        cuts = [i for i, c in enumerate(task) if c in "/_" and task[:i] in roots]
        if task in owned:
            parents[task] = owned[task]
        elif cuts and task not in sums:
            parents[task] = task[: cuts[0]]
    counts: dict[str, int] = {}
    for parent in parents.values():
        counts[parent] = counts.get(parent, 0) + 1
    return {task: parent for task, parent in parents.items() if counts[parent] >= least}


def comparison(report: Report) -> Comparison:
    """Rows to show, and rows of subsets to fold, both in the order of the report."""
    shown: list[Line] = []
    folds: dict[tuple[str, str], Fold] = {}
    for suite in unique(row.suite for row in report.rows):
        rows = [row for row in report.rows if row.suite == suite]
        parents = folded_parents((row.task for row in rows), {row.task: row.part_of for row in rows if row.part_of})
        for row in rows:
            entry = line(row)
            if row.task not in parents:
                shown.append(entry)
                continue
            key = (suite, parents[row.task])
            fold = folds.get(key) or Fold(suite=suite, task=clean(key[1]), harness=entry.harness, lines=())
            folds[key] = replace(fold, lines=(*fold.lines, entry))
    return Comparison(lines=tuple(shown), folds=tuple(folds.values()))


def unique(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))


@dataclass(frozen=True)
class Line:
    """A row in words and digits; texts are clean, but not yet escaped for any format."""

    row: Row
    task: str
    harness: str
    metric: str
    n: str
    base: str
    tuned: str
    delta: str
    interval: tuple[str, str] | None
    p: str
    p_adjusted: str
    """After Holm's correction for all rows of the report."""
    word: Phrase
    why: str
    blind: str
    """What the test could not have seen; empty where it saw something."""

    @property
    def lower_is_better(self) -> bool:
        return not self.row.higher_is_better


@dataclass(frozen=True)
class Fold:
    """Subsets of one task that are not shown one by one."""

    suite: str
    task: str
    harness: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Comparison:
    lines: tuple[Line, ...]
    folds: tuple[Fold, ...]

    @property
    def all_lines(self) -> tuple[Line, ...]:
        return self.lines + tuple(entry for fold in self.folds for entry in fold.lines)
