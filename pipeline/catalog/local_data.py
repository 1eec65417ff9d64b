"""What a folder of benchmark data holds, as the `datasets` library would see it: configurations and their splits."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ENDINGS = (".jsonl", ".json", ".parquet", ".csv", ".tsv", ".txt", ".arrow", ".zip", ".gz")
LONGEST_ROW = 1 << 22
"""Characters of a row that are looked at."""
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Words in file and folder names by which datasets 4.8 tells the splits (data_files.py); other files are `train`."""


def configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Configurations that the README.md's front matter declares; empty where it declares none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    matter = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        declared = yaml.safe_load(matter[1]) if matter else None
    except yaml.YAMLError:
        return {}
    listed = declared.get("configs") if isinstance(declared, dict) else None
    return {
        str(entry["config_name"]): entry
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict) and "config_name" in entry
    }


def columns(folder: Path, config: str | None = None) -> set[str]:
    """Columns of the first row of a configuration's first JSONL file; empty where there is none to look into."""
    declared = configs(folder)
    found = (path for _, path in _declared(folder, declared[config])) if config in declared else folder.rglob("*.jsonl")
    for path in sorted(path for path in found if path.suffix == ".jsonl"):
        with path.open(encoding="utf-8") as stream:
            try:
                row = json.loads(stream.readline(LONGEST_ROW))
            except ValueError:
                return set()
        return set(row) if isinstance(row, dict) else set()
    return set()


def splits(folder: Path, config: str | None = None) -> set[str]:
    """Splits of a configuration; of the folder's files where none is declared. Empty where there are no data files.

    Without `config`, those of all configurations together.
    """
    declared = configs(folder)
    chosen = [declared[config]] if config in declared else list(declared.values()) or [{}]
    return {split for entry in chosen for split, _ in _declared(folder, entry)}


def _declared(folder: Path, entry: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Split and path of a configuration's data files; where it names none, of all in its folder, by their names."""
    base, files = folder / str(entry.get("data_dir") or ""), entry.get("data_files")
    if files is None:
        yield from ((split, base / path) for path in _files(base) for split in _told(path))
        return
    for item in files if isinstance(files, list) else [files]:
        split, paths = (item.get("split"), item.get("path")) if isinstance(item, dict) else ("train", item)
        for pattern in paths if isinstance(paths, list) else [paths]:
            # Not pathlib's glob, which takes neither an absolute nor an empty pattern.
            names = glob.iglob(str(pattern), root_dir=base, recursive=True)  # noqa: PTH207
            yield from ((str(split), base / name) for name in names)


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if path.suffix in ENDINGS and not any(part.startswith((".", "__")) for part in inside.parts):
            yield inside


def _told(path: Path) -> set[str]:
    words = re.split(r"[^a-z]+", str(path).lower())
    found = {split for split, keywords in _KEYWORDS.items() if any(word in keywords for word in words)}
    return found or {"train"}
