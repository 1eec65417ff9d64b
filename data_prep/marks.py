"""What is noted of each readable row, so that it can be decided later which stay: one record of fixed width."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from data_prep.conversation import Conversation
from data_prep.cook import Cooked
from data_prep.job import Job
from data_prep.sketch import BANDS, sketch
from data_prep.split import line_hashes, validation_rows
from data_prep.stats import Count, counted
from data_prep.words import TURN_SEPARATOR, Words, words

if TYPE_CHECKING:
    from data_prep.contamination import Index

VALIDATION, CONTAMINATED, HAS_SYSTEM, HAS_TOOLS, HAS_MASKS = 1, 2, 4, 8, 16
"""Bits of ``flags``."""
_FIELDS: list[Any] = [
    ("length", "<u4"),  # bytes of the line in the spool, with its line end
    ("exact", "<u8"),  # equal for equal conversations but for case and spacing
    ("pick", "<u8"),  # by which rows are sampled
    ("number", "<u4"),  # line or element of the file, from 1
    ("file", "<u4"),
    ("flags", "u1"),
    ("chars", "<u4"),
    ("turns", "<u4"),
    ("assistant_turns", "<u4"),
]
_SPACES = b" \t\n\r\x0b\x0c"
_LOWER = bytes(range(256)).lower()
_UNICODE_SPACE = re.compile(r"[^\S\x1c-\x1f]+")  # not what stands between turns
_PICK_SEED = 0x5A6D
"""Apart from the seed of the split: the rows that are sampled are not to be those of one side."""


def record_type(*, near: bool) -> np.dtype[Any]:
    """The record of one row; with ``near``, the band keys too, by which near-duplicates are found."""
    return np.dtype([*_FIELDS, ("bands", "<u4", (BANDS,))] if near else _FIELDS)


def turns_text(conversation: Conversation) -> str:
    """The turns as one text, without the system prompt, which many rows may share: for near-duplicates."""
    messages = conversation.messages
    if len(messages) == 2:
        return f"{messages[0].content}{TURN_SEPARATOR}{messages[1].content}"
    return TURN_SEPARATOR.join([message.content for message in messages if message.role != "system"])


def exact_key(conversation: Conversation, text: str) -> int:
    """64-bit hash of the conversation without regard to case and spacing; ``text`` is its `turns_text`."""
    messages = conversation.messages
    if len(messages) != 2 or conversation.tools is not None:
        roles = ",".join([f"{message.role}{'' if message.loss is None else '-'}" for message in messages])
        system = messages[0].content if messages[0].role == "system" else ""
        text = "\x1d".join((text, roles, system, conversation.tools or ""))
    if not text.isascii():
        text = _UNICODE_SPACE.sub("", text.lower())
    return xxhash.xxh3_64_intdigest(text.encode().translate(_LOWER, _SPACES))


class Marker:
    """Makes the records of one job's rows; a row's record depends on that row alone."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._type = record_type(near=job.dedup == "near")
        self._index: Index | None = None
        if job.index is not None:
            from data_prep.contamination import Index

            self._index = Index.load(job.index)
        self._added = len(job.system or "")

    def records(self, cooked: Cooked) -> NDArray[Any]:
        """One record per kept row, numbered from the beginning of the block."""
        job, rows = self._job, [row for row in cooked.conversations if row is not None]
        records = np.zeros(len(rows), self._type)
        if not rows:
            return records
        counts = [
            Count(chars, 2, 1, system=False, tools=False, masks=False) if chars else counted(row)
            for chars, row in zip(cooked.chars, rows, strict=True)
        ]
        system = np.array([count.system for count in counts])
        records["length"] = [len(line) + 1 for line in cooked.lines]
        records["pick"] = line_hashes(cooked.lines, job.seed ^ _PICK_SEED)
        records["number"] = cooked.at
        records["chars"] = [count.chars for count in counts]
        records["chars"] += np.where(system, 0, self._added).astype(np.uint32)
        records["turns"] = [count.turns for count in counts]
        records["assistant_turns"] = [count.assistant_turns for count in counts]
        flags = np.zeros(len(rows), np.int64)
        flags[validation_rows(cooked.lines, job.val_fraction, job.seed)] = VALIDATION
        flags |= system * HAS_SYSTEM
        flags |= np.array([count.tools for count in counts]) * HAS_TOOLS
        flags |= np.array([count.masks for count in counts]) * HAS_MASKS
        texts = [turns_text(row) for row in rows]
        if job.dedup != "none":
            records["exact"] = [exact_key(row, text) for row, text in zip(rows, texts, strict=True)]
        if job.dedup == "near" or self._index is not None:
            found, turns = self._words(rows, texts, system)
            if self._index is not None:
                flags |= self._index.probe(found) * CONTAMINATED
            if job.dedup == "near":
                records["bands"] = sketch(turns)
        records["flags"] = flags
        return records

    def _words(self, rows: Sequence[Conversation], texts: list[str], system: NDArray[np.bool_]) -> tuple[Words, Words]:
        """The words of whole rows, and those of their turns; the system prompt stands behind the turns."""
        if self._index is None or not system.any():
            found = words(texts)
            return found, found
        prompts = [row.messages[0].content if has else "" for row, has in zip(rows, system, strict=True)]
        whole = words([f"{text}{TURN_SEPARATOR}{prompt}" for text, prompt in zip(texts, prompts, strict=True)])
        behind = np.array([_word_count(prompt) for prompt in prompts])
        sizes = np.diff(whole.starts)
        ends = np.repeat(whole.starts[1:] - behind, sizes)
        kept = whole.hashes[np.arange(len(whole.hashes)) < ends]
        return whole, Words(kept, np.concatenate([[0], np.cumsum(sizes - behind)]))


@lru_cache(maxsize=256)
def _word_count(text: str) -> int:
    return int(words([text]).starts[-1]) if text else 0
