"""``python -m data_prep tokens``: how long the rows are in the model's tokens, as `swift sft` will see them."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from data_prep.command import template_options, template_spec
from data_prep.errors import InputError
from data_prep.files import exit_status, publish, to_stderr
from data_prep.languages import method
from data_prep.lengths import (
    Failed,
    Quantiles,
    SplitTokens,
    Tokens,
    epoch_of,
    histogram,
    mean_of,
    quantile,
    share_of,
    trained_length,
)
from data_prep.line_sample import sample
from data_prep.measure import Measured, measure_all
from data_prep.template import RowTemplate, packs

SAMPLE = 2000
_FEWEST = 100
_EPILOG = """\
OUTDIR gets tokens.json: for train.jsonl and val.jsonl the lengths of the rows in tokens and in trained tokens, how many
are over --max-length, languages, and what one epoch comes to. Rows go through swift's own template, from --model's
tokenizer; no weights are loaded. A sample is chosen by content, so that it stays the same from run to run; what is
estimated from it has its 95% interval.

exit status: 0 done; 2 an argument or input is wrong; 1 an I/O error
"""


def arguments() -> argparse.ArgumentParser:
    """The options, with their defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep tokens",
        description="Measure rows in the model's tokens, with the template that `swift sft` trains with.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("datadir", metavar="DATADIR", type=Path, help="folder with train.jsonl and val.jsonl")
    parser.add_argument("outdir", metavar="OUTDIR", type=Path, help="folder for tokens.json, made if absent")
    template_options(parser)
    parser.add_argument("--max-length", type=int, required=True, metavar="TOKENS", help="limit for one row in training")
    parser.add_argument(
        "--truncation",
        choices=("delete", "left", "right"),
        default="delete",
        help="what training does with longer rows (delete)",
    )
    parser.add_argument(
        "--packing", action="store_true", help="rows are packed up to --max-length, as swift packs them"
    )
    parser.add_argument(
        "--global-batch-size", type=int, metavar="ROWS", help="rows, or packed rows, per optimizer step"
    )
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--sample", type=int, default=SAMPLE, metavar="ROWS", help=f"rows to measure ({SAMPLE})")
    amount.add_argument("--exact", action="store_true", help="measure all rows")
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="another seed, another sample (42)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="at most (all cores)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return exit_status(partial(run, arguments().parse_args(argv)))


def run(options: argparse.Namespace) -> None:
    """Measure, and write ``tokens.json``."""
    checks = {
        "--max-length": (options.max_length, 1),
        "--global-batch-size": (options.global_batch_size, 1),
        "--sample": (options.sample, _FEWEST),
        "--processes": (options.processes, 1),
    }
    for name, (value, least) in checks.items():
        if value is not None and value < least:
            raise InputError(f"{name} is {value}, but must be at least {least}")
    size = None if options.exact else options.sample
    spec = template_spec(options)
    train = options.datadir / "train.jsonl"
    chosen = {train: sample(train, size, options.seed)}
    if not chosen[train][0]:
        raise InputError(f"{train}: there are no rows in it")
    val = options.datadir / "val.jsonl"
    if val.is_file():
        chosen[val] = sample(val, size, options.seed)
    to_stderr("loading the tokenizer")
    template = RowTemplate(spec)
    found: dict[Path, SplitTokens] = {}
    for path, (rows, lines) in chosen.items():
        measured = list(measure_all(path, lines, template, spec, options.processes))
        found[path] = split_tokens(rows, measured, options, epoch=path == train)
    tokens = Tokens(
        model_type=template.model_type,
        template=template.name,
        settings=dict(spec.settings),
        max_length=options.max_length,
        truncation=options.truncation,
        packing=options.packing,
        global_batch_size=options.global_batch_size,
        seed=options.seed,
        languages_by=method(),
        train=found[train],
        val=found.get(val),
    )
    options.outdir.mkdir(parents=True, exist_ok=True)
    path = options.outdir / "tokens.json"
    publish(path, msgspec.json.format(msgspec.json.encode(tokens), indent=2) + b"\n")
    to_stderr(summary(tokens))
    to_stderr(f"written: {path}")


