"""From sources to ``train.jsonl``, ``val.jsonl``, the files that tell who was left out, and ``stats.json``."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from data_prep import relay
from data_prep.account import Planned, account, check_stats
from data_prep.blocks import text_file
from data_prep.containers import NESTED, unpacked
from data_prep.errors import InputError
from data_prep.files import publish, to_stderr
from data_prep.job import CONTAMINATED, DUPLICATES, Job, Reading
from data_prep.options import Options, check_arguments, process_count
from data_prep.progress import Progress, Say
from data_prep.sink import DIRECT, SPOOLED, draft
from data_prep.sniff import sniff
from data_prep.sources import Source, SourceFile, check_outputs, source_files
from data_prep.stats import Fates, Stats
from data_prep.widen import widen, wider

OUTPUTS = (*DIRECT, DUPLICATES, CONTAMINATED)


def convert(sources: Sequence[Source], outdir: Path, options: Options | None = None, say: Say | None = None) -> Stats:
    """Read all ``sources`` in order and write the output files into ``outdir``, which is made if absent.

    ``say`` gets the lines of progress (standard error when None).

    Raises InputError for an argument or a source that is wrong, and RejectedError when more than
    ``max_reject_fraction`` of the rows are refused, when no row is left to train on, or when a file is broken as a
    whole; the row files are then there to look at, and ``stats.json``, which vouches for them, is not. On any other
    error no output file is there that was not there before.
    """
    options = options or Options()
    check_arguments(sources, options)
    with drafts(outdir):
        job, planned = plan(sources, outdir, options, say or to_stderr)
        stats, broken = run(job, planned, options, say)
        for name in OUTPUTS:
            with open(draft(outdir, name), "rb") as stream:
                os.fsync(stream.fileno())
        (outdir / "stats.json").unlink(missing_ok=True)  # what it vouches for is about to change
        for name in OUTPUTS:
            os.replace(draft(outdir, name), outdir / name)
    check_stats(stats, options.max_reject_fraction, outdir, broken)
    publish(outdir / "stats.json", msgspec.json.format(msgspec.json.encode(stats), indent=2) + b"\n")
    return stats


@contextmanager
def drafts(outdir: Path) -> Iterator[None]:
    """Make ``outdir``, and in the end remove whatever is still a draft, and the folder if nothing came of it.

    Raises InputError when another conversion is at work there.
    """
    folders = [draft(outdir, "unpacked"), draft(outdir, "index")]
    existed = outdir.exists()
    if existed and not outdir.is_dir():
        raise InputError(f"{outdir}: this is a file; name a folder for the results")
    outdir.mkdir(parents=True, exist_ok=True)
    held = os.open(outdir, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise InputError(
            f"{outdir}: another conversion is writing there: wait for it, or name another folder"
        ) from None
    try:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield
    finally:
        for name in (*OUTPUTS, *SPOOLED):
            draft(outdir, name).unlink(missing_ok=True)
            wider(draft(outdir, name)).unlink(missing_ok=True)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        if not existed and not any(outdir.iterdir()):
            outdir.rmdir()
        os.close(held)


def plan(sources: Sequence[Source], outdir: Path, options: Options, say: Say) -> tuple[Job, list[Planned]]:
    """Everything that is known before the first row is read for good."""
    planned: list[Planned] = []
    files = []
    located = [source_files(source) for source in sources]  # before anything is unpacked that a folder might hold
    for at, (source, found) in enumerate(zip(sources, located, strict=True)):
        check_outputs(found, [outdir / name for name in (*OUTPUTS, "stats.json")])
        nested = NESTED | {source.columns[name] for name in NESTED & set(source.columns)}
        plain = [replace(file, path=_plain(file, draft(outdir, "unpacked"), nested, say)) for file in found]
        name = source.format
        if name == "auto":
            name, because = sniff(plain, source.columns)
            say(f"{source.location}: taken for {name}: {because}")
        planned.append(Planned(source, name, [file.label for file in found]))
        files += [text_file(at, file.label, file.path) for file in plain]
    rules = options.rules
    if options.tokenizer is not None:
        from data_prep.token_count import TokenCounter

        rules = replace(rules, tokens=TokenCounter(options.tokenizer).special_tokens)
    if options.decontaminate:
        from data_prep.contamination import load_index

        load_index(options.decontaminate).save(draft(outdir, "index"))
    job = Job(
        files=tuple(files),
        readings=tuple(Reading(item.format, dict(item.source.columns)) for item in planned),
        folder=outdir,
        rules=rules,
        system=options.system,
        val_fraction=options.val_fraction,
        seed=options.seed,
        max_tokens=options.max_tokens,
        tokenizer=options.tokenizer,
        dedup=options.dedup,
        index=draft(outdir, "index") if options.decontaminate else None,
        sampled=any(source.weight != 1 or source.limit is not None for source in sources),
        step=options.step,
    )
    return job, planned


def _plain(file: SourceFile, folder: Path, nested: frozenset[str], say: Say) -> Path:
    try:
        return unpacked(file.path, folder, nested=nested, say=say) or file.path
    except OSError as error:
        raise InputError(f"{file.label}: cannot be read: {error}") from error


def run(job: Job, planned: Sequence[Planned], options: Options, say: Say | None) -> tuple[Stats, str | None]:
    """Write all outputs of ``job`` as drafts; the counts, and what is wrong with a file as a whole, or None."""
    for name in {*OUTPUTS, *(SPOOLED if job.spooled else ())}:
        # A new file, never an old one: a process of a killed run may still be writing into that.
        draft(job.folder, name).unlink(missing_ok=True)
        draft(job.folder, name).write_bytes(b"")
    size = sum(file.blocks(job.step) * job.step for file in job.files)
    processes = process_count(options, size)
    progress = Progress("reading", size, say)
    tallies, broken = relay.run(job, processes, progress.advance)
    progress.close()
    if job.spooled:
        from data_prep.settle import settle

        settled = settle(job, [item.source for item in planned], tallies, options.near_threshold, processes, say)
        return account(planned, options, settled.tallies, settled.fates, settled.decontaminated), broken
    for name, tally in ((DIRECT[0], tallies.train), (DIRECT[1], tallies.val)):
        widen(draft(job.folder, name), tally)
    fates = [Fates(counts.rows_in - counts.rejected.total()) for counts in tallies.sources]
    return account(planned, options, tallies, fates, Counter()), broken
