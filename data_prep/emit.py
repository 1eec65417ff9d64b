"""From a spool and what was decided to the output files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from data_prep.contamination import Index, row_text
from data_prep.decide import CONTAMINATION, EXACT, KEPT, NEAR, UNSAMPLED, Decision
from data_prep.job import Job
from data_prep.marks import HAS_MASKS, HAS_TOOLS, VALIDATION, turns_text
from data_prep.sink import DIRECT, SystemPrompt, draft
from data_prep.spool import Spool
from data_prep.stats import Fates, SplitTally
from data_prep.widen import widened

if TYPE_CHECKING:
    from data_prep.relay import Advance

_EXCERPT = 300
"""Characters of a row that are shown."""


def write_sides(job: Job, spool: Spool, decision: Decision, advance: Advance) -> tuple[SplitTally, SplitTally]:
    """Write ``train.jsonl`` and ``val.jsonl`` as drafts, in the order of the input; what is in them."""
    validation = (spool.index["flags"] & VALIDATION) != 0
    tallies = tuple(_tally(spool.index, decision, validation == side) for side in (False, True))
    prompt = SystemPrompt(job.system)
    first = [True, True]
    with open(draft(job.folder, DIRECT[0]), "wb") as train, open(draft(job.folder, DIRECT[1]), "wb") as val:
        for rows, data, offsets in spool.runs():
            copies = decision.copies[rows]
            for side, stream in enumerate((train, val)):
                wanted = (copies > 0) & (validation[rows] == bool(side))
                if not wanted.any():
                    continue
                lines = _lines(data, offsets, wanted, copies, prompt)
                if first[side]:
                    lines[0] = widened(lines[0], tallies[side])
                    first[side] = False
                stream.writelines(lines)
            advance(len(data), rows.stop - rows.start)
    return tallies[0], tallies[1]


def _lines(
    data: bytes, offsets: NDArray[np.int64], wanted: NDArray[np.bool_], copies: NDArray[np.uint16], prompt: SystemPrompt
) -> list[bytes]:
    """The lines to write, in pieces as large as may be."""
    if prompt.changes or (copies > 1).any():
        chosen = np.flatnonzero(wanted).tolist()
        return [prompt.put(data[offsets[at] : offsets[at + 1]]) for at in chosen for _ in range(copies[at])]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]])))
    begins, ends = offsets[edges[::2]].tolist(), offsets[edges[1::2]].tolist()
    pieces = [data[begin:end] for begin, end in zip(begins, ends, strict=True)]
    # The first line of all may have to be widened, so it stands alone.
    end = int(offsets[edges[0] + 1]) - begins[0]
    return [pieces[0][:end], pieces[0][end:], *pieces[1:]]


def _tally(index: NDArray[Any], decision: Decision, side: NDArray[np.bool_]) -> SplitTally:
    rows = np.flatnonzero(side & (decision.copies > 0))
    copies = decision.copies[rows].astype(np.int64)
    tally = SplitTally()
    tally.turns = int((index["turns"][rows] * copies).sum())
    tally.assistant_turns = int((index["assistant_turns"][rows] * copies).sum())
    flags = int(np.bitwise_or.reduce(index["flags"][rows])) if len(rows) else 0
    tally.tools, tally.masks = bool(flags & HAS_TOOLS), bool(flags & HAS_MASKS)
    lengths, counts = np.unique(np.repeat(index["chars"][rows], copies), return_counts=True)
    tally.lengths = Counter(dict(zip(lengths.tolist(), counts.tolist(), strict=True)))
    return tally


def write_duplicates(stream: BinaryIO, spool: Spool, decision: Decision, labels: Sequence[str]) -> None:
    """One line per group of duplicates: the row that is kept, and those dropped for it."""
    groups: dict[int, list[tuple[int, float]]] = {}
    for row, (keeper, similarity) in sorted(decision.keeper.items()):
        groups.setdefault(keeper, []).append((row, similarity))
    kinds = {EXACT: "exact", NEAR: "near"}
    for keeper, members in sorted(groups.items()):
        dropped = []
        near = False
        for row, similarity in members:
            kind = kinds[int(decision.fate[row])]
            entry = {"kind": kind, **_place(spool, row, labels)}
            if kind == "near" or similarity < 1:  # a near-duplicate, or exactly like one
                near = True
                entry |= {"similarity": round(similarity, 4), "text": _excerpt(spool, row)}
            dropped.append(entry)
        kept = _place(spool, keeper, labels)
        if near:
            kept["text"] = _excerpt(spool, keeper)
        stream.write(msgspec.json.encode({"kept": kept, "dropped": dropped}) + b"\n")


def write_contaminated(
    stream: BinaryIO, spool: Spool, decision: Decision, labels: Sequence[str], index: Index
) -> Counter[str]:
    """One line per row that was dropped because it overlaps a benchmark; rows per benchmark."""
    found: Counter[str] = Counter({benchmark.name: 0 for benchmark in index.benchmarks})
    for row in np.flatnonzero(decision.fate == CONTAMINATION).tolist():
        messages = spool.conversation(row).messages
        system = messages[0].content if messages[0].role == "system" else None
        turns = [message.content for message in messages if message.role != "system"]
        why = index.explain_one(row_text(turns, system))
        found.update(why["benchmarks"])
        stream.write(msgspec.json.encode({**_place(spool, row, labels), **why, "text": _excerpt(spool, row)}) + b"\n")
    return found


def fates(job: Job, sources: int, spool: Spool, decision: Decision) -> Iterator[Fates]:
    """Per source, how many rows met which fate, and how many more lines than rows were written."""
    of_source = np.array([file.source for file in job.files] or [0], np.int64)[spool.index["file"]]
    for source in range(sources):
        here = of_source == source
        counts = np.bincount(decision.fate[here], minlength=UNSAMPLED + 1)
        copies = decision.copies[here].astype(np.int64)
        yield Fates(
            kept=int(counts[KEPT]),
            exact=int(counts[EXACT]),
            near=int(counts[NEAR]),
            decontaminated=int(counts[CONTAMINATION]),
            unsampled=int(counts[UNSAMPLED]),
            repeated=int(np.maximum(copies - 1, 0).sum()),
        )


def _place(spool: Spool, row: int, labels: Sequence[str]) -> dict[str, Any]:
    return {"source": labels[int(spool.index["file"][row])], "line": int(spool.index["number"][row])}


def _excerpt(spool: Spool, row: int) -> str:
    text = turns_text(spool.conversation(row)).replace("\x1f", " | ")
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + " ..."
