"""The first sentences of a report: did it help, what does the gate say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.gate import GateLine
from pipeline.paired import SIGNIFICANT_P
from pipeline.report.compile import Report
from pipeline.report.phrases import Phrase, count, joined, recall, say
from pipeline.report.table import Table
from pipeline.report.wording import (
    BETTER,
    NONE,
    UNCLEAR,
    WORSE,
    Comparison,
    Line,
    clean,
    decimals_for,
    fixed,
    unique,
)

NAMED = 3
"""Scores that a sentence names; the table has them all."""
VERDICTS = {
    "PASS": say("every bound of the gate is kept"),
    "FAIL": say("the gate is not passed"),
    "INCONCLUSIVE": say("the intervals do not decide whether the gate is passed"),
}
WORDS = {"PASS": say("PASS"), "FAIL": say("FAIL"), "INCONCLUSIVE": say("INCONCLUSIVE")}


def headlines(report: Report, compared: Comparison) -> list[tuple[str, Phrase]]:
    """(suite, sentence) for every suite with a score: did it help?"""
    result = []
    for suite in unique([*(row.suite for row in report.rows), *(score.suite for score in report.scores)]):
        lines = [entry for entry in compared.lines if entry.row.suite == suite]
        if lines:
            result.append((clean(suite), say("{what}.", what=_headline(lines))))
            continue
        models = unique(score.model for score in report.scores if score.suite == suite)
        tasks = unique(score.task for score in report.scores if score.suite == suite)
        scored = say("{models} scored on {tasks}", models=count(len(models), "model"), tasks=count(len(tasks), "task"))
        waiting = {
            "base": say("the tuned model is not scored, so there is nothing to compare"),
            "tuned": say("the base model is not scored, so there is nothing to compare"),
        }.get("".join(models))
        parts = [scored, waiting] if waiting and report.train else [scored]
        result.append((clean(suite), say("{what}.", what=joined(parts, "; "))))
    return result


def _headline(lines: Sequence[Line]) -> Phrase:
    tested = [entry for entry in lines if entry.word in (BETTER, WORSE, UNCLEAR)]
    rest = len(lines) - len(tested)
    if not tested:
        return say("no score could be tested ({rows} without a paired interval)", rows=count(rest, "row"))
    total = count(len(tested), "score")
    parts: list[Phrase] = []
    for word in (BETTER, WORSE):
        hits = [entry for entry in tested if entry.word == word]
        if not hits:
            continue
        named = [f"{e.task} {e.metric} {e.delta}" for e in hits[:NAMED]] + (["..."] if len(hits) > NAMED else [])
        words = {"word": word, "n": len(hits), "names": ", ".join(named)}
        parts.append(
            say("{word} on {n} ({names})", **words)
            if parts
            else say("{word} on {n} of {total} ({names})", total=total, **words)
        )
    unclear = sum(1 for entry in tested if entry.word == UNCLEAR)
    if unclear:
        parts.append(
            say("no clear change on {n}", n=unclear) if parts else say("no clear change on any of {total}", total=total)
        )
    if rest:
        parts.append(say("{n} not tested", n=rest))
    return joined(parts, "; ")


def chance_note(compared: Comparison) -> str:
    """Many rows, each tested by itself, would give some `better` and `worse` by chance alone."""
    tested = [entry for entry in compared.all_lines if entry.word in (BETTER, WORSE, UNCLEAR)]
    if len(tested) < 2:
        return ""
    if any(entry.row.p_adjusted is not None for entry in tested):
        return say("p (Holm) is corrected for the number of tests; the words go by it.")
    if len(tested) < 10:
        return ""
    return say(
        "Each row is tested by itself: if nothing had changed, about {wrong} of these {n} rows would still read better "
        "or worse.",
        wrong=f"{len(tested) * SIGNIFICANT_P:.0f}",
        n=len(tested),
    )


@dataclass(frozen=True)
class Bound:
    """A line of the gate in words."""

    verdict: str
    what: str
    rule: Phrase
    gain: str
    interval: str
    why: str


def bounds(lines: Sequence[GateLine]) -> list[Bound]:
    result = []
    for entry in lines:
        decimals = decimals_for([entry.gain, entry.low, entry.high, entry.bound], 1000)
        named = f"{entry.suite} · {entry.task} · {entry.metric}" if entry.task else entry.key
        limit = {"bound": f"{entry.bound:g}"}
        drop = entry.kind == "max_drop"
        result.append(
            Bound(
                verdict=entry.verdict,
                what=clean(named),
                rule=say("may drop by {bound} at most", **limit) if drop else say("must gain {bound} or more", **limit),
                gain=fixed(entry.gain, decimals, sign=True),
                interval=NONE
                if entry.low is None or entry.high is None
                else say(
                    "{low} to {high}",
                    low=fixed(entry.low, decimals, sign=True),
                    high=fixed(entry.high, decimals, sign=True),
                ),
                why=recall(clean(entry.why)),
            )
        )
    return result


def gate_table(report: Report) -> Table:
    rows = [(WORDS[b.verdict], b.what, b.rule, b.gain, b.interval, b.why) for b in bounds(report.gate)]
    header = (say("verdict"), say("score"), say("bound"), say("gain"), say("interval"), say("why"))
    return Table(header, tuple(rows), numeric=(3, 4))
