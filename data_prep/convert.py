"""From sources to ``train.jsonl``, ``val.jsonl``, ``rejects.jsonl`` and ``stats.json``, row by row."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec

from data_prep import alpaca, messages, sharegpt
from data_prep.conversation import Conversation, Parse, Reject
from data_prep.errors import InputError, RejectedError
from data_prep.read import RawRow, decode, read_rows
from data_prep.sniff import sniff
from data_prep.sources import FORMATS, FormatName, Source, SourceFile, check_outputs, source_files
from data_prep.split import is_validation
from data_prep.stats import SourceTally, SplitTally, Stats, by_count

PARSERS: dict[FormatName, Parse] = {"alpaca": alpaca.parse, "sharegpt": sharegpt.parse, "messages": messages.parse}
"""The function of each format; a new one is a module with `parse` and a line here, in `FORMATS` and in `sniff`."""
RAW_LIMIT = 64 * 1024
"""Bytes of a refused row that ``rejects.jsonl`` keeps."""
_OUTPUTS = ("train.jsonl", "val.jsonl", "rejects.jsonl")
_QUIET_SECONDS = 2.0

Say = Callable[[str], None]


def convert(
    sources: Sequence[Source],
    outdir: Path,
    *,
    val_fraction: float = 0.02,
    seed: int = 42,
    system: str | None = None,
    max_reject_fraction: float = 0.05,
    say: Say | None = None,
) -> Stats:
    """Read all ``sources`` in order and write the four files into ``outdir``, which is made if absent.

    ``val_fraction`` is in [0, 1), ``max_reject_fraction`` in [0, 1]. ``system`` is put before every conversation that
    has no system prompt; it does not move a row between train and validation. ``say`` gets the lines of progress
    (standard error when None).

    Raises InputError for an argument or a source that is wrong, and RejectedError when more than
    ``max_reject_fraction`` of the rows are refused, when no row is left to train on, or when a file is broken as a
    whole; the row files are then there to look at, and ``stats.json``, which vouches for them, is not.
    """
    say = to_stderr if say is None else say
    check_arguments(sources, val_fraction, system, max_reject_fraction)
    planned = plan(sources, say)
    outputs = [outdir / name for name in _OUTPUTS]
    check_outputs([file for _, _, files in planned for file in files], outputs)
    outdir.mkdir(parents=True, exist_ok=True)
    (outdir / "stats.json").unlink(missing_ok=True)  # what it vouches for is about to change
    with ExitStack() as stack:
        drafts = [stack.enter_context(open(f"{output}.tmp", "wb")) for output in outputs]
        writer = Writer(*drafts, val_fraction=val_fraction, seed=seed, system=system, say=say)
        broken = write_all(planned, writer)
        for draft in drafts:
            draft.flush()
            os.fsync(draft.fileno())
    for output in outputs:
        os.replace(f"{output}.tmp", output)
    stats = writer.stats(planned)
    check_stats(stats, max_reject_fraction, outdir, broken)
    publish(outdir / "stats.json", msgspec.json.format(msgspec.json.encode(stats), indent=2) + b"\n")
    return stats


def to_stderr(line: str) -> None:
    """Write one line for a human."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def check_arguments(
    sources: Sequence[Source], val_fraction: float, system: str | None, max_reject_fraction: float
) -> None:
    """InputError for the first argument that is out of range."""
    if not sources:
        raise InputError("no source was given")
    for source in sources:
        if source.format not in FORMATS:
            raise InputError(f"{source.format!r} is no format; there are {', '.join(FORMATS)}")
    if not 0 <= val_fraction < 1:
        raise InputError(f"val_fraction (--val-fraction) is {val_fraction}, but must be at least 0 and under 1")
    if not 0 <= max_reject_fraction <= 1:
        raise InputError(f"max_reject_fraction (--max-reject-fraction) is {max_reject_fraction}, but must be in 0 to 1")
    if system is not None and not system.strip():
        raise InputError("system (--system) is blank: leave it out, or give a text")


def plan(sources: Sequence[Source], say: Say) -> list[Planned]:
    """The format and the files of each source, before anything is written."""
    planned: list[Planned] = []
    for source in sources:
        files = source_files(source)
        name = source.format
        if name == "auto":
            name, because = sniff(files)
            say(f"{source.location}: taken for {name}: {because}")
        planned.append((source, name, files))
    return planned


def write_all(planned: Sequence[Planned], writer: Writer) -> RejectedError | None:
    """Send every row of every file to ``writer``; return the error of the first file that is broken as a whole."""
    for _, name, files in planned:
        tally = writer.begin()
        parse = PARSERS[name]
        for file in files:
            try:
                for row in read_rows(file.path):
                    writer.add(tally, file.label, row, parse)
            except RejectedError as error:
                return error
    return None


