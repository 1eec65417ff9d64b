"""Hugging Face, through huggingface_hub; imported inside the functions so that `--help` stays cheap."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import PreflightError
from pipeline.hub.shared import (
    WORKERS,
    Client,
    Entry,
    Listing,
    Unreachable,
    Wanted,
    corrupt_message,
    matches,
    raise_if_disk,
    unknown_message,
)

# huggingface.co serves larger files to its Xet client only.
_LARGEST_BY_HTTP = 50_000_000_000


def is_offline() -> bool:
    """HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set. It counts for both hubs: modelscope_hub has no such switch."""
    from huggingface_hub.constants import is_offline_mode

    return is_offline_mode()


def token() -> str | None:
    """The token the library would send, for redaction."""
    from huggingface_hub import get_token

    return get_token()


def listing(wanted: Wanted) -> Listing:
    """The commit of the revision and its files."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with _errors(wanted):
        api = HfApi()
        commit = api.resolve_revision(wanted.id, repo_type=wanted.kind, revision=wanted.revision).resolved
        tree = api.list_repo_tree(wanted.id, recursive=True, revision=commit, repo_type=wanted.kind)
        entries = tuple(
            Entry(file.path, file.size, sha256=file.lfs.sha256)
            if file.lfs
            else Entry(file.path, file.size, blob_id=file.blob_id)
            for file in tree
            if isinstance(file, RepoFile)
        )
    return Listing(commit, entries)


def transfer(wanted: Wanted, listing: Listing) -> Path:
    """Download what the cache lacks, check every file, return the snapshot folder.

    The library (1.33) resumes within one call only: a call that ends deletes its partial file, and nothing compares
    checksums. So large files are fetched here, resumably, into the library's own blob folder, where it finds them.
    HF_XET_HIGH_PERFORMANCE=1 leaves them to the library's Xet client: faster, never resumed.
    """
    from huggingface_hub import constants, snapshot_download

    blobs = store(wanted) / "blobs"
    large = [] if constants.HF_XET_HIGH_PERFORMANCE else [e for e in listing.entries if e.sha256]
    with _errors(wanted):
        blobs.mkdir(parents=True, exist_ok=True)
        stop = threading.Event()
        with ThreadPoolExecutor(WORKERS) as pool:
            jobs = [
                pool.submit(_fetch_blob, wanted, listing.commit, entry, blobs, stop)
                for entry in large
                if entry.size <= _LARGEST_BY_HTTP
            ]
            try:
                fresh = {job.result() for job in jobs}
            finally:
                stop.set()
        folder = Path(
            snapshot_download(
                wanted.id,
                repo_type=wanted.kind,
                revision=listing.commit,
                ignore_patterns=list(listing.ignored),
            )
        )
        corrupt = [e.path for e in listing.entries if e.sha256 not in fresh and not matches(folder / e.path, e)]
        for path in corrupt:
            (folder / path).resolve().unlink()
            (folder / path).unlink(missing_ok=True)
    if corrupt:
        raise PreflightError(corrupt_message(wanted, corrupt))
    return folder


def cached(wanted: Wanted) -> tuple[Path, Listing | None]:
    """The cached snapshot and the file list the library cached with it; Unreachable when there is no snapshot."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, IncompleteSnapshotError, LocalEntryNotFoundError

    revision = wanted.revision
    try:
        folder = snapshot_download(wanted.id, repo_type=wanted.kind, revision=revision, local_files_only=True)
    except IncompleteSnapshotError as error:
        folder = error.snapshot_path  # snapshots.py decides what is missing: pickled weights are not
    except (LocalEntryNotFoundError, ValueError) as error:
        raise Unreachable(f"no snapshot of it under {store(wanted)}") from error
    try:
        tree = get_cached_repo_tree(wanted.id, repo_type=wanted.kind, revision=revision)
    except CachedRepoTreeNotFoundError:
        return Path(folder), None
    return Path(folder), Listing(Path(folder).name, tuple(Entry(file.path, file.size) for file in tree))


def store(wanted: Wanted) -> Path:
    """The folder of the repository in the library's cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=wanted.id, repo_type=wanted.kind)


def _fetch_blob(wanted: Wanted, commit: str | None, entry: Entry, blobs: Path, stop: threading.Event) -> str | None:
    """Fetch one large file into the blob folder unless it is there; its sha256 if it was fetched, else None."""
    from huggingface_hub import hf_hub_url

    blob, part = blobs / str(entry.sha256), blobs / f"{entry.sha256}.part"
    if blob.exists():
        return None
    url = hf_hub_url(wanted.id, entry.path, repo_type=wanted.kind, revision=commit)
    with open(part, "a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if blob.exists():  # another process was faster
            return None
        _stream(url, stream, entry, stop)
        stream.flush()
        os.fsync(stream.fileno())
        if not matches(part, entry):
            part.unlink()
            raise PreflightError(corrupt_message(wanted, [entry.path]))
        os.replace(part, blob)
    return entry.sha256


def _stream(url: str, stream: BinaryIO, entry: Entry, stop: threading.Event) -> None:
    """Append what is missing; every byte received reaches the file, so that a cut costs nothing."""
    from huggingface_hub import constants, get_session, hf_raise_for_status
    from huggingface_hub.utils._headers import build_hf_headers

    tqdm = import_module("tqdm").tqdm  # has no type hints

    if (done := stream.seek(0, os.SEEK_END)) > entry.size:
        done = stream.truncate(0)
    if done == entry.size:
        return
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        if done and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            done = stream.truncate(0)  # the whole file comes, not the rest of it
        with tqdm(total=entry.size, initial=done, unit="B", unit_scale=True, desc=Path(entry.path).name) as bar:
            for chunk in response.iter_bytes():
                if stop.is_set():
                    raise Unreachable("stopped")
                stream.write(chunk)
                bar.update(len(chunk))
    stream.flush()
    if (received := os.fstat(stream.fileno()).st_size) != entry.size:
        raise Unreachable(f"{entry.path}: {received} of {entry.size} bytes arrived")


@contextlib.contextmanager
def _errors(wanted: Wanted) -> Iterator[None]:
    """Library errors become Unreachable (worth another try) or PreflightError (the user must act)."""
    import httpx
    from huggingface_hub import constants, errors

    site = constants.ENDPOINT
    try:
        yield
    except errors.GatedRepoError as error:
        raise PreflightError(
            f"{wanted}: access is gated. Accept its terms at {site} and set HF_TOKEN to a token of that account"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise PreflightError(unknown_message(wanted, site, "HF_TOKEN")) from error
    except errors.RevisionNotFoundError as error:
        raise PreflightError(f"{wanted}: {site} has no such revision; look it up on the repository's page") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status >= 500 or status in (408, 429):
            raise Unreachable(str(error)) from error
        raise PreflightError(f"{wanted}: {site} refused ({error}). If it is private, set HF_TOKEN") from error
    except OSError as error:
        raise_if_disk(wanted, error)
        raise Unreachable(str(error)) from error
    except (httpx.HTTPError, errors.RevisionResolutionError, errors.XetDownloadError) as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from error
    except (ValueError, KeyError, AssertionError) as error:
        raise PreflightError(f"{wanted}: {site} does not answer like a hub ({error}); check HF_ENDPOINT") from error


CLIENT = Client(listing, transfer, cached, store, token)
