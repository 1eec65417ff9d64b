"""The one place that talks to model and data hubs: resumable, verified downloads through the hubs' own libraries.

Endpoints, tokens, cache folders and proxies come from the environment, where those libraries read them. Nothing that
is downloaded is ever executed. Alone: `python -m pipeline.hub model modelscope OWNER/NAME --revision R --out DIR`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Literal

from pipeline.errors import PipelineError, PreflightError
from pipeline.hub import huggingface, modelscope
from pipeline.hub.shared import (
    Client,
    Entry,
    Listing,
    Unreachable,
    Wanted,
    absent,
    found,
    narrowed,
    size_of,
    without_pickles,
)

_CLIENTS = {"huggingface": huggingface.CLIENT, "modelscope": modelscope.CLIENT}
_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][\w./+-]*", re.ASCII)
# Failures in a row without one byte gained before giving up; the libraries' own retries come within each.
_ATTEMPTS = 4
_LONGEST_WAIT_S = 30.0


def download(
    hub: Literal["modelscope", "huggingface"],
    kind: Literal["model", "dataset"],
    repo_id: str,
    revision: str | None = None,
) -> Path:
    """The folder of the complete, verified snapshot; see `fetch`."""
    return fetch(hub, kind, repo_id, revision).folder


def fetch(
    hub: Literal["modelscope", "huggingface"],
    kind: Literal["model", "dataset"],
    repo_id: str,
    revision: str | None = None,
    only: Collection[str] | None = None,
) -> Snapshot:
    """Complete the snapshot (of it, the files in `only`) in the hub library's cache and describe it.

    A download that was cut goes on where it stopped; sizes and checksums are compared with the hub's. Pickled weights
    are left out of a model that also has safetensors. Without network (or with HF_HUB_OFFLINE=1) a complete cached
    snapshot is used. Raises PreflightError with what is missing and how to get it.
    """
    return _obtain(Wanted(hub, kind, repo_id, revision), only)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Download one repository, link it into a folder under its own name, and describe it in snapshot.json."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.hub",
        description="Download a model or data set from a hub: resumed when cut, verified, usable offline afterwards.",
        epilog="Environment: HF_ENDPOINT, HF_TOKEN, HF_HOME; MODELSCOPE_ENDPOINT (or MODELSCOPE_DOMAIN), "
        "MODELSCOPE_API_TOKEN, MODELSCOPE_CACHE; HF_HUB_OFFLINE=1; http(s)_proxy, no_proxy.",
    )
    parser.add_argument("kind", choices=("model", "dataset"))
    parser.add_argument("hub", choices=("modelscope", "huggingface"))
    parser.add_argument("id", help="OWNER/NAME")
    parser.add_argument("--revision", help="branch, tag or commit (default: the hub's default branch)")
    parser.add_argument("--out", required=True, type=Path, help="folder for the link and snapshot.json")
    options = parser.parse_args(arguments)
    wanted = Wanted(options.hub, options.kind, options.id, options.revision)
    try:
        link = _publish(wanted, options.out)
    except PipelineError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run the same command again to go on from here\n")
        return 130
    sys.stdout.write(f"{link}\n")
    return 0


def _obtain(wanted: Wanted, only: Collection[str] | None = None) -> tuple[Snapshot, tuple[Entry, ...]]:
    _check_names(wanted)
    try:
        return _complete(wanted, only)
    except PreflightError as error:  # without its causes: they hold the texts that were redacted
        raise PreflightError(_redacted(wanted, str(error))) from None


def _complete(wanted: Wanted, only: Collection[str] | None) -> tuple[Snapshot, tuple[Entry, ...]]:
    client = _CLIENTS[wanted.hub]
    if huggingface.is_offline():
        return _from_cache(client, wanted, "HF_HUB_OFFLINE is set")
    try:
        listing = client.listing(wanted)
    except Unreachable as error:
        _log.warning("%s: hub not reached, looking into the cache: %s", wanted, _redacted(wanted, str(error)))
        return _from_cache(client, wanted, f"the hub was not reached ({error})")
    listing = narrowed(without_pickles(wanted, listing), only)
    if not listing.entries:
        raise PreflightError(f"{wanted}: the repository is empty; check the id and the revision")
    if strays := [e.path for e in listing.entries if PurePosixPath(e.path).is_absolute() or ".." in e.path.split("/")]:
        raise PreflightError(f"{wanted}: refused, it lists files outside its own folder: {', '.join(strays)}")
    folder = _transfer(client, wanted, listing)
    if missing := absent(folder, listing.entries):
        raise PreflightError(f"{wanted}: still incomplete in {folder}: {_some(missing)}. Run again")
    return _described(folder, listing)


def _transfer(client: Client, wanted: Wanted, listing: Listing) -> Path:
    """Transfer with bounded, spaced attempts; an attempt that gained bytes starts the count anew."""
    failures, store = 0, client.store(wanted)
    while True:
        before = size_of(store)
        try:
            return client.transfer(wanted, listing)
        except Unreachable as error:
            failures = 1 if size_of(store) > before else failures + 1
            if failures >= _ATTEMPTS:
                raise PreflightError(
                    f"{wanted}: the transfer broke off {failures} times in a row: {error}. Run again to go on from "
                    "where it stopped; if the line is slow, set HF_ENDPOINT to a mirror, or https_proxy"
                ) from error
            wait = min(_LONGEST_WAIT_S, 2.0 ** (failures - 1))
            _log.warning("%s: broken off, going on in %.0f s: %s", wanted, wait, _redacted(wanted, str(error)))
            time.sleep(wait)


def _from_cache(client: Client, wanted: Wanted, reason: str) -> tuple[Snapshot, tuple[Entry, ...]]:
    revision = f" --revision {wanted.revision}" if wanted.revision else ""
    remedy = (
        f"Run `python -m pipeline.hub {wanted.kind} {wanted.hub} {wanted.id}{revision} --out DIR` "
        "with network access (HF_HUB_OFFLINE unset; a mirror by HF_ENDPOINT, a proxy by https_proxy), "
        "or copy the cache folder from a machine that has it"
    )
    try:
        folder, listing = client.cached(wanted)
    except Unreachable as error:
        raise PreflightError(f"{wanted}: {reason}, and there is {error}. {remedy}") from error
    if listing is None:
        _log.warning("%s: %s was downloaded by another tool; only its presence can be checked", wanted, folder)
        listing = found(folder)
    listing = without_pickles(wanted, listing)
    if missing := absent(folder, listing.entries):
        raise PreflightError(f"{wanted}: {reason}, and the cached {folder} is incomplete: {_some(missing)}. {remedy}")
    return _described(folder, listing)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _described(folder: Path, listing: Listing) -> tuple[Snapshot, tuple[Entry, ...]]:
    entries = tuple(sorted(listing.entries, key=lambda entry: entry.path))
    total = sum(entry.size for entry in entries)
    return Snapshot(folder.absolute(), listing.commit, len(entries), total), entries


def _check_names(wanted: Wanted) -> None:
    """Both become paths in the cache, so neither may lead out of it."""
    name, revision = wanted.id, wanted.revision
    if not _NAME.fullmatch(name) or (wanted.hub == "modelscope" and "/" not in name):
        raise PreflightError(f"{name!r} is not a {wanted.hub} id: expected OWNER/NAME")
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise PreflightError(f"{revision!r} is not a revision: expected a branch, tag or commit of {name}")


def _publish(wanted: Wanted, out: Path) -> Path:
    """Link the snapshot as OUT/NAME (swift reads meaning into a folder's name); write OUT/snapshot.json last."""
    record, link = out / "snapshot.json", out / wanted.id.rpartition("/")[2]
    if link.exists() and not link.is_symlink():
        raise PreflightError(f"{link} is in the way of the link to the snapshot: move it, or choose another --out")
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
        record.unlink(missing_ok=True)
    snapshot, entries = _obtain(wanted)
    content = {
        "hub": wanted.hub,
        "kind": wanted.kind,
        "id": wanted.id,
        "revision_asked": wanted.revision,
        "revision": snapshot.revision,
        "folder": str(snapshot.folder),
        "files": [{"path": entry.path, "size": entry.size} for entry in entries],
        "bytes": snapshot.bytes,
    }
    with _writing(out), TemporaryDirectory(dir=out, prefix=".hub-") as drafts:
        draft = Path(drafts)
        (draft / "link").symlink_to(snapshot.folder, target_is_directory=True)
        os.replace(draft / "link", link)
        with open(draft / "record", "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2, ensure_ascii=False)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft / "record", record)
    return link


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PreflightError(f"cannot write {out}: {error}. Choose another --out") from error


def _redacted(wanted: Wanted, text: str) -> str:
    """Servers and proxies can put a credential into an error text."""
    if secret := _CLIENTS[wanted.hub].token():
        text = text.replace(secret, "***")
    return re.sub(r"(://)[^/@\s]+@", r"\1***@", text)


@dataclass(frozen=True)
class Snapshot:
    """A complete snapshot: its folder, the commit where the hub names it, and the number and bytes of its files."""

    folder: Path
    revision: str | None
    files: int
    bytes: int
