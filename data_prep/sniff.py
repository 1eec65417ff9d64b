"""Telling the format of a file from its first rows, and refusing to guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from data_prep.conversation import Reject, flag
from data_prep.errors import InputError, RejectedError
from data_prep.read import decode, read_rows
from data_prep.sources import FormatName, SourceFile

SAMPLE = 100
"""Rows that are looked at, per file."""
SURE = 0.9
"""Share of them that must be of one and the same format."""


def sniff(files: Sequence[SourceFile]) -> tuple[FormatName, str]:
    """The format that all ``files`` have, and a sentence that says why; InputError when they do not agree."""
    found: dict[FormatName, str] = {}
    because = ""
    for file in files:
        if (guess := sniff_file(file)) is not None:
            because = guess[1]
            found.setdefault(guess[0], file.label)
    if not found:
        raise RejectedError(f"{', '.join(file.label for file in files)}: no rows in it")
    if len(found) > 1:
        listed = "; ".join(f"{label} looks like {name}" for name, label in found.items())
        raise InputError(f"auto: the files differ in format: {listed}. Give each as a source of its own with --also")
    return next(iter(found)), because


def sniff_file(file: SourceFile) -> tuple[FormatName, str] | None:
    """The format of one file, and why; None when it has no rows."""
    counts: Counter[FormatName | None] = Counter()
    unknown: Counter[str] = Counter()
    try:
        for row in islice(read_rows(file.path), SAMPLE):
            record = decode(row)
            name = record_format(record)
            counts[name] += 1
            if name is None:
                unknown[described(record)] += 1
    except RejectedError:
        pass  # a small array that is broken at its end: reading it for good will say so
    total = counts.total()
    if total == 0:
        return None
    name, hits = counts.most_common(1)[0]
    if name is None or hits < SURE * total:
        seen = [f"{count} {key}" for key, count in counts.items() if key is not None]
        seen += [f"{count} with {what}" for what, count in unknown.most_common(3)]
        raise InputError(
            f"{file.label}: auto is not sure of the format: of the first {total} rows there are {', '.join(seen)}. "
            f"Name the format: alpaca, sharegpt or messages"
        )
    return name, f"{hits} of the first {total} rows have {_MARKS[name]}"


def record_format(record: object) -> FormatName | None:
    """The one format whose fields ``record`` has; None when it has those of none, or of more than one."""
    if not isinstance(record, dict):
        return None
    formats: list[FormatName] = []
    if isinstance(record.get("messages"), list):
        formats.append("messages")
    if isinstance(record.get("conversations", record.get("conversation")), list):
        formats.append("sharegpt")
    if "output" in record and ("instruction" in record or "input" in record):
        formats.append("alpaca")
    if len(formats) != 1 or flag(record, ("chosen", "rejected", "rejected_response", "rejected_messages")):
        return None
    return formats[0]


def described(record: object) -> str:
    """A few words on a row of unknown format."""
    if isinstance(record, Reject):
        return f"the fault {record.reason.value}"
    if not isinstance(record, dict):
        return "no JSON object"
    return "the fields " + ", ".join(sorted(str(key) for key in record)[:8])


_MARKS: dict[FormatName, str] = {
    "messages": "a list `messages`",
    "sharegpt": "a list `conversations`",
    "alpaca": "`instruction` or `input`, and `output`",
}
