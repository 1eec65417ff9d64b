"""Which of the rows in a spool are written, and how often: contamination, sampling, duplicates. Whole arrays at a time.

The order matters. Rows that overlap a benchmark go first and those that are not sampled next, so that no other row is
dropped as a duplicate of a row that is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.job import Job
from data_prep.marks import CONTAMINATED, VALIDATION
from data_prep.near import candidates, jaccard, keep_first
from data_prep.progress import Progress, Say
from data_prep.relay import process_context
from data_prep.sources import Source
from data_prep.spool import Spool

KEPT, CONTAMINATION, EXACT, NEAR, UNSAMPLED = range(5)
"""What becomes of a row."""
_SPAN = 1 << 64
_SCATTER = np.uint64(0x9E3779B97F4A7C15)
_PART = 4096
"""Pairs that are compared in one go."""
_WORTH = 40_000
"""Pairs below which starting processes costs more than it saves."""


@dataclass
class Decision:
    """One entry per row of the spool."""

    fate: NDArray[np.uint8]
    copies: NDArray[np.uint16]
    """How often the row is written; 0 for all that are not KEPT."""
    keeper: dict[int, tuple[int, float]]
    """For every duplicate, the row that is kept in its place and their similarity (1.0 for exact ones)."""


def decide(
    job: Job, sources: Sequence[Source], spool: Spool, threshold: float, processes: int, say: Say | None
) -> Decision:
    """Decide on every row of ``spool``; ``threshold`` is the least Jaccard similarity of near-duplicates."""
    index = spool.index
    fate = np.where(index["flags"] & CONTAMINATED, np.uint8(CONTAMINATION), np.uint8(KEPT))
    of_source = np.array([file.source for file in job.files], np.int64)[index["file"]]
    copies = np.ones(len(index), np.uint16)
    for at, source in enumerate(sources):
        if source.limit is not None or source.weight != 1:
            _sample(index, np.flatnonzero((of_source == at) & (fate == KEPT)), source, copies)
    fate[(copies == 0) & (fate == KEPT)] = UNSAMPLED
    keeper: dict[int, tuple[int, float]] = {}
    if job.dedup != "none":
        _exact(index["exact"], fate, keeper)
    if job.dedup == "near":
        _near(spool, fate, keeper, threshold, processes, say)
    copies[fate != KEPT] = 0
    return Decision(fate, copies, keeper)


def _exact(keys: NDArray[np.uint64], fate: NDArray[np.uint8], keeper: dict[int, tuple[int, float]]) -> None:
    """Mark the rows with the key of an earlier row."""
    rows = np.flatnonzero(fate == KEPT)
    if not len(rows):
        return
    found = keys[rows]
    order = np.argsort(found, kind="stable")
    found = found[order]
    again = np.append(False, found[1:] == found[:-1])
    first = order[np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))]
    duplicates = rows[order[again]]
    fate[duplicates] = EXACT
    keeper.update(zip(duplicates.tolist(), ((row, 1.0) for row in rows[first[again]].tolist()), strict=True))


def _near(
    spool: Spool,
    fate: NDArray[np.uint8],
    keeper: dict[int, tuple[int, float]],
    threshold: float,
    processes: int,
    say: Say | None,
) -> None:
    """Mark the rows that are like an earlier row that stays."""
    left, right = candidates(spool.index["bands"], fate == KEPT)
    similarity = _similarities(spool.folder, left, right, processes, say)
    alike = similarity >= threshold
    left, right, similarity = left[alike], right[alike], similarity[alike]
    rows, keepers = keep_first(left, right, len(fate))
    fate[rows] = NEAR
    key = left << 32 | right
    order = np.argsort(key)
    found = similarity[order[np.searchsorted(key[order], keepers << 32 | rows)]] if len(rows) else similarity
    near = dict(zip(rows.tolist(), zip(keepers.tolist(), found.tolist(), strict=True), strict=True))
    # A row that stood for exact duplicates may go itself: then they went for the row that it goes for.
    keeper.update({row: near[first] for row, (first, _) in keeper.items() if first in near})
    keeper.update(near)


def _similarities(
    folder: Path, left: NDArray[np.int64], right: NDArray[np.int64], processes: int, say: Say | None
) -> NDArray[np.float64]:
    parts = [slice(at, at + _PART) for at in range(0, len(left), _PART)]
    work = partial(_compare, folder)
    pairs = ((left[part], right[part]) for part in parts)
    progress = Progress("comparing pairs", len(left), say)

    def watched(results: Iterable[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        found = []
        for result in results:
            found.append(result)
            progress.advance(len(result), len(result))
        return found

    if processes == 1 or len(left) < _WORTH:
        try:
            found = watched(map(work, pairs))
        finally:
            forget()
    else:
        with ProcessPoolExecutor(processes, mp_context=process_context()) as pool:
            found = watched(pool.map(work, pairs))
    progress.close()
    return np.concatenate([*found, np.empty(0)])


_opened: dict[Path, Spool] = {}
"""The spool of this process: opening it takes as long as a few thousand comparisons."""


def _compare(folder: Path, pairs: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.float64]:
    spool = _opened.get(folder)
    if spool is None:
        spool = _opened[folder] = Spool(folder, near=True)
    return jaccard(*pairs, spool.texts)


def forget() -> None:
    """Close what `_compare` has opened in this process: the next spool in the folder is another."""
    while _opened:
        _opened.popitem()[1].close()


def _sample(index: NDArray[Any], rows: NDArray[np.int64], source: Source, copies: NDArray[np.uint16]) -> None:
    """Set how often the ``rows`` of one source are written. Which rows are taken, a hash of their content says."""
    picks = index["pick"][rows]
    if source.limit is not None and len(rows) > source.limit:
        chosen = np.argsort(picks, kind="stable")
        copies[rows[chosen[source.limit :]]] = 0
        chosen = np.sort(chosen[: source.limit])
        rows, picks = rows[chosen], picks[chosen]
    whole, rest = divmod(source.weight, 1)
    times = np.full(len(rows), int(whole), np.uint16)
    # Scattered anew: the rows within a limit are those of the least picks, and would all be under any share.
    times += picks * _SCATTER < np.uint64(min(int(rest * _SPAN), _SPAN - 1))
    # A row that is measured twice says no more about the model.
    validation = index["flags"][rows] & VALIDATION != 0
    copies[rows] = np.where(validation, np.minimum(times, 1), times)
