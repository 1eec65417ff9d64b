"""The benchmarks there are: `python -m pipeline.benchmarks [WORD] [--harness lm_eval|evalscope]`."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence

from pipeline import settings
from pipeline.capability import CALLED
from pipeline.catalog import lookup
from pipeline.catalog.entries import ENTRIES
from pipeline.catalog.entry import Entry, HarnessName
from pipeline.catalog.installed import TASKS, Task, evalscope_set, lm_eval_task, names
from pipeline.catalog.task_index import Names

MOST = 60
"""Names of a harness's own that are listed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print what matches; 1 if nothing does."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.benchmarks",
        description="Benchmarks that a suite can name: the well-known ones under one name, then each harness's own.",
        epilog="Without a word, only the well-known ones; all names of a harness: WORD * with --harness.",
    )
    parser.add_argument("word", nargs="?", default="", help="part of a name, title, language or subset")
    parser.add_argument("--harness", choices=("lm_eval", "evalscope"))
    options = parser.parse_args(argv)
    harnesses: list[HarnessName] = [options.harness] if options.harness else ["lm_eval", "evalscope"]
    cache_dir = settings.cache_dir(settings.load())
    found = {harness: names(harness, cache_dir, own=[TASKS] if harness == "lm_eval" else []) for harness in harnesses}
    lines = [
        *_common(options.word, found),
        *(line for harness in harnesses for line in _own(options.word, harness, found[harness])),
    ]
    found_any = bool(lines)
    lines = lines or [f"nothing matches {options.word!r}; without a word the well-known ones are listed"]
    with contextlib.suppress(BrokenPipeError):  # `| head`
        print("\n".join(lines), flush=True)
    return 0 if found_any else 1


def describe(entry: Entry, found: dict[HarnessName, Names]) -> Iterator[str]:
    """Lines about one benchmark: what each harness calls it, needs, and where its data come from."""
    yield f"{entry.name}  ({entry.title}; {', '.join(entry.languages)})"
    for harness, known in found.items():
        own = entry.own(harness)
        if own is None:
            yield f"    {CALLED[harness]:9} does not have it"
            continue
        task = lm_eval_task(own, known) if harness == "lm_eval" else evalscope_set(own)
        part = entry.evalscope.subsets if harness == "evalscope" and entry.evalscope else ()
        called = f"{own}/{part[0]}" if len(part) == 1 else own
        yield f"    {CALLED[harness]:9} {called}: {_facts(task) if task else 'not installed'}"


def _common(word: str, found: dict[HarnessName, Names]) -> Iterator[str]:
    entries = list(lookup.matching(word)) if word not in ("", "*") else list(ENTRIES.values())
    for entry in entries:
        if any(entry.own(harness) for harness in found):
            yield from describe(entry, found)
            if word and (parts := [part for part in entry.subsets if word.lower() in part.lower()]):
                yield f"    parts: {', '.join(f'{entry.name}_{part}' for part in parts)}"


def _own(word: str, harness: HarnessName, known: Names) -> Iterator[str]:
    if not word:
        return
    there = [entry.own(harness) for entry in ENTRIES.values()]
    matches = [name for name in known if (word == "*" or word.lower() in name.lower()) and name not in there]
    if not matches:
        return
    shown = matches if word == "*" else matches[:MOST]
    yield f"{CALLED[harness]}'s own names:"
    yield from (f"    {name}" for name in shown)
    if len(shown) < len(matches):
        yield f"    and {len(matches) - len(shown)} more; a longer word finds fewer"


def _facts(task: Task) -> str:
    needs = {
        "likelihood": "log-likelihoods",
        "generate": "written answers",
        "judge": "graded by a judge model",
        "code": "runs the model's code (unsafe_code: true)",
    }
    parts = [text for kind, text in needs.items() if kind in task.needs]
    parts.append(f"split {task.splits.get('test') or task.splits.get('validation')}")
    if task.few_shot:
        parts.append(f"{task.few_shot} examples")
    if len(task.subsets) > 1:
        parts.append(f"{len(task.subsets)} parts")
    return ", ".join([*parts, f"data {', '.join(task.hub)}"]) if task.hub else ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
