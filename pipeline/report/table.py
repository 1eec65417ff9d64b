"""A plain table, the same for every format; cells are clean text, not yet escaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """`numeric`: columns aligned to the right. Every row is as long as the header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: records of other versions lack parts."""
    return value if isinstance(value, Mapping) else {}
