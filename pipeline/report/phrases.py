"""The report's own words in both languages: an English string that carries its Chinese. Pure.

A `Phrase` is a `str`, so Markdown, CSV and terminal need not know of it; HTML shows one of the two by the reader's
choice. What comes out of data (names, texts, reasons given by tools) is plain `str` and is shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Self

from pipeline.report.words_zh import NOUNS, REMARKS, ZH

_PLACE = re.compile(r"\{(\w+)\}")
_SEPARATORS = {", ": "，", "; ": "；", " · ": " · ", " ": ""}


class Phrase(str):
    """English text; `zh` says the same in Chinese."""

    __slots__ = ("zh",)
    zh: str

    def __new__(cls, english: str, chinese: str) -> Self:
        phrase = super().__new__(cls, english)
        phrase.zh = chinese
        return phrase


def say(text: str, **values: object) -> Phrase:
    """The phrase `text`, a key of `ZH`, with its {places} filled; values may be phrases themselves."""
    return Phrase(text.format(**values), ZH.get(text, text).format(**{k: chinese(v) for k, v in values.items()}))


def chinese(value: object) -> object:
    """The Chinese of a phrase, anything else as it is."""
    return value.zh if isinstance(value, Phrase) else value


def count(number: int, noun: str) -> Phrase:
    """A number with its noun, a key of `NOUNS`."""
    return Phrase(f"{number:,} {noun}{'' if number == 1 else 's'}", f"{number:,} {NOUNS.get(noun, noun)}")


def joined(parts: Iterable[str], separator: str = ", ") -> Phrase:
    found = list(parts)
    return Phrase(separator.join(found), _SEPARATORS[separator].join(str(chinese(part)) for part in found))


def recall(text: str) -> str:
    """A sentence out of report.json, where only the English is kept, as a phrase again if it is one of `REMARKS`."""
    for pattern, translation in _patterns():
        match = pattern.fullmatch(text)
        if match:
            return Phrase(text, translation.format(**match.groupdict()))
    return text


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """A pattern for each of REMARKS: what stands in its places may be anything."""
    found = []
    for english, translation in REMARKS.items():
        parts = _PLACE.split(english)
        pattern = "".join(f"(?P<{p}>.*)" if i % 2 else re.escape(p) for i, p in enumerate(parts))
        found.append((re.compile(pattern, re.DOTALL), translation))
    return tuple(found)
