"""Content digests, and the cheap check of weight files that comes before every load."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import sources
from pipeline.errors import PreflightError
from pipeline.sources import digest, weight_problems
from pipeline.stage import Source
from tests.bin import fake_tools


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fake_tools.model(tmp_path / "model")


def _shard(folder: Path, names: list[str]) -> None:
    value = {"metadata": {}, "weight_map": {f"w{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(value))


def _edit(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return apply


def test_whole_weights_have_no_problem(folder: Path) -> None:
    assert weight_problems(folder) == []
    _shard(folder, ["model.safetensors"])
    assert weight_problems(folder) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_edit(lambda _: b""), "0 bytes"),
        (_edit(lambda data: data[: len(data) // 2]), "cut or not a weight file"),
        (_edit(lambda data: data[:-1]), "the header says"),
        (_edit(lambda data: data + b"\0" * 10), "the header says"),
        (_edit(lambda data: data[:30]), "header of"),
        (_edit(lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"), "cut or not a weight"),
        (_edit(lambda _: b"<!DOCTYPE html><html><body>429 Too Many Requests</body></html>"), "cut or not a weight"),
        (_edit(lambda data: data[:8] + b"x" + data[9:]), "the header is not JSON"),
        (_edit(lambda _: struct.pack("<Q", 1 << 62) + b"{}"), "header of"),
        (_edit(lambda _: struct.pack("<Q", 12) + b'{"w": [1,2]}'), "the header is not JSON"),
        (lambda folder: _shard(folder, ["model-00002-of-00002.safetensors"]), "missing, but"),
        (lambda folder: _shard(folder, ["../outside.safetensors"]), "names a file outside the folder"),
        (lambda folder: _shard(folder, ["/etc/passwd"]), "names a file outside the folder"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("[]"), "not a weight index"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": [1]}'),
            "not a weight index",
        ),
    ],
)
def test_damaged_weights_are_named_with_the_remedy(
    folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(folder)
    [problem] = weight_problems(folder)
    assert message in problem
    assert str(folder) in problem


@given(cut=st.integers(min_value=0, max_value=140), extra=st.binary(max_size=8))
def test_every_cut_is_found(tmp_path_factory: pytest.TempPathFactory, cut: int, extra: bytes) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path = folder / "model.safetensors"
    fake_tools.safetensors(path, {"w": [1.0, 2.0, 3.0]})
    whole = path.read_bytes()
    changed = whole[: min(cut, len(whole))] + extra
    path.write_bytes(changed)
    # A byte beyond the header may differ: that is what a full hash is for.
    assert bool(weight_problems(folder)) == (len(changed) != len(whole) or changed[:-12] != whole[:-12])


def test_digest_follows_content_and_names_not_place_or_time(folder: Path, tmp_path: Path) -> None:
    before = digest(Source(folder))
    moved = folder.rename(tmp_path / "elsewhere")
    (moved / ".cache").mkdir()
    (moved / ".cache" / "x").write_text("hidden files are not content")
    (moved / "__pycache__").mkdir()
    (moved / "__pycache__" / "x.pyc").write_text("nor are caches")
    assert digest(Source(moved)) == before
    (moved / "tokenizer.json").rename(moved / "other.json")
    assert digest(Source(moved)) != before
    assert digest(Source(moved / "config.json")) != digest(Source(moved / "other.json"))


def test_digest_of_nothing_is_a_preflight_error(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="no such file or folder"):
        digest(Source(tmp_path / "absent"))


@pytest.mark.parametrize("position", [20, -1])
def test_large_weights_are_sampled_from_the_header_to_the_last_byte(
    tmp_path: Path, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BLOCK", 64)
    path = tmp_path / "model.safetensors"
    fake_tools.safetensors(path, {"w": [float(i) for i in range(20_000)]})
    data = bytearray(path.read_bytes())
    assert len(data) > sources.BLOCK * sources.BLOCKS
    before = digest(Source(path))
    data[position] ^= 1
    path.write_bytes(data)
    assert digest(Source(path)) != before
    path.write_bytes(data[:-64])
    assert digest(Source(path)) != before
