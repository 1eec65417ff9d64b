"""ModelScope, through modelscope_hub; imported inside the functions so that `--help` stays cheap.

`modelscope.snapshot_download` itself delegates to modelscope_hub; importing `modelscope` would import torch.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pipeline.errors import PreflightError
from pipeline.hub.shared import (
    COMMIT,
    WORKERS,
    Client,
    Entry,
    Listing,
    Unreachable,
    Wanted,
    corrupt_message,
    raise_if_disk,
    unknown_message,
)


def token() -> str | None:
    """The token the library would send, for redaction."""
    from modelscope_hub.config import get_default_config

    return get_default_config().token


def listing(wanted: Wanted) -> Listing:
    """The files of the revision. ModelScope names no commit for a branch: `commit` is set only if one was asked for."""
    from modelscope_hub import HubApi

    with _errors(wanted):
        api = HubApi()
        endpoint = api.resolve_endpoint_for_read(wanted.id, repo_type=wanted.kind)
        revision = wanted.revision or "master"
        files = HubApi(endpoint=endpoint).legacy.list_repo_files(wanted.id, wanted.kind, revision=revision)
        entries = tuple(
            Entry(str(file["Path"]), int(file["Size"]), sha256=str(file.get("Sha256") or "") or None)
            for file in files
            if file.get("Type") != "tree"
        )
    return Listing(revision if COMMIT.fullmatch(revision) else None, entries, endpoint)


def transfer(wanted: Wanted, listing: Listing) -> Path:
    """Download what the cache lacks; return the snapshot folder.

    The library resumes (FILE.incomplete) and checks sizes and sha256, also of cached files. It keeps no list of what a
    snapshot holds and files it under the branch's name, so a list is kept beside it for use without network.
    """
    from modelscope_hub import HubApi

    with _errors(wanted):
        files = [{"Path": e.path, "Size": e.size, "Sha256": e.sha256, "Type": "blob"} for e in listing.entries]
        note = _note_path(store(wanted) / "snapshots" / (wanted.revision or "master"))
        content = json.dumps([asdict(entry) for entry in listing.entries])
        if not note.is_file() or note.read_text(encoding="utf-8") != content:
            note.unlink(missing_ok=True)
        folder = HubApi(endpoint=listing.endpoint).download_repo(
            wanted.id, wanted.kind, revision=wanted.revision, max_workers=WORKERS, file_list=files
        )
        note = _note_path(folder)
        draft = note.with_name(f"{note.name}.{os.getpid()}")
        with open(draft, "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, note)
    return folder


def cached(wanted: Wanted) -> tuple[Path, Listing | None]:
    """The cached snapshot and the list kept with it; Unreachable when there is no snapshot."""
    from modelscope_hub import HubApi
    from modelscope_hub.errors import HubError

    try:
        folder = HubApi().download_repo(wanted.id, wanted.kind, revision=wanted.revision, local_files_only=True)
    except HubError as error:
        raise Unreachable(f"no snapshot of it under {store(wanted)}") from error
    commit = folder.name if COMMIT.fullmatch(folder.name) else None
    try:
        rows = json.loads(_note_path(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return folder, None
    return folder, Listing(commit, tuple(Entry(**row) for row in rows))


def store(wanted: Wanted) -> Path:
    """The folder of the repository in the library's cache."""
    from modelscope_hub.config import get_default_config

    return get_default_config().cache_dir / f"{wanted.kind}s" / wanted.id.replace("/", "--")


def _note_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.files.json")


@contextlib.contextmanager
def _errors(wanted: Wanted) -> Iterator[None]:
    """Library errors become Unreachable (worth another try) or PreflightError (the user must act)."""
    from modelscope_hub import errors
    from modelscope_hub.config import get_default_config

    site = get_default_config().endpoint or ""
    try:
        yield
    except errors.FileDownloadError as error:
        causes = error.failed_files
        if corrupt := [path for path, cause in causes.items() if isinstance(cause, errors.FileIntegrityError)]:
            raise PreflightError(corrupt_message(wanted, corrupt)) from error
        for cause in causes.values():
            raise_if_disk(wanted, cause)
            if isinstance(cause, errors.APIError) and not cause.retryable:
                raise PreflightError(f"{wanted}: {error}. If it is private, set MODELSCOPE_API_TOKEN") from error
        raise Unreachable(str(error)) from error
    except errors.NotExistError as error:
        raise PreflightError(unknown_message(wanted, site, "MODELSCOPE_API_TOKEN")) from error
    except errors.HubError as error:
        if error.retryable:
            raise Unreachable(str(error)) from error
        raise PreflightError(f"{wanted}: {site} refused ({error}). If private, set MODELSCOPE_API_TOKEN") from error
    except OSError as error:  # requests' errors among them
        raise_if_disk(wanted, error)
        raise Unreachable(str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PreflightError(
            f"{wanted}: {site} does not answer like a hub ({error!r}); check MODELSCOPE_ENDPOINT / MODELSCOPE_DOMAIN"
        ) from error


CLIENT = Client(listing, transfer, cached, store, token)
