"""From which checkpoint a training goes on: the newest that is whole and its own, with a reason for each passed over."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training import adapter, resume
from tests.bin import fake_tools
from tests.training.checkpoints import checkpoint, files, log, spoil

KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "fp16": {"args": {"fp16": True, "use_cpu": False}},
    "two processes": {"processes": 2},
    "zero2": {"processes": 2, "zero": 2},
    "zero3": {"processes": 3, "zero": 3},
    "full": {"full": True},
    "full, zero3": {"full": True, "processes": 2, "zero": 3},
}


def make(attempt: Path, step: int, kind: str) -> Path:
    folder = checkpoint(attempt, step, **KINDS[kind])
    if kind == "fp16":
        fake_tools.archive(folder / "scaler.pt")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_checkpoint_is_gone_on_from(tmp_path: Path, kind: str) -> None:
    newest = make(tmp_path, 4, kind)
    make(tmp_path, 2, kind)
    assert adapter.checkpoint_problem(newest) is None
    assert resume.newest_checkpoint([tmp_path], {"processes": KINDS[kind].get("processes", 1)}) == resume.Way(newest)


@settings(max_examples=150)
@given(kind=st.sampled_from(sorted(KINDS)), way=st.sampled_from(["delete", "cut", "zero", "head"]), data=st.data())
def test_whatever_happens_to_a_file_the_one_before_is_gone_on_from(kind: str, way: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        attempt = Path(folder) / "1"
        older, newest = make(attempt, 2, kind), make(attempt, 10, kind)
        name = data.draw(st.sampled_from(files(newest)))
        place = data.draw(st.floats(0, 1, exclude_max=True))
        if not spoil(newest / name, way, place):
            return
        if way == "head" and name.endswith(".json"):
            return  # other words, perhaps, but words: JSON has no checksum
        found = resume.newest_checkpoint([attempt], {"processes": KINDS[kind].get("processes", 1)})
        assert found.checkpoint == older, (name, way, place)
        [reason] = found.passed_over
        assert reason.startswith("checkpoint-10 of attempt 1: ")
        # A count that is wrong is named by the folder or the number; everything else by the file.
        stem = Path(name).name.split("-")[0].split(".")[0]
        assert stem in reason or "processes" in reason or "safetensors files" in reason, (name, way, reason)


@pytest.mark.parametrize("kind", ["lora", "zero3", "full"])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.9])
def test_archives_whose_end_never_reached_the_disk(tmp_path: Path, kind: str, place: float) -> None:
    names = [name for name in files(make(tmp_path / "x", 10, kind)) if Path(name).suffix in (".pt", ".pth", ".bin")]
    assert len(names) > 3
    for name in names:
        attempt = tmp_path / name.replace("/", "-")
        older, newest = make(attempt, 2, kind), make(attempt, 10, kind)
        assert spoil(newest / name, "tail", place)
        assert resume.newest_checkpoint([attempt]).checkpoint == older


def test_a_flipped_bit_inside_an_archive_is_found(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 2)
    path = folder / "optimizer.pt"
    path.write_bytes(path.read_bytes().replace(b"data/0 of", b"dbta/0 of"))
    assert adapter.checkpoint_problem(folder) == "optimizer.pt is damaged: optimizer/data/0"


def test_whatever_byte_of_an_archive_is_wrong_is_no_crash(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 2)
    path = folder / "optimizer.pt"
    whole = path.read_bytes()
    assert len(whole) < 2000
    seen = set()
    for at in range(len(whole)):
        for value in {0, 8, 255, whole[at] ^ 1} - {whole[at]}:  # 8 where the way of packing stands: deflated
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            seen.add(adapter.checkpoint_problem(folder))
    assert {"optimizer.pt is cut or damaged", "optimizer.pt is damaged: optimizer/data/0"} <= seen


def test_of_a_large_archive_only_the_structure_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path, 2)
    path = folder / "optimizer.pt"
    monkeypatch.setattr(adapter, "CRC_BYTES", 100)
    assert adapter.checkpoint_problem(folder) is None
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert adapter.checkpoint_problem(folder) == "optimizer.pt is cut or damaged"
    path.write_bytes(b"XX" + whole[2:])
    assert adapter.checkpoint_problem(folder) == "optimizer.pt is cut or damaged"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"a.lora_A.weight": ("F32", [2], 0, 8)}, "of a.lora_?.weight one half is missing"),
        ({"a.lora_B.weight": ("F32", [2], 0, 8)}, "of a.lora_?.weight one half is missing"),
        ({"a.lora_A.weight": ("F32", [3], 0, 8)}, "contradicts itself at a.lora_A.weight"),
        ({"a.lora_A.weight": ("F16", [2], 0, 8)}, "contradicts itself at a.lora_A.weight"),
        ({"a.lora_A.weight": ("G32", [2], 0, 8)}, "contradicts itself at a.lora_A.weight"),
        ({"a.lora_A.weight": ("F32", [1], 4, 8)}, "contradicts itself at a.lora_A.weight"),
        ({}, "it holds no tensor"),
    ],
)
def test_a_header_that_cannot_be_right(tmp_path: Path, header: Mapping[str, Any], words: str) -> None:
    import json
    import struct

    folder = checkpoint(tmp_path, 2)
    entries = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        for name, (dtype, shape, start, end) in header.items()
    }
    text = json.dumps(entries).encode()
    raw = struct.pack("<Q", len(text)) + text + bytes(8 if header else 0)
    (folder / "adapter_model.safetensors").write_bytes(raw)
    assert words in (adapter.checkpoint_problem(folder) or "")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"processes": 4}, "it was trained with processes 2, now it is 4"),
        ({"processes": 1}, "it was trained with processes 2, now it is 1"),
        ({"processes": 2, "learning_rate": 0.002}, "it was trained with learning_rate 0.001, now it is 0.002"),
        ({"processes": 2, "tuner_type": "full"}, "it was trained with tuner_type lora, now it is full"),
    ],
)
def test_a_checkpoint_of_another_training_is_not_gone_on_from(
    tmp_path: Path, args: Mapping[str, Any], words: str
) -> None:
    checkpoint(tmp_path / "1", 2, processes=2)
    found = resume.newest_checkpoint([tmp_path / "1"], args)
    assert found.checkpoint is None
    assert found.passed_over == (f"checkpoint-2 of attempt 1: args.json: {words}",)


def test_what_swift_replaces_by_its_own_is_not_compared(tmp_path: Path) -> None:
    replaced = {"target_modules": ["q_proj"], "attn_impl": "sdpa", "packing": True, "eval_steps": 50.0, "deepspeed": {}}
    newest = checkpoint(tmp_path, 2, args=replaced)
    given = {"target_modules": "all-linear", "attn_impl": "auto", "packing": False, "eval_steps": 50, "deepspeed": "x"}
    assert resume.newest_checkpoint([tmp_path], {"processes": 1, **given}).checkpoint == newest


@pytest.mark.parametrize("zero", [2, 3])
def test_each_process_has_its_part_of_the_optimizer(tmp_path: Path, zero: int) -> None:
    folder = checkpoint(tmp_path, 2, processes=2, zero=zero)
    (folder / "args.json").write_text("{}")  # of an older swift: then the files are counted among themselves
    fake_tools.archive(folder / "global_step2" / "zero_pp_rank_2_mp_rank_00_optim_states.pt")
    fake_tools.archive(folder / "rng_state_2.pth")
    assert adapter.checkpoint_problem(folder, 2) == "rng_state_2.pth: it was saved by 3 processes, not 2"
    (folder / "rng_state_2.pth").unlink()
    assert adapter.checkpoint_problem(folder, 2) == "global_step2: optimizer states of 3 processes, not 2"
    (folder / "global_step2").rename(folder / "global_step3")
    assert adapter.checkpoint_problem(folder, 2) == "latest names 'global_step2', which is not there"


def test_one_whose_saving_was_cut_short_is_known_by_its_mark(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 2)
    (folder / adapter.SENTINEL).write_text("Checkpoint started at step 2 and in progress...")
    assert "not saved to its end" in (adapter.checkpoint_problem(folder) or "")


def test_the_number_in_the_name_is_the_step(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 2)
    folder.rename(tmp_path / "checkpoint-3")
    assert "global_step 2 in a folder called checkpoint-3" in (
        adapter.checkpoint_problem(tmp_path / "checkpoint-3") or ""
    )


def test_newest_is_by_number_over_all_attempts(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    checkpoint(one, 9)
    newest = checkpoint(one, 10)
    checkpoint(two, 4)
    (two / "checkpoint-best").mkdir()
    assert resume.newest_checkpoint([one, two]) == resume.Way(newest)
    again = checkpoint(two, 10)
    assert resume.newest_checkpoint([one, two]).checkpoint == again
    assert resume.newest_checkpoint([]) == resume.Way(None)


def test_the_last_steps_checkpoint_is_not_gone_on_from(tmp_path: Path) -> None:
    before = checkpoint(tmp_path / "1", 98)
    checkpoint(tmp_path / "1", 100)
    found = resume.newest_checkpoint([tmp_path / "1"])
    assert found.checkpoint == before
    assert "no step is left to make" in found.passed_over[0]


def test_weights_that_are_not_numbers_are_not_gone_on_from(tmp_path: Path) -> None:
    older, newest = checkpoint(tmp_path / "1", 2), checkpoint(tmp_path / "1", 4)
    name = "base.lora_{}.weight"
    broken = {name.format("A"): [1.0, float("nan")], name.format("B"): [1.0, 1.0]}
    fake_tools.safetensors(newest / "adapter_model.safetensors", broken)
    found = resume.newest_checkpoint([tmp_path / "1"])
    assert found.checkpoint == older
    assert "NaN or infinity" in found.passed_over[0]


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
    chosen = resume.newest_checkpoint([tmp_path]).checkpoint
    assert (chosen and chosen.name) == (expected and f"checkpoint-{expected}")
    tolerant = resume.newest_checkpoint([tmp_path], diverged="warn").checkpoint
    assert tolerant, "who does not want to be stopped for it does not want to go back for it"
    assert tolerant.name == "checkpoint-6"


# ---- over several attempts


def written(attempt: Path, points: Mapping[int, float], begun: int = 0) -> None:
    """A log of losses by step, and what ms-swift says it went on from."""
    lines = [
        json.dumps({"loss": loss, "grad_norm": 1.0, "global_step/max_steps": f"{step}/100"})
        for step, loss in points.items()
    ]
    fake_tools.save(attempt / "logging.jsonl", "".join(line + "\n" for line in lines))
    before = str(attempt.parent / "1" / f"checkpoint-{begun}") if begun else None
    fake_tools.save_json(attempt / "args.json", {"resume_from_checkpoint": before})


def test_an_attempt_that_began_when_it_was_bad_already_is_no_fresh_beginning(tmp_path: Path) -> None:
    """By its own log it is level: at nine, where the attempt before it had exploded too late to be stopped for it."""
    for attempt, steps in (("1", (10, 20, 30)), ("2", (40, 50))):
        for at in steps:
            checkpoint(tmp_path / attempt, at)
    written(tmp_path / "1", {step: 2.0 if step <= 20 else 9.0 for step in range(1, 31)})
    written(tmp_path / "2", dict.fromkeys(range(31, 51), 9.0), begun=30)
    (tmp_path / "1a").mkdir()  # died before ms-swift had written a word
    attempts = [tmp_path / "1", tmp_path / "1a", tmp_path / "2"]
    assert resume.newest_checkpoint(attempts[:1]).checkpoint == tmp_path / "1" / "checkpoint-30", "too early to tell"
    way = resume.newest_checkpoint(attempts)
    assert way.checkpoint == tmp_path / "1" / "checkpoint-20"
    assert [reason.split(":")[0] for reason in way.passed_over] == [
        "checkpoint-50 of attempt 2", "checkpoint-40 of attempt 2", "checkpoint-30 of attempt 1",
    ]  # fmt: skip


def test_what_was_logged_behind_the_step_it_went_back_to_is_no_part_of_the_training(tmp_path: Path) -> None:
    """Although the attempt that went back logs more rarely, so that its own first point lies behind that."""
    checkpoint(tmp_path / "1", 30)
    checkpoint(tmp_path / "2", 60)
    written(tmp_path / "1", {**dict.fromkeys(range(1, 31), 2.0), 31: math.nan, 32: math.nan})
    written(tmp_path / "2", {40: 2.0, 50: 2.0, 60: 1.9}, begun=30)
    way = resume.newest_checkpoint([tmp_path / "1", tmp_path / "2"])
    assert way.checkpoint == tmp_path / "2" / "checkpoint-60"


def test_whole_weights_that_are_no_numbers_are_passed_over(tmp_path: Path) -> None:
    older, newest = (checkpoint(tmp_path, at, full=True) for at in (2, 4))
    file = min(newest.glob("*.safetensors"))
    fake_tools.safetensors(file, {"model.embed.weight": [0.5, math.nan]})
    way = resume.newest_checkpoint([tmp_path], {"tuner_type": "full"})
    assert way.checkpoint == older
    assert "model.embed.weight holds NaN or infinity" in way.passed_over[0]


def test_it_goes_on_in_the_rhythm_that_is_asked_for_now(tmp_path: Path) -> None:
    """transformers takes it from the checkpoint, and then what a recipe wants of later steps would not be there."""
    folder = checkpoint(tmp_path, 10)
    path = folder / "trainer_state.json"
    state = json.loads(path.read_text()) | {"save_steps": 200, "logging_steps": 5, "loss": math.nan}
    path.write_text(json.dumps(state))
    resume.set_rhythm(folder, {"save_steps": 50, "logging_steps": 5})
    after = json.loads(path.read_text())
    assert (after["save_steps"], after["logging_steps"], after["global_step"]) == (50, 5, 10)
    assert adapter.checkpoint_problem(folder) is None
    at = path.stat().st_mtime_ns
    resume.set_rhythm(folder, {"save_steps": 50, "logging_steps": 5})
    assert path.stat().st_mtime_ns == at


def test_a_training_that_has_begun_with_more_processes_is_not_begun_anew_without_a_word(tmp_path: Path) -> None:
    args: dict[str, Any] = {"processes": 8, "learning_rate": 1e-4, "gradient_accumulation_steps": 2, "targets": ("q",)}
    other, mine, deps = tmp_path / "train-aaaa", tmp_path / "train-bbbb", {"model": "base", "data": "rows"}
    checkpoint(other / "attempts" / "1", 120)
    fake_tools.save_json(other / "stage.json", {"args": args | {"targets": ["q"]}, "deps": deps})
    now = args | {"processes": 4, "gradient_accumulation_steps": 4}
    [problem] = resume.elsewhere(mine, now, deps)
    assert f"{other} has 120 steps of this training, with 8 processes, not 4" in problem
    assert not list(resume.elsewhere(mine, args | {"gradient_accumulation_steps": 1}, deps)), "set so by hand"
    assert list(resume.elsewhere(mine, now | {"torch_dtype": "float32"}, deps)), "without DeepSpeed held in float32"
    assert not list(resume.elsewhere(mine, now | {"learning_rate": 1e-5}, deps)), "another training"
    assert not list(resume.elsewhere(mine, now, deps, version=2)), "made by other code of ours"
    assert not list(resume.elsewhere(mine, now, deps | {"data": "others"}))
    assert not list(resume.elsewhere(other, now, deps))
    (other / "result.json").touch()
    assert not list(resume.elsewhere(mine, now, deps)), "that one is done"
