"""Content digests of local files and folders, and whether safetensors weights are whole."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import PreflightError
from pipeline.files import read_json
from pipeline.stage import Source

BLOCK = 64 * 1024
BLOCKS = 64


def digest(source: Source) -> str:
    """Hex digest of a file's or folder's content (names inside a folder count, its own place does not).

    Files are read whole, except safetensors: size, header and 64 blocks of 64 KiB spread evenly, because hashing
    65 GB takes minutes and every pipeline start asks. PreflightError if there is nothing at the path.
    """
    path = source.path
    if path.is_file():
        return _file(path)
    if not path.is_dir():
        raise PreflightError(f"{path}: no such file or folder")
    total = hashlib.sha256()
    for inner in _files(path):
        total.update(f"{inner.relative_to(path).as_posix()}\0{_file(inner)}\n".encode())
    return total.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
            yield path


def _file(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as stream:
        if path.suffix != ".safetensors" or size <= BLOCK * BLOCKS:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        total = hashlib.sha256(struct.pack("<Q", size))
        length = struct.unpack("<Q", stream.read(8))[0]
        total.update(stream.read(min(length, size)))
        for index in range(BLOCKS):
            stream.seek(index * (size - BLOCK) // (BLOCKS - 1))
            total.update(stream.read(BLOCK))
    return total.hexdigest()


def weight_problems(folder: Path) -> list[str]:
    """What is wrong with the safetensors files of a model or adapter folder; [] when they are whole.

    Checks every header against the file's length and the index against the files; finds half downloads, git-lfs
    pointers, HTML pages and cut copies in microseconds. It does not find flipped bytes: that needs a full hash.
    """
    problems = [problem for path in sorted(folder.glob("*.safetensors")) if (problem := _weights(path))]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            return [*problems, f"{index}: not a weight index; fetch the file again"]
        for name in sorted(map(str, names)):
            if "/" in name or name.startswith("."):
                problems.append(f"{index}: names a file outside the folder: {name}")
            elif not (folder / name).is_file():
                problems.append(f"{folder / name}: missing, but {index.name} names it; fetch it again (it resumes)")
    return problems


def code_problems(folder: Path) -> Iterator[str]:
    """Code that swift and evalscope would run without asking."""
    remedy = "read it, then set trust_remote_code: true"
    for path in sorted(folder.glob("*.py")):
        yield f"{path}: the tools would run this file; {remedy}"
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        path = folder / name
        if path.is_file() and "auto_map" in (read_json(path) or {}):
            yield f"{path}: auto_map makes the tools run code from the model; {remedy}"


def _weights(path: Path) -> str | None:
    size = path.stat().st_size
    again = "the file is cut or not a weight file; fetch it again (a cut download resumes)"
    with path.open("rb") as stream:
        head = stream.read(8)
        if len(head) < 8:
            return f"{path}: {size} bytes; {again}"
        length = struct.unpack("<Q", head)[0]
        if length > min(size - 8, 100_000_000):
            return f"{path}: header of {length} bytes in a file of {size}; {again}"
        try:
            header = json.loads(stream.read(length))
            end = max((t["data_offsets"][1] for k, t in header.items() if k != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{path}: the header is not JSON; {again}"
    expected = 8 + length + end
    return None if expected == size else f"{path}: {size} bytes, the header says {expected}; {again}"
