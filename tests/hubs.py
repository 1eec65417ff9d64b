"""Loopback stand-ins for the parts of the two hubs' HTTP APIs that the pinned client libraries really use.

Both can cut or stall the first transfer of a file, serve wrong bytes for it, and keep a log of what they were asked.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" * 6 + "beef"
_LARGE = 1 << 20


@contextmanager
def serving(hub: HuggingFace | ModelScope) -> Iterator[str]:
    """Serve the stand-in on a free loopback port; yields its endpoint URL."""

    class Handler(_Handler):
        stand_in = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Transfer:
    """One file request: its first byte (a Range > 0 is a resumption) and how many bytes of the body were sent."""

    path: str
    start: int
    sent: int


@dataclass
class Repository:
    """What a hub holds, keyed by (kind, id), and how it misbehaves."""

    repositories: Mapping[tuple[str, str], Mapping[str, bytes]]
    faults: dict[str, Literal["cut", "stall", "corrupt"]] = field(default_factory=dict)
    """By file path: "cut" and "stall" apply to the first transfer only, at half of the file; "corrupt" always."""
    echo_token: bool = False
    """Put the token that was sent into every error message, as a careless server might."""
    denied: bool = False
    """Answer everything with 403."""
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    transfers: list[Transfer] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def starts(self, path: str) -> list[int]:
        """The first byte of each transfer of a file, in order."""
        return [transfer.start for transfer in self.transfers if transfer.path == path]

    def sent(self, path: str) -> int:
        return sum(transfer.sent for transfer in self.transfers if transfer.path == path)


class HuggingFace(Repository):
    """huggingface.co: repository info, tree, resolve (HEAD and GET); LFS files by redirect to another host."""

    def answer(self, request: _Handler) -> None:
        path = unquote(urlsplit(request.path).path)
        for (kind, name), files in self.repositories.items():
            prefix = f"{name}/resolve/" if kind == "model" else f"{kind}s/{name}/resolve/"
            if path.startswith(f"/api/{kind}s/{name}"):
                return self._api(request, path.removeprefix(f"/api/{kind}s/{name}").strip("/"), name, files)
            if path.startswith(f"/{prefix}"):
                revision, _, file = path.removeprefix(f"/{prefix}").partition("/")
                if revision in ("main", COMMIT) and file in files:
                    return self._resolve(request, file, files[file])
                if revision in ("main", COMMIT):
                    return request.send_error_json(404, "EntryNotFound", {"error": "Entry not found"})
            if path.startswith(f"/lfs/{kind}/{name}/"):
                file = path.removeprefix(f"/lfs/{kind}/{name}/")
                if request.headers.get("Authorization"):
                    return request.send_error_json(400, "BadRequest", {"error": "a token was sent to another host"})
                return request.send_file(file, files[file], {"ETag": f'"{hashlib.sha256(files[file]).hexdigest()}"'})
        request.send_error_json(404, "RepoNotFound", {"error": "Repository not found"})

    def _api(self, request: _Handler, rest: str, name: str, files: Mapping[str, bytes]) -> None:
        action, _, revision = rest.partition("/")
        if revision not in ("", "main", COMMIT):
            request.send_error_json(404, "RevisionNotFound", {"error": f"Invalid rev id: {revision}"})
        elif action == "tree":
            request.send_json([_tree_entry(path, content) for path, content in files.items()])
        else:
            request.send_json({"id": name, "sha": COMMIT, "private": False, "siblings": [], "tags": []})

    def _resolve(self, request: _Handler, file: str, content: bytes) -> None:
        entry = _tree_entry(file, content)
        if "lfs" not in entry:
            return request.send_file(file, content, {"ETag": f'"{entry["oid"]}"', "X-Repo-Commit": COMMIT})
        kind, name = next(key for key, files in self.repositories.items() if files.get(file) is content)
        headers = {
            "Location": f"http://localhost:{request.connection.getsockname()[1]}/lfs/{kind}/{name}/{file}",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{entry["lfs"]["oid"]}"',
            "X-Linked-Size": str(len(content)),
        }
        request.send_bytes(302, b"", headers)


class ModelScope(Repository):
    """modelscope.cn: file lists of models (repo/files) and data sets (repo/tree, paged), and file download (repo)."""

    def answer(self, request: _Handler) -> None:
        parts = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/api/v1/repos/internalAccelerationInfo":
            return request.send_json({"Code": 200, "Data": {"InternalRegionQueryAddress": ""}})
        for (kind, name), files in self.repositories.items():
            action = parts.path.removeprefix(f"/api/v1/{kind}s/{name}/")
            if action == parts.path or query.get("Revision") not in ("master", COMMIT):
                continue
            if action == ("repo/files" if kind == "model" else "repo/tree"):
                page, size = int(query.get("PageNumber", 1)), int(query.get("PageSize", 10_000))
                rows = [_modelscope_row(path, content) for path, content in files.items()]
                return request.send_json({"Code": 200, "Data": {"Files": rows[(page - 1) * size : page * size]}})
            if action == "repo" and query.get("FilePath") in files:
                return request.send_file(query["FilePath"], files[query["FilePath"]], {})
        request.send_error_json(404, "NotFound", {"Code": 10010205001, "Message": "record not found"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: HuggingFace | ModelScope

    def do_GET(self) -> None:
        self.stand_in.asked.append(f"{self.command} {self.path}")
        if token := self.headers.get("Authorization"):
            self.stand_in.tokens.add(token.removeprefix("Bearer "))
        if self.stand_in.denied:
            return self.send_error_json(403, "Denied", {"error": "no access", "Message": "no access"})
        self.stand_in.answer(self)

    do_HEAD = do_GET

    def log_message(self, *arguments: object) -> None:
        """Silent."""

    def send_json(self, content: Any) -> None:
        self.send_bytes(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def send_error_json(self, status: int, code: str, content: dict[str, Any]) -> None:
        if self.stand_in.echo_token:
            content = {key: f"{value} for {self.headers.get('Authorization')}" for key, value in content.items()}
        headers = {"X-Error-Code": code, "X-Error-Message": str(content), "Content-Type": "application/json"}
        self.send_bytes(status, json.dumps(content).encode(), headers)

    def send_bytes(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, path: str, content: bytes, headers: Mapping[str, str]) -> None:
        """Serve a file or the asked range of it, with the fault that is set for it."""
        hub, start = self.stand_in, 0
        first = not hub.starts(path)
        fault = hub.faults.get(path)
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if self.command == "HEAD":
            return self.send_bytes(200, content, headers)
        body = bytes(byte ^ 1 for byte in content[start:]) if fault == "corrupt" else content[start:]
        broken = first and fault in ("cut", "stall")
        part = body[: len(body) // 2] if broken else body
        hub.transfers.append(Transfer(path, start, len(part)))
        self.send_response(206 if asked else 200)
        for name, value in {"Content-Length": str(len(body)), "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(part)
        if broken:
            self.close_connection = True
            if fault == "stall":
                hub.stalled.set()
                hub.released.wait()


def _tree_entry(path: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": oid}
    if len(content) >= _LARGE:
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _modelscope_row(path: str, content: bytes) -> dict[str, Any]:
    name = path.rpartition("/")[2]
    return {
        "Path": path,
        "Name": name,
        "Type": "blob",
        "Size": len(content),
        "Sha256": hashlib.sha256(content).hexdigest(),
    }
