"""How long the training rows are in the model's tokens, and what a pass over them costs: tokens.json in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.histogram import Histogram, histogram
from pipeline.report.phrases import Phrase, joined, say
from pipeline.report.table import Table, mapping
from pipeline.report.wording import NONE, clean, plain

SPLITS = {"train": say("train"), "val": say("validation")}
HEIGHT = 160
"""Pixels of the histogram."""


def lengths(tokens: Mapping[str, Any] | None) -> Table:
    """A line per split; mean and share over max_length with their 95 % intervals, unless all rows were measured."""
    found = tokens or {}
    limit = plain(found.get("max_length"))
    header = (
        "", say("rows"), say("measured"), say("tokens per row"), say("median"), say("95% below"), say("longest"),
        say("over {n}", n=limit), say("trained on"),
    )  # fmt: skip
    rows = []
    for key, name in SPLITS.items():
        split = mapping(found.get(key))
        if not split:
            continue
        quantiles = mapping(split.get("quantiles"))
        rows.append((
            name, plain(split.get("rows")), plain(split.get("sampled")), _mean(split, "tokens"),
            *(plain(quantiles.get(q)) for q in ("p50", "p95", "max")),
            _share(mapping(split.get("over_max_length")), exact=bool(split.get("exact"))),
            _percent(split.get("trained_share")),
        ))  # fmt: skip
    return Table(header, tuple(rows), numeric=tuple(range(1, len(header))))


def epoch(tokens: Mapping[str, Any] | None) -> Table:
    """One pass over the training rows: tokens, packed rows, optimizer steps."""
    found = tokens or {}
    facts = mapping(mapping(found.get("train")).get("epoch"))
    rows = []
    if facts:
        rows.append((say("rows trained on"), plain(facts.get("rows"))))
        low, high = plain(facts.get("tokens_low")), plain(facts.get("tokens_high"))
        rows.append((say("tokens"), plain(facts.get("tokens")) + (f" ({low} – {high})" if low != high else "")))
        if facts.get("packed_rows") is not None:
            fill = _percent(facts.get("packed_fill"))
            rows.append(
                (
                    say("packed rows of {n}", n=plain(found.get("max_length"))),
                    say("{n} ({share} full)", n=plain(facts["packed_rows"]), share=fill),
                )
            )
        if facts.get("steps") is not None:
            rows.append((say("optimizer steps"), plain(facts["steps"])))
    return Table((say("in one epoch"), ""), tuple(rows), numeric=(1,))


def languages(tokens: Mapping[str, Any] | None) -> Table:
    train = mapping((tokens or {}).get("train"))
    found = mapping(train.get("languages"))
    return Table(
        (say("language"), say("rows measured")), tuple((clean(k), plain(v)) for k, v in found.items()), numeric=(1,)
    )


def drawn(tokens: Mapping[str, Any] | None) -> Histogram | None:
    """The lengths of the training rows, with max_length marked."""
    found = tokens or {}
    bins = mapping(mapping(found.get("train")).get("histogram"))
    limit = found.get("max_length")
    return histogram(bins.get("edges") or [], bins.get("counts") or [], limit, HEIGHT)


def caption(tokens: Mapping[str, Any] | None) -> Phrase:
    """What the histogram shows: how many rows were measured, and where the line is."""
    found = tokens or {}
    train = mapping(found.get("train"))
    limit = {"limit": plain(found.get("max_length"))}
    measured = (
        say("all rows measured")
        if train.get("exact")
        else say("{n} of {total} rows measured", n=plain(train.get("sampled")), total=plain(train.get("rows")))
    )
    figure = drawn(tokens)
    marked = figure and figure.limit is not None
    line = (
        say("the line is max_length, {limit} tokens", **limit)
        if marked
        else say("all are below max_length, {limit} tokens", **limit)
    )
    return joined((measured, line), "; ")


def _mean(split: Mapping[str, Any], key: str) -> str:
    value = mapping(split.get(key))
    if not value:
        return NONE
    text = plain(value.get("mean"))
    return text if split.get("exact") else f"{text} ({plain(value.get('low'))} – {plain(value.get('high'))})"


def _share(value: Mapping[str, Any], *, exact: bool) -> str:
    text = _percent(value.get("share"))
    return text if exact else f"{text} ({_percent(value.get('low'))} – {_percent(value.get('high'))})"


def _percent(value: Any) -> str:
    return f"{100 * value:.3g}%" if isinstance(value, int | float) else NONE
