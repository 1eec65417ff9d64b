"""A trained checkpoint of all weights as a model folder: `python -m pipeline.training.whole`, without torch.

Tensor by tensor from safetensors to safetensors, rounded to the data type asked for (to nearest, ties to even, as torch
rounds), in shards of at most a given size, with config and tokenizer beside them and nothing of the training's state.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import read_json

_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_SIZES = {"F32": 4, "F16": 2, "BF16": 2}
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_STATE = {"trainer_state.json", "args.json", "additional_config.json", "model.safetensors.index.json", "config.json"}
_BESIDE = (".json", ".jinja", ".txt", ".model", ".py", ".tiktoken")

Entry = tuple[Path, str, dict[str, Any], int]
"""File, tensor's name, its entry in the header, place of the data in the file."""


def main(words: list[str]) -> int:
    """Exit status 1, with a line on what is wrong, for anything but a whole model folder written."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.whole")
    parser.add_argument("--model", type=Path, required=True, help="the base model, whose data type `model` stands for")
    parser.add_argument("--adapters", type=Path, required=True, help="the checkpoint")
    parser.add_argument("--output_dir", type=Path, required=True, help="a folder that does not exist")
    parser.add_argument("--dtype", choices=["model", *_DTYPES], required=True)
    parser.add_argument("--max_shard_size", required=True)
    options = parser.parse_args(words)
    config = read_json(options.adapters / "config.json")
    if not isinstance(config, dict):
        print(f"{options.adapters / 'config.json'}: missing or cut")
        return 1
    dtype = options.dtype if options.dtype != "model" else dtype_of(read_json(options.model / "config.json") or {})
    write(options.adapters, options.output_dir, dtype, _bytes(options.max_shard_size))
    for path in sorted(options.adapters.iterdir()):
        if path.is_file() and path.suffix in _BESIDE and path.name not in _STATE:
            shutil.copyfile(path, options.output_dir / path.name)
    text = json.dumps(_with_dtype(config, dtype), indent=2, ensure_ascii=False) + "\n"
    (options.output_dir / "config.json").write_text(text, encoding="utf-8")
    print(f"copied {options.adapters} to {options.output_dir} as {dtype or 'it is'}")
    return 0


def dtype_of(config: dict[str, Any]) -> str | None:
    """The data type a model's config names; None if it names none, or one that is not kept here."""
    inner = config.get("text_config") or {}
    found = config.get("dtype") or config.get("torch_dtype") or inner.get("dtype") or inner.get("torch_dtype")
    return found if found in _DTYPES else None


def write(source: Path, target: Path, dtype: str | None, limit: int) -> None:
    """`source`'s weights into the new folder `target`, in shards of at most `limit` bytes (a larger tensor alone)."""
    shards = list(_shards(list(_entries(source)), dtype, limit))
    target.mkdir(parents=True)
    names = [
        "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(target / name, shard, dtype)
    if len(shards) > 1:
        size = sum(_size(entry, dtype) for shard in shards for entry in shard)
        where = {entry[1]: name for name, shard in zip(names, shards, strict=True) for entry in shard}
        index = json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=2, sort_keys=True)
        (target / "model.safetensors.index.json").write_text(index + "\n", encoding="utf-8")


def cast(raw: bytes, old: str, new: str) -> bytes:
    """Numbers of one floating-point type as another, both by safetensors' names."""
    if old == new:
        return raw
    if old == "BF16":
        values = (np.frombuffer(raw, dtype="<u2").astype("<u4") << 16).view("<f4")
    else:
        values = np.frombuffer(raw, dtype="<f4" if old == "F32" else "<f2").astype("<f4")
    if new == "F32":
        return values.tobytes()
    if new == "F16":
        with np.errstate(over="ignore"):  # infinite, as in torch; the comparison of logits will tell
            return values.astype("<f2").tobytes()
    bits = values.view("<u4")
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype("<u2").tobytes()


def _entries(source: Path) -> Iterator[Entry]:
    files = sorted(source.glob("model*.safetensors"))
    if not files:
        sys.exit(f"{source}: no model*.safetensors")
    for path in files:
        with path.open("rb") as stream:
            length = struct.unpack("<Q", stream.read(8))[0]
            header = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                yield path, name, tensor, 8 + length + tensor["data_offsets"][0]


def _shards(entries: list[Entry], dtype: str | None, limit: int) -> Iterator[list[Entry]]:
    shard: list[Entry] = []
    filled = 0
    for entry in entries:
        size = _size(entry, dtype)
        if shard and filled + size > limit:
            yield shard
            shard, filled = [], 0
        shard.append(entry)
        filled += size
    yield shard


def _write_shard(path: Path, shard: list[Entry], dtype: str | None) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for entry in shard:
        end = place + _size(entry, dtype)
        header[entry[1]] = {"dtype": _type(entry, dtype), "shape": entry[2]["shape"], "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for entry in shard:
            with entry[0].open("rb") as stream:
                stream.seek(entry[3])
                raw = stream.read(_length(entry))
            out.write(cast(raw, entry[2]["dtype"], _type(entry, dtype)))


def _type(entry: Entry, dtype: str | None) -> str:
    """The tensor's type in the new file: whole numbers, masks and 8-bit floats stay what they are."""
    old = str(entry[2]["dtype"])
    return _DTYPES[dtype] if dtype and old in _SIZES else old


def _length(entry: Entry) -> int:
    start, end = entry[2]["data_offsets"]
    return int(end - start)


def _size(entry: Entry, dtype: str | None) -> int:
    old, new = str(entry[2]["dtype"]), _type(entry, dtype)
    return _length(entry) if old == new else _length(entry) // _SIZES[old] * _SIZES[new]


def _with_dtype(config: dict[str, Any], dtype: str | None) -> dict[str, Any]:
    if dtype is None:
        return config
    found = {key: _with_dtype(value, dtype) if key == "text_config" else value for key, value in config.items()}
    key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
    return {**found, key: dtype}


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9.]+)(KB|MB|GB)", text)
    if not match:
        sys.exit(f"--max_shard_size {text}: should be like 5GB")
    return int(float(match[1]) * _UNITS[match[2]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
