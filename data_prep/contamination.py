"""Training rows that hold text of a benchmark's items: a shared run of 13 words, or a short question whole.

What a word is, `words` says: case, spacing and punctuation do not matter, and a CJK character is a word. A row is one
text, its turns joined by `TURN_SEPARATOR`, which is no part of a word. A run of words may therefore go from one turn
into the next; it matches only if one text of an item reads on in the same way.

How it is found: of a row only every 7th word begins a 7-gram that is looked up, in a Bloom filter of all 7-grams of the
items, since any 13 words running hold one of them; around each hit the 13-grams are compared by 64-bit hashes. What is
found does not depend on where the sampling began, so a row's fate depends on that row alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from data_prep.bloom import Filter
from data_prep.contamination_build import (
    SAMPLE_LONG,
    SAMPLE_SHORT,
    WORDS_LONG,
    WORDS_SHORT,
    BenchmarkStats,
    read_grams,
)
from data_prep.eval_items import Items, eval_items, question
from data_prep.grams import grams_at, stepped
from data_prep.words import TURN_SEPARATOR, Words, words

_ARRAYS = ("grams", "gram_items", "item_grams", "item_benchmarks", "item_files", "item_rows", "raws", "raw_starts")
_SAMPLES = {"long_filter": "long_samples", "short_filter": "short_samples"}
_FILTERS = (*_SAMPLES, "head_filter")


def row_text(turns: Iterable[str], system: str | None = None) -> str:
    """The text of one row that counts: the contents of all its turns, tools' answers included, then its system prompt.

    The prompt stands behind, so that the turns are the same run of words with it and without.
    """
    return TURN_SEPARATOR.join(turns if system is None else (*turns, system))


def load_index(benchmarks: Sequence[tuple[str, Path | str]]) -> Index:
    """The index of the items that each ``(name, path)`` scores; a name that comes again gets the items of both paths.

    Raises InputError for a path that holds no items of its benchmark.
    """
    found: dict[str, list[Items]] = {}
    for name, path in dict.fromkeys((name, Path(path)) for name, path in benchmarks):
        found.setdefault(name, []).append(eval_items(name, path))
    return Index.build([items[0] if len(items) == 1 else Items.merged(items) for items in found.values()])


class Index:
    """The n-grams of the items of some benchmarks, in numpy arrays that can lie in mapped files."""

    def __init__(self, arrays: dict[str, NDArray[Any]], benchmarks: Sequence[BenchmarkStats]) -> None:
        self.benchmarks = tuple(benchmarks)
        self._arrays = arrays
        self._grams: NDArray[np.uint64] = arrays["grams"]
        self._gram_items: NDArray[np.int32] = arrays["gram_items"]
        self._long, self._short, self._heads = (Filter(arrays[name]) for name in _FILTERS)
        self._lengths = sorted({length for benchmark in benchmarks for length in benchmark.short_lengths})

    @staticmethod
    def build(benchmarks: Sequence[Items]) -> Index:
        """Read all items and index them."""
        stats: list[BenchmarkStats] = []
        parts: list[dict[str, NDArray[Any]]] = []
        for number, benchmark in enumerate(benchmarks):
            told, part = read_grams(benchmark, number, sum(before.items for before in stats))
            stats.append(told)
            parts.append(part)
        filters = {name: Filter.build(*(part.pop(source) for part in parts)).bits for name, source in _SAMPLES.items()}
        heads = [part.pop("short_heads") for part in parts]
        arrays = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
        arrays["raw_starts"] = np.concatenate([[0], np.cumsum(arrays.pop("raw_sizes"))])
        order = np.argsort(arrays["grams"], kind="stable")
        arrays["grams"], arrays["gram_items"] = arrays["grams"][order], arrays["gram_items"][order]
        filters["head_filter"] = Filter.build(arrays["grams"], *heads).bits
        arrays |= filters
        return Index({name: arrays[name] for name in (*_ARRAYS, *_FILTERS)}, stats)

    def save(self, folder: Path) -> None:
        """Write the index into ``folder``, which is made; `load` can then map it in many processes."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in self._arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        (folder / "benchmarks.json").write_bytes(msgspec.json.encode(self.benchmarks))

    @staticmethod
    def load(folder: Path) -> Index:
        """Map the index that `save` wrote."""
        benchmarks = msgspec.json.decode((folder / "benchmarks.json").read_bytes(), type=list[BenchmarkStats])
        arrays = {
            # As plain arrays: numpy's own class for mapped files costs microseconds with every operation.
            name: np.load(folder / f"{name}.npy", mmap_mode="r").view(np.ndarray)
            for name in (*_ARRAYS, *_FILTERS)
        }
        return Index(arrays, benchmarks)

    def probe(self, rows: Words) -> NDArray[np.bool_]:
        """Per row, whether it holds 13 words running, or a whole short question, of any item."""
        hits = np.zeros(len(rows.starts) - 1, bool)
        self._probe(rows, hits, self._long, WORDS_LONG, SAMPLE_LONG, (WORDS_LONG,))
        if self._lengths:
            self._probe(rows, hits, self._short, WORDS_SHORT, SAMPLE_SHORT, self._lengths)
        return hits

    def _probe(
        self,
        rows: Words,
        hits: NDArray[np.bool_],
        sampled: Filter,
        least: int,
        sample: int,
        lengths: Sequence[int],
    ) -> None:
        """Set ``hits`` where grams of ``lengths`` words (``least`` or more) occur, found by ``sample``-grams."""
        step = least - sample + 1
        at = sampled.passing(stepped(rows.hashes, sample, step)) * step
        if not len(at):
            return
        row = np.searchsorted(rows.starts, at, side="right") - 1
        # Every gram that holds the sampled one, as far as it lies within the row.
        begin = (at[:, None] - np.arange(step)).ravel()
        row = np.repeat(row, step)
        begin, row = _where((begin >= rows.starts[row]) & (begin + least <= rows.starts[row + 1]), begin, row)
        heads = self._heads.passing(grams_at(rows.hashes, begin, least))
        begin, row = begin[heads], row[heads]
        if not len(begin):
            return
        for length in lengths:
            inside, own = _where(begin + length <= rows.starts[row + 1], begin, row)
            hits[own[self._found(grams_at(rows.hashes, inside, length))]] = True

    def _found(self, grams: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Positions in ``grams`` of those that are an item's."""
        if not len(self._grams):
            return np.zeros(0, np.int64)
        place = np.searchsorted(self._grams, grams)
        place[place == len(self._grams)] = 0
        return np.flatnonzero(self._grams[place] == grams)

    def matches(self, rows: Words) -> list[list[Match]]:
        """Per row the items it shares grams with, those of which it holds the largest share first."""
        return [self._matches(rows.hashes[begin:end]) for begin, end in zip(rows.starts, rows.starts[1:], strict=False)]

    def _matches(self, hashes: NDArray[np.uint64]) -> list[Match]:
        found = [self._gram_items[:0]]
        for least, lengths in ((WORDS_LONG, (WORDS_LONG,)), (WORDS_SHORT, self._lengths)):
            heads = self._heads.passing(stepped(hashes, least))
            for length in lengths if len(heads) else ():
                grams = np.sort(grams_at(hashes, heads[heads + length <= len(hashes)], length))
                once = np.ones(len(grams), bool)
                once[1:] = grams[1:] != grams[:-1]
                first, last = (np.searchsorted(self._grams, grams[once], side=side) for side in ("left", "right"))
                found += [self._gram_items[begin:end] for begin, end in zip(first, last, strict=True)]
        shared = Counter(np.concatenate(found).tolist())
        item_grams = self._arrays["item_grams"]
        matches = [
            Match(item, count, round(min(1.0, count / max(1, int(item_grams[item]))), 4))
            for item, count in shared.items()
        ]
        return sorted(matches, key=lambda match: (-match.containment, -match.shared, match.item))

    def explain(self, texts: Sequence[str]) -> list[list[Match]]:
        """Per text of a row, the items that it holds text of; empty lists for clean rows."""
        return self.matches(words(texts))

    def explain_one(self, text: str) -> dict[str, Any]:
        """Why a row is contaminated, by the item of which it holds the largest share, for a line of a report.

        ``benchmarks`` names all benchmarks it overlaps, ``benchmark``, ``item``, ``containment`` and ``question`` are
        those of the worst item. Raises ValueError for a row that is clean.
        """
        matches = self.explain([text])[0]
        if not matches:
            raise ValueError("this row shares nothing with any item; probe() tells which rows do")
        worst = matches[0]
        names = dict.fromkeys(self.benchmark_of(match.item).name for match in matches)
        return {
            "benchmark": self.benchmark_of(worst.item).name,
            "item": self.place(worst.item),
            "containment": worst.containment,
            "question": question(msgspec.json.decode(self.raw(worst.item))),
            "benchmarks": sorted(names),
        }

    def benchmark_of(self, item: int) -> BenchmarkStats:
        """The benchmark that ``item`` belongs to."""
        return self.benchmarks[int(self._arrays["item_benchmarks"][item])]

    def place(self, item: int) -> str:
        """Where ``item`` stands: label of the file, row from 1."""
        label = self.benchmark_of(item).files[int(self._arrays["item_files"][item])]
        return f"{label}:{self._arrays['item_rows'][item]}"

    def raw(self, item: int) -> bytes:
        """The whole row of ``item`` as JSON."""
        begin, end = self._arrays["raw_starts"][item : item + 2]
        return self._arrays["raws"][begin:end].tobytes()


def _where(keep: NDArray[np.bool_], *arrays: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [array[keep] for array in arrays]


class Match(NamedTuple):
    """One item that a row holds text of."""

    item: int
    shared: int
    """Grams in common, each counted once."""
    containment: float
    """``shared`` over the item's own grams, at most 1: an item that is there in full."""
