"""Rows that wait for a decision: their lines in a file, one after the other, and a record of each in another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from data_prep.conversation import Conversation
from data_prep.marks import record_type, turns_text
from data_prep.sink import SPOOLED, draft

_RUN = 1 << 20
"""Bytes that are read at once."""


class Spool:
    """The spool in ``folder``; with ``near``, its records hold band keys."""

    def __init__(self, folder: Path, *, near: bool) -> None:
        self.folder = folder
        dtype = record_type(near=near)
        path = draft(folder, SPOOLED[1])
        rows = path.stat().st_size // dtype.itemsize
        self.index: NDArray[Any] = (
            np.memmap(path, dtype, mode="r", shape=(rows,)).view(np.ndarray) if rows else np.zeros(0, dtype)
        )
        """One record per row; see `marks`."""
        self._offsets = np.zeros(rows + 1, np.int64)
        np.cumsum(self.index["length"], out=self._offsets[1:])
        self._fd = os.open(draft(folder, SPOOLED[0]), os.O_RDONLY)
        self._decode = msgspec.json.Decoder(Conversation).decode

    def close(self) -> None:
        os.close(self._fd)

    def line(self, row: int) -> bytes:
        """The line of one row, with its line end."""
        begin, end = int(self._offsets[row]), int(self._offsets[row + 1])
        return os.pread(self._fd, end - begin, begin)

    def conversation(self, row: int) -> Conversation:
        """One row."""
        return self._decode(self.line(row))

    def texts(self, rows: NDArray[np.int64]) -> list[str]:
        """The `turns_text` of some rows."""
        return [turns_text(self.conversation(row)) for row in rows.tolist()]

    def runs(self) -> Iterator[tuple[slice, bytes, NDArray[np.int64]]]:
        """All rows in runs of about a megabyte: which they are, their lines, and where in those each begins."""
        begin = 0
        while begin < len(self.index):
            until = np.searchsorted(self._offsets, self._offsets[begin] + _RUN, side="right") - 1
            end = min(max(int(until), begin + 1), len(self.index))
            low, high = int(self._offsets[begin]), int(self._offsets[end])
            yield slice(begin, end), os.pread(self._fd, high - low, low), self._offsets[begin : end + 1] - low
            begin = end
