"""Checkpoints: which one may be gone on from, and whether an adapter was trained at all."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from pipeline.training import adapter, resume
from tests.bin import fake_tools

PREFIX = "base_model.model.layers.0.q_proj"


def checkpoint(attempt: Path, step: int, total: int = 100) -> Path:
    folder = attempt / f"checkpoint-{step}"
    fake_tools.safetensors(
        folder / "adapter_model.safetensors",
        {f"{PREFIX}.lora_A.weight": [0.1, 0.2], f"{PREFIX}.lora_B.weight": [0.3, 0.0]},
    )
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        fake_tools.save(folder / name, "state")
    fake_tools.save_json(folder / "args.json", {})
    fake_tools.save_json(folder / "trainer_state.json", {"global_step": step, "max_steps": total})
    return folder


def log(attempt: Path, *points: tuple[int, float]) -> None:
    lines = [
        json.dumps({"loss": 1.0, "grad_norm": norm, "global_step/max_steps": f"{step}/100"}) for step, norm in points
    ]
    fake_tools.save(attempt / "logging.jsonl", "".join(line + "\n" for line in lines))


def typed(path: Path, dtype: str, raw: bytes, size: int) -> None:
    name = f"{PREFIX}.lora_B.weight"
    header = json.dumps({name: {"dtype": dtype, "shape": [size], "data_offsets": [0, len(raw)]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw)


def test_whole_checkpoint_has_no_problem(tmp_path: Path) -> None:
    assert adapter.checkpoint_problem(checkpoint(tmp_path, 2)) is None


@pytest.mark.parametrize(
    ("name", "way"),
    [
        (name, way)
        for name in ("trainer_state.json", "args.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt")
        # trainer_state.json is written after the .pt files: where it is there, they were closed.
        for way in (("gone",) if name.endswith(".pt") else ("gone", "empty", "half"))
    ],
)
def test_a_checkpoint_killed_while_it_was_written_is_skipped(tmp_path: Path, name: str, way: str) -> None:
    older, newest = checkpoint(tmp_path, 2), checkpoint(tmp_path, 10)
    path = newest / name
    if way == "gone":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if way == "half" else b"")
    problem = adapter.checkpoint_problem(newest)
    assert problem
    assert Path(name).suffix[1:] in problem
    assert resume.newest_checkpoint([tmp_path]) == older


def test_deepspeed_keeps_the_optimizer_elsewhere(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 2)
    (folder / "optimizer.pt").unlink()
    assert adapter.checkpoint_problem(folder) == "optimizer.pt is missing"
    (folder / "global_step2").mkdir()
    assert adapter.checkpoint_problem(folder) is None


def test_newest_is_by_number_over_all_attempts(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    checkpoint(one, 9)
    newest = checkpoint(one, 10)
    checkpoint(two, 4)
    (two / "checkpoint-best").mkdir()
    assert resume.newest_checkpoint([one, two]) == newest
    assert resume.newest_checkpoint([]) is None


def test_the_last_steps_checkpoint_is_not_gone_on_from(tmp_path: Path) -> None:
    before = checkpoint(tmp_path, 98)
    checkpoint(tmp_path, 100)
    assert resume.newest_checkpoint([tmp_path]) == before


@pytest.mark.parametrize(("points", "expected"), [
    ([(2, 1.0), (4, 1.0), (6, 1.0)], 6),
    ([(2, 1.0), (4, 1.0), (6, float("nan"))], 4),
    ([(2, 1.0), (4, float("inf")), (6, 1.0)], 2),
    ([(5, float("nan"))], None),
    ([], 6),
])  # fmt: skip
def test_checkpoints_behind_a_divergence_are_not_gone_on_from(
    tmp_path: Path, points: list[tuple[int, float]], expected: int | None
) -> None:
    for step in (2, 4, 6):
        checkpoint(tmp_path, step)
    log(tmp_path, *points)
    chosen = resume.newest_checkpoint([tmp_path])
    assert (chosen and chosen.name) == (expected and f"checkpoint-{expected}")


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