def split_tokens(rows: int, measured: Sequence[Measured], options: argparse.Namespace, *, epoch: bool) -> SplitTokens:
    """The statistics of a file with ``rows`` rows, from those ``measured``."""
    good = [row for row in measured if row.tokens is not None]
    lengths = [row.tokens for row in good if row.tokens is not None]
    ordered = sorted(lengths)
    bad = next((row for row in measured if row.tokens is None), None)
    failed = None
    if bad is not None:
        failed = Failed(share_of(len(measured) - len(good), len(measured), rows), bad.line, bad.error)
    limits = (options.max_length, options.truncation)
    seen = [trained_length(row.tokens, row.first, row.last, *limits) if row.tokens else 0 for row in measured]
    deletes = options.truncation == "delete"
    unlearned = sum(
        not kept and row.tokens is not None and not (deletes and row.tokens > options.max_length)
        for row, kept in zip(measured, seen, strict=True)
    )
    # Of the rows that can be encoded there are about as many more as of all.
    population = rows if len(good) == len(measured) else round(rows * len(good) / len(measured))
    return SplitTokens(
        rows=rows,
        sampled=len(measured),
        exact=len(measured) == rows,
        tokens=mean_of(lengths, population),
        quantiles=Quantiles(*(quantile(ordered, share) for share in (0.5, 0.9, 0.95, 0.99, 1.0))),
        trained_tokens=mean_of([row.trained for row in good], population),
        trained_share=round(sum(row.trained for row in good) / max(sum(lengths), 1), 6),
        over_max_length=share_of(sum(length > options.max_length for length in lengths), len(good), population),
        unlearned=share_of(unlearned, len(good), population),
        failed=failed,
        histogram=histogram(lengths),
        languages=dict(sorted(Counter(row.language for row in measured).items(), key=lambda item: (-item[1], item[0]))),
        epoch=epoch_of(
            seen,
            rows,
            global_batch_size=options.global_batch_size,
            packs=partial(packs, packing_length=options.max_length) if options.packing else None,
            max_length=options.max_length,
            seed=options.seed,
        )
        if epoch
        else None,
    )


def summary(tokens: Tokens) -> str:
    """A few lines for a human."""
    train, epoch = tokens.train, tokens.train.epoch
    assert epoch is not None
    over, mean = train.over_max_length, train.tokens
    what = "all" if train.exact else f"{train.sampled} of {train.rows}"
    lines = [
        f"{what} training rows measured: {mean.mean:.1f} tokens per row"
        + ("" if train.exact else f" ({mean.low:.1f} to {mean.high:.1f})")
        + f", median {train.quantiles.p50}, 99% up to {train.quantiles.p99}, longest seen {train.quantiles.max}",
        f"trained tokens: {train.trained_share:.1%}; over {tokens.max_length}: {over.share:.2%}"
        + ("" if train.exact else f" ({over.low:.2%} to {over.high:.2%})"),
        f"one epoch: {epoch.rows} rows, {epoch.tokens} tokens"
        + (f", {epoch.packed_rows} packed rows ({epoch.packed_fill:.1%} full)" if epoch.packed_rows else "")
        + (f", {epoch.steps} steps" if epoch.steps is not None else ""),
    ]
    if train.unlearned.sampled_rows:
        lines.append(f"{train.unlearned.share:.2%} of the training rows are left out: nothing of them would be learned")
    if train.failed is not None:
        share = train.failed.rows
        lines.append(
            f"warning: {share.share:.2%} of the training rows cannot be encoded, and swift leaves them out without a "
            f"word; the first is line {train.failed.line}: {train.failed.error}"
        )
    return "\n".join(lines)
