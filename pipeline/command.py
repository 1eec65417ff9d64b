"""Command: an argv, its environment and the files it reads, before anything runs. str(command) is paste-able shell."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Command:
    """`files` are small inputs the tool wants as files; they are written before it starts."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Path, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    """Variable the tool reads a key from -> variable of ours that holds it; the key itself is put in at the start."""

    def __str__(self) -> str:
        lines = []
        for path, text in self.files.items():
            # An unquoted here-document, so that $RUNS in it is expanded; everything else is escaped.
            body = re.sub(r"\\|`|\$(?!RUNS\b)", r"\\\g<0>", text.rstrip("\n"))
            end = "EOF"
            while end in body.split("\n"):
                end += "F"
            lines.append(f"mkdir -p {quote(str(path.parent))} && cat > {quote(str(path))} <<{end}\n{body}\n{end}")
        words = [f'{name}="${{{ours}:-EMPTY}}"' for name, ours in self.keys.items()]
        words += [f"{name}={quote(value)}" for name, value in self.env.items()]
        words += [quote(word) for word in self.argv]
        lines.append(_wrap(words))
        return "\n".join(lines)


def flags(args: Mapping[str, Any]) -> Iterator[str]:
    """`--key value` words in the mapping's order.

    True and False become `true` and `false`, a list one word per item, a mapping one JSON word; a value of None is a
    bare flag. A word that begins with a dash is joined by `=` so that no parser takes it for a flag.
    """
    for key, value in args.items():
        if value is None:
            yield f"--{key}"
            continue
        words = [_word(item) for item in value] if isinstance(value, list | tuple) else [_word(value)]
        if words and words[0].startswith("-"):
            yield f"--{key}={words[0]}"
            yield from words[1:]
        else:
            yield f"--{key}"
            yield from words


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def quote(word: str) -> str:
    """One shell word; a leading or embedded $RUNS stays a variable."""
    if not re.search(r"\$RUNS\b", word):
        return shlex.quote(word)
    escaped = re.sub(r'\\|"|`|\$(?!RUNS\b)', r"\\\g<0>", word)
    return f'"{escaped}"'


def _wrap(words: list[str]) -> str:
    """Program first, then one flag with its values per line."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    return " \\\n  ".join(" ".join(line) for line in lines if line)
