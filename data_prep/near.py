"""Near-duplicates: pairs of rows that a sketch finds alike, their exact similarity, and which rows to keep.

Where values only have to be found again, a hash table made of array operations (``_Table``) does it in a fifth of the
time that sorting takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.sketch import NOTHING, shingles
from data_prep.words import Words, offsets, words

_ROW = np.uint64(0xFFFFFFFF)
_PREDECESSORS = 8  # of a row in its bucket that it is paired with, besides the first
_PENDING = 1 << 18  # pairs, repetitions included, that are held at least before they are made unique
_PAIRS = 512  # per batch of ``jaccard``: their shingles, and the table of them, stay in the cache
_TEXTS = 512  # tokenised together: about what stays in the cache
# Odd: one per table of a _Table, so that keys which share a cell in one part in the next.
_SPREADS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64)
_OF_ROW = np.uint64(0xD1342543DE82EF95)


def candidates(keys: NDArray[np.uint32], alive: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Unique pairs (left, right), left < right, of rows that have a band key in common; sorted by left, then right.

    ``keys`` is rows x bands, as :func:`data_prep.sketch.sketch` makes it; it may be a memory map, of which one column
    at a time is read. Rows that are not ``alive`` (one flag per row) take no part. In a bucket of many rows each is
    paired with the first and with the eight before it only, so that k rows of one template give 9 k pairs per band and
    not k * k / 2; such rows have other bands too, in which fewer meet.

    Raises ValueError when there are 2**32 rows or more.
    """
    rows = np.flatnonzero(alive).astype(np.uint64)
    if len(alive) > int(_ROW):
        raise ValueError(f"near-duplicates can be sought among at most {int(_ROW)} rows, not {len(alive)}")
    unique = np.empty(0, np.uint64)
    pending: list[NDArray[np.uint64]] = []
    held = 0
    for band in range(keys.shape[1]):
        pairs = _pairs(keys[:, band], rows)
        pending.append(pairs)
        held += len(pairs)
        if held > max(_PENDING, len(unique)):
            unique, held = _distinct(np.concatenate([unique, *pending])), 0
            pending.clear()
    unique = np.sort(_distinct(np.concatenate([unique, *pending])))
    return (unique >> np.uint64(32)).astype(np.int64), (unique & _ROW).astype(np.int64)


