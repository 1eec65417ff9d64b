"""The command line: ``python -m data_prep contamination DATADIR OUTDIR --against NAME=PATH``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from data_prep.contamination import Index, load_index, row_text
from data_prep.contamination_report import Action, Overlaps, Report, SplitName
from data_prep.errors import DataPrepError, InputError
from data_prep.files import exit_status, publish
from data_prep.progress import Progress, Say
from data_prep.words import words

REPORT = "contamination.json"
_BLOCK_BYTES = 256 * 1024
_EPILOG = """\
DATADIR is what a conversion wrote: train.jsonl and, if it is there, val.jsonl. NAME is the benchmark as its harness
calls it (gsm8k, mmlu, demo_bank), PATH its local data: a JSON, JSON Lines, CSV, TSV or Parquet file, which is taken
whole; a folder, of which the split that is scored is taken; or a folder with lm-eval task files that define NAME.

A row overlaps an item when both have 13 words running in common, or when a question of 8 to 12 words is in the row as
a whole. Case, spacing and punctuation do not matter; a Chinese or Japanese character is a word.

OUTDIR gets contamination.json: the counts, the worst pairs side by side, and every item that training rows overlap.

exit status: 0 done; 1 an I/O error; 2 an argument or input is wrong; 5 with --action fail, rows of train.jsonl overlap
"""


class ContaminatedError(DataPrepError):
    """Training rows hold text of items that will be scored; ``contamination.json`` is written all the same."""

    exit_code = 5


def arguments() -> argparse.ArgumentParser:
    """The options, with their defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep contamination",
        description="Tell which rows of converted data hold text of benchmark items.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("datadir", metavar="DATADIR", type=Path, help="folder with train.jsonl")
    parser.add_argument("outdir", metavar="OUTDIR", type=Path, help="folder for contamination.json, made if absent")
    parser.add_argument(
        "--against",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="a benchmark and its local data; repeatable (a NAME that comes again gets the items of both paths)",
    )
    parser.add_argument(
        "--action", choices=("report", "fail"), default="report", help="fail: exit status 5 on an overlap (report)"
    )
    return parser


def name_and_path(value: str) -> tuple[str, Path]:
    """``NAME=PATH`` taken apart."""
    name, equals, path = value.partition("=")
    if not equals or not name.strip() or not path:
        raise InputError(f"{value!r} should be NAME=PATH, a benchmark and its local data, such as gsm8k=data/gsm8k")
    return name.strip(), Path(path)


