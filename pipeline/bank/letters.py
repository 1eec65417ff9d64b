"""Letters of choices: as a bank's answer column writes them, and as a model's text names them. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

LETTERS = "ABCDEFGHIJ"
"""EvalScope's general_mcq knows ten choices."""

_SEPARATORS = re.compile(r"[\s,，、;；/|&+.。．()（）\[\]【】{}]+|\band\b|和|与|及", re.IGNORECASE)
_THINKING = re.compile(r"<think>.*?</think>|^.*</think>", re.DOTALL)
_MARKER = re.compile(
    r"(?:\banswers?\b|\bcorrect\s+(?:option|choice)\b|正确选项|答案|选(?!项))[\s*_\"”]*"
    r"(?:(?:is|are|should\s+be)\b|应该是|应为|应是|择|是|为)?[\s*_]*[:：]?"
    r"\s*(?:(?:the|options?|choices?|letters?)\b\s*|选项\s*|选\s*)*",
    re.IGNORECASE,
)
_OPEN = re.compile(r"(?:[\s(（\[【{*_$\"'“‘]|\\\(|\\\[|\\(?:boxed|text|textbf|mathbf|mathrm)\b)*")
_RUN = re.compile(r"[A-Za-z]+")
_CLOSE = re.compile(r"(?:[)）\]】}*_$\"'”’]|\\\)|\\\])*")
_NEXT = re.compile(r"\s*(?:[,，、/;；&+和与及]|\b(?:and|or)\b)\s*(?:(?:and|or)\b)?", re.IGNORECASE)
_SPACED = re.compile(r"[A-J](?:\s+[A-J])+")
_AROUND = re.compile(
    r"^\W*(?:options?\b|choices?\b|选项)|[*_$]|\\[()\[\]]|\\(?:boxed|text|textbf|mathbf|mathrm)\b", re.IGNORECASE
)
_DECORATION = " \t\r*_$.。()（）[]{}"
_FIRST_CHOICE = re.compile(r"\s*[(（\[【*_]*([A-Ja-j])[*_]*(?:[)）\]】]|[.:、．：](?!\w))")


def answer_letters(value: object, known: Sequence[str]) -> str:
    """Letters of an answer column, sorted: "B", "B,C", "BC", "b、c", ["B", "C"] -> "B", "BC".

    `known` are the letters of the question's choices. Raises ValueError with the reason.
    """
    parts = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(part, str) for part in parts):
        raise ValueError(f"answer {value!r} is no letter; write the letter of the right choice, or 'B,C' for several")
    text = _SEPARATORS.sub("", unicodedata.normalize("NFKC", " ".join(map(str, parts)))).upper()
    if not text:
        raise ValueError("answer is empty; write the letter of the right choice")
    strange = sorted(set(text) - set(known))
    if strange:
        raise ValueError(f"answer {value!r} is not among the choices {', '.join(known)}; give their letters")
    if len(set(text)) < len(text):
        raise ValueError(f"answer {value!r} names a letter twice")
    return "".join(sorted(text))


def chosen(text: str, known: Sequence[str], choices: Sequence[str] = (), *, first: bool = False) -> str:
    """The letters that a model's text gives as its answer, sorted; "" where it names none.

    In this order: letters behind a word such as `ANSWER:` or `答案`, the last time one is followed by letters; a first,
    then a last line that is letters alone or begins like a choice ("B. ..."); the exact text of one choice. `first` is
    for prompts with examples, which a model goes on writing after its own answer: a first line of letters alone comes
    before all, and of the words the first one counts. Thinking in <think> tags is not read. A letter that is not
    `known` makes no answer.
    """
    text = _THINKING.sub("", text)
    if first and (found := _alone(text.strip().split("\n", 1)[0], known)):
        return found
    markers = list(_MARKER.finditer(text))
    for marker in markers if first else reversed(markers):
        found = _listed(text[marker.end() :].split("\n", 1)[0], known)
        if found:
            return found
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in dict.fromkeys(lines[:1] if first else [*lines[:1], *lines[-1:]]):
        found = _whole(line, known)
        if found:
            return found
    said = _fold(text)
    same = [letter for letter, choice in zip(known, choices, strict=False) if _fold(choice) == said]
    return same[0] if len(same) == 1 else ""


def _listed(text: str, known: Sequence[str]) -> str:
    """Letters at the beginning of a text: "B", "(A, C)", "**AC**", "A and C, because ..."."""
    bare = text.strip(_DECORATION)
    if _SPACED.fullmatch(bare):
        return _checked("".join(bare.split()), known)
    letters, at = "", 0
    while True:
        start = _OPEN.match(text, at)
        run = _RUN.match(text, start.end() if start else at)
        if run is None or not _is_label(run[0], text[run.end() :], known):
            break
        letters += run[0].upper()
        closed = _CLOSE.match(text, run.end())
        separator = _NEXT.match(text, closed.end() if closed else run.end())
        if separator is None:
            break
        at = separator.end()
    return _checked(letters, known)


def _is_label(run: str, rest: str, known: Sequence[str]) -> bool:
    """Whether a run of Latin letters is a list of labels: capitals, or small ones that no word follows."""
    if len(set(run)) < len(run) or not set(run.upper()) <= set(known):
        return False
    if run.isupper():
        # "A dog barks": a capital that a word follows is no label, but for a reason such as "B because ...".
        return not (run == "A" and re.match(r"\s+[a-z]", rest) and not re.match(r"\s+(?:and|or)\b", rest))
    return run.islower() and not re.match(r"\s*\w", rest) and len(run) == 1


def _whole(line: str, known: Sequence[str]) -> str:
    """Letters of a line that is nothing else, or the letter of one that begins like a choice."""
    begins = _FIRST_CHOICE.match(line)
    return _alone(line, known) or (_checked(begins[1].upper(), known) if begins else "")


def _alone(line: str, known: Sequence[str]) -> str:
    only = _SEPARATORS.sub("", _AROUND.sub("", line))
    plain = (only.isupper() or len(only) == 1) and len(set(only)) == len(only)
    return _checked(only.upper(), known) if plain else ""


def _checked(letters: str, known: Sequence[str]) -> str:
    return "".join(sorted(set(letters))) if set(letters) <= set(known) else ""


def _fold(text: str) -> str:
    return " ".join(text.split()).strip(" .。").casefold()
