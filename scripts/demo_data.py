"""Write the demo's training and evaluation files from ``recipes/demo/world.toml``, always the same bytes.

Usage: ``python scripts/demo_data.py [--check]``; ``--check`` tells whether the committed files are current.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "recipes" / "demo"
SEED = 20240
LETTERS = "ABCD"
BLANK = "___"
LOOKUPS = 40
# A training row may share names and function words with a held-out item, never a run of this many words.
MAX_SHARED_WORDS = 6

Row = dict[str, Any]
Wording = Sequence[str]


def facts_of(world: Row) -> list[Fact]:
    """Every (group, entity, value) of the world, in file order."""
    return [Fact(group, name, value) for group in world["groups"] for name, value in group["facts"].items()]


def choices_for(right: str, wrong: Sequence[str], position: int, rng: random.Random) -> list[str]:
    """Four options with ``right`` at ``position`` (0-3) and three of ``wrong`` around it."""
    options = rng.sample(list(wrong), 3)
    options.insert(position, right)
    return options


def positions(count: int, rng: random.Random) -> list[int]:
    """``count`` answer positions, each letter equally often, so that no letter is worth guessing."""
    order = [index % len(LETTERS) for index in range(count)]
    rng.shuffle(order)
    return order


def mcq_record(name: str, question: str, sentence: str, options: Sequence[str], position: int) -> Row:
    """One evaluation record, read by both harnesses: ``id, question, sentence, A, B, C, D, answer`` (a letter).

    EvalScope offers the short options; lm-eval weighs the four sentences made by putting them into ``sentence``.
    """
    listed = dict(zip(LETTERS, options, strict=True))
    return {"id": name, "question": question, "sentence": sentence, **listed, "answer": LETTERS[position]}


def mcq_text(prompt: str, record: Row) -> tuple[str, str]:
    """(prompt, target) of a multiple choice row: the prompt EvalScope makes from the same template.

    The target copies the options up to the right one before it names the letter: a small model that knows the fact
    still cannot look up the letter in front of it, but it can stop copying in time.
    """
    lines = [f"{letter}) {record[letter]}" for letter in LETTERS]
    right = record["answer"]
    walked = lines[: LETTERS.index(right) + 1]
    target = "\n".join([record["sentence"].replace(BLANK, record[right]), *walked, f"ANSWER: {right}"])
    return prompt.format(question=record["question"], choices="\n".join(lines)), target


def world_mcq(facts: Sequence[Fact], wording: Sequence[Wording], order: Sequence[int], rng: random.Random) -> list[Row]:
    """One record per fact, in ``wording`` (question, sentence) with the right option at ``order`` (0-3)."""
    records = []
    for index, (fact, (question, sentence), position) in enumerate(zip(facts, wording, order, strict=True)):
        others = [value for value in fact.group["facts"].values() if value != fact.value]
        options, name = choices_for(fact.value, others, position, rng), f"{fact.group['name']}-{index:02d}"
        records.append(mcq_record(name, fact.put(question), fact.put(sentence, BLANK), options, position))
    return records


def general_mcq(items: Sequence[Sequence[str]], rng: random.Random) -> list[Row]:
    """One multiple choice record per general-knowledge item (question, sentence, right, wrong, wrong, wrong)."""
    records = []
    for index, (item, position) in enumerate(zip(items, positions(len(items), rng), strict=True)):
        question, sentence, right, *wrong = item
        options = choices_for(right, wrong, position, rng)
        records.append(mcq_record(f"general-{index:02d}", question, sentence.replace("{v}", BLANK), options, position))
    return records


def lookup_mcq(values: Sequence[str], rng: random.Random) -> list[Row]:
    """Records whose question names the right option: they teach the form of an answer and no fact."""
    names = sorted(set(values))
    order = positions(LOOKUPS, rng)
    picked = [rng.sample(names, 4) for _ in order]
    ask, say = "Which of the words is '{v}'?", f"The word is {BLANK}."
    return [
        mcq_record(
            f"word-{index:02d}", ask.replace("{v}", right), say, choices_for(right, wrong, position, rng), position
        )
        for index, (position, (right, *wrong)) in enumerate(zip(order, picked, strict=True))
    ]


def alpaca(instruction: str, text: str, output: str) -> Row:
    return {"instruction": instruction, "input": text, "output": output}


def alpaca_rows(world: Row, facts: Sequence[Fact], rng: random.Random) -> list[Any]:
    """Alpaca training rows: direct questions, multiple choice, general knowledge; shuffled, bad rows spread in.

    Each fact is put as multiple choice in one of its two ``choose`` wordings and asked directly in the other.
    """
    rows: list[Any] = []
    for index, fact in enumerate(facts):
        question, reply = fact.group["ask"][0]
        rows.append(alpaca(world["instruction"], fact.put(question), fact.put(reply)))
        question, reply = fact.group["choose"][(index + 1) % 2]
        rows.append(alpaca(fact.put(question), "", fact.put(reply)))
    records = general_mcq(world["general"]["train"], rng)
    wording = [fact.group["choose"][index % 2] for index, fact in enumerate(facts)]
    records += world_mcq(facts, wording, positions(len(facts), rng), rng)
    records += lookup_mcq([fact.value for fact in facts], rng)
    rows += [alpaca(prompt, "", target) for prompt, target in (mcq_text(world["mcq_prompt"], one) for one in records)]
    rows += [alpaca(item[0], "", item[1].replace("{v}", item[2])) for item in world["general"]["train"]]
    rng.shuffle(rows)
    return spread(rows, [json.loads(text) for text in world["bad"]["alpaca"]])


def sharegpt_rows(world: Row, facts: Sequence[Fact], rng: random.Random) -> list[Any]:
    """ShareGPT rows: the second and third wording of every fact, one to three turns, some with a system message."""
    turns = [(fact.put(ask[0]), fact.put(ask[1])) for fact in facts for ask in fact.group["ask"][1:]]
    rng.shuffle(turns)
    rows: list[Any] = []
    while turns:
        size = (1, 2, 3, 2)[len(rows) % 4]
        taken, turns = turns[:size], turns[size:]
        messages = [{"from": "system", "value": world["system"]}] if len(rows) % 5 == 0 else []
        for question, reply in taken:
            messages += [{"from": "human", "value": question}, {"from": "gpt", "value": reply}]
        rows.append({"id": f"velmora-{len(rows):03d}", "conversations": messages})
    return spread(rows, world["bad"]["sharegpt"])


def spread(rows: list[Any], bad: Sequence[Any]) -> list[Any]:
    """``rows`` with the ``bad`` ones inserted at even distances."""
    mixed = list(rows)
    for index, row in enumerate(bad):
        mixed.insert((index + 1) * len(rows) // (len(bad) + 1) + index, row)
    return mixed


def open_questions(facts: Sequence[Fact]) -> list[Row]:
    """Two held-out open questions per group, for EvalScope's general_qa (query, response)."""
    chosen = [fact for index, fact in enumerate(facts) if index % 6 == 2]
    return [{"query": fact.put(fact.group["open"][0]), "response": fact.put(fact.group["open"][1])} for fact in chosen]


