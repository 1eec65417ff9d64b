"""What a reader should know about the training data, as sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.report.table import mapping

_MOST_NAMES = 12


def data_remarks(
    contamination: Mapping[str, Any] | None, unchecked: Sequence[str], tokens: Mapping[str, Any] | None
) -> Iterator[str]:
    """`unchecked`: benchmarks whose data are not on this machine."""
    overlap = contaminated(contamination or {})
    if overlap:
        yield f"{overlap}; scores on these items may be too good"
    if unchecked:
        more = f" and {len(unchecked) - _MOST_NAMES} more" if len(unchecked) > _MOST_NAMES else ""
        names = ", ".join(unchecked[:_MOST_NAMES]) + more
        yield f"training rows were not compared with {names}: no local data (a `path` in the suite) to compare with"
    for key, name in (("train", "training"), ("val", "validation")):
        failed = mapping(mapping(mapping(tokens).get(key)).get("failed"))
        if failed:
            share = mapping(failed.get("rows")).get("share", 0)
            yield (
                f"ms-swift's template cannot encode {share:.2%} of the {name} rows and leaves them out; "
                f"the first is line {failed.get('line')}: {failed.get('error')}"
            )


def contaminated(found: Mapping[str, Any]) -> str:
    """How many training rows hold items, and of which benchmarks; "" for none."""
    hit, rows = (mapping(found.get(key)).get("train", 0) for key in ("rows_hit", "rows"))
    if not hit:
        return ""
    parts = []
    for name, benchmark in mapping(found.get("benchmarks")).items():
        train = mapping(benchmark.get("train"))
        if train.get("items_hit"):
            parts.append(f"{name}: {train['items_hit']} of {benchmark['items']} items, in {train['rows_hit']} rows")
    return f"{hit} of {rows} training rows hold text of items that are scored ({'; '.join(parts)})"
