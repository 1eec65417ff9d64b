"""What stands behind the scores: the part without contaminated items, other implementations, and dialogues. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.reconcile import Side
from pipeline.report.browser import shorten
from pipeline.report.compile import Report
from pipeline.report.items import in_order
from pipeline.report.phrases import Phrase, joined, say
from pipeline.report.table import Table
from pipeline.report.wording import NONE, Line, clean, decimals_for, fixed, line, place, plain

ROLES = {"system": say("system"), "user": say("user"), "assistant": say("assistant")}


@dataclass(frozen=True)
class Talk:
    turns: tuple[tuple[str, str], ...]
    """(role, text) of what was asked."""
    answers: tuple[tuple[str, str, str], ...]
    """(who, text, colour), the answer of the data last."""


def dialogues(report: Report) -> list[Talk]:
    """The models' answers side by side, base and tuned first."""
    found = []
    for dialogue in report.dialogues:
        turns = tuple(
            (ROLES.get(turn.get("role", ""), clean(turn.get("role", ""))), shorten(turn.get("content", "")))
            for turn in dialogue.messages
        )
        answers: list[tuple[str, str, str]] = [
            (_who(model), shorten(dialogue.answers[model]), "better" if model == "tuned" else "unclear")
            for model in in_order(dialogue.answers)
        ]
        if dialogue.reference is not None:
            answers.append((say("the answer in the data"), shorten(dialogue.reference), "plain"))
        found.append(Talk(turns, tuple(answers)))
    return found


def _who(model: str) -> Phrase | str:
    return {"base": say("base"), "tuned": say("tuned")}.get(model, clean(model))


PARTS = {"clean": say("clean items"), "contaminated": say("contaminated items")}


def clean_part(report: Report) -> Table:
    """Of each score with contaminated items: on all items, on the clean ones, on the contaminated ones."""
    whole = {(row.suite, row.task, row.metric): row for row in report.rows}
    rows: list[tuple[str, ...]] = []
    told: set[tuple[str, str, str]] = set()
    for part in report.clean:
        key = (part.suite, part.task, part.metric)
        if key not in told and key in whole:
            rows.append(_part_row(line(whole[key]), say("all items")))
        told.add(key)
        rows.append(_part_row(line(part), PARTS[part.part]))
    header = (
        say("score"), say("part"), "n", say("base"), say("tuned"), say("change"), say("interval"), "p", say("tuned is"),
    )  # fmt: skip
    return Table(header, tuple(rows), numeric=(2, 3, 4, 5, 6, 7))


def _part_row(entry: Line, part: Phrase) -> tuple[str, ...]:
    interval = say("{low} to {high}", low=entry.interval[0], high=entry.interval[1]) if entry.interval else NONE
    score = f"{entry.task} · {entry.metric} ({entry.harness})"
    return (score, part, entry.n, entry.base, entry.tuned, entry.delta, interval, entry.p, entry.word)


REASONS = {
    "parsing": say("no answer could be made out of the text"),
    "rule": say("the same answer, but another rule decided"),
    "prompt": say("another answer: the prompt made the difference"),
}


def reconciled(report: Report) -> Table:
    """What two implementations say of the same items of one model; the scores stand side by side, not subtracted."""
    header = (
        say("model"), say("first, its score"), say("second, its score"), "n", say("both right"),
        say("first only"), say("second only"), say("neither"), say("agree"), "kappa",
        say("why they differ"),
    )  # fmt: skip
    rows = tuple(
        (
            _who(pair.model), *(f"{_side(side)}: {_value(side)}" for side in (pair.left, pair.right)),
            *map(plain, (pair.n, pair.both_right, pair.only_left, pair.only_right, pair.both_wrong)),
            f"{pair.agreement:.1%}", fixed(pair.kappa, 2),
            joined([say("{reason}: {n}", reason=REASONS[reason], n=n) for reason, n in pair.reasons.items()], "; "),
        )
        for pair in report.reconciled
    )  # fmt: skip
    return Table(header, rows, numeric=tuple(range(3, len(header) - 1)))


@dataclass(frozen=True)
class Difference:
    """An item that one implementation counts as right and the other as wrong."""

    where: Phrase
    reason: Phrase
    question: str
    target: str
    answers: tuple[tuple[str, str, bool], ...]
    """(implementation, what it took for the answer, whether that counted)."""


def differences(report: Report) -> list[Difference]:
    return [
        Difference(
            where=say("{model}, item {item}", model=_who(pair.model), item=example.doc_key),
            reason=REASONS[example.reason],
            question=shorten(example.question),
            target=shorten(example.target),
            answers=tuple(
                (_side(side), shorten(answer), counted)
                for side, answer, counted in zip(
                    (pair.left, pair.right),
                    example.answers,
                    (example.right == "left", example.right == "right"),
                    strict=True,
                )
            ),
        )
        for pair in report.reconciled
        for example in pair.examples
    ]


def _side(side: Side) -> str:
    return f"{clean(side.task)} · {clean(side.metric)} ({place(side.suite, side.implementation.harness)})"


def _value(side: Side) -> str:
    return fixed(side.value, decimals_for([side.value], side.n))
