"""The command line: ``python -m data_prep FORMAT INPUT OUTDIR``, and commands on what came of it."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, cast, get_args

from data_prep.errors import DataPrepError
from data_prep.files import to_stderr

COMMANDS = {
    "contamination": ("data_prep.contamination_cli", "which rows hold text of a benchmark's items"),
    "tokens": ("data_prep.tokens", "how long the rows are in a model's tokens"),
    "inspect": ("data_prep.inspect_rows", "rows as the model sees them, with the trained tokens marked"),
}
"""Commands on a folder that a conversion wrote; each has its own --help."""
_EPILOG = """\
INPUT is a file (one JSON array or JSON Lines, whatever its name; also .gz, CSV, TSV, Parquet), a folder of such files,
or a data set on a hub: modelscope:owner/name[@revision] or huggingface:owner/name[@revision].

OUTDIR gets train.jsonl and val.jsonl ({"messages": [...]} rows), rejects.jsonl (each refused row with its line and
reason), duplicates.jsonl (who was dropped for whom), contaminated.jsonl and, when all went well, stats.json.

commands on OUTDIR, each with its own --help:
  python -m data_prep inspect OUTDIR --model DIR
  python -m data_prep tokens OUTDIR RESULTDIR --model DIR --max-length N
  python -m data_prep contamination OUTDIR RESULTDIR --against NAME=PATH

exit status: 0 done; 1 an I/O error; 2 an argument or input is wrong; 5 too many rows refused, or none left to train on
"""


class _OfSource(argparse.Action):
    """An option that belongs to the INPUT before it: the first, or that of the last --also."""

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: Any, _option: str | None = None) -> None:
        last = namespace.also[-1][2] if namespace.also else namespace.first
        if isinstance(values, dict):
            values = {**last.get(self.dest, {}), **values}
        elif self.dest in last:
            raise argparse.ArgumentError(self, "comes twice for one INPUT")
        last[self.dest] = values


class _Also(argparse.Action):
    """One more source; the options of its own come after it."""

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: Any, _option: str | None = None) -> None:
        namespace.also = [*namespace.also, (*values, {})]


def columns(text: str) -> dict[str, str]:
    """``instruction=prompt,output=answer`` as a mapping."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(name.strip() and mark and column.strip() for name, mark, column in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} should be FIELD=COLUMN[,FIELD=COLUMN]")
    return {name.strip(): column.strip() for name, _, column in pairs}


def benchmark(text: str) -> tuple[str, Path]:
    """``NAME=PATH`` as a pair."""
    name, mark, path = text.partition("=")
    if not (name and mark and path):
        raise argparse.ArgumentTypeError(f"{text!r} should be NAME=PATH")
    return name, Path(path)


