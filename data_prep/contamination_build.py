"""From a benchmark's items to the hashed n-grams that stand for them, without those that say nothing about an item."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from data_prep.bloom import Filter
from data_prep.eval_items import Items
from data_prep.grams import grams_at, room, stepped
from data_prep.words import words

WORDS_LONG = 13
"""Words running that make an overlap, as in GPT-3's report (Brown et al. 2020, appendix C)."""
WORDS_SHORT = 8
"""Words of the shortest question that is looked for as a whole; anything shorter is found in innocent rows."""
SAMPLE_LONG, SAMPLE_SHORT = 7, 5
"""Words of the grams that are looked up first. Every 13 words hold each 7th 7-gram once, every 8 each 4th 5-gram."""
BOILERPLATE_TEXTS = 10
"""A gram in more texts of one benchmark than this is its wording, not an item: "which of the following best ..."."""
BOILERPLATE_SHARE = 0.01
"""So is one in more than this share of the items (and in more than `BOILERPLATE_TEXTS`), even if it is always the same
text: an instruction that every item repeats. A passage with a score of questions stays below it."""
SHARED_QUESTIONS = 2
"""A short question that stands in the texts of more items than this, whole or as a part, is wording too, such as
"下列说法正确的是" or "Which one of the following statements is true". Two may be the same item twice."""
_OTHER, _QUESTION, _JOINED, _FILLED = range(4)
_SHORT_QUESTION_CHARS = 100
"""Questions from this length on are never joined; hardly one of them has less than `WORDS_SHORT` words."""
_BLOCK_CHARS = 250_000


def read_grams(items: Items, benchmark: int, first_item: int) -> tuple[BenchmarkStats, dict[str, NDArray[Any]]]:
    """Read the items of one benchmark, the ``benchmark``-th, and number them from ``first_item``.

    The arrays are those of `contamination.Index`, grams sorted, but for ``raw_sizes``, out of which it makes
    ``raw_starts``, and the last three, out of which it makes the filters.
    """
    texts = _read(items)
    count = len(texts.raw_sizes)
    sizes, owner = texts.sizes, texts.owner
    ends = np.cumsum(sizes)
    # A short text is looked for whole if it is what is asked. Other short texts occur anywhere ("the equal protection
    # clause of the fourteenth amendment"), so an item without more is looked for as its question and one of the others,
    # which is how a row would have them.
    joined = texts.kind == _JOINED
    told = ~joined & ((sizes >= WORDS_LONG) | (np.isin(texts.kind, (_QUESTION, _FILLED)) & (sizes >= WORDS_SHORT)))
    has_other = np.zeros(count, bool)
    has_other[owner[told]] = True
    used = told | (joined & (sizes >= WORDS_SHORT) & ~has_other[owner])
    long_text, short_text = used & (sizes >= WORDS_LONG), used & (sizes < WORDS_LONG)
    text_of_word = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    begin_long = np.flatnonzero(room(sizes, WORDS_LONG) & long_text[text_of_word]).astype(np.int32)
    begins, grams = [begin_long], [stepped(texts.hashes, WORDS_LONG)[begin_long]]
    kinds = [np.zeros(len(begin_long), bool)]
    for length in range(WORDS_SHORT, WORDS_LONG):
        begin = (ends - sizes)[short_text & (sizes == length)].astype(np.int32)
        begins.append(begin)
        grams.append(grams_at(texts.hashes, begin, length))
        kinds.append(np.ones(len(begin), bool))
    begin, gram, short = np.concatenate(begins), np.concatenate(grams), np.concatenate(kinds)
    del begins, grams, kinds  # megabytes
    order = np.argsort(gram, kind="stable")  # within equal grams by place, hence by item
    begin, gram, short = begin[order], gram[order], short[order]
    text = text_of_word[begin]
    item = owner[text]
    wording = _wording(gram, item, texts.identity[text], count)
    wording = np.union1d(wording, _common(texts, text_of_word, begin[short], gram[short], sizes[text[short]]))
    keep = np.ones(len(gram), bool)
    for first, last in zip(*(np.searchsorted(gram, wording, side=side) for side in ("left", "right")), strict=True):
        keep[first:last] = False
    able = np.zeros(count, bool)
    able[item] = True
    begin, gram, short, item = begin[keep], gram[keep], short[keep], item[keep]
    once = np.ones(len(gram), bool)
    once[1:] = (gram[1:] != gram[:-1]) | (item[1:] != item[:-1])
    # A filled blank is the same text once more, so its grams do not add to what an item has. Texts as they stand come
    # first within equal grams.
    own = once & (texts.kind[text_of_word[begin]] != _FILLED)
    item_grams = np.bincount(item[own], minlength=count).astype(np.int32)
    checkable = int(np.count_nonzero(np.bincount(item, minlength=count)))
    stats = BenchmarkStats(
        name=items.benchmark,
        files=[file.label for file in items.files],
        items=count,
        checkable=checkable,
        too_short=count - int(np.count_nonzero(able)),
        boilerplate_only=int(np.count_nonzero(able)) - checkable,
        boilerplate_grams=len(wording),
        short_lengths=sorted({int(size) for size in sizes[text_of_word[begin[short]]]}),
    )
    return stats, {
        "grams": gram[once],
        "gram_items": (item[once] + first_item).astype(np.int32),
        "item_grams": item_grams,
        "item_benchmarks": np.full(count, benchmark, np.int32),
        "item_files": texts.files,
        "item_rows": texts.rows,
        "raws": np.frombuffer(texts.raws, np.uint8),
        "raw_sizes": texts.raw_sizes,
        "short_heads": grams_at(texts.hashes, begin[short], WORDS_SHORT),
        "long_samples": _samples(texts.hashes, begin[~short], WORDS_LONG, SAMPLE_LONG),
        "short_samples": _samples(texts.hashes, begin[short], WORDS_SHORT, SAMPLE_SHORT),
    }


