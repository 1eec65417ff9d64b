"""`status` and `gc`: what lies in the runs folder, and what of it no report needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.console import duration, megabytes
from pipeline.files import locked, read_json
from pipeline.plan import Plan
from pipeline.store import Store, size

FETCHED = ("fetch-", "model-")
"""Records of what lies in the hubs' caches: next to nothing on disk, and an offline run goes by them."""


def status(plan: Plan, store: Store) -> str:
    """One line per stage: done (with time and size), running, damaged (with the reason), interrupted or missing."""
    lines = []
    width = max(len(label) for label in plan.stages)
    for label, stage in plan.stages.items():
        folder = store.folder(stage)
        state = store.state(stage)
        record = store.result(stage) if state == "done" else None
        detail = f"{duration(record['seconds']):>8}  {megabytes(size(folder)):>9}" if record else " " * 19
        why = f"  ({store.damage(stage)})" if state == "damaged" else ""
        lines.append(f"{label:<{width}}  {state:<11}  {detail}  {folder.name}{why}")
    return "\n".join(lines)


def unneeded(root: Path) -> Iterator[tuple[Path, str]]:
    """Stage folders that can go, with the reason: merged models that have been asked all, and stages of no report.

    Both come back by themselves: a deleted stage is made again when something asks for it.
    """
    needed: dict[str, str] = {}
    for listing in sorted([*root.glob("*/stages.json"), *root.glob("*/history/*/stages.json")]):
        for line in (read_json(listing) or {}).get("stages", []):
            name = Path(line["dir"]).name
            evaluated = line["name"] == "export" and _all_asked(listing)
            if not evaluated:
                needed[name] = listing.parent.name
            else:
                needed.setdefault(name, "")
    for folder in sorted((root / "stages").glob("*-*")):
        if folder.name not in needed and folder.name.startswith(FETCHED):
            continue
        if folder.name not in needed:
            yield folder, "no report refers to it"
        elif not needed[folder.name]:
            yield folder, "merged model, evaluated"


def _all_asked(listing: Path) -> bool:
    """Whether everything that reads a merged model is done: evaluations, and dialogues where there are any."""
    lines = (read_json(listing) or {}).get("stages", [])
    readers = [line for line in lines if line["name"] in ("eval", "dialogues")]
    return bool(readers) and all(line["status"] in ("done", "cached") for line in readers)


def gc(root: Path, say: Callable[[str], None], ask: Callable[[str], bool]) -> int:
    """List what can go with its size, ask, and delete it; returns bytes freed."""
    found = [(folder, why, size(folder)) for folder, why in unneeded(root)]
    if not found:
        say("nothing to remove: every stage belongs to a report")
        return 0
    for folder, why, count in found:
        say(f"{megabytes(count):>10}  {folder.name}  ({why})")
    total = sum(count for _, _, count in found)
    if not ask(f"remove these {len(found)} folders, {megabytes(total)}? [y/N] "):
        say("nothing removed")
        return 0
    freed = 0
    for folder, _, count in found:
        with locked(folder / ".lock", "gc", wait=False) as free:
            if free is None:
                say(f"{folder.name}: in use, kept")
                continue
            (folder / "result.json").unlink(missing_ok=True)  # first what vouches, then what it vouches for
            shutil.rmtree(folder)
            freed += count
    say(f"removed, {megabytes(freed)} freed")
    return freed
