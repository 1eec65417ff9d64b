"""The command line: ``python -m data_prep FORMAT INPUT OUTDIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from data_prep.convert import convert, to_stderr
from data_prep.errors import DataPrepError
from data_prep.sources import FORMATS, FormatName, Source
from data_prep.stats import Stats

_EPILOG = """\
INPUT is a file (one JSON array or JSON Lines, whatever its name), a folder with such files, or a data set on a hub:
modelscope:owner/name[@revision] or huggingface:owner/name[@revision].

OUTDIR gets train.jsonl and val.jsonl ({"messages": [...]} rows), rejects.jsonl (each refused row with its line and
reason) and, when all went well, stats.json.

exit status: 0 done; 2 an argument or input is wrong; 5 too many rows refused, or none left to train on
"""


def arguments() -> argparse.ArgumentParser:
    """The options, with their defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep",
        description="Convert fine-tuning data to the rows that ms-swift trains on, and split off a validation set.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("format", metavar="FORMAT", choices=FORMATS, help=f"one of {', '.join(FORMATS)}")
    parser.add_argument("input", metavar="INPUT", help="file, folder or hub id")
    parser.add_argument("outdir", metavar="OUTDIR", type=Path, help="folder for the results, made if absent")
    parser.add_argument(
        "--also", nargs=2, action="append", default=[], metavar=("FORMAT", "INPUT"), help="one more source; repeatable"
    )
    parser.add_argument(
        "--val-fraction", type=float, default=0.02, metavar="SHARE", help="share of rows for validation (0.02)"
    )
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="another seed, another split (42)")
    parser.add_argument("--system", metavar="TEXT", help="system prompt for conversations that have none")
    parser.add_argument(
        "--max-reject-fraction", type=float, default=0.05, metavar="SHARE", help="fail above this share (0.05)"
    )
    parser.add_argument(
        "--file", metavar="NAME", help="name or glob of the files to take from folders and hub data sets"
    )
    return parser


def summary(stats: Stats, outdir: Path) -> str:
    """A few lines for a human."""
    lines = [
        f"{stats.rows_in} rows in: {stats.rows_train} to train, {stats.rows_val} to validation, "
        f"{stats.rows_rejected} refused ({stats.reject_fraction:.2%})"
    ]
    lines += [f"  {count:>9}  {reason}" for reason, count in stats.rejected.items()]
    if stats.rows_rejected:
        lines.append(f"refused rows: {outdir / 'rejects.jsonl'}")
    if "truncated" in stats.rejected:
        lines.append("warning: an input ends in the middle of a row; it may be an incomplete download")
    lines.append(f"written: {outdir / 'train.jsonl'}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = arguments().parse_args(argv)
    pairs = [(options.format, options.input), *options.also]
    sources = [Source(cast("FormatName", name), location, options.file) for name, location in pairs]
    try:
        stats = convert(
            sources,
            options.outdir,
            val_fraction=options.val_fraction,
            seed=options.seed,
            system=options.system,
            max_reject_fraction=options.max_reject_fraction,
        )
    except DataPrepError as error:
        to_stderr(f"error: {error}")
        return error.exit_code
    except OSError as error:
        to_stderr(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        to_stderr("interrupted; stats.json was not written, run the same command again")
        return 130
    to_stderr(summary(stats, options.outdir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
