"""The items that a benchmark scores, as text to compare training rows with."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from data_prep.errors import InputError
from data_prep.eval_files import EvalFile, eval_files
from data_prep.eval_records import QUESTION_FIELDS, read_records, spelt

_NOT_TEXT = frozenset(
    "id ids idx ind index qid uid uuid guid key keys label labels answerkey answer_key url urls link links path file "
    "filename image images source source_id split split_type subject category topic type level difficulty task tasks "
    "lang language activity_label subset dataset license author date timestamp".split()
)
"""Columns that say which item it is, not what it says, in lower case with underscores."""
_BLANK = re.compile(r"(?<!\w)_+(?!\w)")
_OPTION_KEY = re.compile(r"[a-j]|option_?\w?|options|choices|endings")
_OPTION_COLUMNS = (tuple("abcdefghij"), ("sol1", "sol2"), ("option1", "option2"))
_MAX_FILLED = 32


def eval_items(name: str, path: Path | str, split: str | None = None) -> Items:
    """The items that benchmark ``name`` scores, from local data at ``path``; see `eval_files` for the layouts.

    Files are found at once and read when the result is iterated. Raises InputError for a path without items.
    """
    path = Path(path)
    return Items(name, path, tuple(eval_files(name, path, split)))


def segments(row: object) -> tuple[str, ...]:
    """The texts of one item that can leak: every string in it, each by itself and once.

    Identifiers, labels and addresses are left out, by the names in `_NOT_TEXT` or because they are one long word.
    """
    texts: list[str] = []
    _collect(row, texts)
    return tuple(dict.fromkeys(texts))


def filled(row: Mapping[str, Any], texts: Sequence[str]) -> tuple[str, ...]:
    """Those of a row's ``texts`` that have a blank ("so _ always got the easier cases"), once with each of its options.

    That is how they are scored, and how a training row would have them. At most `_MAX_FILLED`.
    """
    blanks = [text for text in texts if "_" in text and _BLANK.search(text)]
    if not blanks:
        return ()
    options: list[str] = []
    for key, value in row.items():
        if _OPTION_KEY.fullmatch(spelt(key)):
            values = value.get("text") if isinstance(value, dict) else value
            options += [one for one in (values if isinstance(values, list) else [values]) if isinstance(one, str)]
    return tuple(option.join(_BLANK.split(text)) for text in blanks for option in options)[:_MAX_FILLED]


def question(row: Mapping[str, Any]) -> str:
    """What the item asks: the first of `QUESTION_FIELDS` it has as text, else its longest text."""
    spelling = {spelt(key): key for key in row}
    named = (row[spelling[field]] for field in QUESTION_FIELDS if field in spelling)
    named = (value for value in named if isinstance(value, str) and value.strip())
    return next(named, None) or max(segments(row), key=len, default="")


def options(row: Mapping[str, Any]) -> list[str]:
    """The texts the item gives to choose from: a list, a {text, label} as ARC's, or columns; empty if it has none."""
    columns = {spelt(key): value for key, value in row.items()}
    for name in ("choices", "endings", "options"):
        value = columns.get(name)
        value = value.get("text") if isinstance(value, dict) else value
        if isinstance(value, list) and len(value) > 1 and all(isinstance(one, str) for one in value):
            return value
    for names in _OPTION_COLUMNS:
        found = [columns[name] for name in names if isinstance(columns.get(name), str) and columns[name].strip()]
        if len(found) > 1:
            return found
    return []


def question_sha256(text: str) -> str:
    """64 hex digits of a question with its white space folded, to find the item again in a harness's samples."""
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "surrogatepass")).hexdigest()


def _collect(value: object, texts: list[str]) -> None:
    if isinstance(value, str):
        if " " in value or not value.isascii() or len(value.split(maxsplit=1)) > 1:  # one ASCII word is no text
            texts.append(value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if spelt(str(key)) not in _NOT_TEXT:
                _collect(inner, texts)
    elif isinstance(value, list | tuple):
        for inner in value:
            _collect(inner, texts)


class Item(NamedTuple):
    """One item: its place, and what it says."""

    benchmark: str
    file: str
    """Label of its file."""
    row: int
    """From 1; blank lines do not count."""
    question: str
    """One of the segments, or shorter than any."""
    segments: tuple[str, ...]
    filled: tuple[str, ...]
    """Segments with a blank, once with each option."""
    raw: bytes
    """The whole row as compact JSON."""


@dataclass(frozen=True)
class Items:
    """The items of one benchmark; every iteration reads the files anew."""

    benchmark: str
    path: Path
    files: tuple[EvalFile, ...]

    @staticmethod
    def merged(several: Sequence[Items]) -> Items:
        """The items of one benchmark from several paths, which then are part of the labels."""
        files = [
            file._replace(label=f"{items.path.name}/{file.label}" if items.path.is_dir() else file.label)
            for items in several
            for file in items.files
        ]
        return Items(several[0].benchmark, several[0].path, tuple({file.path: file for file in files}.values()))

    def __iter__(self) -> Iterator[Item]:
        encode = msgspec.json.Encoder(enc_hook=str).encode
        empty = True
        for file in self.files:
            for number, row in enumerate(read_records(file), 1):
                empty = False
                texts = segments(row)
                blanks = filled(row, texts)
                yield Item(self.benchmark, file.label, number, question(row), texts, blanks, encode(row))
        if empty:
            raise InputError(
                f"{self.path}: {self.benchmark} has no items in {', '.join(file.label for file in self.files)}: "
                f"name the file that holds them"
            )
