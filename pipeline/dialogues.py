"""Sample dialogues: which conversations are asked, and the models' answers side by side.

As a program: `python -m pipeline.dialogues OUT --given FILE ... [--validation val.jsonl --count N] [--system TEXT]`
writes asked.jsonl, what is sent, and references.json, the answers that are known.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline import jsonl
from pipeline.errors import OutputError

ASKED, REFERENCES = "asked.jsonl", "references.json"
ROLES = ("system", "user", "assistant")
Turn = dict[str, str]


class Dialogue(BaseModel):
    """One conversation and how each model went on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: tuple[Turn, ...]
    """Turns of `role` and `content`, up to the user's last one."""
    reference: str | None = None
    """The answer in the data, where there is one."""
    answers: dict[str, str]
    """model -> answer, greedily decoded."""


def side_by_side(answered: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Dialogue]:
    """`answered`: model -> its {messages, reference, answer} in the order asked, which is the same for all."""
    found: dict[str, Dialogue] = {}
    for model, rows in answered.items():
        for row in rows:
            key = json.dumps(row["messages"], sort_keys=True)
            known = found[key].answers if key in found else {}
            found[key] = Dialogue(
                messages=tuple(row["messages"]), reference=row["reference"], answers={**known, model: row["answer"]}
            )
    return list(found.values())


def problem(record: Any) -> str | None:
    """Why a record is no conversation that can be asked."""
    messages = record.get("messages") if isinstance(record, dict) else None
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        return 'should be {"messages": [{"role": ..., "content": ...}, ...]}'
    if not all(turn.get("role") in ROLES and isinstance(turn.get("content"), str) for turn in messages):
        return f"every turn needs a role out of {', '.join(ROLES)} and a text as content"
    return None if any(turn["role"] == "user" for turn in messages) else "holds no user turn to be answered"


def split(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Turn], str | None]:
    """Turns up to the user's last one, and the answer that follows it."""
    last = max(index for index, turn in enumerate(messages) if turn["role"] == "user")
    asked = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in messages[: last + 1]]
    after = messages[last + 1 : last + 2]
    return asked, str(after[0]["content"]) if after and after[0]["role"] == "assistant" else None


def given(path: Path) -> tuple[list[Any], list[str]]:
    """Conversations of a file of the user's, and what is wrong with it, by line."""
    rows, problems = [], []
    try:
        lines = list(jsonl.lines(path))
    except OutputError:
        return [], [f"{path}: missing, or not UTF-8 text; give a JSONL file of conversations"]
    for number, line in lines:
        try:
            record = json.loads(line)
        except ValueError as error:
            problems.append(f"{path}, line {number}: no JSON ({error})")
            continue
        wrong = problem(record)
        if wrong:
            problems.append(f"{path}, line {number}: {wrong}")
        rows.append(record)
    return rows, problems


def chosen(records: Iterable[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The first `count` by hash, of those that end in a known answer: more data hardly changes the choice."""
    answered = [record for record in records if not problem(record) and split(record["messages"])[1]]
    return sorted(answered, key=lambda r: hashlib.sha256(json.dumps(r["messages"]).encode()).digest())[:count]


def with_system(turns: list[Turn], system: str | None) -> list[Turn]:
    has = system is None or turns[0]["role"] == "system"
    return turns if has else [{"role": "system", "content": str(system)}, *turns]


def _conversations(words: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    for path in words.given:
        rows, problems = given(path)
        if problems:
            raise OutputError("\n".join(problems))
        yield from rows
    if words.validation:
        yield from chosen(jsonl.records(words.validation), words.count)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.dialogues", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--given", type=Path, nargs="*", default=[], help="JSONL of conversations, all of which are asked"
    )
    parser.add_argument("--validation", type=Path, help="val.jsonl, of which some are asked")
    parser.add_argument("--count", type=int, default=0, help="how many of those")
    parser.add_argument("--system", help="system message where there is none")
    words = parser.parse_args(argv)
    try:
        pairs = [split(record["messages"]) for record in _conversations(words)]
    except OutputError as error:
        print(error, file=sys.stderr)
        return 1
    words.out.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"messages": with_system(asked, words.system)}, ensure_ascii=False) + "\n" for asked, _ in pairs
    ]
    (words.out / ASKED).write_text("".join(lines), encoding="utf-8")
    references = [reference for _, reference in pairs]
    (words.out / REFERENCES).write_text(json.dumps(references, ensure_ascii=False), encoding="utf-8")
    print(f"{len(pairs)} conversations")
    return 0


if __name__ == "__main__":
    sys.exit(main())
