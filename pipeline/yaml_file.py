"""Strict YAML with line numbers: what a recipe may contain, and nothing a recipe could surprise with.

PyYAML's safe loader still accepts alias bombs, silent duplicate keys, `no` -> False, `1e-4` -> str and
`12:30:45` -> 45045 (YAML 1.1). This loader refuses the first two and reads scalars as YAML 1.2 does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from pipeline.errors import RecipeError

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Location = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_DIGITS = 18

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Document:
    """A parsed file: plain data, and the 1-based line of every key and item by its location."""

    data: dict[str, Json]
    lines: dict[Location, int]


def read(path: Path) -> Document:
    """Parse the YAML file at `path`; RecipeError names file and line of whatever is not allowed."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{path}: {len(raw)} bytes; a recipe has at most {MAX_BYTES}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise RecipeError(f"{path}:{line}: not UTF-8 text") from error
    lines: dict[Location, int] = {}
    data = _construct(_compose(text, str(path)), str(path), (), lines)
    if not isinstance(data, dict):
        raise RecipeError(f"{path}:1: a recipe is a mapping of sections (model:, data:, train:, ...)")
    return Document(data, lines)


def scalar(text: str) -> Json:
    """One value as the command line's `--set key=value` gives it, read by the same rules."""
    return _construct(_compose(text, "--set"), "--set", (), {})


def _compose(text: str, where: str) -> yaml.Node:
    try:
        # Checked on the event stream, before any node is built: nesting and aliases are where YAML bombs live.
        for line, problem in _forbidden(text):
            raise RecipeError(f"{where}:{line}: {problem}")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise RecipeError(f"{where}:{line}: a character (code {error.character}) that YAML does not allow") from error
    except yaml.YAMLError as error:
        problem_mark = getattr(error, "problem_mark", None)
        line = problem_mark.line + 1 if problem_mark else 1
        raise RecipeError(f"{where}:{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if node is None:
        raise RecipeError(f"{where}:1: the file is empty")
    return node


def _forbidden(text: str) -> Iterator[tuple[int, str]]:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            yield line, "anchors and aliases (&, *) are not allowed; write the value out"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                yield line, f"nested deeper than {MAX_DEPTH} levels"
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        tag = getattr(event, "tag", None)
        if tag:
            yield line, f"tags ({tag}) are not allowed"


def _construct(node: yaml.Node, where: str, location: Location, lines: dict[Location, int]) -> Json:
    lines[location] = _line(node)
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Json] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise RecipeError(f"{where}:{line}: a key must be a plain word")
            key = key_node.value
            if key in result:
                raise RecipeError(f"{where}:{line}: {key!r} is given twice")
            result[key] = _construct(value_node, where, (*location, key), lines)
            lines[(*location, key)] = line
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, where, (*location, i), lines) for i, item in enumerate(node.value)]
    plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return _scalar(node.value) if plain else str(node.value)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1 if node.start_mark else 1


def dump(data: Json) -> str:
    """YAML that `read` gives back unchanged: a string that it would take for a number or null is quoted."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if _scalar(data) == data else "'")

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


_Dumper.add_representer(str, _Dumper.represent_str)


def _scalar(text: str) -> Json:
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    # Digits beyond what a number can hold (a commit hash such as 12e4567...) are text.
    if _INT.fullmatch(text):
        return int(text) if len(text) <= MAX_DIGITS else text
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text
