"""The training curve: read while it is written, stitched over attempts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training import curve


def line(step: int, **values: object) -> str:
    return json.dumps({**values, "epoch": step / 10, "global_step/max_steps": f"{step}/9", "elapsed_time": "1m 2s"})


WHOLE = "\n".join(
    [line(1, loss=3.0, grad_norm=0.5), line(2, loss=2.5), line(2, eval_loss=2.6), line(9, train_runtime=3.0, train_loss=2.0),
     '{"last_model_checkpoint": "x", "global_step": 9}', ""]
)  # fmt: skip


def test_points_hold_numbers_and_steps_and_no_summary(tmp_path: Path) -> None:
    path = tmp_path / "logging.jsonl"
    path.write_text(WHOLE)
    assert curve.read(path) == [
        {"step": 1, "loss": 3.0, "grad_norm": 0.5, "epoch": 0.1},
        {"step": 2, "loss": 2.5, "epoch": 0.2},
        {"step": 2, "eval_loss": 2.6, "epoch": 0.2},
    ]
    assert (curve.last_record(path) or {})["global_step/max_steps"] == "9/9"


@given(cut=st.integers(min_value=0, max_value=len(WHOLE)))
def test_a_file_cut_anywhere_gives_a_beginning_of_the_curve(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("curve") / "logging.jsonl"
    path.write_text(WHOLE)
    whole = curve.read(path)
    path.write_text(WHOLE[:cut])
    part = curve.read(path)
    assert part == whole[: len(part)]
    assert len(part) == min(3, WHOLE[:cut].count("\n"))


def test_what_is_not_a_record_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "logging.jsonl"
    path.write_bytes(b'{"loss": 1.0, "global_st\n[1]\n7\nnot json\n\xff\xfe\n\n' + line(3, loss=1.0).encode() + b"\n")
    assert [point["step"] for point in curve.read(path)] == [3]
    assert curve.read(tmp_path / "absent.jsonl") == []
    assert curve.last_record(tmp_path / "absent.jsonl") is None


def test_the_last_record_of_a_long_log_is_found_in_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for several times a second: 100,000 steps are 30 MB."""
    path = tmp_path / "logging.jsonl"
    path.write_text("".join(line(step, loss=1.0) + "\n" for step in range(1, 3000)) + line(3000)[:20])
    parsed = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(1) or loads(text))
    assert (curve.last_record(path) or {})["global_step/max_steps"] == "2999/9"
    assert len(parsed) < 1000
    path.write_text(line(1) + "\n" + json.dumps({"words": "x" * 200_000}) + "\n")
    assert (curve.last_record(path) or {})["global_step/max_steps"] == "1/9"


def test_nan_is_seen_however_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "logging.jsonl"
    path.write_text(
        "\n".join(
            [
                line(1, loss=float("nan")),
                line(2, grad_norm="nan"),
                line(3, grad_norm="inf"),
                line(4, loss="0.5"),
                line(5, loss=True),
                "",
            ]
        )
    )
    assert [curve.non_finite(point) for point in curve.read(path)] == [["loss"], ["grad_norm"], ["grad_norm"], [], []]
    assert curve.read(path)[3]["loss"] == 0.5


def test_resumed_attempts_replace_what_they_went_over_again() -> None:
    first = [{"step": s, "loss": 1.0} for s in (1, 2, 3, 4, 5)]
    second = [{"step": s, "loss": 2.0} for s in (4, 5, 6)]
    third = [{"step": s, "loss": 3.0} for s in (7, 8)]
    stitched = curve.stitch([first, second, [], third])
    assert [(p["step"], p["loss"]) for p in stitched] == [
        (1, 1.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0), (6, 2.0), (7, 3.0), (8, 3.0),
    ]  # fmt: skip
    assert curve.stitch([]) == []


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), max_size=5))
def test_a_stitched_curve_never_goes_back(attempts: list[tuple[int, int]]) -> None:
    stitched = curve.stitch([{"step": start + i} for i in range(length)] for start, length in attempts)
    steps = [point["step"] for point in stitched]
    assert steps == sorted(set(steps))
    assert not any(math.isnan(step) for step in steps)
