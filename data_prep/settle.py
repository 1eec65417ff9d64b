"""The second half of a conversion that decides once everything is read: decide, write, tell what became of whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from data_prep.decide import decide
from data_prep.emit import fates, write_contaminated, write_duplicates, write_sides
from data_prep.job import CONTAMINATED, DUPLICATES, Job
from data_prep.progress import Progress, Say
from data_prep.sink import SPOOLED, Tallies, draft
from data_prep.sources import Source
from data_prep.spool import Spool
from data_prep.stats import Fates


@dataclass(frozen=True)
class Settled:
    """What came of a spool."""

    tallies: Tallies
    fates: list[Fates]
    """One per source."""
    decontaminated: Counter[str]
    """Rows per benchmark."""


def settle(
    job: Job, sources: Sequence[Source], tallies: Tallies, threshold: float, processes: int, say: Say | None
) -> Settled:
    """Write the drafts of all outputs but the rejects; ``tallies`` is what reading has counted."""
    labels = [file.label for file in job.files]
    contaminated: Counter[str] = Counter()
    with closing(Spool(job.folder, near=job.dedup == "near")) as spool:
        decision = decide(job, sources, spool, threshold, processes, say)
        progress = Progress("writing", draft(job.folder, SPOOLED[0]).stat().st_size, say)
        train, val = write_sides(job, spool, decision, progress.advance)
        progress.close()
        with open(draft(job.folder, DUPLICATES), "wb") as stream:
            write_duplicates(stream, spool, decision, labels)
        if job.index is not None:
            from data_prep.contamination import Index

            with open(draft(job.folder, CONTAMINATED), "wb") as stream:
                contaminated = write_contaminated(stream, spool, decision, labels, Index.load(job.index))
        found = list(fates(job, len(sources), spool, decision))
    return Settled(replace(tallies, train=train, val=val), found, contaminated)
