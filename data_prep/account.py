"""Accounting for every row that was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.errors import RejectedError
from data_prep.options import Options
from data_prep.sink import Tallies
from data_prep.sources import FormatName, Source
from data_prep.stats import Fates, SourceStats, Stats, by_count


@dataclass(frozen=True)
class Planned:
    """One source, with what was found out about it."""

    source: Source
    format: FormatName
    files: list[str]


def account(
    planned: Sequence[Planned],
    options: Options,
    tallies: Tallies,
    fates: Sequence[Fates],
    decontaminated: Counter[str],
) -> Stats:
    """``stats.json``, from what reading counted and what became of each source's readable rows."""
    rejected = sum((counts.rejected for counts in tallies.sources), Counter[str]())
    repaired = sum((counts.repaired for counts in tallies.sources), Counter[str]())
    rows_in = sum(counts.rows_in for counts in tallies.sources)
    refused = rejected.total()
    train, val = tallies.train.result(), tallies.val.result()
    return Stats(
        rows_in=rows_in,
        rows_train=train.rows,
        rows_val=val.rows,
        rows_rejected=refused,
        rows_deduplicated=sum(fate.exact + fate.near for fate in fates),
        rows_decontaminated=sum(fate.decontaminated for fate in fates),
        rows_unsampled=sum(fate.unsampled for fate in fates),
        rows_repeated=sum(fate.repeated for fate in fates),
        reject_fraction=round(refused / rows_in, 6) if rows_in else 0.0,
        rejected=by_count(rejected),
        repaired=by_count(repaired),
        dedup=options.dedup,
        near_threshold=options.near_threshold if options.dedup == "near" else None,
        deduplicated={"exact": sum(fate.exact for fate in fates), "near": sum(fate.near for fate in fates)},
        decontaminated=by_count(decontaminated),
        val_fraction=options.val_fraction,
        seed=options.seed,
        sources=[
            SourceStats(
                source=item.source.location,
                format=item.format,
                files=item.files,
                weight=item.source.weight,
                limit=item.source.limit,
                rows_in=counts.rows_in,
                rows_kept=fate.kept,
                rows_rejected=counts.rejected.total(),
                rejected=by_count(counts.rejected),
                rows_deduplicated=fate.exact + fate.near,
                rows_decontaminated=fate.decontaminated,
                rows_unsampled=fate.unsampled,
                rows_repeated=fate.repeated,
            )
            for item, counts, fate in zip(planned, tallies.sources, fates, strict=True)
        ],
        train=train,
        val=val,
    )


def check_stats(stats: Stats, max_reject_fraction: float, outdir: Path, broken: str | None) -> None:
    """RejectedError when the rows are too bad, with a table of the reasons."""
    if not stats.adds_up:
        raise AssertionError(f"rows do not add up, which is a bug of data_prep: {stats}")
    if broken is None and stats.reject_fraction <= max_reject_fraction and stats.rows_train:
        return
    if broken is not None:
        why = broken
    elif stats.reject_fraction > max_reject_fraction:
        why = (
            f"{stats.rows_rejected} of {stats.rows_in} rows were refused: {stats.reject_fraction:.1%} is more than "
            f"--max-reject-fraction {max_reject_fraction:.1%}. Mend them, or allow more"
        )
    else:
        gone = stats.rows_deduplicated + stats.rows_decontaminated + stats.rows_unsampled
        why = (
            f"no row is left to train on ({stats.rows_in} read, {stats.rows_val} went to validation, "
            f"{gone} were duplicates, overlapped a benchmark or were not sampled)"
        )
    for source in stats.sources:
        if source.rows_in and source.rejected.get("missing_field") == source.rows_in:
            why += (
                f"\n{source.source}: no row has the fields of {source.format}; name another format, or what the file "
                "calls them (--columns FIELD=COLUMN)"
            )
    table = "".join(f"\n  {count:>9}  {reason}" for reason, count in stats.rejected.items())
    raise RejectedError(f"{why}{table}\nEach refused row, with its line: {outdir / 'rejects.jsonl'}")
