"""What snapshots.py and the clients of the two hubs share: what is wanted, what a hub lists, how it can fail."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from pipeline.errors import PreflightError

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
COMMIT = re.compile(r"[0-9a-f]{40}")
WORKERS = 4
# No number of attempts mends these: disk full, quota, read-only, no permission.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def matches(path: Path, entry: Entry) -> bool:
    """Whether the file has the sha256 (large files) or git blob id (small ones) that the hub states, if any."""
    if entry.sha256:
        digest, wanted = hashlib.sha256(), entry.sha256
    elif entry.blob_id:
        digest, wanted = hashlib.sha1(b"blob %d\0" % entry.size, usedforsecurity=False), entry.blob_id
    else:
        return True
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == wanted


def found(folder: Path) -> Listing:
    """The files on disk, and those that an index of weight shards or a partial download shows to be missing."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    entries = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    for path in files:
        name = path.relative_to(folder)
        if path.suffix == ".incomplete":
            del entries[name.as_posix()]
            entries.setdefault(name.with_suffix("").as_posix(), -1)
        elif path.name.endswith(".safetensors.index.json"):
            try:
                shards = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
            except (ValueError, KeyError, AttributeError):  # not a readable index: itself incomplete
                shards = {path.name}
                del entries[name.as_posix()]
            for shard in shards:
                entries.setdefault((name.parent / str(shard)).as_posix(), -1)
    return Listing(None, tuple(Entry(name, size) for name, size in sorted(entries.items())))


def without_pickles(wanted: Wanted, listing: Listing) -> Listing:
    """A model with safetensors does not need its pickled weights, which run code when they are loaded."""
    if wanted.kind != "model" or not any(entry.path.endswith(".safetensors") for entry in listing.entries):
        return listing
    kept = tuple(e for e in listing.entries if not any(fnmatch(e.path, pattern) for pattern in _PICKLES))
    return replace(listing, entries=kept, ignored=_PICKLES)


def narrowed(listing: Listing, only: Collection[str] | None) -> Listing:
    """The listing of nothing but these files; all of it for None."""
    if only is None:
        return listing
    others = tuple(glob.escape(entry.path) for entry in listing.entries if entry.path not in only)
    kept = tuple(entry for entry in listing.entries if entry.path in only)
    return replace(listing, entries=kept, ignored=(*listing.ignored, *others))


def absent(folder: Path, entries: tuple[Entry, ...]) -> list[str]:
    """The paths of the entries that are not on disk in their full size."""
    located = ((entry, folder / entry.path) for entry in entries)
    return [e.path for e, path in located if not path.is_file() or path.stat().st_size != e.size]


def size_of(folder: Path) -> int:
    """Bytes under a folder, links not followed: how progress is noticed, whichever library writes."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def corrupt_message(wanted: Wanted, names: Sequence[str]) -> str:
    return (
        f"{wanted}: the content of {', '.join(names)} is not what the hub's checksum says; refused and removed. "
        "Run again; if it stays so, the endpoint or a proxy alters files: try another HF_ENDPOINT / MODELSCOPE_ENDPOINT"
    )


def unknown_message(wanted: Wanted, site: str, token: str) -> str:
    return (
        f"{wanted}: {site} knows no such {wanted.kind} or revision. Check the spelling and the hub; "
        f"if it is private, set {token} to a token that may read it"
    )


def raise_if_disk(wanted: Wanted, error: BaseException) -> None:
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        raise PreflightError(
            f"{wanted}: cannot write the cache: {error}. Free space, or choose another folder with "
            "HF_HOME (huggingface) or MODELSCOPE_CACHE (modelscope), and run again"
        ) from error


class Unreachable(Exception):
    """The hub, or the network on the way to it, failed in a way that may pass."""


@dataclass(frozen=True)
class Wanted:
    """What to fetch; `revision` None is the hub's default branch."""

    hub: Literal["modelscope", "huggingface"]
    kind: Literal["model", "dataset"]
    id: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.kind} {self.id}{f'@{self.revision}' if self.revision else ''} from {self.hub}"


@dataclass(frozen=True)
class Entry:
    """A file in a repository: path relative to its root, size in bytes, and whichever checksum the hub states."""

    path: str
    size: int
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True)
class Listing:
    """The files of one revision; `commit` where the hub names it, `ignored` the glob patterns that were left out."""

    commit: str | None
    entries: tuple[Entry, ...]
    endpoint: str | None = None
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Client:
    """One hub's verbs; `token` is the secret the library would send, for redaction."""

    listing: Callable[[Wanted], Listing]
    transfer: Callable[[Wanted, Listing], Path]
    cached: Callable[[Wanted], tuple[Path, Listing | None]]
    store: Callable[[Wanted], Path]
    token: Callable[[], str | None]
