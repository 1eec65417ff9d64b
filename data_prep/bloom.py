"""A Bloom filter over 64-bit hashes, for numpy arrays of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_HASH_BITS = 64
_BITS_PER_GRAM = 16
_LEAST_BITS = 14  # as a power of two: 2 KB
_BUILD_BLOCK = 1 << 16
_SECOND = np.uint64(0xD6E8FEB86659FD93)


class Filter:
    """A Bloom filter with two probes of 64-bit hashes; at 16 bits a gram at most 1 in 64 strangers passes."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self.bits = bits
        size = len(bits) * 8
        self._shift = np.uint64(_HASH_BITS - (size.bit_length() - 1))

    @staticmethod
    def build(*several: NDArray[np.uint64]) -> Filter:
        """The filter of all grams in ``several`` arrays, 2 KB or more."""
        size = 1 << max(_LEAST_BITS, (sum(map(len, several)) * _BITS_PER_GRAM - 1).bit_length())
        made = Filter(np.zeros(size // 8, np.uint8))
        for grams in several:
            for begin in range(0, len(grams), _BUILD_BLOCK):
                made._add(grams[begin : begin + _BUILD_BLOCK])
        return made

    def _add(self, grams: NDArray[np.uint64]) -> None:
        for hashes in (grams, grams * _SECOND):
            at, mask = self._place(hashes)
            np.bitwise_or.at(self.bits, at, mask)

    def passing(self, grams: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Positions in ``grams`` of those that may be in the filter: all that are, and few others."""
        at, mask = self._place(grams)
        first: NDArray[np.int64] = np.flatnonzero(self.bits[at] & mask)
        at, mask = self._place(grams[first] * _SECOND)
        passing: NDArray[np.int64] = first[(self.bits[at] & mask) != 0]
        return passing

    def _place(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        bit = hashes >> self._shift
        return bit >> np.uint64(3), np.uint8(1) << (bit & np.uint64(7)).astype(np.uint8)
