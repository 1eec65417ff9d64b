"""What a training row and an item have in common, cut out so that a reader can compare the two."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from data_prep.contamination_build import WORDS_SHORT
from data_prep.words import words

EXCERPT_CHARS = 800
_LAST_WORD_CHARS = 256


def longest_run(row: Sequence[int], item: Sequence[int], least: int = WORDS_SHORT) -> tuple[int, int, int]:
    """The longest run of words that both have: its place in ``row``, its place in ``item``, its length.

    The first of equally long ones; length 0 when they have no ``least`` words running in common.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for at in range(len(item) - least + 1):
        places.setdefault(tuple(item[at : at + least]), []).append(at)
    best, runs = (0, 0, 0), dict[int, int]()
    for at in range(len(row) - least + 1):
        # A run that goes on is one whose place in the item went on by one word as well.
        runs = {place: runs.get(place - 1, least - 1) + 1 for place in places.get(tuple(row[at : at + least]), ())}
        for place, length in runs.items():
            if length > best[2]:
                best = (at + least - length, place + least - length, length)
    return best


def span(text: str, first: int, count: int) -> tuple[int, int]:
    """Where the words ``first`` to ``first + count - 1`` of ``text`` begin and end, in characters; ``count`` > 0."""

    def begin(word: int) -> int:
        # Where a word begins is asked of `words` itself: it is the last character of the shortest text that has it.
        return bisect_left(range(len(text)), word + 1, key=lambda end: len(words([text[:end]]).hashes)) - 1

    last = begin(first + count - 1)
    tail = text[last : last + _LAST_WORD_CHARS]
    # A word ends before a separator, which has no word in it, and before a character that is a word of its own.
    lone = words([*tail, *(tail[at : at + 2] for at in range(len(tail) - 1))])
    sizes = (lone.starts[1:] - lone.starts[:-1]).tolist()
    joined = (at for at in range(1, len(tail)) if not sizes[at] or sizes[len(tail) + at - 1] != 1)
    return begin(first), last + next(joined, len(tail))


def excerpt(text: str, begin: int, end: int, limit: int = EXCERPT_CHARS) -> Excerpt:
    """``text`` cut to about ``limit`` characters around what stands at ``begin`` to ``end``."""
    end = min(end, begin + limit)
    spare = limit - (end - begin)
    start = max(0, min(begin - spare // 2, len(text) - limit))
    stop = min(len(text), start + limit)
    return Excerpt(text[start:stop], begin - start, end - start, start, len(text) - stop)


class Excerpt(msgspec.Struct, frozen=True):
    """Part of a text; what matched stands at ``begin`` to ``end`` of it, in characters (code points)."""

    text: str
    begin: int
    end: int
    cut_before: int
    """Characters of the whole text that are left out before this part."""
    cut_after: int
