"""A recipe's own column names: which column of the file holds a field that a format reads."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from data_prep.errors import InputError
from data_prep.query import QUERY_KEYS, RESPONSE_KEYS
from data_prep.sources import FormatName

_COMMON = ("system", "tools")
_TURN = ("role", "content")
FIELDS: dict[FormatName, tuple[str, ...]] = {
    "alpaca": ("instruction", "input", "output", "history", *_COMMON),
    "sharegpt": ("conversations", *_COMMON, *_TURN),
    "messages": ("messages", *_COMMON, *_TURN),
    "query": ("query", "response", "history", *_COMMON),
    "xtuner": ("conversation", *_COMMON),
}
"""The fields of each format that a column can be named for; ``role`` and ``content`` are those of every turn."""
_ALIASES: dict[str, tuple[str, ...]] = {
    "system": ("system", "system_prompt"),
    "conversations": ("conversations", "conversation"),
    "query": QUERY_KEYS,
    "response": RESPONSE_KEYS,
    "role": ("role", "from"),
    "content": ("content", "value", "text"),
}


def check_columns(format: FormatName, columns: Mapping[str, str]) -> None:  # noqa: A002 - what everybody calls it
    """InputError for a field that ``format`` does not have, or a column that is named for two of them.

    ``format`` "auto" allows the fields of all formats.
    """
    every = dict.fromkeys(name for fields in FIELDS.values() for name in fields)
    known = tuple(every) if format == "auto" else FIELDS[format]
    for name, column in columns.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            if name in every:
                hint = f"that is a field of {', '.join(key for key, fields in FIELDS.items() if name in fields)}"
            elif name in columns.values() or column in known:
                hint = "the field comes first, then the column of the file: instruction=prompt"
            else:
                hint = f"did you mean {close[0]}?" if close else "a misspelling?"
            raise InputError(
                f"columns (--columns): {name}={column}: {format} has no field {name!r} ({hint}). "
                f"Its fields: {', '.join(known)}"
            )
        if not column:
            raise InputError(f"columns (--columns): {name}= names no column")
    doubled = [column for column in columns.values() if list(columns.values()).count(column) > 1]
    if doubled:
        raise InputError(f"columns (--columns): column {doubled[0]!r} is named for more than one field")


def renamed(record: Mapping[str, object], columns: Mapping[str, str]) -> dict[str, object]:
    """``record`` with the fields of ``columns`` under their own names.

    A mapped field is read from its column or not at all: a field of that name in the file is shadowed, and so is the
    column under its old name, lest it be read twice.
    """
    turn = {name: column for name, column in columns.items() if name in _TURN}
    flat = {name: column for name, column in columns.items() if name not in _TURN}
    moved = move(record, flat)
    for key in ("messages", "conversations", "conversation"):
        turns = moved.get(key)
        if turn and isinstance(turns, list):
            moved[key] = [move(item, turn) if isinstance(item, dict) else item for item in turns]
    return moved


def move(record: Mapping[str, object], columns: Mapping[str, str]) -> dict[str, object]:
    """One object with its columns renamed."""
    hidden = {alias for name in columns for alias in _ALIASES.get(name, (name,))} | set(columns.values())
    kept = {key: value for key, value in record.items() if key not in hidden}
    return kept | {name: record[column] for name, column in columns.items() if column in record}
