"""How long the training rows are in the model's tokens, and what a pass over them costs: tokens.json in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.histogram import Histogram, histogram
from pipeline.report.table import Table, mapping
from pipeline.report.wording import NONE, clean, plain

SPLITS = {"train": "train", "val": "validation"}
HEIGHT = 160
"""Pixels of the histogram."""


def lengths(tokens: Mapping[str, Any] | None) -> Table:
    """A line per split; mean and share over max_length with their 95 % intervals, unless all rows were measured."""
    found = tokens or {}
    limit = plain(found.get("max_length"))
    header = (
        "", "rows", "measured", "tokens per row", "median", "95% below", "longest", f"over {limit}", "trained on",
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
        rows.append(("rows trained on", plain(facts.get("rows"))))
        low, high = plain(facts.get("tokens_low")), plain(facts.get("tokens_high"))
        rows.append(("tokens", plain(facts.get("tokens")) + (f" ({low} to {high})" if low != high else "")))
        if facts.get("packed_rows") is not None:
            fill = _percent(facts.get("packed_fill"))
            rows.append(
                (f"packed rows of {plain(found.get('max_length'))}", f"{plain(facts['packed_rows'])} ({fill} full)")
            )
        if facts.get("steps") is not None:
            rows.append(("optimizer steps", plain(facts["steps"])))
    return Table(("in one epoch", ""), tuple(rows), numeric=(1,))


def languages(tokens: Mapping[str, Any] | None) -> Table:
    train = mapping((tokens or {}).get("train"))
    found = mapping(train.get("languages"))
    return Table(("language", "rows measured"), tuple((clean(k), plain(v)) for k, v in found.items()), numeric=(1,))


def drawn(tokens: Mapping[str, Any] | None) -> Histogram | None:
    """The lengths of the training rows, with max_length marked."""
    found = tokens or {}
    bins = mapping(mapping(found.get("train")).get("histogram"))
    limit = found.get("max_length")
    return histogram(bins.get("edges") or [], bins.get("counts") or [], limit, HEIGHT)


def caption(tokens: Mapping[str, Any] | None) -> str:
    """What the histogram shows: how many rows were measured, and where the line is."""
    found = tokens or {}
    train = mapping(found.get("train"))
    what = "all rows" if train.get("exact") else f"{plain(train.get('sampled'))} of {plain(train.get('rows'))} rows"
    figure = drawn(tokens)
    place = "the line is" if figure and figure.limit is not None else "all are below"
    return f"{what} measured; {place} max_length, {plain(found.get('max_length'))} tokens"


def _mean(split: Mapping[str, Any], key: str) -> str:
    value = mapping(split.get(key))
    if not value:
        return NONE
    text = plain(value.get("mean"))
    return text if split.get("exact") else f"{text} ({plain(value.get('low'))} to {plain(value.get('high'))})"


def _share(value: Mapping[str, Any], *, exact: bool) -> str:
    text = _percent(value.get("share"))
    return text if exact else f"{text} ({_percent(value.get('low'))} to {_percent(value.get('high'))})"


def _percent(value: Any) -> str:
    return f"{100 * value:.3g}%" if isinstance(value, int | float) else NONE
