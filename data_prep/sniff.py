"""Telling the format of a file from its first rows, and refusing to guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from data_prep.columns import check_columns, renamed
from data_prep.conversation import Reason, Reject, flag
from data_prep.decode import RawRow, decode
from data_prep.errors import InputError, RejectedError
from data_prep.query import QUERY_KEYS, RESPONSE_KEYS, field
from data_prep.read import read_rows
from data_prep.rows import MEDIA_FIELDS, PARSERS, PREFERENCE_FIELDS
from data_prep.rules import Rules, token_scans
from data_prep.sources import FormatName, SourceFile

SAMPLE = 100
"""Rows that are looked at, per file."""
SURE = 0.9
"""Share of them that must be of one and the same kind."""
MAX_OBJECT_BYTES = 16 << 20
"""A larger file is not tried as one JSON object."""
_FORMATS = ", ".join(PARSERS)
_MARKS: dict[str, str] = {
    "messages": "a list `messages`",
    "sharegpt": "a list `conversations`",
    "xtuner": "a list `conversation` of `input` and `output`",
    "alpaca": "`instruction` or `input`, and `output`",
    "query": f"a question ({', '.join(QUERY_KEYS)}) and an answer ({', '.join(RESPONSE_KEYS)})",
}
# Kinds of data that are not for supervised fine-tuning on text: what they are, and what can be done.
_OTHERS: dict[str, str] = {
    "preference": (
        "this is preference data (a chosen and a rejected answer, as for DPO): it is not for supervised fine-tuning. "
        "To train on the chosen answers, write them as rows of their own first"
    ),
    "labelled": (
        "this is preference data (rows with `label` true or false, as for KTO): it is not for supervised fine-tuning. "
        "To train on the rows labelled true, name the format instead of auto; those labelled false are refused then"
    ),
    "multimodal": (
        "this is multimodal data (images, videos or audio beside the text): only text can be trained on here. "
        "Take a text data set; to train on those of its rows that are text alone, name the format instead of auto"
    ),
    "text": (
        "this is plain text (a field `text`, and no question and answer), as for pre-training: "
        "supervised fine-tuning needs turns. Take an instruction data set"
    ),
    "rendered": (
        "this is text that a chat template has been applied to (a field `text` with its special tokens): "
        "the trainer applies the template itself. Take the data set as it was before, with its turns as fields"
    ),
    "settings": "this is a file of settings, not of rows: leave it out (--file names the files to take)",
    "object": "this is one JSON object over several lines: write its rows as one array, or one per line",
}
_FAULT = "the fault"
_SCANS = token_scans(Rules())


def sniff(files: Sequence[SourceFile], columns: Mapping[str, str] | None = None) -> tuple[FormatName, str]:
    """The format that all ``files`` have, and a sentence that says why; InputError when they do not agree.

    ``columns`` are the recipe's names for columns, and count as they will when the rows are read.
    """
    columns = columns or {}
    check_columns("auto", columns)
    found: dict[FormatName, str] = {}
    because = ""
    for file in files:
        if (guess := sniff_file(file, columns)) is not None:
            because = guess[1]
            found.setdefault(guess[0], file.label)
    if not found:
        raise RejectedError(f"{', '.join(file.label for file in files)}: no rows in it")
    if len(found) > 1:
        listed = "; ".join(f"{label} looks like {name}" for name, label in found.items())
        raise InputError(f"auto: the files differ in format: {listed}. Give each as a source of its own with --also")
    name = next(iter(found))
    check_columns(name, columns)
    return name, because


def sniff_file(file: SourceFile, columns: Mapping[str, str]) -> tuple[FormatName, str] | None:
    """The format of one file, and why; None when it has no rows."""
    counts: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    try:
        for row in islice(read_rows(file.path), SAMPLE):
            record = decode(row)
            kind = row_kind(renamed(record, columns) if columns and isinstance(record, dict) else record)
            counts[kind or ""] += 1
            if kind is None:
                unknown[described(record)] += 1
    except RejectedError:
        pass  # a small array that is broken at its end: reading it for good will say so
    total = counts.total()
    if total == 0:
        return None
    name, hits = counts.most_common(1)[0]
    unreadable = any(what.startswith(_FAULT) for what in unknown)
    if not name and unreadable and (whole := whole_object(file.path)) is not None:
        raise InputError(f"{file.label}: {_OTHERS[other_kind(whole) or 'object']}")
    if hits >= SURE * total and name in _OTHERS:
        raise InputError(f"{file.label}: {_OTHERS[name]} (so {hits} of the first {total} rows)")
    for format_name in PARSERS:
        if name == format_name and hits >= SURE * total:
            return format_name, f"{hits} of the first {total} rows have {_MARKS[name]}"
    seen = [f"{count} {key}" for key, count in counts.most_common() if key]
    seen += [f"{count} with {what}" for what, count in unknown.most_common(3)]
    raise InputError(
        f"{file.label}: auto is not sure of the format: of the first {total} rows there are {', '.join(seen)}. "
        f"Name the format ({_FORMATS}), or name the columns: --columns FIELD=COLUMN"
    )


def row_kind(record: object) -> str | None:
    """What one row is: a format or a kind of `_OTHERS`; None when it is none of them, or more than one format."""
    if not isinstance(record, dict):
        return None
    if flag(record, PREFERENCE_FIELDS):
        return "preference"
    formats = row_formats(record)
    if flag(record, MEDIA_FIELDS) or any(has_media(record.get(name)) for name in ("messages", "conversations")):
        return "multimodal"
    if not formats:
        return other_kind(record)
    if len(formats) > 1:
        return None
    return "labelled" if isinstance(record.get("label"), bool) else formats[0]


def row_formats(record: Mapping[str, object]) -> list[FormatName]:
    """Every format whose fields ``record`` has."""
    formats: list[FormatName] = []
    if isinstance(record.get("messages"), list):
        formats.append("messages")
    turns = record.get("conversations", record.get("conversation"))
    if isinstance(turns, list):
        first = turns[0] if turns else None
        rounds = isinstance(first, dict) and "output" in first and "conversations" not in record
        formats.append("xtuner" if rounds else "sharegpt")
    if "output" in record and ("instruction" in record or "input" in record):
        formats.append("alpaca")
    if not any(isinstance(field(record, names), Reason) for names in (QUERY_KEYS, RESPONSE_KEYS)):
        formats.append("query")
    return formats


def has_media(turns: object) -> bool:
    """True when a turn has a content part that is no text: an image, a video or a sound."""
    if not isinstance(turns, list):
        return False
    contents = [turn.get("content", turn.get("value")) for turn in turns if isinstance(turn, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    return any(str(part.get("type")).removeprefix("input_").startswith(("image", "video", "audio")) for part in parts)


def other_kind(record: Mapping[str, object]) -> str | None:
    """The kind of a row that has the fields of no format."""
    text = record.get("text")
    if isinstance(text, str):
        return "rendered" if any(pattern.search(text) for _, pattern in _SCANS) else "text"
    if record and all(isinstance(value, dict) for value in record.values()):
        return "settings"
    return None


def whole_object(path: Path) -> dict[str, object] | None:
    """The one JSON object that a small file is as a whole, or None."""
    if path.stat().st_size > MAX_OBJECT_BYTES:
        return None
    record = decode(RawRow(1, path.read_bytes().removeprefix(b"\xef\xbb\xbf"), None))
    return record if isinstance(record, dict) else None


def described(record: object) -> str:
    """A few words on a row of unknown format."""
    if isinstance(record, Reject):
        return f"{_FAULT} {record.reason.value}"
    if not isinstance(record, dict):
        return "no JSON object"
    both = row_formats(record)
    if len(both) > 1:
        return f"the fields of both {' and '.join(both)}"
    return "the fields " + ", ".join(sorted(str(key) for key in record)[:8])
