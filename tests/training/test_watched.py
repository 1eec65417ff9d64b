"""The pipeline's training watched while it runs, in real processes; `tests/bin/swift` misbehaves as asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline import processes
from tests.worlds import World, build

LONG = ("--set", "train.max_steps=200")
"""Half a minute at `SLOW`: it ends within seconds only because it is stopped."""
SLOW = {"FAKE_SLEEP_PER_STEP": "0.15"}
counted = pytest.mark.skipif(processes.oom_kills() is None, reason="the kernel does not tell what it killed for memory")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return build(tmp_path)


def record(world: World) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((world.stage("train") / "result.json").read_text())
    return value


def last_step(attempt: Path) -> int:
    found = re.findall(r'"global_step/max_steps": "(\d+)/', (attempt / "logging.jsonl").read_text())
    return max(map(int, found))


@pytest.mark.parametrize(
    ("switches", "bad", "step", "words"),
    [
        ({"FAKE_NAN": "3"}, 3, 3, "training diverged: step 3: grad_norm = nan"),
        ({"FAKE_OVERFLOWS": "1"}, 1, 1, "training diverged: step 1: grad_norm = inf"),
        ({"FAKE_LOSS": '{"6": 90}'}, 6, 25, "the loss has been 0.667 and is above 3.67 since step 6 (90 at step 25)"),
    ],
)
def test_a_training_that_goes_bad_is_stopped_while_it_runs(
    world: World, switches: dict[str, str], bad: int, step: int, words: str
) -> None:
    world.extra = {**switches, **SLOW, "FAKE_WORKERS": "2"}
    output = world.run("train", *LONG, status=5)
    assert f"train: stopped while it ran. {world.stage('train') / 'attempts/1/logging.jsonl'}: " in output
    assert words in output
    assert "Lower train.learning_rate" in output
    assert step <= last_step(world.stage("train") / "attempts" / "1") < step + 20
    assert world.living() == [], "the whole tree, workers in sessions of their own too"
    assert world.tools() == ["sft"], "nothing is exported, nothing tried again"
    kept = [int(path.name.split("-")[1]) for path in world.stage("train").glob("attempts/1/checkpoint-*")]
    assert {step for step in (2, 4) if bad - 2 <= step < bad} <= set(kept), "one from before it is kept"
    # The same command goes on from before it went bad, if there is anything.
    world.calls()
    world.extra = {}
    world.run("train", *LONG)
    [call] = world.calls()
    resumed = [int(word.rpartition("-")[2]) for word in call["argv"] if "attempts/1/checkpoint-" in word]
    good = [step for step in kept if step < bad]
    assert resumed == ([max(good)] if good else [])


def test_what_the_recipe_wants_is_only_told(world: World) -> None:
    world.extra = {"FAKE_LOSS": '{"6": 90}'}
    output = world.run("train", "--set", "train.max_steps=30", "--set", "train.health.diverged=warn", *NO_FLAT)
    assert output.count("train: warning: ") == 1
    assert re.search(r"train: warning: .*: training diverged: the loss has been", output)
    [remark] = record(world)["result"]["remarks"]
    assert "training diverged" in remark
    world.run("train", "--set", "train.max_steps=30", "--set", "train.health.diverged=off", *NO_FLAT)
    assert world.tools() == ["sft"], "what is watched is no part of the identity"


def test_a_loss_that_ends_as_no_number_leaves_a_result_where_nobody_minds(world: World) -> None:
    world.extra = {"FAKE_LOSS": '{"1": 2.0, "5": NaN}', "FAKE_EVAL_LOSS": '{"4": 1.5, "8": NaN}'}
    world.run("--set", "train.health.diverged=warn")
    result = record(world)["result"]
    assert (result["first_loss"], result["last_loss"], result["last_eval_loss"]) == (2.0, None, None)


def test_a_flat_loss_is_a_remark_and_can_be_more(world: World) -> None:
    world.extra = {"FAKE_LOSS": '{"1": 2.0}'}
    words = ("train", "--set", "train.max_steps=40")
    output = world.run(*words, "--set", "train.health.flat=stop", status=5)
    assert "the loss does not fall: it began at 2 and is 2" in output
    output = world.run(*words)
    assert output.count("train: warning: the loss does not fall") == 1
    # A busy machine may add one on slow steps.
    [remark] = [one for one in record(world)["result"]["remarks"] if "does not fall" in one]
    assert "train.learning_rate too low" in remark


def test_a_collapse_of_speed_is_told(world: World) -> None:
    world.extra = {"FAKE_SLEEP_EARLIER": "0.25", "FAKE_SLEEP_LATER": "1.5"}
    output = world.run("train", "--set", "train.max_steps=20", "--set", "train.eval_steps=100")
    assert re.search(r"train: warning: at step \d+ a step takes \d\.\d+ s, \d\.\d times as long as before", output), (
        output
    )
    assert len(record(world)["result"]["remarks"]) == 1


NO_FLAT = ("--set", "train.health.flat=off")
STALL = ("--set", "train.health.stall_minutes=0.03")


def test_a_hang_is_tried_once_more_from_the_newest_checkpoint(world: World) -> None:
    world.extra = {"FAKE_HANG_ONCE_AT": "6", "FAKE_WORKERS": "2"}
    output = world.run("train", *STALL)
    assert re.search(
        r"train: no progress for \d\.\ds since step 5, longer than .* of train.health.stall_minutes, so it was stopped: .*; starting it again",
        output,
    )
    assert f"train: going on from {world.stage('train') / 'attempts/1/checkpoint-4'}" in output
    assert world.tools() == ["sft", "sft"]
    assert record(world)["attempt"] == "2"
    assert record(world)["result"]["steps"] == 8
    [remark] = record(world)["result"]["remarks"]
    assert remark.startswith("started a second time: no progress for")
    assert world.living() == []


def test_a_hang_that_comes_again_fails_with_its_cause(world: World) -> None:
    world.extra = {"FAKE_HANG_AT": "6"}
    output = world.run("train", *STALL, status=4)
    assert world.tools() == ["sft", "sft"], "once more, not for ever"
    assert re.search(
        r"^train: no progress for \d\.\ds since step 5, longer than .* of train.health.stall_minutes, so it was stopped: [^;]*$",
        output,
        re.MULTILINE,
    )
    assert "  | step 5/8" in output, "the last lines of its log"
    assert world.living() == []


@counted
def test_a_killed_training_is_tried_once_more(world: World) -> None:
    world.extra = {"FAKE_DIE_ONCE_AT": "6"}
    output = world.run("train")
    cause = "the tool ended with status -9: killed, by somebody: the kernel has killed nothing for want of memory"
    assert f"train: {cause}; starting it again" in output
    assert record(world)["result"]["remarks"] == [f"started a second time: {cause}"]
    assert record(world)["result"]["steps"] == 8
    world.calls()
    world.extra = {"FAKE_DIE_AT": "6"}
    output = world.run("train", "--set", "train.rank=4", status=4)
    assert world.tools() == ["sft", "sft"]
    assert output.count(f"train: {cause}") == 2


def test_want_of_memory_is_not_tried_again_but_has_a_remedy(world: World) -> None:
    world.extra = {
        "FAKE_FAIL": "sft",
        "FAKE_FAIL_TEXT": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate",
    }
    output = world.run("train", status=4)
    assert world.tools() == ["sft"]
    for setting in (
        "micro_batch_size",
        "max_length",
        "gradient_checkpointing: true",
        "liger: true",
        "deepspeed: zero3",
    ):
        assert setting in output


def test_a_training_that_ended_early_is_none(world: World) -> None:
    world.extra = {"FAKE_END_AT": "5"}
    output = world.run("train", status=5)
    assert "checkpoint-4" in output or "last-checkpoint" in output
    assert "training ended after 4 of 8 steps" in output


def test_memory_of_the_tree_is_in_the_record(world: World) -> None:
    world.extra = {"FAKE_WORKERS": "2", **SLOW}
    world.run("train")
    assert 15e6 < record(world)["peak_rss_bytes"] < 2e9
