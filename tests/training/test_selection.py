"""Which checkpoint becomes the model: last, best or a step; and what the export makes of it."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipe import ExportSpec, ModelSpec
from pipeline.sources import digest, weight_problems
from pipeline.stage import Source, Stage
from pipeline.stages import export, train
from pipeline.training import keep, selection, whole
from tests.bin import fake_tools
from tests.training.checkpoints import checkpoint
from tests.worlds import World, build, wait_for

LOSSES = {2: 2.5, 4: 1.25, 6: 1.25, 8: 1.5}


def stage(spec: ExportSpec | None = None, *, tuner: str = "lora", which: Any = None) -> Stage:
    model = ModelSpec(path=Path("model"), template="chatml")
    base = Source(Path(__file__))
    trained = Stage("train", ("swift", "sft"), {"tuner_type": tuner}, {}, lambda *_: None, lambda *_: {})  # type: ignore[arg-type,return-value]
    trained = replace(trained, output=train.checkpoint)
    return export.stage(spec or ExportSpec(), model, base=base, trained=trained, checkpoint=which)


def words(made: Stage) -> list[str]:
    deps = {"model": Path("base"), "adapter": Path("t/output/last-checkpoint")}
    return list(made.command(made, Path("out"), deps).argv)


# ---- which


def test_the_lowest_eval_loss_and_the_first_of_equals(tmp_path: Path) -> None:
    last = checkpoint(tmp_path, 8, losses=LOSSES)
    assert selection.best_step(last) == 4
    assert selection.step(last) == 8
    assert selection.eval_losses(last) == LOSSES


def test_without_a_validation_there_is_no_best(tmp_path: Path) -> None:
    assert selection.best_step(checkpoint(tmp_path, 8)) is None
    assert selection.best_step(tmp_path / "absent") is None


def test_a_validation_that_is_not_a_number_is_not_the_best(tmp_path: Path) -> None:
    assert selection.best_step(checkpoint(tmp_path, 8, losses={2: float("nan"), 4: 3.0, 6: float("-inf")})) == 4


@pytest.mark.parametrize(
    ("which", "folder"), [(None, "last-checkpoint"), ("best", "best-checkpoint"), (6, "checkpoint-6")]
)
def test_the_choice_is_a_path(which: Any, folder: str) -> None:
    command = words(stage(which=which))
    assert command[command.index("--adapters") + 1] == f"t/output/{folder}"
    assert "--checkpoint" not in command


def test_the_choice_is_identity_and_the_last_is_what_it_was() -> None:
    prints = {stage(which=which).fingerprint(digest) for which in (None, "best", 6, 8)}
    assert len(prints) == 4
    assert "checkpoint" not in stage().args


def test_a_base_that_was_quantized_for_the_training_is_merged_whole() -> None:
    """What the adapter's args.json says of quantization must not reach the merge."""
    command = words(stage())
    assert command[command.index("--load_args") + 1] == "false"
    assert not [word for word in command if "quant" in word]


# ---- through the pipeline, with stand-ins for the tools


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = build(tmp_path)
    made.extra["FAKE_EVAL_LOSS"] = json.dumps({"2": 1.0, "4": 0.5, "6": 0.9, "8": 0.8})
    return made


SET = ("--set", "train.eval_steps=2")


def exported(world: World) -> dict[str, Any]:
    [line] = [line for line in stages(world) if line["label"] == "export"]
    folder = world.runs / "small" / line["dir"]
    value: dict[str, Any] = json.loads((folder / "result.json").read_text())["result"]
    return value


