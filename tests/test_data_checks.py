"""Training rows that hold evaluation items, in whole runs: what stops, what goes on, what is done again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.worlds import World, build

LEAK = "Which of the four guilds keeps the lanterns of the harbour town burning through the night of the long tide?"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The small world with one item of the bank among the training rows, in other letters and spaces."""
    world = build(tmp_path)
    bank = world.folder / "bank" / "bank_val.jsonl"
    item = {"id": "leak", "question": LEAK, "A": "Ropes.", "B": "Salt.", "C": "Glass.", "D": "Bells.", "answer": "C"}
    bank.write_text(bank.read_text() + json.dumps(item) + "\n")
    rows = json.loads((world.folder / "train.json").read_text())
    rows += [
        {"instruction": f"{LEAK.upper().replace(' ', '  ')} ({i})", "input": "", "output": "Glass."} for i in range(9)
    ]
    world.write("train.json", json.dumps(rows))
    return world


def stages(world: World, kind: str) -> list[str]:
    return sorted(path.name for path in (world.runs / "stages").glob(f"{kind}-*"))


def hit(world: World) -> int:
    """Training rows that hold the item: some of the nine may have fallen into the validation set."""
    found: int = world.report["contamination"]["rows_hit"]["train"]
    return found


FAIL = ("--set", "data.contamination.action=fail")


def test_fail_stops_before_the_training_also_where_only_that_was_asked_for(world: World) -> None:
    for _ in range(2):  # the second time the check is found done, and says no again
        output = world.run("train", *FAIL, status=5)
        assert 0 < hit(world) <= 9
        assert f"error:\ndata.contamination: {hit(world)} of " in output
        assert f"bank: 1 of 21 items, in {hit(world)} rows" in output
        assert "set data.contamination.action to drop" in output
        assert "Traceback" not in output
        assert world.tools() == []
        assert stages(world, "train") == []
    [folder] = stages(world, "contamination")
    log = (world.runs / "stages" / folder / "log.txt").read_text()
    assert log.count("--action fail") == 1, "compared once"
    page = (world.runs / "small" / "report.html").read_text()
    assert "<mark>WHICH OF THE FOUR GUILDS" in page
    listing = json.loads((world.runs / "small" / "stages.json").read_text())["stages"]
    assert [line["label"] for line in listing if line["status"] == "failed"] == ["data.contamination"]


def test_report_goes_on_with_the_same_check_and_says_so(world: World) -> None:
    world.run("train", *FAIL, status=5)
    output = world.run()
    assert len(stages(world, "contamination")) == 1
    assert "data.contamination: already done" in output
    assert world.tools()[0] == "sft"
    said = f"{hit(world)} of {world.report['contamination']['rows']['train']} training rows hold text of items that are scored"
    assert said in " ".join(output.split())
    assert said in world.report["remarks"][0]
    worst = world.report["contamination"]["benchmarks"]["bank"]["contaminated"]
    assert [(item["question"], item["raw"]["id"]) for item in worst] == [(LEAK, "leak")], (
        "enough to leave it out of a score"
    )
    # Another benchmark is compared, and nothing is trained again.
    world.write(
        "more.jsonl", json.dumps({"question": "What was never asked before by anyone on any of the islands?"}) + "\n"
    )
    world.run("--set", "data.contamination.benchmarks=[{name: bank, path: bank}, {name: more, path: more.jsonl}]")
    assert world.tools() == []
    assert len(stages(world, "contamination")) == 2
    assert set(world.report["contamination"]["benchmarks"]) == {"bank", "more"}


def test_drop_trains_on_what_is_left(world: World) -> None:
    world.run("train")
    before = world.report["data"]
    output = world.run("train", "--set", "data.contamination.action=drop")
    assert world.tools() == ["sft", "sft"]
    data = world.report["data"]
    assert data["rows_decontaminated"] == 9
    assert data["decontaminated"] == {"bank": 9, "general_mcq": 9} or data["decontaminated"] == {"bank": 9}
    assert data["rows_train"] + data["rows_val"] + 9 == before["rows_train"] + before["rows_val"]
    assert "training rows hold text" not in output
    [new] = set(stages(world, "data")) - {Path(line["folder"]).name for line in _first_variant(world)}
    assert LEAK[:20].upper() not in (world.runs / "stages" / new / "output" / "train.jsonl").read_text()


def _first_variant(world: World) -> list[dict[str, str]]:
    report = json.loads((world.runs / "small" / "history" / "1" / "report.json").read_text())
    found: list[dict[str, str]] = report["stages"]
    return found


def test_clean_data_pass(tmp_path: Path) -> None:
    world = build(tmp_path)
    output = world.run("train", *FAIL)
    assert world.tools() == ["sft"]
    assert "data.contamination: done in" in output
    assert world.report["contamination"]["rows_hit"] == {"train": 0, "val": 0}
    assert not [remark for remark in world.report["remarks"] if "training rows" in remark]


def test_what_is_not_here_is_named(world: World) -> None:
    world.run("data", "--set", "eval.evalscope.datasets=[gsm8k]", "--set", "eval.lm_eval.tasks=[bank, hellaswag]")
    assert world.report["unchecked"] == ["hellaswag", "gsm8k"]
    assert any("not compared with hellaswag, gsm8k" in remark for remark in world.report["remarks"])
    assert set(world.report["contamination"]["benchmarks"]) == {"bank"}
