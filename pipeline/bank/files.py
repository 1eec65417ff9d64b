"""A bank's file as the harnesses want it: `python -m pipeline.bank.files NAME FILE OUT --kind mcq ...`.

Writes `lm_eval.jsonl`, `evalscope/<NAME>_val.jsonl` (`<NAME>.jsonl` for open questions), `items.jsonl` for our own
scoring, and `bank.json` with the counts last.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.bank.items import Item, examples, load
from pipeline.bank.prompts import EVALSCOPE_FOLDER, ITEMS_FILE, LM_EVAL_FILE, evalscope_file, fingerprints, rows
from pipeline.errors import PipelineError
from pipeline.files import write_json, write_text

COUNTS_FILE = "bank.json"


def write(name: str, path: Path, out: Path, spec: dict[str, Any], few_shot_path: Path | None) -> dict[str, Any]:
    """Write the files into `out`; the counts. Raises PreflightError with the rows that are wrong."""
    items = load(path, spec["kind"])
    shots = examples(few_shot_path, spec["kind"], spec["few_shot"], items, path) if few_shot_path else ()
    for_lm_eval, for_evalscope = rows(spec, items, shots)
    _write(out / LM_EVAL_FILE, for_lm_eval)
    _write(out / EVALSCOPE_FOLDER / evalscope_file(spec["kind"], name), for_evalscope)
    _write(out / ITEMS_FILE, map(dataclasses.asdict, items))
    found = counts(items, spec["kind"]) | {"prompts": fingerprints(spec, items, shots)}
    write_json(out / COUNTS_FILE, found)
    return found


def counts(items: Sequence[Item], kind: str) -> dict[str, Any]:
    """What a bank holds, for its stage's result."""
    groups = {fact: dict(Counter(item.facts.get(fact, "") for item in items)) for fact in ("type", "subject")}
    return {
        "items": len(items),
        "several_right": sum(len(item.answer) > 1 for item in items) if kind == "mcq" else 0,
        "with_key_points": sum(bool(item.key_points) for item in items),
        **{fact: found for fact, found in groups.items() if set(found) != {""}},
    }


def read_items(folder: Path) -> list[Item]:
    """The items that were written into `folder`, in the order in which the harnesses number them."""
    lines = (folder / ITEMS_FILE).read_text(encoding="utf-8").split("\n")
    found = []
    for line in filter(None, lines):
        values = json.loads(line)
        found.append(Item(**values | {key: tuple(values[key]) for key in ("choices", "key_points")}))
    return found


def _write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.bank.files", description="A question bank for harnesses.")
    parser.add_argument("name")
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=("mcq", "open_qa"), default="mcq")
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--few-shot", type=int, default=0)
    parser.add_argument("--few-shot-path", type=Path)
    parser.add_argument("--prompt", help="with {question} and {choices}")
    words = parser.parse_args(argv)
    spec = {key: getattr(words, key) for key in ("kind", "language", "few_shot", "prompt")}
    try:
        found = write(words.name, words.file, words.out, spec, words.few_shot_path)
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{words.name}: {found['items']} questions, {found['several_right']} of them with several right answers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