def check(
    datadir: Path,
    outdir: Path,
    against: Sequence[tuple[str, Path]],
    action: Action = "report",
    say: Say | None = None,
) -> Report:
    """Compare ``train.jsonl`` and ``val.jsonl`` of ``datadir`` with benchmarks; write ``contamination.json``.

    ``against`` are names and paths as `contamination.load_index` takes them; ``say`` gets the lines of progress
    (standard error when None).
    Raises InputError for paths that hold no data, and ContaminatedError, after writing, when ``action`` is fail and
    a row of ``train.jsonl`` overlaps an item.
    """
    files: dict[SplitName, Path] = {"train": datadir / "train.jsonl"}
    if not files["train"].is_file():
        raise InputError(f"{files['train']}: no such file; DATADIR is a folder that `python -m data_prep` wrote")
    if (datadir / "val.jsonl").is_file():
        files["val"] = datadir / "val.jsonl"
    (outdir / REPORT).unlink(missing_ok=True)  # an older one would speak of other data
    index = load_index(against)
    overlaps = Overlaps(index)
    progress = Progress("contamination", sum(path.stat().st_size for path in files.values()), say)
    for split, path in files.items():
        for block in read_blocks(path):
            _compare(index, overlaps, split, block)
            progress.advance(block.size, len(block.texts))
    progress.close()
    report = overlaps.result(action, lambda split, offset: _row_at(files[split], offset))
    outdir.mkdir(parents=True, exist_ok=True)
    publish(outdir / REPORT, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if action == "fail" and report.rows_hit["train"]:
        raise ContaminatedError(_failure(report, against, outdir))
    return report


def read_blocks(path: Path) -> Iterator[Block]:
    """The rows of a converted file, some 256 KiB at a time; InputError for a line that is no such row."""
    decoder = msgspec.json.Decoder(_Row)
    number, offset = 1, 0
    with path.open("rb") as stream:
        while lines := stream.readlines(_BLOCK_BYTES):
            offsets = [offset]
            for line in lines:
                offsets.append(offsets[-1] + len(line))
            rows = [_decoded(path, number + at, line, decoder) for at, line in enumerate(lines)]
            yield Block(number, offsets[:-1], rows, offsets[-1] - offset)
            number, offset = number + len(lines), offsets[-1]


def _decoded(path: Path, number: int, line: bytes, decoder: msgspec.json.Decoder[_Row]) -> str:
    try:
        turns = decoder.decode(line).messages
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(
            f'{path}: line {number} is no row of {{"messages": [{{"role", "content"}}, ...]}} ({error}): '
            f"convert the data first (python -m data_prep FORMAT INPUT OUTDIR)"
        ) from error
    system = turns[0].content if turns and turns[0].role == "system" else None
    return row_text([turn.content for turn in (turns if system is None else turns[1:])], system)


def _row_at(path: Path, offset: int) -> str:
    with path.open("rb") as stream:
        stream.seek(offset)
        return _decoded(path, 0, stream.readline(), msgspec.json.Decoder(_Row))


def _compare(index: Index, overlaps: Overlaps, split: SplitName, block: Block) -> None:
    overlaps.count(split, len(block.texts))
    hits = index.probe(words(block.texts)).nonzero()[0].tolist()
    for at, matches in zip(hits, index.explain([block.texts[at] for at in hits]), strict=True):
        overlaps.add(split, block.first_line + at, block.offsets[at], matches)


def _failure(report: Report, against: Sequence[tuple[str, Path]], outdir: Path) -> str:
    hit = {name: benchmark for name, benchmark in report.benchmarks.items() if benchmark.train.rows_hit}
    counts = "".join(
        f"\n  {name}: {benchmark.train.items_hit} of {benchmark.items} items, in {benchmark.train.rows_hit} rows"
        for name, benchmark in hit.items()
    )
    options = " ".join(f"--decontaminate {name}={path}" for name, path in against if name in hit)
    return (
        f"{report.rows_hit['train']} of {report.rows['train']} training rows hold text of items that will be "
        f"scored:{counts}\nEither let the conversion leave such rows out (action: drop in the recipe, or {options}), "
        f"or take them out of the source; line by line: {outdir / REPORT}"
    )


def summary(report: Report, outdir: Path) -> str:
    """A table for a human."""
    rows = [["benchmark", "items", "checkable", "items hit", "train rows hit", "val rows hit"]]
    for name, found in report.benchmarks.items():
        numbers = (found.items, found.checkable, found.train.items_hit, found.train.rows_hit, found.val.rows_hit)
        rows.append([name, *map(str, numbers)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    lines.append(
        f"{report.rows_hit['train']} of {report.rows['train']} training rows and {report.rows_hit['val']} of "
        f"{report.rows['val']} validation rows overlap"
    )
    lines.append(f"written: {outdir / REPORT}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit status."""
    options = arguments().parse_args(argv)

    def work() -> None:
        against = [name_and_path(value) for value in options.against]
        report = check(options.datadir, options.outdir, against, options.action)
        sys.stdout.write(summary(report, options.outdir) + "\n")

    return exit_status(work)


class Block(NamedTuple):
    """Some rows of a file that stand together."""

    first_line: int
    offsets: list[int]
    """Bytes into the file, per row."""
    texts: list[str]
    size: int
    """Bytes of all rows."""


class _Turn(msgspec.Struct, gc=False):
    role: str
    content: str


class _Row(msgspec.Struct, gc=False):
    messages: list[_Turn]