def arguments() -> argparse.ArgumentParser:
    """The options of a conversion, with their defaults."""
    from data_prep.job import Dedup
    from data_prep.sources import FORMATS

    parser = argparse.ArgumentParser(
        prog="python -m data_prep",
        description="Convert fine-tuning data to the rows that ms-swift trains on: check them, remove duplicates and "
        "leaks of benchmarks, and split off a validation set.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(first={}, also=[])
    parser.add_argument("format", metavar="FORMAT", choices=FORMATS, help=f"one of {', '.join(FORMATS)}")
    parser.add_argument("input", metavar="INPUT", help="file, folder or hub id")
    parser.add_argument("outdir", metavar="OUTDIR", type=Path, help="folder for the results, made if absent")

    group = parser.add_argument_group(
        "sources", "--columns, --file, --limit and --weight belong to the INPUT before them"
    )
    add = group.add_argument
    add("--also", nargs=2, action=_Also, metavar=("FORMAT", "INPUT"), help="one more source; repeatable")
    add("--columns", type=columns, action=_OfSource, metavar="FIELD=COLUMN,...", help="what this file calls the fields")
    add(
        "--file",
        action=_OfSource,
        metavar="NAME",
        help="name or glob of the files to take from a folder or hub data set",
    )
    add("--limit", type=int, action=_OfSource, metavar="N", help="at most N rows, chosen by a hash of their content")
    add("--weight", type=float, action=_OfSource, metavar="W", help="0.5 takes half of the rows, 2 writes each twice")

    add = parser.add_argument_group("what is kept").add_argument
    add("--dedup", choices=get_args(Dedup), default="exact", help="duplicates that are removed (exact)")
    add("--near-threshold", type=float, default=0.7, metavar="J", help="least Jaccard similarity of near ones (0.7)")
    add(
        "--decontaminate",
        type=benchmark,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="drop rows that overlap the items of this benchmark; repeatable",
    )
    add("--consecutive-turns", choices=("reject", "merge"), default="reject", help="turns of one role running (reject)")
    add("--think", choices=("keep", "strip", "require"), default="keep", help="<think> blocks in answers (keep)")
    add("--special-tokens", choices=("reject", "keep"), default="reject", help="special tokens inside texts (reject)")
    add("--tokenizer", type=Path, metavar="DIR", help="folder of the model's tokenizer: its special tokens are meant")
    add("--max-tokens", type=int, metavar="N", help="refuse rows with more tokens; needs --tokenizer")
    add("--max-reject-fraction", type=float, default=0.05, metavar="SHARE", help="fail above this share (0.05)")

    add = parser.add_argument_group("output").add_argument
    add("--val-fraction", type=float, default=0.02, metavar="SHARE", help="share of rows for validation (0.02)")
    add("--seed", type=int, default=42, metavar="N", help="another seed, another split (42)")
    add("--system", metavar="TEXT", help="system prompt for conversations that have none")
    add("--processes", type=int, metavar="N", help="the output is the same for any number (the cores)")
    return parser


def summary(stats: Any, outdir: Path) -> str:
    """A few lines for a human."""
    lines = [
        f"{stats.rows_in} rows in: {stats.rows_train} to train, {stats.rows_val} to validation, "
        f"{stats.rows_rejected} refused ({stats.reject_fraction:.2%})"
    ]
    lines += [f"  {count:>9}  {reason}" for reason, count in stats.rejected.items()]
    if stats.rows_rejected:
        lines.append(f"refused rows: {outdir / 'rejects.jsonl'}")
    if stats.rows_deduplicated:
        kinds = ", ".join(f"{count} {kind}" for kind, count in stats.deduplicated.items() if count)
        lines.append(f"duplicates left out: {kinds}: {outdir / 'duplicates.jsonl'}")
    if stats.decontaminated:
        names = ", ".join(f"{count} {name}" for name, count in stats.decontaminated.items())
        lines.append(f"rows left out that overlap a benchmark: {names}: {outdir / 'contaminated.jsonl'}")
    if stats.rows_unsampled or stats.rows_repeated:
        lines.append(f"by weights and limits: {stats.rows_unsampled} left out, {stats.rows_repeated} repeated")
    if stats.repaired:
        lines.append("mended: " + ", ".join(f"{count} {rule}" for rule, count in stats.repaired.items()))
    if stats.val_fraction and not stats.rows_val:
        lines.append("note: val.jsonl is empty; with so few rows, raise --val-fraction")
    if "truncated" in stats.rejected:
        lines.append("warning: an input ends in the middle of a row; it may be an incomplete download")
    lines.append(f"written: {outdir / 'train.jsonl'}")
    return "\n".join(lines)


def io_error(error: OSError, outdir: Path) -> str:
    """``error`` with the place and the remedy; writing to an open file names neither."""
    if error.filename is not None:
        return str(error)
    text = f"{outdir}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        text += (
            ": make room there, or name another folder. The output is about as large as the input, and as much again "
            "is needed for a while to find duplicates. What was there before is as it was"
        )
    return text


def convert_main(argv: Sequence[str]) -> int:
    """Convert, as the command line says."""
    options = arguments().parse_args(argv)
    # Here, so that --help and the commands load no more than they need.
    from data_prep.convert import convert
    from data_prep.options import Options
    from data_prep.rules import Rules
    from data_prep.sources import FormatName, Source

    given = [(options.format, options.input, options.first), *options.also]
    try:
        sources = [replace(Source(cast("FormatName", name), location), **own) for name, location, own in given]
        stats = convert(
            sources,
            options.outdir,
            Options(
                val_fraction=options.val_fraction,
                seed=options.seed,
                system=options.system,
                max_reject_fraction=options.max_reject_fraction,
                dedup=options.dedup,
                near_threshold=options.near_threshold,
                rules=Rules(
                    consecutive_turns=options.consecutive_turns,
                    think=options.think,
                    special_tokens=options.special_tokens,
                ),
                tokenizer=options.tokenizer,
                max_tokens=options.max_tokens,
                decontaminate=tuple(options.decontaminate),
                processes=options.processes,
            ),
        )
    except DataPrepError as error:
        to_stderr(f"error: {error}")
        return error.exit_code
    except OSError as error:
        to_stderr(f"error: {io_error(error, options.outdir)}")
        return 1
    to_stderr(summary(stats, options.outdir))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv and argv[0] in COMMANDS:
            module, _ = COMMANDS[argv[0]]
            run: Any = import_module(module).main
            return int(run(argv[1:]))
        return convert_main(argv)
    except KeyboardInterrupt:
        to_stderr("interrupted; nothing was written, run the same command again")
        return 130


if __name__ == "__main__":
    sys.exit(main())
