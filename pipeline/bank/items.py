"""From a bank's file to its items. A bank is whole or refused: every bad row is named, with its line and the remedy."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.bank import rows
from pipeline.bank.letters import LETTERS, answer_letters
from pipeline.errors import PreflightError
from pipeline.results import doc_key

Kind = Literal["mcq", "open_qa"]
FACTS = ("type", "subject", "explanation")
"""Columns that are kept beside an item; tables are grouped by the first two."""
SHOWN = 20
"""Bad rows that are named; the others are counted."""

_LETTER = r"([A-Za-zＡ-Ｚａ-ｚ])"
_LABEL = re.compile(rf"\s*(?:[(（\[【]\s*{_LETTER}\s*[)）\]】][.:、．：]?|{_LETTER}\s*[).:、．：）](?![A-Z]\.))\s*")
"""A letter in front of a choice: "A. ...", "D、...", "(b) ..."; not "A.M."."""
_LETTER_COLUMN = re.compile(r"(?:option_?|choice_?)?([a-z])")


class RowError(ValueError):
    """A row that is no item: the reason and the remedy."""


@dataclass(frozen=True)
class Item:
    """One question. Choices are lettered A, B, C, ... in their order."""

    id: str
    question: str
    choices: tuple[str, ...]
    """Empty for an open question."""
    answer: str
    """The right letters, sorted ("AC"), or the reference answer."""
    key_points: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    line: int = 0

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.choices)]

    @property
    def asked(self) -> str:
        """What is asked, whatever the answer is said to be: equal for two items that are the same."""
        return doc_key(self.question, self.choices, "")

    @property
    def target(self) -> str:
        """The right answer as text, which no order of the choices changes."""
        right = sorted(self.choices[LETTERS.index(letter)] for letter in self.answer) if self.choices else [self.answer]
        return "\n".join(right)

    @property
    def key(self) -> str:
        return doc_key(self.question, self.choices, self.target)


def load(path: Path, kind: Kind) -> tuple[Item, ...]:
    """The bank's items, in the file's order. Raises PreflightError with every row that is no item."""
    items: list[Item] = []
    problems: list[str] = []
    try:
        for raw in rows.read(path):
            try:
                items.append(_item(raw, kind))
            except ValueError as error:
                problems.append(f"{path}:{raw.line}: {error}")
    except OSError as error:
        raise PreflightError(f"{path}: cannot be read ({error.strerror}); give the bank's file") from error
    problems += _twice(path, items, "id", lambda item: item.id)
    problems += _twice(path, items, "question with the same choices", lambda item: item.asked)
    if not items and not problems:
        problems = [f"{path}: holds no question"]
    if problems:
        more = [f"{path}: {len(problems) - SHOWN} more rows are wrong"] if len(problems) > SHOWN else []
        raise PreflightError([*problems[:SHOWN], *more])
    return tuple(items)


def examples(path: Path, kind: Kind, count: int, bank: Iterable[Item], bank_path: Path) -> tuple[Item, ...]:
    """The first `count` items of a file of examples. Raises PreflightError where one of them is asked in the bank."""
    found = load(path, kind)
    if len(found) < count:
        raise PreflightError(f"{path}: holds {len(found)} examples, but few_shot asks for {count}")
    asked = {item.asked: item.line for item in bank}
    leaks = [
        f"{path}:{item.line}: this example is asked in the bank ({bank_path}:{asked[item.asked]}); take it out of one"
        for item in found[:count]
        if item.asked in asked
    ]
    if leaks:
        raise PreflightError(leaks)
    return found[:count]


def _twice(path: Path, items: Iterable[Item], what: str, key: Callable[[Item], str]) -> list[str]:
    seen: dict[str, Item] = {}
    problems = []
    for item in items:
        first = seen.setdefault(key(item), item)
        if first is not item:
            name = f" {item.id!r}" if what == "id" else ""
            problems.append(f"{path}:{item.line}: the same {what}{name} as in line {first.line}; take one of them out")
    return problems


def _item(raw: rows.Raw, kind: Kind) -> Item:
    """One row as an item; RowError with the reason and the remedy."""
    if raw.problem:
        raise RowError(raw.problem)
    row = raw.values
    question = _text(row.get("question") or row.get("query"))
    if not question:
        raise RowError(f"no question; columns here: {', '.join(row)}, wanted: question (or query)")
    name = _text(row.get("id")) or f"row-{raw.line}"
    facts = {fact: text for fact in FACTS if (text := _text(row.get(fact)))}
    if kind == "open_qa":
        points = _points(row.get("key_points"))
        response = _text(row.get("response") if row.get("response") is not None else row.get("answer"))
        if not response and not points:
            raise RowError("neither response nor key_points; an answer cannot be compared with anything")
        return Item(name, question, (), response, points, facts, raw.line)
    given = row.get("answer")
    if isinstance(given, str) and given.strip().startswith("["):
        given = _json(given)
    lettered = _choices(row, given)
    known = [letter for letter, _ in lettered]
    right = answer_letters(given, known)
    kept = [(letter, text) for letter, text in lettered if text]
    if lost := sorted(set(right) - {letter for letter, _ in kept}):
        raise RowError(f"the right choice {', '.join(lost)} is empty; write its text")
    texts = [text for _, text in kept]
    folded = [" ".join(text.split()) for text in texts]
    same = next((text for text in folded if folded.count(text) > 1), None)
    if same is not None:
        raise RowError(f"two choices are {same!r}; which of them is right cannot be told")
    if not 2 <= len(texts) <= len(LETTERS):
        raise RowError(f"{len(texts)} choices that are not empty; wanted 2 to {len(LETTERS)}")
    # The letters are given anew, so that none is missing: EvalScope stops at the first gap.
    answer = "".join(LETTERS[place] for place, (letter, _) in enumerate(kept) if letter in right)
    return Item(name, question, tuple(texts), answer, (), facts, raw.line)


def _choices(row: Mapping[str, Any], answer: object) -> list[tuple[str, str]]:
    """(letter, text) of each choice in the order of the letters, empty ones too; RowError where they do not tell."""
    value = row.get("choices") if row.get("choices") is not None else row.get("options")
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        value = _json(value)
    if isinstance(value, str):
        value = [line for line in value.splitlines() if line.strip()]
    if value is None:
        value = {
            match[1]: text for name, text in row.items() if (match := _LETTER_COLUMN.fullmatch(name))
        }  # a column each: A, B, C, D
        if not value:
            raise RowError("no choices; give a list `choices`, or a column for each: A, B, C, D")
    if isinstance(value, dict):
        letters = [unicodedata.normalize("NFKC", str(key)).strip().upper() for key in value]
        wrong = [key for key in letters if len(key) != 1 or not "A" <= key <= "Z"]
        if wrong or len(set(letters)) < len(letters):
            raise RowError(f"choices are called {', '.join(map(str, value))}; wanted one letter each, each once")
        return sorted(zip(letters, map(_text, value.values()), strict=True))
    if not isinstance(value, list):
        raise RowError("choices are no list; write {'choices': ['first', 'second', ...]}")
    return _listed([_text(entry) for entry in value], answer)


def _listed(texts: list[str], answer: object) -> list[tuple[str, str]]:
    """Choices of a list: by the letters in front of them where all have one, else by their order."""
    matches = [_LABEL.match(text) for text in texts]
    found = [unicodedata.normalize("NFKC", match[1] or match[2]).upper() if match else "" for match in matches]
    filled = [letter for letter, text in zip(found, texts, strict=True) if text]
    plain = [(chr(ord("A") + place), text) for place, text in enumerate(texts)]
    if filled and all(filled) and len(set(filled)) == len(filled):
        try:
            answer_letters(answer, filled)
        except ValueError:
            if sorted(filled) == [letter for letter, _ in plain]:
                raise
            return plain  # "J. Smith", "K. Miller": not letters of choices, for the answer is none of them
        pairs = zip(found, matches, texts, strict=True)
        return sorted((letter, text[match.end() :].strip()) for letter, match, text in pairs if match)
    in_place = [place for place, letter in enumerate(found) if letter == plain[place][0]]
    if len(in_place) > 1 or len(set(filled) - {""}) < len([letter for letter in filled if letter]):
        raise RowError("some choices have a letter in front, others not, or the same; write them all alike")
    return plain


def _points(value: object) -> tuple[str, ...]:
    if isinstance(value, str) and value.strip().startswith("["):
        value = _json(value)
    entries = re.split(r"[;；\n]", value) if isinstance(value, str) else value
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise RowError("key_points are no list; write a list of texts, or one text with ';' between them")
    return tuple(dict.fromkeys(text for entry in entries if (text := _text(entry))))


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise RowError(f"{text[:40]!r} begins like JSON and is none ({error})") from error


def _text(value: object) -> str:
    """A cell as text; nothing where it is null. RowError for what is no text."""
    if value is None:
        return ""
    if isinstance(value, list | dict):
        raise RowError(f"{json.dumps(value, ensure_ascii=False)[:60]} stands where a text is wanted")
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RowError("holds text that is not Unicode (an escape such as \\ud800)") from None
    return text
