"""``python -m data_prep inspect``: rows as the trainer sees them, with the tokens that are learned marked."""

from __future__ import annotations

import argparse
import io
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from data_prep.command import template_options, template_spec
from data_prep.errors import InputError
from data_prep.files import exit_status, to_stderr
from data_prep.line_sample import Line, lines, records, sample
from data_prep.template import Encoded, EncodeError, RowTemplate

Kind: TypeAlias = Literal["text", "special"]

_RESET = "\x1b[0m"
_COLOURS: dict[tuple[Kind, bool], str] = {
    ("text", False): "",
    ("text", True): "\x1b[32m",  # green
    ("special", False): "\x1b[2m",  # dim
    ("special", True): "\x1b[1;35m",  # bold magenta
}
_OPEN, _CLOSE = "⟦", "⟧"
# Marks that turn the direction of writing, or that end a line: nothing a row holds may rearrange what is shown.
_HIDDEN = frozenset("\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def arguments() -> argparse.ArgumentParser:
    """The options, with their defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep inspect",
        description="Show rows as `swift sft` encodes them, with the tokens that are learned marked.",
        allow_abbrev=False,
    )
    parser.add_argument("datadir", metavar="DATADIR", type=Path, help="folder with train.jsonl and val.jsonl")
    template_options(parser)
    parser.add_argument("-n", type=int, default=3, metavar="N", help="rows to show (3), chosen by content")
    parser.add_argument("--lines", metavar="N,N", help="show these lines instead, counted from 1")
    parser.add_argument("--file", default="train.jsonl", metavar="NAME", help="file of DATADIR (train.jsonl)")
    parser.add_argument("--seed", type=int, default=42, metavar="N", help="another seed, other rows (42)")
    parser.add_argument("--colour", choices=("auto", "always", "never"), default="auto", help="marks by colour (auto)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return exit_status(partial(run, arguments().parse_args(argv)))


def run(options: argparse.Namespace) -> None:
    """Print the rows."""
    if options.n < 1:
        raise InputError(f"-n is {options.n}, but must be at least 1")
    path = options.datadir / options.file
    if options.lines is None:
        chosen = sample(path, options.n, options.seed)[1]
    else:
        chosen = named_lines(path, line_numbers(options.lines))
    if not chosen:
        raise InputError(f"{path}: there are no rows in it")
    to_stderr("loading the tokenizer")
    template = RowTemplate(template_spec(options))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 shows \\u...
    colour = options.colour == "always" or (options.colour == "auto" and sys.stdout.isatty())
    print(f"{path}, template {template.name} of model type {template.model_type}\n{legend(colour=colour)}")
    for number, record in records(path, chosen):
        try:
            encoded = template.encode(record)
        except EncodeError as error:
            print(f"\n--- line {number}: swift cannot encode it, and leaves it out: {escaped(str(error))}")
            continue
        trained = sum(encoded.trained)
        print(f"\n--- line {number}: {len(encoded.ids)} tokens, {trained} of them trained")
        print(shown(pieces(encoded, template), colour=colour))


def line_numbers(text: str) -> list[int]:
    """The numbers in ``5,17``, in order and once each."""
    try:
        numbers = sorted({int(word) for word in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise InputError(f"--lines {text}: give numbers of lines from 1, such as 5,17")
    return numbers


def named_lines(path: Path, numbers: Sequence[int]) -> list[Line]:
    """The lines with these numbers; InputError for one that is not there or is blank."""
    wanted = set(numbers)
    found = [line for line, _ in lines(path) if line.number in wanted]
    if missing := sorted(wanted - {line.number for line in found}):
        raise InputError(f"--lines: {path} has no row in line {missing[0]}")
    return found


def legend(*, colour: bool) -> str:
    """What the marks of `shown` mean."""
    rest = "all else is not; what could steer a terminal is escaped, as \\x1b is"
    if not colour:
        return f"marks: {_OPEN}learned{_CLOSE}, {rest}"
    names: dict[tuple[Kind, bool], str] = {
        ("text", True): "learned",
        ("special", True): "learned special token",
        ("special", False): "special token",
    }
    return f"marks: {', '.join(f'{_COLOURS[key]}{name}{_RESET}' for key, name in names.items())}; {rest}"


def pieces(encoded: Encoded, template: RowTemplate) -> Iterator[Piece]:
    """The row as runs of tokens that are learned or not, special or not.

    Runs, since one character may be several tokens, as those of Chinese often are.
    """
    special = template.special_ids()
    tokens = zip(encoded.ids, encoded.trained, strict=True)
    for (trained, is_special), run_of in groupby(tokens, key=lambda token: (token[1], token[0] in special)):
        yield Piece(template.decode([token for token, _ in run_of]), trained, "special" if is_special else "text")


def shown(row: Iterator[Piece], *, colour: bool) -> str:
    """The pieces of a row with their marks, as safe text."""
    if colour:
        return "".join(coloured(piece) for piece in row)
    out: list[str] = []
    for trained, run_of in groupby(row, key=lambda piece: piece.trained):
        text = "".join(escaped(piece.text) for piece in run_of)
        out.append(f"{_OPEN}{text}{_CLOSE}" if trained else text)
    return "".join(out)


def coloured(piece: Piece) -> str:
    """One piece in its colour, set anew on every line, so that a pager keeps it."""
    code = _COLOURS[piece.kind, piece.trained]
    text = escaped(piece.text)
    return "\n".join(f"{code}{line}{_RESET}" if line else "" for line in text.split("\n")) if code else text


def escaped(text: str) -> str:
    """``text`` without anything that a terminal would obey, or that could be taken for a mark; line ends stay."""
    return "".join(char if char == "\n" or not unsafe(char) else visible(char) for char in text)


def unsafe(char: str) -> bool:
    """True for control characters, those that turn or break lines, surrogates, and the marks themselves."""
    return char in _HIDDEN or char in (_OPEN, _CLOSE) or unicodedata.category(char) in ("Cc", "Cs")


def visible(char: str) -> str:
    """The character as an escape sequence of Python's."""
    code = ord(char)
    return "\\t" if char == "\t" else f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class Piece(NamedTuple):
    """A run of tokens as text, whether it is learned, and whether it is special tokens."""

    text: str
    trained: bool
    kind: Kind