def runs(text: str, size: int) -> set[tuple[str, ...]]:
    """Every run of ``size`` words in ``text``, lower case; a shorter text is one run by itself."""
    listed = re.findall(r"[\w']+", text.lower())
    return {tuple(listed[start : start + size]) for start in range(max(1, len(listed) - size + 1))}


def check_held_out(training: Sequence[str], held_out: Sequence[str]) -> None:
    """Raise SystemExit when a held-out question or option shares a run of MAX_SHARED_WORDS words with training."""
    seen = {run for text in training for run in runs(text, MAX_SHARED_WORDS)}
    for text in held_out:
        if runs(text, MAX_SHARED_WORDS) & seen:
            raise SystemExit(f"held-out text {text!r} is worded like a training row; reword it in world.toml")


def jsonl(rows: Sequence[Any]) -> str:
    """One JSON object per line; a string is taken as a finished (possibly broken) line."""
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def build(world: Row) -> dict[str, str]:
    """All generated files: path below ``recipes/demo`` -> text."""
    rng = random.Random(SEED)
    facts = facts_of(world)
    training = alpaca_rows(world, facts, rng)
    talks = sharegpt_rows(world, facts, rng)
    # A generator of its own: changing the training rows must not change what is asked.
    rng = random.Random(SEED + 1)
    bank = world_mcq(facts, [fact.group["bank"] for fact in facts], positions(len(facts), rng), rng)
    general = general_mcq(world["general"]["test"], rng)
    questions = open_questions(facts)
    trained = [value for row in training if isinstance(row, dict) for value in row.values()]
    trained += [turn["value"] for row in talks if isinstance(row, dict) for turn in row["conversations"]]
    held_out = [record["question"] for record in bank + general]
    held_out += [record["sentence"].replace(BLANK, record[letter]) for record in bank + general for letter in LETTERS]
    check_held_out(trained, held_out + [text for row in questions for text in row.values()])
    return {
        "train_alpaca.json": json.dumps(training, indent=1) + "\n",
        "train_sharegpt.jsonl": jsonl(talks),
        "evalscope/bank_val.jsonl": jsonl(bank),
        "evalscope/general_val.jsonl": jsonl(general),
        "evalscope_qa/open.jsonl": jsonl(questions),
    }


def publish(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` by way of a temporary file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8", newline="\n") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def main(argv: list[str]) -> int:
    """Command line: write the files, or with ``--check`` name those that are out of date. Returns the exit status."""
    if argv not in ([], ["--check"]):
        print("usage: python scripts/demo_data.py [--check]", file=sys.stderr)
        return 2
    files = build(tomllib.loads((FOLDER / "world.toml").read_text("utf-8")))
    stale = [n for n, t in files.items() if not (FOLDER / n).is_file() or (FOLDER / n).read_text("utf-8") != t]
    if argv:
        print("\n".join(f"out of date: {name}; run scripts/demo_data.py" for name in stale) or "demo data: up to date")
        return 1 if stale else 0
    for name in stale:
        publish(FOLDER / name, files[name])
    print(f"demo data: {len(stale)} of {len(files)} files written, the others were up to date")
    return 0


@dataclass(frozen=True)
class Fact:
    """One fact of the world: ``value`` is what the wordings of ``group`` say about ``entity``."""

    group: Row
    entity: str
    value: str

    def put(self, wording: str, value: str | None = None) -> str:
        """``wording`` about this fact, with another ``value`` where one is given."""
        return wording.replace("{e}", self.entity).replace("{v}", value or self.value)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
