"""What the tracker tells about the training data: rows, token lengths, and what of the evaluation sets they hold.

Pure: a stage's result in, plain values out. The lengths are also a line over tokens, which every dashboard can draw.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ILLEGAL = re.compile(r"[^\w.+=@()-]+")

ROWS = (
    "rows_in", "rows_train", "rows_val", "rows_rejected", "rows_deduplicated", "rows_decontaminated", "rows_unsampled",
    "rows_repeated",
)  # fmt: skip


def numbers(kind: str, result: Mapping[str, Any]) -> Iterator[tuple[str, int, Any]]:
    """(key, step, value) of the stage `data`, `contamination` or `tokens`; nothing of any other."""
    if kind == "data":
        yield from ((f"data/{key}", 0, result.get(key)) for key in ROWS)
        train = _mapping(result.get("train"))
        yield from ((f"data/{key}", 0, train.get(key)) for key in ("chars_mean", "chars_p95"))
    elif kind == "contamination":
        yield "contaminated/rows", 0, _mapping(result.get("rows_hit")).get("train")
        for name, benchmark in _mapping(result.get("benchmarks")).items():
            yield f"contaminated/{part(name)}", 0, _mapping(_mapping(benchmark).get("train")).get("items_hit")
    elif kind == "tokens":
        train = _mapping(result.get("train"))
        yield "tokens/mean", 0, _mapping(train.get("tokens")).get("mean")
        yield "tokens/p95", 0, _mapping(train.get("quantiles")).get("p95")
        yield "tokens/over_max_length", 0, _mapping(train.get("over_max_length")).get("share")
        yield "tokens/steps_per_epoch", 0, _mapping(train.get("epoch")).get("steps")
        lengths = histogram(result)
        if lengths:
            yield from (
                ("tokens/rows_by_length", edge, n) for edge, n in zip(lengths.edges, lengths.counts, strict=False)
            )


def took(report: Mapping[str, Any]) -> Iterator[tuple[str, int, Any]]:
    """(key, step, value) of what the training took, out of report.json; memory in GiB."""
    found = _mapping(report.get("throughput"))
    yield "throughput/mean_tokens_per_second", 0, found.get("tokens_per_second")
    for key in ("samples_per_second", "mfu", "gpu_hours", "cost"):
        yield f"throughput/{key}", 0, found.get(key)
    for key, name in (("peak_memory", "peak_memory_gib"), ("peak_rss", "peak_main_memory_gib")):
        if found.get(key):
            yield f"throughput/{name}", 0, found[key] / 2**30


def texts(kind: str, result: Mapping[str, Any]) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """(key, rows of caption and text) of those stages."""
    if kind == "data":
        yield "data/summary", tuple(_data_rows(result))
    elif kind == "contamination":
        yield "contamination/summary", tuple(_overlap_rows(result))
    elif kind == "tokens":
        yield "tokens/summary", tuple(_token_rows(result))


def histogram(tokens: Mapping[str, Any]) -> Lengths | None:
    """The training rows by length, of a result of the stage `tokens`."""
    bins = _mapping(_mapping(tokens.get("train")).get("histogram"))
    edges, counts = _list(bins.get("edges")), _list(bins.get("counts"))
    limit = tokens.get("max_length")
    return Lengths(tuple(edges), tuple(counts), limit) if len(edges) == len(counts) + 1 > 1 else None


def _data_rows(stats: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "rows", ", ".join(f"{name.removeprefix('rows_')} {stats[name]}" for name in ROWS if stats.get(name))
    for key in ("rejected", "deduplicated", "decontaminated", "repaired"):
        counts = _counts(stats.get(key))
        if counts:
            yield key, counts
    for split in ("train", "val"):
        if plain := {k: v for k, v in _mapping(stats.get(split)).items() if not isinstance(v, dict | list)}:
            yield split, ", ".join(f"{k} {short(v)}" for k, v in plain.items())
    for number, source in enumerate(_list(stats.get("sources")), start=1):
        told = {k: v for k, v in _mapping(source).items() if v and not isinstance(v, list)}
        yield (
            f"source {number}",
            ", ".join(f"{k} {_counts(v) if isinstance(v, dict) else short(v)}" for k, v in told.items()),
        )


def _counts(value: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in _mapping(value).items() if count)


def _overlap_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Counts alone: the texts stay in the report on this machine, for the tracker may be another's."""
    hit, rows = _mapping(found.get("rows_hit")), _mapping(found.get("rows"))
    yield "rows", ", ".join(f"{split} {hit.get(split)} of {rows.get(split)}" for split in hit)
    for name, value in _mapping(found.get("benchmarks")).items():
        benchmark = _mapping(value)
        train = _mapping(benchmark.get("train"))
        yield (
            name,
            f"{train.get('items_hit')} of {benchmark.get('items')} items in {train.get('rows_hit')} training rows",
        )


def _token_rows(tokens: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("train", "val"):
        split = _mapping(tokens.get(name))
        if split:
            mean, over = _mapping(split.get("tokens")), _mapping(split.get("over_max_length"))
            yield name, ", ".join((
                f"{short(mean.get('mean'))} tokens per row {_interval(mean)}",
                f"over {tokens.get('max_length')}: {short(over.get('share'))} {_interval(over)}",
                f"{split.get('sampled')} of {split.get('rows')} rows measured",
            ))  # fmt: skip
    epoch = _mapping(_mapping(tokens.get("train")).get("epoch"))
    if epoch:
        yield "one epoch", ", ".join(f"{key} {short(value)}" for key, value in epoch.items() if value is not None)


def _interval(value: Mapping[str, Any]) -> str:
    return f"({short(value.get('low'))} to {short(value.get('high'))})"


def part(text: str) -> str:
    """One piece of a key: no slash (it would make a section), no separators, no edge the tracker would strip."""
    return _ILLEGAL.sub("_", text).strip(".") or "_"


def short(value: Any) -> str:
    """A number with four significant digits, anything else as text, None as a dash."""
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


@dataclass(frozen=True)
class Lengths:
    """Bin i counts the rows of `edges[i]` up to, not including, `edges[i + 1]` tokens."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]
    limit: int | None
    """max_length."""
