"""What near-duplicates are compared by: the word 5-grams (shingles) of a text, and a sketch of them to look them up by.

The sketch is one-permutation hashing (Li, Owen, Zhang 2012): the range of the hashes is cut into 80 slots, and each
keeps its least shingle. Empty slots borrow from their neighbour (densification by rotation; Shrivastava and Li 2014),
and four neighbouring slots make one of the 20 band keys. Two texts of Jaccard similarity j with many shingles share a
key with probability 1 - (1 - j**4)**20: 0.996 at 0.7, 0.94 at 0.6, 0.73 at 0.5. Texts with fewer shingles than slots
are found more often than that, because their neighbouring slots repeat one value; every pair found is verified.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_prep.words import Words, offsets

SHINGLE = 5  # words
BANDS = 20
NOTHING = 0  # the key, in all bands, of a text without words: it equals no other text

_PER_BAND = 4
_SLOTS = BANDS * _PER_BAND
_EMPTY = 0xFFFFFFFF
# Odd constants (of wyhash); with the words' own hashes they decide what goes into a sketch, hence which pairs are seen.
_A = np.uint64(0xA0761D6478BD642F)
_B = np.uint64(0xE7037ED1A0B428DB)
_C = np.uint64(0x8EBC6AF09C88C6E3)


def shingles(words: Words) -> Words:
    """Hashes of the runs of five words of each text, repetitions included, in order of appearance.

    A text of one to four words has one shingle, all of its words; a text without words has none.
    """
    hashes, starts = words
    count = len(hashes)
    padded = np.zeros(count + SHINGLE - 1, np.uint64)
    padded[:count] = hashes
    pairs = padded[:-1] * _A
    pairs += padded[1:]
    runs = pairs[:count] * _B
    runs += pairs[2 : count + 2]
    runs *= _C
    runs += padded[SHINGLE - 1 :]
    sizes = np.diff(starts)
    complete = np.ones(count, np.bool_)  # per word, whether the run that it begins stays within the text
    for back in range(1, SHINGLE):
        complete[(starts[1:] - back)[sizes >= back]] = False
    short = np.flatnonzero((sizes > 0) & (sizes < SHINGLE))
    if len(short):
        first = starts[short]
        complete[first] = True
        runs[first] = _whole(hashes, first, sizes[short])
    return Words(runs[complete], offsets(np.where(sizes < SHINGLE, sizes > 0, sizes - (SHINGLE - 1))))


def sketch(words: Words) -> NDArray[np.uint32]:
    """Band keys, texts x ``BANDS``; similar texts have a key in common in at least one column.

    A text's keys depend on that text alone, and on the byte order of the machine.
    """
    hashes, starts = shingles(words)
    texts = len(starts) - 1
    slot = hashes >> np.uint64(32)
    slot *= np.uint64(_SLOTS)
    slot >>= np.uint64(32)
    slot += np.repeat(np.arange(0, texts * _SLOTS, _SLOTS, dtype=np.uint64), np.diff(starts))
    least = np.full(texts * _SLOTS, _EMPTY, np.uint32)
    np.minimum.at(least, slot.view(np.int64), hashes.astype(np.uint32))
    bare = starts[1:] == starts[:-1]
    least[::_SLOTS][bare] = 0
    halves = _densified(least).view(np.uint64).reshape(texts, BANDS, 2)
    mixed = halves[:, :, 0] * _A
    mixed += halves[:, :, 1] * _B
    mixed >>= np.uint64(32)
    keys = mixed.astype(np.uint32)
    np.maximum(keys, NOTHING + 1, out=keys)
    keys[bare] = NOTHING
    return keys


def _whole(hashes: NDArray[np.uint64], first: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One hash for all words of each text of one to four words, which begin at ``first``."""
    whole = sizes.astype(np.uint64)
    for word in range(SHINGLE - 1):
        longer = sizes > word
        whole[longer] = whole[longer] * _A + hashes[first[longer] + word]
    return whole * _B


def _densified(least: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Each empty slot takes the value of the next filled one of its text; those after the last one, that one's.

    Every text has at least one filled slot.
    """
    filled = np.flatnonzero(least != _EMPTY)
    text = filled // _SLOTS
    ends = filled + 1  # slots up to here repeat the filled one's value
    last = np.flatnonzero(text[1:] != text[:-1])
    ends[last] = (text[last] + 1) * _SLOTS
    ends[-1:] = len(least)
    repeats = ends.copy()
    repeats[1:] -= ends[:-1]
    return np.repeat(least[filled], repeats)
