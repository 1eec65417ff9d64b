"""Whether an adapter was trained at all, from its file alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from pipeline.training import adapter
from tests.bin import fake_tools
from tests.training.checkpoints import PREFIX, checkpoint


def typed(path: Path, dtype: str, raw: bytes, size: int) -> None:
    name = f"{PREFIX}.lora_B.weight"
    header = json.dumps({name: {"dtype": dtype, "shape": [size], "data_offsets": [0, len(raw)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw)


def test_trained_adapter_is_accepted(tmp_path: Path) -> None:
    assert adapter.untrained(checkpoint(tmp_path, 2)) is None


def test_zero_lora_b_is_untrained(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    names = [f"layers.{i}.lora_{part}.weight" for i in range(3) for part in "AB"]
    fake_tools.safetensors(path, {name: [0.0 if "lora_B" in name else 1.0] for name in names})
    assert adapter.untrained(tmp_path) == "all 3 lora_B matrices are zero: the adapter was not trained"
    fake_tools.safetensors(path, {name: [1.0 if name.startswith("layers.2") else 0.0] for name in names})
    assert adapter.untrained(tmp_path) is None


@pytest.mark.parametrize(
    ("dtype", "values", "message"),
    [
        ("F32", struct.pack("<2f", 0.0, float("nan")), "NaN or infinity"),
        ("F32", struct.pack("<2f", 0.0, 0.5), None),
        ("F16", struct.pack("<2e", 0.0, float("inf")), "NaN or infinity"),
        ("F16", struct.pack("<2e", 0.0, 0.5), None),
        ("F16", struct.pack("<2e", 0.0, 0.0), "are zero"),
        ("BF16", struct.pack("<2H", 0, 0x7FC0), "NaN or infinity"),
        ("BF16", struct.pack("<2H", 0, 0x7F80), "NaN or infinity"),
        ("BF16", struct.pack("<2H", 0, 0x3F80), None),
        ("BF16", struct.pack("<2H", 0, 0), "are zero"),
        ("BF16", struct.pack("<2H", 0x8000, 0), "are zero"),
    ],
)
def test_every_dtype_is_read(tmp_path: Path, dtype: str, values: bytes, message: str | None) -> None:
    typed(tmp_path / "adapter_model.safetensors", dtype, values, 2)
    problem = adapter.untrained(tmp_path)
    assert problem is None if message is None else message in (problem or "")
