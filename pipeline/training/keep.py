"""Which checkpoints of a training that is done stay, those of its interrupted attempts among them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.training import adapter, curve, plugins, resume, selection
from pipeline.training.watch import earlier


def gather(wanted: Sequence[int], limit: int, out: Path, _deps: Mapping[str, Path]) -> None:
    """Keep the checkpoints that are wanted, the best one, which gets a link, and the newest until there are `limit`.

    An earlier, interrupted attempt's are brought to those of the attempt that went on from them.
    """
    best = selection.best_step(out / "last-checkpoint")
    here = {step: path for path in out.glob("checkpoint-*") if (step := resume.step(path)) > 0}
    before = _of_earlier(out)
    needed = {*wanted, *([] if best is None else [best]), max(here, default=0)} & (here.keys() | before.keys())
    newest = sorted((here.keys() | before.keys()) - needed, reverse=True)[: max(0, limit - len(needed))]
    for step in (before.keys() - here.keys()) & {*needed, *newest}:
        whole = (path for path in before[step] if path.is_dir() and not adapter.checkpoint_problem(path))
        if path := next(whole, None):
            path.rename(out / path.name)
    for step in here.keys() - needed - set(newest):
        shutil.rmtree(here[step])
    plugins.forget(out)
    if best is not None and (out / f"checkpoint-{best}").is_dir():
        (out / "best-checkpoint").unlink(missing_ok=True)
        (out / "best-checkpoint").symlink_to(f"checkpoint-{best}")


def _of_earlier(out: Path) -> dict[int, list[Path]]:
    """Checkpoints of earlier attempts by step, the newest attempt's first.

    Of each only those up to where all later ones went on from: behind that an attempt is no part of the training.
    """
    found: dict[int, list[Path]] = {}
    reach = curve.went_on_from(out) or 0
    for attempt in reversed(earlier(out)):
        for path in attempt.glob("checkpoint-*"):
            if 0 < resume.step(path) <= reach:
                found.setdefault(resume.step(path), []).append(path)
        back = curve.went_on_from(attempt)
        reach = reach if back is None else min(reach, back)
    return found
