"""Names of lm-eval's tasks out of the heads of its 14,000 YAML files: under a second, and kept per version.

lm-eval's own index comes to the same names and files (a slow test compares them), but takes torch and 15 s to import.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

_IGNORED = {"__pycache__", ".ipynb_checkpoints"}
_KEY = re.compile(
    rb"^[\"']?(task|group|tag|include|class)[\"']?[ \t]*:[ \t]*([^\n]*)((?:\n[ \t]*-[^\n]*)*)", re.MULTILINE
)


@dataclass(frozen=True)
class Declared:
    """Where a name comes from."""

    file: str = ""
    members: tuple[str, ...] = ()
    """Of a tag, which has no file of its own: the tasks that carry it."""


Names: TypeAlias = Mapping[str, Declared]


def scan(root: Path) -> dict[str, Declared]:
    """Names of the lm-eval tasks, groups and tags declared under a folder.

    The rules are lm-eval's own (tasks/_index.py, 0.4.13): the first of two equal names counts, tags are inherited.
    """
    found: dict[str, Declared] = {}
    tags: dict[str, list[str]] = {}
    for path in sorted(_yaml_files(root), key=Path.as_posix):
        head = _head(path)
        name = head.get("group") if "group" in head and "class" not in head else head.get("task")
        if isinstance(name, str) and name:
            found.setdefault(name, Declared(str(path)))
            for tag in head.get("tag") or () if "group" not in head or "class" in head else ():
                tags.setdefault(tag, []).append(name)
    return {**{tag: Declared(members=tuple(members)) for tag, members in tags.items()}, **found}


def indexed(place: Path, version: str, cache_dir: Path | None) -> Names:
    """`scan` of the installed tasks, kept in the cache folder for this version and place."""
    key = f"{version} {place} {place.stat().st_mtime_ns}"
    path = cache_dir / "lm_eval_tasks.json" if cache_dir else None
    if path:
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] == key:
                return {
                    name: Declared(str(place / file) if file else "", tuple(members))
                    for name, (file, members) in kept["names"].items()
                }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # not there yet, or cut short
    found = scan(place)
    if path:
        relative = {
            name: (os.path.relpath(at.file, place) if at.file else "", at.members) for name, at in found.items()
        }
        _keep(path, {"key": key, "names": relative})
    return found


def _keep(path: Path, content: dict[str, Any]) -> None:
    scratch = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(content), encoding="utf-8")
        scratch.replace(path)
    except OSError:
        return  # a read-only home: the list is read anew each time


def _yaml_files(root: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _IGNORED]
        yield from (Path(parent, name) for name in files if name.endswith(".yaml"))


def _head(path: Path) -> dict[str, Any]:
    """The keys that decide about names, with those of included files; by pattern, since a YAML parser takes 20 s."""
    head: dict[str, Any] = {}
    try:
        content = path.read_bytes()
    except OSError:
        return head
    for key, value, items in _KEY.findall(content):
        words = [_plain(line.strip()[1:]) for line in items.decode(errors="replace").splitlines() if line.strip()]
        text = _plain(value.decode(errors="replace"))
        words += [_plain(word) for word in text.strip("[]").split(",")] if text else []
        head[key.decode()] = words if key in (b"tag", b"include") else (text or words)
    for name in head.get("include") or ():
        included = _included(str(path.parent / name))
        head = {**included, **head}
    return head


@cache
def _included(path: str) -> dict[str, Any]:
    return {key: value for key, value in _head(Path(path)).items() if key != "include"}


def _plain(text: str) -> str:
    """A YAML scalar without comment and quotes."""
    text = text.strip()
    if text[:1] in ("'", '"') and text[0] in text[1:]:
        return text[1 : text.index(text[0], 1)]
    return text.split(" #")[0].strip()