def check_stats(stats: Stats, max_reject_fraction: float, outdir: Path, broken: RejectedError | None) -> None:
    """RejectedError when the rows are too bad, with a table of the reasons."""
    if stats.rows_in != stats.rows_train + stats.rows_val + stats.rows_rejected:
        raise AssertionError(f"rows do not add up, which is a bug of data_prep: {stats}")
    if broken is None and stats.reject_fraction <= max_reject_fraction and stats.rows_train:
        return
    if broken is not None:
        why = str(broken)
    elif stats.reject_fraction > max_reject_fraction:
        why = (
            f"{stats.rows_rejected} of {stats.rows_in} rows were refused: {stats.reject_fraction:.1%} is more than "
            f"--max-reject-fraction {max_reject_fraction:.1%}"
        )
    else:
        why = f"no row is left to train on ({stats.rows_in} read, {stats.rows_val} went to validation)"
    table = "".join(f"\n  {count:>9}  {reason}" for reason, count in stats.rejected.items())
    raise RejectedError(f"{why}{table}\nEach refused row, with its line: {outdir / 'rejects.jsonl'}")


def publish(path: Path, data: bytes) -> None:
    """Write ``path`` so that it is there whole or not at all, even after a power cut."""
    draft = path.with_name(path.name + ".tmp")
    with open(draft, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def shown(data: bytes) -> str:
    """The bytes of a refused row as text; what is not UTF-8 shows as ``\\xNN``."""
    cut = "" if len(data) <= RAW_LIMIT else f" ... ({len(data)} bytes)"
    return data[:RAW_LIMIT].decode("utf-8", "backslashreplace") + cut


class Writer:
    """Parses rows, sends each to its file and counts it."""

    def __init__(
        self,
        train: BinaryIO,
        val: BinaryIO,
        rejects: BinaryIO,
        *,
        val_fraction: float,
        seed: int,
        system: str | None,
        say: Say,
    ) -> None:
        self._train, self._val, self._rejects = train, val, rejects
        self._val_fraction, self._seed, self._system, self._say = val_fraction, seed, system, say
        self._tallies: list[SourceTally] = []
        self._train_tally, self._val_tally = SplitTally(), SplitTally()
        self._encode = msgspec.json.Encoder().encode
        self._rows = 0
        self._began = time.monotonic()
        self._said = self._began + _QUIET_SECONDS - 1

    def begin(self) -> SourceTally:
        """Start the next source."""
        self._tallies.append(SourceTally())
        return self._tallies[-1]

    def add(self, tally: SourceTally, label: str, row: RawRow, parse: Parse) -> None:
        """Take one row of the source that ``tally`` counts, out of the file called ``label``."""
        tally.rows_in += 1
        self._rows += 1
        if self._rows % 1024 == 0:
            self._progress()
        record = decode(row)
        parsed = record if isinstance(record, Reject) else parse(record)
        if isinstance(parsed, Reject):
            tally.reject(parsed.reason)
            line = {"source": label, "line": row.number, "reason": parsed.reason.value, "raw": shown(row.data)}
            self._rejects.write(self._encode(line) + b"\n")
            return
        tally.rows_kept += 1
        self._write(parsed)

    def _write(self, conversation: Conversation) -> None:
        # The side is chosen before the system prompt is added, so that another prompt moves no row.
        validation = is_validation(conversation, self._val_fraction, self._seed)
        conversation = conversation.with_system(self._system)
        (self._val_tally if validation else self._train_tally).add(conversation)
        (self._val if validation else self._train).write(self._encode(conversation) + b"\n")

    def _progress(self) -> None:
        now = time.monotonic()
        if now - self._said >= 1:
            self._said = now
            self._say(f"{self._rows} rows, {self._rows / (now - self._began):.0f} rows/s")

    def stats(self, planned: Sequence[Planned]) -> Stats:
        """The counts over all sources; one that was not reached has zeros."""
        tallies = self._tallies + [SourceTally() for _ in range(len(planned) - len(self._tallies))]
        train, val = self._train_tally.result(), self._val_tally.result()
        rejected: Counter[str] = Counter()
        for tally in tallies:
            rejected.update(tally.rejected)
        refused = rejected.total()
        return Stats(
            rows_in=self._rows,
            rows_train=train.rows,
            rows_val=val.rows,
            rows_rejected=refused,
            reject_fraction=round(refused / self._rows, 6) if self._rows else 0.0,
            rejected=by_count(rejected),
            val_fraction=self._val_fraction,
            seed=self._seed,
            sources=[
                tally.result(source.location, name, [file.label for file in files])
                for tally, (source, name, files) in zip(tallies, planned, strict=True)
            ],
            train=train,
            val=val,
        )


Planned = tuple[Source, FormatName, list[SourceFile]]
