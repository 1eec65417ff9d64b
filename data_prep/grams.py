"""Hashed n-grams of hashed words, for numpy arrays of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LONGEST = 13
"""Words of the longest gram that can be hashed."""
_MULTIPLIER = 0x9E3779B97F4A7C15
POWERS = np.array([pow(_MULTIPLIER, word, 1 << 64) for word in range(LONGEST)], np.uint64)
"""A gram's hash is the sum of its words' hashes times these, modulo 2**64."""


def stepped(hashes: NDArray[np.uint64], length: int, step: int = 1) -> NDArray[np.uint64]:
    """Hashes of the grams of ``length`` words that begin at every ``step``-th word, as far as they are whole."""
    count = max(0, (len(hashes) - length) // step + 1)
    end = (count - 1) * step + 1
    grams = hashes[:end:step].copy() if count else hashes[:0].copy()
    for word in range(1, length):
        if count:
            grams += hashes[word : word + end : step] * POWERS[word]
    return grams


def grams_at(hashes: NDArray[np.uint64], begin: NDArray[np.integer], length: int) -> NDArray[np.uint64]:
    """Hashes of the grams of ``length`` words that begin at the words ``begin``."""
    grams: NDArray[np.uint64] = hashes[begin[:, None] + np.arange(length)] @ POWERS[:length]
    return grams


def room(sizes: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """Per word of texts of ``sizes`` words, whether ``length`` words are left of its text from there."""
    left = np.ones(int(sizes.sum()), bool)
    ends = np.cumsum(sizes)
    for before in range(1, length):
        left[(ends - before)[sizes >= before]] = False
    return left