def _pairs(column: NDArray[np.uint32], rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Pairs of one band as ``left << 32 | right``; may repeat a pair."""
    packed = column[rows].astype(np.uint64)
    packed <<= np.uint64(32)
    packed |= rows
    packed = packed[packed > (NOTHING << 32 | int(_ROW))]
    packed.sort()
    at = np.flatnonzero(packed[1:] ^ packed[:-1] <= _ROW) + 1  # those with the key of the one before
    packed &= _ROW
    head = np.ones(len(at), np.bool_)
    head[1:] = np.diff(at) > 1
    first = (at[head] - 1).repeat(np.diff(np.flatnonzero(np.append(head, True))))
    depth = at - first
    found = []
    for back in range(1, _PREDECESSORS + 1):
        right = at[depth >= back]
        found.append(packed[right - back] << np.uint64(32) | packed[right])
    deep = depth > _PREDECESSORS
    found.append(packed[first[deep]] << np.uint64(32) | packed[at[deep]])
    return np.concatenate(found)


def jaccard(
    left: NDArray[np.int64], right: NDArray[np.int64], texts: Callable[[NDArray[np.int64]], Sequence[str]]
) -> NDArray[np.float64]:
    """The exact Jaccard similarity of the shingle sets of rows ``left[i]`` and ``right[i]``, for every i.

    ``texts`` gives the texts of some rows (ascending, at most 512 at a time), in their order. Pairs that follow each
    other should have rows in common, as those of :func:`candidates` do: a row's shingles are computed once per 512
    pairs. Any part of the pairs may be given. A row without words is similar to nothing (0.0).
    """
    similarity = np.zeros(len(left), np.float64)
    for begin in range(0, len(left), _PAIRS):
        batch = slice(begin, begin + _PAIRS)
        rows, places = _rows(left[batch], right[batch])
        hashes, starts = _shingles(rows, texts)
        half = len(places) // 2
        similarity[batch] = _similarity(Words(hashes, starts), places[:half], places[half:])
    return similarity


def _rows(left: NDArray[np.int64], right: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The different rows of some pairs, ascending, and the places in them of all left rows, then all right ones."""
    both = np.concatenate([left, right])
    rows = np.sort(both)
    rows = rows[np.append(True, rows[1:] != rows[:-1])]
    return rows, np.searchsorted(rows, both)


def _shingles(rows: NDArray[np.int64], texts: Callable[[NDArray[np.int64]], Sequence[str]]) -> Words:
    parts = [shingles(words(texts(rows[at : at + _TEXTS]))) for at in range(0, len(rows), _TEXTS)]
    sizes = np.concatenate([np.diff(part.starts) for part in parts])
    return Words(np.concatenate([part.hashes for part in parts]), offsets(sizes))


def _similarity(all_shingles: Words, left: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.float64]:
    """Jaccard similarities of pairs of places in ``all_shingles``."""
    hashes, starts = all_shingles
    keys = hashes + np.repeat(np.arange(len(starts) - 1, dtype=np.uint64) * _OF_ROW, np.diff(starts))
    table = _Table(keys)
    starts = offsets(table.is_first)[starts]
    hashes = hashes[table.is_first]
    sizes = np.diff(starts)
    # All shingles of all right rows, looked up among those of their left rows.
    many = sizes[right]
    runs = offsets(many)
    sought = hashes[np.repeat(starts[right] - runs[:-1], many) + np.arange(runs[-1])]
    sought += np.repeat(left.astype(np.uint64) * _OF_ROW, many)
    common = np.diff(offsets(table.has(sought))[runs])
    union = sizes[left] + many - common
    similarity: NDArray[np.float64] = common / np.maximum(union, 1)
    return similarity


def keep_first(
    left: NDArray[np.int64], right: NDArray[np.int64], rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to drop, ascending, and for each the earliest row that is kept and like it.

    ``left[i] < right[i]`` are rows found to be near-duplicates, in any order, all below ``rows``. A row is dropped
    exactly if an earlier row like it is kept; so no two of the rows kept are a given pair.
    """
    order = np.lexsort((left, right))
    dropped = bytearray(rows)
    found: list[int] = []
    keepers: list[int] = []
    for before, row in zip(left[order].tolist(), right[order].tolist(), strict=True):
        # The rows before this one are decided, as the pairs come in the order of their right row.
        if not dropped[before] and not dropped[row]:
            dropped[row] = 1
            found.append(row)
            keepers.append(before)
    return np.array(found, np.int64), np.array(keepers, np.int64)


def _distinct(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    first: NDArray[np.bool_] = _Table(values).is_first
    return values[first]


class _Table:
    """Finds 64-bit keys again: a hash table that is written and read with whole arrays.

    Every key is written to the cell that the high bits of a product name, then read back: of the keys of one cell one
    stands there. Those that find another key in their cell go to the next, smaller table, with another factor.
    """

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        self._keys = keys
        self._tables: list[NDArray[np.int32]] = []
        everything = np.arange(len(keys), dtype=np.int32)
        standing, left = self._add(keys, everything)
        self.is_first = standing == everything
        """Per key, whether it stands for all keys of its value; exactly one of them does."""
        while len(left):
            standing, lost = self._add(keys[left], left)
            self.is_first[left] = standing == left
            left = left[lost]

    def _add(self, values: NDArray[np.uint64], places: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Write the ``places`` of some keys to a new table: what stands in the cell of each, and which keys lost."""
        # Two to four cells per key. A cell never written leads to key 0, which is a key like any other.
        self._tables.append(np.zeros(2 << len(values).bit_length(), np.int32))
        cells = self._cells(values, len(self._tables) - 1)
        self._tables[-1][cells] = places
        standing = self._tables[-1].take(cells)
        return standing, np.flatnonzero(self._keys.take(standing) != values)

    def has(self, values: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Whether each of ``values`` is among the keys, of which there is at least one."""
        found = self._standing(values, 0)
        absent = np.flatnonzero(~found)
        for level in range(1, len(self._tables)):
            here = self._standing(values[absent], level)
            found[absent[here]] = True
            absent = absent[~here]
        return found

    def _standing(self, values: NDArray[np.uint64], level: int) -> NDArray[np.bool_]:
        """Whether each of ``values`` stands in its cell of the table ``level``."""
        return np.equal(self._keys.take(self._tables[level].take(self._cells(values, level))), values)

    def _cells(self, values: NDArray[np.uint64], level: int) -> NDArray[np.int64]:
        cells: NDArray[np.uint64] = values * _SPREADS[level % len(_SPREADS)]
        cells >>= np.uint64(65 - len(self._tables[level]).bit_length())
        return cells.view(np.int64)
