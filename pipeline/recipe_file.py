"""From a recipe file, --set overrides and the environment to a Recipe; every mistake at once, with its line."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline import yaml_file
from pipeline.errors import RecipeError
from pipeline.recipe import EvalScopeSpec, LmEvalSpec, Recipe
from pipeline.yaml_file import Document, Json, Location

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|ms-[0-9a-f]{8}-[0-9a-f-]{20,})")
_PATH_KEYS = ("path", "include_path")
_SUITES: dict[str, type[BaseModel]] = {"lm_eval": LmEvalSpec, "evalscope": EvalScopeSpec}


def load_recipe(path: Path, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None) -> Recipe:
    """Read the recipe at `path`, apply `key.path=value` overrides and ${NAME} / ${NAME:-default} from `env`.

    Paths in the file are relative to the file, paths in overrides to the working directory.
    Raises RecipeError with one line per mistake: `file:line: where: what (did you mean ...?)`.
    """
    document = yaml_file.read(path)
    for override in overrides:
        _override(document, override)
    mistakes: list[str] = []
    data = _expand(document.data, env or {}, (), document, path, mistakes)
    try:
        # JSON mode keeps strict types yet takes lists for tuples and strings for paths.
        recipe = Recipe.model_validate_json(json.dumps(data), context={"base": path.parent})
    except ValidationError as error:
        errors = error.errors()
        for details in errors:
            # A list whose items are wrong is also reported as too short, which is not what the user got wrong.
            depth = len(details["loc"])
            if details["type"] == "too_short" and any(
                len(e["loc"]) > depth and e["loc"][:depth] == details["loc"] for e in errors
            ):
                continue
            mistakes.append(_explain(details, document, path))
    if mistakes:
        raise RecipeError(list(dict.fromkeys(mistakes)))
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML that load_recipe reads back (the resolved recipe kept beside a report)."""
    data = recipe.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def _override(document: Document, text: str) -> None:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {text}: should be key.path=value, e.g. --set train.learning_rate=2e-4")
    new = yaml_file.scalar(value) if value else None
    if parts[-1] in _PATH_KEYS and isinstance(new, str):
        new = str(Path(new).expanduser().absolute())
    node: Any = document.data
    for part in parts[:-1]:
        node = node[_index(node, part, text)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise RecipeError(f"--set {text}: {part!r} is a single value, it has no parts")
    node[_index(node, parts[-1], text) if isinstance(node, list) else parts[-1]] = new


def _index(node: list[Any], part: str, text: str) -> int:
    """Position in a list: by number, or by the `name`, `harness` or `id` of an entry."""
    if part.isdigit() and int(part) < len(node):
        return int(part)
    for position, item in enumerate(node):
        if isinstance(item, dict) and part in (item.get("name"), item.get("harness"), item.get("id")):
            return position
    raise RecipeError(f"--set {text}: no entry {part!r} in a list of {len(node)} (count from 0, or use its name)")


def _expand(
    value: Json, env: Mapping[str, str], at: Location, document: Document, path: Path, mistakes: list[str]
) -> Json:
    if isinstance(value, dict):
        return {k: _expand(v, env, (*at, k), document, path, mistakes) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, env, (*at, i), document, path, mistakes) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    where = f"{path}:{_line(document, at)}: {_dotted(at)}"
    if _SECRET_VALUE.search(value):
        mistakes.append(f"{where}: looks like a key or token; secrets belong in the environment or .env")

    def replace(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        if _SECRET.search(name):
            mistakes.append(f"{where}: ${{{name}}} is a secret; the tools read it from the environment themselves")
            return ""
        found = env.get(name) or default
        if found is None:
            mistakes.append(f"{where}: ${{{name}}} is not set; set it in .env or write ${{{name}:-default}}")
        return found or ""

    return _VARIABLE.sub(replace, value)


def _explain(details: ErrorDetails, document: Document, path: Path) -> str:
    loc = tuple(part for part in details["loc"] if not _is_union_tag(part, details["loc"]))
    where = f"{path}:{_line(document, loc)}: {_dotted(loc) or 'recipe'}"
    if details["type"] == "extra_forbidden":
        fields = sorted(_fields_at(loc[:-1], document))
        close = difflib.get_close_matches(str(loc[-1]), fields, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(fields)}"
        return f"{where}: unknown key; {hint}"
    if details["type"] == "missing":
        return f"{where}: missing"
    if details["type"] == "union_tag_invalid":
        tag = str((details.get("ctx") or {}).get("tag", ""))
        close = difflib.get_close_matches(tag, _SUITES, n=1)
        known = f"; did you mean {close[0]!r}?" if close else ""
        return f"{where}.harness: {tag!r} is not one of {', '.join(_SUITES)}{known}"
    message = details["msg"].removeprefix("Value error, ")
    given = details.get("input")
    shown = "" if isinstance(given, dict | list) else f", not {given!r}"
    hint = ""
    expected = (details.get("ctx") or {}).get("expected")
    if details["type"] == "literal_error" and isinstance(given, str) and isinstance(expected, str):
        close = difflib.get_close_matches(given, re.findall(r"'([^']*)'", expected), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{where}: {message[0].lower() + message[1:]}{shown}{hint}"


def _is_union_tag(part: str | int, loc: tuple[str | int, ...]) -> bool:
    """pydantic puts the chosen member of a union into the location; a user never wrote it."""
    if part in _SUITES and loc[0] == "eval":
        return True
    return isinstance(part, str) and bool(re.search(r"[\[\]()]|^(ModelSpec|Benchmark|bool|int|str|float)$", part))


def _fields_at(loc: Location, document: Document) -> Iterator[str]:
    """The keys a section knows, found by walking the models along `loc`."""
    model: type[BaseModel] = Recipe
    for position, part in enumerate(loc):
        if isinstance(part, int):
            if loc[0] == "eval" and position == 1:
                entry: Any = document.data["eval"]
                model = _SUITES[entry[part]["harness"]]
            continue
        if part in model.model_fields:
            model = next(_models(model.model_fields[part].annotation), model)
    yield from model.model_fields


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _line(document: Document, loc: Location) -> int:
    """Line of the location, or of the nearest enclosing thing that is in the file."""
    while loc and loc not in document.lines:
        loc = loc[:-1]
    return document.lines.get(loc, 1)


def _dotted(loc: Location) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
