"""One benchmark through several implementations, in tables and sentences. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.paired import SIGNIFICANT_P
from pipeline.report.browser import shorten, turns
from pipeline.report.phrases import Phrase, joined, recall, say
from pipeline.report.table import Table
from pipeline.report.ways_page import Way, WaysPage
from pipeline.report.wording import NONE, clean, decimals_for, fixed, p_text, plain


def _name(way: Way) -> str:
    return f"{clean(way.name)} · {clean(way.metric)} ({clean(way.harness)})"


def standings(page: WaysPage) -> Table:
    """A line per model, a column per implementation: score, standard error and rank."""
    found = {(standing.model, standing.way): standing for standing in page.standings}
    rows = []
    for model in page.models:
        cells: list[str] = [clean(model)]
        for place in range(len(page.ways)):
            standing = found.get((model, place))
            if standing is None:
                cells.append(NONE)
                continue
            decimals = decimals_for([standing.value], standing.n)
            error = f" ± {fixed(standing.stderr, decimals)}" if standing.stderr is not None else ""
            cells.append(
                say("{score} (rank {rank})", score=fixed(standing.value, decimals) + error, rank=standing.rank)
            )
        rows.append(tuple(cells))
    header = (say("model"), *map(_name, page.ways))
    return Table(header, tuple(rows), numeric=tuple(range(1, len(header))))


def rules(page: WaysPage) -> Table:
    rows = tuple((_name(way), recall(clean(way.source)), recall(clean(way.rule))) for way in page.ways)
    return Table((say("implementation"), say("as in"), say("right is")), rows)


def order_flips(page: WaysPage) -> list[Phrase]:
    """Where two models change places: first how many of these are no chance, then each, those first."""
    if not page.flips:
        return []
    sure = sum(flip.sure for flip in page.flips)
    count = say(
        "Changes of order: {n}. {sure} of them hold: both differences have p < {p}, on the same items. Of the others "
        "at least one difference may be chance.",
        n=len(page.flips),
        sure=sure,
        p=SIGNIFICANT_P,
    )
    return [count] + [
        say(
            "By {first}, {one} is ahead of {other} ({a} to {b}, p {p}); by {second} it is behind ({c} to {d}, p {q}).",
            p=p_text(flip.p_values[0]),
            q=p_text(flip.p_values[1]),
            first=_name(page.ways[flip.ways[0]]),
            second=_name(page.ways[flip.ways[1]]),
            one=clean(flip.models[0]),
            other=clean(flip.models[1]),
            **dict(zip("abcd", (fixed(value, 3) for value in (*flip.by_first, *flip.by_second)), strict=True)),
        )
        for flip in page.flips
    ]


def lenience(page: WaysPage) -> Table:
    rows = tuple(
        (f"{clean(one.name)} ({clean(one.harness)})", clean(one.model), f"{one.share:.1%}", plain(one.n))
        for one in page.none_of_letters
    )
    return Table((say("implementation"), say("model"), say("none of the letters"), "n"), rows, numeric=(2, 3))


def orders(page: WaysPage) -> Table:
    rows = tuple(
        (
            _name(page.ways[one.way]), clean(one.model),
            joined([say("{key}: {value}", key=_seed(key), value=fixed(v, 3)) for key, v in one.values.items()]),
            fixed(one.spread, 3), fixed(one.stdev, 3), plain(one.n),
        )
        for one in page.orders
    )  # fmt: skip
    header = (
        say("implementation"), say("model"), say("score by order (seed)"), say("largest less smallest"),
        say("standard deviation"), "n",
    )  # fmt: skip
    return Table(header, rows, numeric=(3, 4, 5))


def _seed(key: str) -> str:
    return say("the file's") if key == "file" else clean(key)


@dataclass(frozen=True)
class Prompt:
    """One question as one implementation asks it."""

    name: str
    rule: str
    turns: list[tuple[str, str]]
    target: str
    answers: list[tuple[str, str, bool]]
    """(model, answer, whether it counted)."""


def prompts(page: WaysPage) -> list[Prompt]:
    return [
        Prompt(
            name=f"{clean(one.name)} ({clean(one.harness)})",
            rule=recall(clean(one.rule)),
            turns=[(role, shorten(text)) for role, text in turns(one.prompt)],
            target=shorten(one.target),
            answers=[(clean(m), shorten(text), one.right.get(m, False)) for m, text in one.answers.items()],
        )
        for one in page.rendered
    ]