def stages(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((world.runs / "small" / "stages.json").read_text())["stages"]
    return found


def killed_at_step_7(world: World) -> Path:
    """The folder of a training's first attempt, killed while it hung before step 7."""
    world.extra["FAKE_HANG_AT"] = "7"
    process = world.start("train", *SET)
    saved = "train-*/attempts/1/checkpoint-6/trainer_state.json"
    wait_for(lambda: bool(list((world.runs / "stages").glob(saved))))
    process.kill()
    process.communicate()
    del world.extra["FAKE_HANG_AT"]
    return next((world.runs / "stages").glob("train-*/attempts/1"))


def test_the_best_is_exported_and_told(world: World) -> None:
    world.run("export", *SET, "--set", "export.checkpoint=best", "--set", "train.save_total_limit=1")
    found = exported(world)
    assert (found["checkpoint"], found["step"], found["eval_loss"]) == ("best", 4, 0.5)
    assert found["remarks"] == ["the best checkpoint is step 4: eval_loss 0.5, against 0.8 at step 8"]
    [call] = [call for call in world.calls() if call["tool"] == "export"]
    assert Path(call["argv"][call["argv"].index("--adapters") + 1]).resolve().name == "checkpoint-4"


def test_another_choice_does_not_train_again(world: World) -> None:
    world.run("export", *SET, "--set", "train.save_total_limit=4")
    assert (exported(world)["checkpoint"], exported(world)["step"]) == ("last", 8)
    assert "sft" in world.tools()
    for which, step in (("best", 4), ("6", 6)):
        world.run("export", *SET, "--set", "train.save_total_limit=4", "--set", f"export.checkpoint={which}")
        assert exported(world)["step"] == step
        assert "sft" not in world.tools()


def test_the_best_of_an_interrupted_attempt_is_exported(world: World) -> None:
    killed_at_step_7(world)
    world.run("export", *SET, "--set", "export.checkpoint=best")
    assert exported(world)["step"] == 4
    output = world.stage("train") / "output"
    assert (output / "best-checkpoint").readlink() == Path("checkpoint-4")


def test_of_two_attempts_with_the_best_the_newer_ones_is_taken(tmp_path: Path) -> None:
    """Twelve attempts, for the order of their numbers is not that of their names; what they are called last is 12."""
    for number in range(1, 13):
        (checkpoint(tmp_path / str(number), 4) / "note.txt").write_text(str(number))
    last = checkpoint(tmp_path / "12", 8)
    (tmp_path / "12" / "checkpoint-4").rename(tmp_path / "elsewhere")
    state = {"global_step": 8, "max_steps": 8, "log_history": [{"step": 4, "eval_loss": 1.0}]}
    (last / "trainer_state.json").write_text(json.dumps(state))
    (tmp_path / "12" / "last-checkpoint").symlink_to("checkpoint-8")
    args = {"resume_from_checkpoint": str(tmp_path / "11" / "checkpoint-4")}
    (tmp_path / "12" / "args.json").write_text(json.dumps(args))
    keep.gather((), 3, tmp_path / "12", {})
    assert (tmp_path / "12" / "best-checkpoint" / "note.txt").read_text() == "11"


def test_an_interrupted_training_keeps_what_an_undisturbed_one_keeps(world: World) -> None:
    killed_at_step_7(world)
    world.run("train", *SET, "--set", "train.save_total_limit=2")
    output = world.stage("train") / "output"
    found = sorted(int(path.name.split("-")[1]) for path in output.glob("checkpoint-*"))
    assert found == world.report["train"]["checkpoints"] == [4, 6, 8], "two and the best"


@pytest.mark.parametrize(("limit", "kept"), [(1, [8]), (2, [6, 8]), (3, [4, 6, 8]), (9, [2, 4, 6, 8])])
def test_what_lies_behind_the_way_back_is_not_brought_along(tmp_path: Path, limit: int, kept: list[int]) -> None:
    for attempt, steps in (("1", (2, 4, 6)), ("2", (6, 7)), ("3", (8,))):
        for at in steps:
            (checkpoint(tmp_path / attempt, at) / "note.txt").write_text(attempt)
    (tmp_path / "3" / "last-checkpoint").symlink_to("checkpoint-8")
    args = {
        "resume_from_checkpoint": str(tmp_path / "2" / "checkpoint-6")
    }  # checkpoint-7 is not whole, or had diverged
    (tmp_path / "3" / "args.json").write_text(json.dumps(args))
    keep.gather((), limit, tmp_path / "3", {})
    found = {int(path.name.split("-")[1]): path for path in (tmp_path / "3").glob("checkpoint-*")}
    assert sorted(found) == kept
    assert limit == 1 or (found[6] / "note.txt").read_text() == "2"


def test_a_step_that_the_training_never_reached_is_named(world: World) -> None:
    """With `epochs` the number of steps is known only at the end."""
    text = (world.folder / "recipe.yaml").read_text()
    world.write("recipe.yaml", text.replace("max_steps: 8", "epochs: 1"))
    output = world.run("export", "--set", "export.checkpoint=40", "--set", "train.save_total_limit=9", status=5)
    assert "export wants the checkpoint of step 40; there are 2, 4, 6, 8" in output


def test_a_passed_over_checkpoint_is_said(world: World) -> None:
    newest = killed_at_step_7(world) / "checkpoint-6"
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:-20])
    output = world.run("train", *SET)
    assert "train: passed over checkpoint-6 of attempt 1: optimizer.pt is cut or damaged" in output
    assert re.search(r"going on from .*checkpoint-4", output)
    result = json.loads((world.stage("train") / "result.json").read_text())["result"]
    assert any("passed over checkpoint-6" in remark for remark in result["remarks"])
    assert result["checkpoints"] == [4, 6, 8]


def test_all_processes_stop_together_and_the_best_has_room_beside_the_newest(world: World) -> None:
    text = (world.folder / "recipe.yaml").read_text()
    world.write("recipe.yaml", text.replace("max_steps: 8", "max_steps: 8\n  extra_args: {callbacks: [perf_log]}"))
    shown = world.run("train", "--dry-run")
    assert "--callbacks perf_log graceful_exit " in shown
    rare = ("train", "--dry-run", "--set", "train.save_steps=100")
    assert "--save_total_limit 3 " in world.run(*rare)
    assert "--save_total_limit 2 " in world.run(*rare, "--set", "data.val_fraction=0")


def test_one_from_before_a_divergence_is_there_when_it_is_seen(world: World) -> None:
    """A loss has to be high for 20 steps: of checkpoints at every second one 10 may be bad by then."""
    assert "--save_total_limit 12 " in world.run("train", "--dry-run")
    assert "--save_total_limit 3 " in world.run("train", "--dry-run", "--set", "train.health.diverged=warn")
    world.run("train")
    assert world.report["train"]["checkpoints"] == [4, 6, 8], "the newest two and the best, as ever"


