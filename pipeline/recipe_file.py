"""From a recipe file, --set overrides and the environment to a Recipe; every mistake at once, with its line."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline import yaml_file
from pipeline.errors import RecipeError
from pipeline.recipe import Recipe
from pipeline.suites import EvalScopeSpec, LmEvalSpec
from pipeline.yaml_file import Document, Json, Location

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
# Not every "token": max_tokens and think_end_token are honest settings.
_SECRET_KEY = re.compile(
    r"(api[-_]?key|password|secret([-_]key)?|authorization|(^|(hub|access|auth|swanlab|hf)[-_])token)$", re.IGNORECASE
)
_SECRET_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|ms-[0-9a-f]{8}-[0-9a-f-]{20,})")
_PATH_KEYS = ("path", "include_path", "few_shot_path", "data_root")
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
        mistakes += [_explain(group, loc, document, path) for loc, group in _grouped(error.errors())]
    if mistakes:
        raise RecipeError(sorted(dict.fromkeys(mistakes), key=lambda text: int(text[len(f"{path}:") :].split(":")[0])))
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML that load_recipe reads back from any folder (the resolved recipe kept beside a report)."""
    data = recipe.model_dump(mode="json", exclude_none=True, context={"anywhere": True})
    return yaml_file.dump(data)


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
        for key in value:
            if _SECRET_KEY.search(key):
                where = f"{path}:{_line(document, (*at, key))}: {_dotted((*at, key))}"
                mistakes.append(f"{where}: secrets belong in the environment or .env, where the tools find them")
        return {k: _expand(v, env, (*at, k), document, path, mistakes) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand(v, env, (*at, i), document, path, mistakes) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value
    where = f"{path}:{_line(document, at)}: {_dotted(at)}"

    def replace(match: re.Match[str]) -> str:
        name, default = match.group(1), match.group(2)
        if _SECRET.search(name):
            mistakes.append(f"{where}: ${{{name}}} is a secret; the tools read it from the environment themselves")
            return ""
        found = env.get(name) or default
        if found is None:
            mistakes.append(f"{where}: ${{{name}}} is not set; set it in .env or write ${{{name}:-default}}")
        return found or ""

    expanded = _VARIABLE.sub(replace, value)
    if _SECRET_VALUE.search(expanded):
        mistakes.append(f"{where}: looks like a key or token; secrets belong in the environment or .env")
    return expanded


def _grouped(errors: Sequence[ErrorDetails]) -> Iterator[tuple[Location, list[ErrorDetails]]]:
    """Errors by the place the user wrote, without those that pydantic only adds for the other members of a union.

    A value of the wrong type is wrong for every member; where one member got further, only its errors help. A list
    whose items are wrong is also reported as too short.
    """
    groups: dict[Location, list[ErrorDetails]] = {}
    for details in errors:
        loc = tuple(part for part in details["loc"] if not _is_union_tag(part, details["loc"]))
        groups.setdefault(loc, []).append(details)
    for loc, group in groups.items():
        deeper = any(len(other) > len(loc) and other[: len(loc)] == loc for other in groups)
        types = [d for d in group if d["type"].endswith("_type") or d["type"] == "literal_error"]
        rest = [d for d in group if d not in types and not (deeper and d["type"] == "too_short")]
        if rest or not deeper:
            yield loc, rest or types


def _explain(group: Sequence[ErrorDetails], loc: Location, document: Document, path: Path) -> str:
    details = group[0]
    where = f"{path}:{_line(document, loc)}: {_dotted(loc) or 'recipe'}"
    given = details.get("input")
    context = details.get("ctx") or {}
    match details["type"]:
        case "extra_forbidden":
            fields = sorted(_fields_at(loc[:-1], document))
            return f"{where}: unknown key; {_close(str(loc[-1]), fields) or 'known here: ' + ', '.join(fields)}"
        case "missing":
            return f"{where}: missing"
        case "json_invalid":
            return f"{where}: holds text that is not Unicode (an escape such as \\ud800)"
        case "too_short":
            return f"{where}: should have at least one entry"
        case "union_tag_not_found":
            return f"{where}.harness: missing; one of {', '.join(_SUITES)}"
        case "union_tag_invalid":
            tag = str(context.get("tag", ""))
            hint = _close(tag, _SUITES)
            return f"{where}.harness: {tag!r} is not one of {', '.join(_SUITES)}{hint and '; ' + hint}"
    shown = "" if isinstance(given, dict | list) else f", not {'null' if given is None else repr(given)}"
    expected = " ".join(str((d.get("ctx") or {}).get("expected", "")) for d in group)
    hint = _close(given, re.findall(r"'([^']*)'", expected)) if isinstance(given, str) else ""
    return f"{where}: {_expectation(group)}{shown}{hint and '; ' + hint}"


def _expectation(group: Sequence[ErrorDetails]) -> str:
    """What was expected, for all members of a union together, in a recipe's words."""
    message = " or ".join(dict.fromkeys(d["msg"].removeprefix("Input should be ") for d in group))
    plain = message.removeprefix("Value error, ").replace("a valid array", "a list").replace("an object", "a mapping")
    return f"should be {plain}" if group[0]["msg"].startswith("Input should be ") else plain[0].lower() + plain[1:]


def _close(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else ""


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
