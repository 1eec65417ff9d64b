"""From what the user named (a file, a folder, a hub id) to the files to read."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from data_prep.containers import DATA_SUFFIXES, is_data_name
from data_prep.errors import InputError

HubName: TypeAlias = Literal["modelscope", "huggingface"]
FormatName: TypeAlias = Literal["alpaca", "sharegpt", "messages", "query", "xtuner", "auto"]
FORMATS: tuple[str, ...] = get_args(FormatName)
HUBS: tuple[HubName, ...] = ("modelscope", "huggingface")
METADATA = frozenset(
    {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "configuration.json", "config.json"}
)


def source_files(source: Source) -> list[SourceFile]:
    """The files of ``source`` in a fixed order; InputError when there are none."""
    for hub in HUBS:
        if source.location.startswith(f"{hub}:"):
            return folder_files(download(hub, source.location[len(hub) + 1 :]), source)
    path = Path(source.location)
    if path.is_dir():
        return folder_files(path, source)
    if not path.is_file():
        raise InputError(f"{source.location}: no such file or folder (a hub id is modelscope:owner/name[@revision])")
    if source.file is not None:
        raise InputError(
            f"{source.location}: this is a file, and --file {source.file} is for folders and hub data sets"
        )
    return [SourceFile(source.location, path)]


def folder_files(folder: Path, source: Source) -> list[SourceFile]:
    """The data files under ``folder``, sorted by path; hidden ones and the metadata of hubs are passed over."""
    pattern = source.file
    found: list[SourceFile] = []
    others: list[str] = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in name.split("/")) or not path.is_file():
            continue
        wanted = is_data_name(name) and path.name not in METADATA
        if pattern is not None:
            matches = fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(path.name, pattern)
            wanted = matches and (path.name not in METADATA or pattern in (name, path.name))
        if wanted:
            found.append(SourceFile(f"{source.location.rstrip('/')}/{name}", path))
        else:
            others.append(name)
    if not found:
        what = (
            f"no data file in it ({', '.join(DATA_SUFFIXES)})"
            if pattern is None
            else f"no file in it matches --file {pattern}"
        )
        there = ", ".join(others[:8]) + (", ..." if len(others) > 8 else "")
        raise InputError(f"{source.location}: {what} (there is: {there or 'nothing'})")
    return found


def download(hub: HubName, name: str) -> Path:
    """Fetch a data set from a hub and return the folder that holds it."""
    repo_id, _, revision = name.partition("@")
    if len(repo_id.split("/")) != 2 or not all(repo_id.split("/")):
        raise InputError(f"{hub}:{name}: a hub id is {hub}:owner/name or {hub}:owner/name@revision")
    # Imported here, so that local files need neither the pipeline nor a hub client.
    from pipeline.errors import PipelineError
    from pipeline.hub.snapshots import download as fetch

    try:
        return fetch(hub, "dataset", repo_id, revision or None)
    except PipelineError as error:
        raise InputError(f"{hub}:{name}: {error}") from error


def check_outputs(files: Sequence[SourceFile], outputs: Sequence[Path]) -> None:
    """Refuse to write over a file that is to be read."""
    written = {path.resolve() for path in outputs}
    for file in files:
        if file.path.resolve() in written:
            raise InputError(f"{file.label}: this input would be overwritten: choose another output folder")


@dataclass(frozen=True)
class Source:
    """One place to read rows from, as the user gave it."""

    format: FormatName
    location: str
    """A local file or folder, or ``modelscope:owner/name[@revision]``, ``huggingface:owner/name[@revision]``."""
    file: str | None = None
    """Name or glob of the files to take from a folder or a hub data set; None takes every data file."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field of the format -> what the file calls it."""
    limit: int | None = None
    """At most this many rows, chosen by a hash of their content."""
    weight: float = 1.0
    """How often a row is written: 0.5 takes half of the rows, 2 writes each twice."""


@dataclass(frozen=True)
class SourceFile:
    """One file to read: ``label`` is its name in reports, free of the machine's own paths unless the user gave them."""

    label: str
    path: Path
