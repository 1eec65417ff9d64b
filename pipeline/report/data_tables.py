"""Tables about the training data: what became of every row, by source, and how long the texts are. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.phrases import joined, say
from pipeline.report.table import Table, mapping
from pipeline.report.wording import clean, plain

_ROWS = {
    "rows_in": say("rows in"),
    "rows_repeated": say("taken again, for a weight"),
    "rows_train": say("to train"),
    "rows_val": say("to validation"),
    "rows_rejected": say("rejected"),
    "rows_deduplicated": say("duplicates"),
    "rows_decontaminated": say("dropped for a benchmark"),
    "rows_unsampled": say("left out, for a limit or weight"),
}
_ALWAYS = ("rows_in", "rows_train", "rows_val", "rows_rejected")
"""The others are told where there are such rows."""
_SOURCE = {
    "rows_in": say("rows in"),
    "rows_kept": say("kept"),
    "rows_rejected": say("rejected"),
    "rows_deduplicated": say("duplicates"),
    "rows_decontaminated": say("for a benchmark"),
    "rows_unsampled": say("left out"),
    "rows_repeated": say("taken again"),
}
_TEXT = {
    "rows": say("rows"),
    "turns": say("turns"),
    "assistant_turns": say("assistant turns"),
    "chars": say("characters"),
    "chars_mean": say("characters per row"),
    "chars_p50": say("median"),
    "chars_p95": say("95% below"),
    "chars_max": say("longest"),
}


def data_rows(data: Mapping[str, Any] | None) -> Table:
    """Where the rows went; of rejected ones with their share, of duplicates with how they were found."""
    stats = data or {}
    rows = []
    for key, name in _ROWS.items():
        if key not in stats or (key not in _ALWAYS and not stats[key]):
            continue
        note = ""
        if key == "rows_rejected" and isinstance(stats.get("reject_fraction"), float | int):
            note = f"{stats['reject_fraction']:.2%}"
        elif key == "rows_deduplicated":
            note = ", ".join(f"{clean(how)} {plain(n)}" for how, n in mapping(stats.get("deduplicated")).items() if n)
        rows.append((name, f"{plain(stats[key])} ({note})" if note else plain(stats[key])))
    return Table(("", say("rows")), tuple(rows), numeric=(1,))


def reject_reasons(data: Mapping[str, Any] | None) -> Table:
    return _counts(data, "rejected", say("reason"))


def repairs(data: Mapping[str, Any] | None) -> Table:
    """What was put right in rows that were kept, by rule."""
    return _counts(data, "repaired", say("repair"))


def decontaminated(data: Mapping[str, Any] | None) -> Table:
    """Rows dropped because they hold items of a benchmark."""
    return _counts(data, "decontaminated", say("benchmark"))


def data_sources(data: Mapping[str, Any] | None) -> Table:
    """A line per source; columns that are zero everywhere are left out, but for the first three."""
    sources = (data or {}).get("sources")
    lines = [mapping(source) for source in sources] if isinstance(sources, list) else []
    keys = [key for i, key in enumerate(_SOURCE) if i < 3 or any(line.get(key) for line in lines)]
    rows = []
    for line in lines:
        reasons = ", ".join(f"{clean(k)} {plain(v)}" for k, v in mapping(line.get("rejected")).items())
        numbers = (plain(line.get(key)) for key in keys)
        rows.append((plain(line.get("source")), joined(_asked(line), "; "), *numbers, reasons))
    header = (say("source"), say("format"), *(_SOURCE[key] for key in keys), say("why rejected"))
    return Table(header, tuple(rows), numeric=tuple(range(2, 2 + len(keys))))


def text_sizes(data: Mapping[str, Any] | None) -> Table:
    parts = [
        (name, mapping((data or {}).get(key))) for key, name in (("train", say("train")), ("val", say("validation")))
    ]
    parts = [(name, values) for name, values in parts if values]
    keys = [key for key in _TEXT if any(key in values for _, values in parts)]
    rows = tuple((name, *(plain(values.get(key)) for key in keys)) for name, values in parts)
    return Table(("", *(_TEXT[key] for key in keys)), rows, numeric=tuple(range(1, len(keys) + 1)))


def _counts(data: Mapping[str, Any] | None, key: str, what: str) -> Table:
    found = mapping((data or {}).get(key))
    return Table((what, say("rows")), tuple((clean(k), plain(v)) for k, v in found.items()), numeric=(1,))


def _asked(line: Mapping[str, Any]) -> Iterator[str]:
    yield plain(line.get("format"))
    if line.get("limit") is not None:
        yield say("at most {n}", n=plain(line["limit"]))
    if line.get("weight") not in (None, 1):
        yield say("weight {n}", n=plain(line["weight"]))