def test_a_file_that_would_end_every_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "STOP_FILE", tmp_path / "stop")
    training = replace(stage(), name="train")
    assert list(train.stop_file([training])) == []
    (tmp_path / "stop").touch()
    assert [problem.split(":")[0] for problem in train.stop_file([training])] == [str(tmp_path / "stop")]
    assert list(train.stop_file([stage()])) == []


# ---- all weights trained: nothing to merge


def weights(folder: Path, tensors: dict[str, np.ndarray], config: dict[str, Any] | None = None) -> Path:
    fake_tools.safetensors(folder / "model.safetensors", {k: v.ravel().tolist() for k, v in tensors.items()})
    fake_tools.save_json(folder / "config.json", config or {"model_type": "llama", "dtype": "float32"})
    return folder


def read(folder: Path) -> dict[str, tuple[str, bytes]]:
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        for name, tensor in json.loads(data[8 : 8 + length]).items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                found[name] = (tensor["dtype"], data[8 + length + start : 8 + length + end])
    return found


def copy(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.training.whole", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_full_training_is_copied_in_the_base_models_type(tmp_path: Path) -> None:
    base = weights(tmp_path / "base", {"a": np.zeros(2)}, {"model_type": "llama", "torch_dtype": "bfloat16"})
    source = weights(tmp_path / "checkpoint-8", {"a": np.array([1.0, -2.5]), "b": np.array([0.1, 3.0])})
    fake_tools.save_json(source / "trainer_state.json", {})
    fake_tools.save_json(source / "tokenizer.json", {"version": "1.0"})
    fake_tools.archive(source / "optimizer.pt")
    command = words(stage(ExportSpec(), tuner="full"))
    assert command[:3] == ["python", "-m", "pipeline.training.whole"]
    places = ("--model", base, "--adapters", source, "--output_dir", tmp_path / "out")
    done = copy(*places, *command[command.index("--dtype") :])
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip
    assert read(tmp_path / "out") == {"a": ("BF16", b"\x80\x3f\x20\xc0"), "b": ("BF16", b"\xcd\x3d\x40\x40")}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert copy(*places, *command[command.index("--dtype") :]).returncode != 0, "a folder that is there is not touched"


def test_the_same_type_is_the_same_bytes_in_shards_of_the_size_asked_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=100).astype("<f4") for name in "abcde"}
    source = weights(tmp_path / "checkpoint-8", tensors)
    done = copy(
        "--model", source, "--adapters", source, "--output_dir", tmp_path / "out",
        "--dtype", "model", "--max_shard_size", "1KB",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {name: raw for name, (_, raw) in read(tmp_path / "out").items()} == {
        k: v.tobytes() for k, v in tensors.items()
    }
    assert len(list((tmp_path / "out").glob("model-*-of-00003.safetensors"))) == 3
    assert weight_problems(tmp_path / "out") == []
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set("abcde")
    assert index["metadata"]["total_size"] == 2000


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40))
def test_rounding_to_bfloat16_is_to_the_nearest_and_half_way_to_even(values: list[float]) -> None:
    numbers = np.array(values, dtype="<f4")
    found = np.frombuffer(whole.cast(numbers.tobytes(), "F32", "BF16"), dtype="<u2")
    for value, bits in zip(numbers, found, strict=True):
        exact = float(value)
        low = int(np.float32(value).view("<u4")) >> 16
        options = [low, low + 1]  # towards zero and away from it
        as_float = [float(np.uint32(option << 16).view("<f4")) for option in options]
        if not np.isfinite(value):
            assert bits == low
            continue
        gaps = [
            abs(exact - as_float[0]),
            abs((as_float[1] if np.isfinite(as_float[1]) else np.copysign(2.0**128, exact)) - exact),
        ]
        nearest = options[0] if gaps[0] < gaps[1] or (gaps[0] == gaps[1] and low % 2 == 0) else options[1]
        assert bits == nearest


@pytest.mark.parametrize("old", ["F32", "F16", "BF16"])
def test_what_is_not_a_number_stays_none_and_infinity_infinite(old: str) -> None:
    raw = whole.cast(np.array([np.nan, np.inf, -np.inf], dtype="<f4").tobytes(), "F32", old)
    for new in ("F32", "F16", "BF16"):
        back = np.frombuffer(whole.cast(whole.cast(raw, old, new), new, "F32"), dtype="<f4")
        assert np.isnan(back[0])
        assert back[1:].tolist() == [np.inf, -np.inf]


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=40))
def test_widening_loses_nothing(bits: list[int]) -> None:
    raw = np.array(bits, dtype="<u2").tobytes()
    for kind in ("BF16", "F16"):
        again = whole.cast(whole.cast(raw, kind, "F32"), "F32", kind)
        numbers = np.frombuffer(whole.cast(raw, kind, "F32"), dtype="<f4")
        same = np.frombuffer(again, "<u2") == np.frombuffer(raw, "<u2")
        assert (same | np.isnan(numbers)).all()