def _wording(
    gram: NDArray[np.uint64], item: NDArray[np.int32], identity: NDArray[np.int64], items: int
) -> NDArray[np.uint64]:
    """Those of the sorted grams that too many texts or items have in common; each stands with its item and text."""
    bounds = np.concatenate([[0], np.flatnonzero(gram[1:] != gram[:-1]) + 1, [len(gram)]])
    share = max(BOILERPLATE_TEXTS, BOILERPLATE_SHARE * items)
    found = []
    for group in np.flatnonzero(np.diff(bounds) > BOILERPLATE_TEXTS):
        within = slice(bounds[group], bounds[group + 1])
        if len(set(item[within].tolist())) > share or len(set(identity[within].tolist())) > BOILERPLATE_TEXTS:
            found.append(gram[bounds[group]])
    return np.array(found, np.uint64)


def _common(
    texts: _Texts,
    text_of_word: NDArray[np.int32],
    begin: NDArray[np.int32],
    gram: NDArray[np.uint64],
    length: NDArray[np.int64],
) -> NDArray[np.uint64]:
    """Those of the short texts (where they begin, hash, words) that too many items have as a whole or as a part."""
    heads = Filter.build(grams_at(texts.hashes, begin, WORDS_SHORT))
    at = heads.passing(stepped(texts.hashes, WORDS_SHORT))
    found: list[int] = []
    for size in range(WORDS_SHORT, WORDS_LONG):
        places = at[room(texts.sizes, size)[at]]
        grams = grams_at(texts.hashes, places, size)
        known = np.isin(grams, gram[length == size])
        items: dict[int, set[int]] = {}
        for one, owner in zip(grams[known].tolist(), texts.owner[text_of_word[places[known]]].tolist(), strict=True):
            items.setdefault(one, set()).add(owner)
        found += [one for one, owners in items.items() if len(owners) > SHARED_QUESTIONS]
    return np.array(found, np.uint64)


def _samples(hashes: NDArray[np.uint64], begins: NDArray[np.int32], least: int, sample: int) -> NDArray[np.uint64]:
    """The ``sample``-grams by which the grams that begin at ``begins`` are found, each place once."""
    starts = np.zeros(len(hashes), bool)
    starts[begins] = True
    places = starts.copy()
    for offset in range(1, least - sample + 1):
        places[offset:] |= starts[:-offset]
    return stepped(hashes, sample)[np.flatnonzero(places[: max(0, len(hashes) - sample + 1)])]


def _read(items: Items) -> _Texts:
    hashes: list[NDArray[np.uint64]] = []
    sizes: list[NDArray[np.int64]] = []
    owner: list[int] = []
    identity: list[int] = []
    kind: list[int] = []
    files: list[int] = []
    rows: list[int] = []
    raw_sizes: list[int] = []
    raws = bytearray()
    numbers = {file.label: number for number, file in enumerate(items.files)}
    waiting: list[str] = []
    chars = 0

    def flush() -> None:
        found = words(waiting)
        hashes.append(found.hashes)
        sizes.append(np.diff(found.starts))
        waiting.clear()

    for number, item in enumerate(items):
        files.append(numbers[item.file])
        rows.append(item.row)
        raws += item.raw
        raw_sizes.append(len(item.raw))
        told = [(text, _QUESTION if text == item.question else _OTHER) for text in item.segments]
        if len(item.question) < _SHORT_QUESTION_CHARS:
            told += [(f"{item.question}\n{text}", _JOINED) for text in item.segments if text != item.question]
        told += [(text, _FILLED) for text in item.filled]
        for text, what in told:
            waiting.append(text)
            chars += len(text)
            owner.append(number)
            identity.append(hash(text))
            kind.append(what)
        if chars > _BLOCK_CHARS:
            flush()
            chars = 0
    flush()
    return _Texts(
        np.concatenate(hashes),
        np.concatenate(sizes),
        np.array(owner, np.int32),
        np.array(identity, np.int64),
        np.array(kind, np.int8),
        np.array(files, np.int32),
        np.array(rows, np.int32),
        raws,
        np.array(raw_sizes, np.int64),
    )


class _Texts(NamedTuple):
    """The texts of all items one after the other: words, and per text its size, item, identity and kind."""

    hashes: NDArray[np.uint64]
    sizes: NDArray[np.int64]
    owner: NDArray[np.int32]
    identity: NDArray[np.int64]
    kind: NDArray[np.int8]
    files: NDArray[np.int32]
    rows: NDArray[np.int32]
    raws: bytearray
    raw_sizes: NDArray[np.int64]


class BenchmarkStats(msgspec.Struct, frozen=True, kw_only=True):
    """What could be indexed of one benchmark."""

    name: str
    files: list[str]
    items: int
    checkable: int
    """Items with at least one gram to look for; ``items`` less the next two."""
    too_short: int
    """Items with a question below `WORDS_SHORT` words and nothing else to look for."""
    boilerplate_only: int
    """Items of which every gram is boilerplate."""
    boilerplate_grams: int
    """Different grams that are not looked for because they are the benchmark's wording."""
    short_lengths: list[int]
    """Lengths, in words, of the questions that are looked for as a whole."""
