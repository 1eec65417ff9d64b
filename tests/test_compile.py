"""The parts of report.json that are folded from the items: clean part, implementations side by side, gate."""

from __future__ import annotations

import json
import re

import pytest

from tests.worlds import World, build

HIT = (2, 3)
"""Items of the bank that training rows hold."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = build(tmp_path_factory.mktemp("world"))
    docs = [
        {"id": f"q{i}", "question": f"Which light does the old keeper of the northern tower number {i} show?",
         **{letter: f"Light {i}{letter}." for letter in "ABCD"}, "answer": "ABCD"[i % 4]}
        for i in range(20)
    ]  # fmt: skip
    world.write("bank/bank_val.jsonl", "".join(json.dumps(doc) + "\n" for doc in docs))
    rows = json.loads((world.folder / "train.json").read_text())
    for at in HIT:  # several times, so that one is in train.jsonl whatever the split
        rows += [{"instruction": f"{docs[at]['question']} ({n})", "input": "", "output": "This one."} for n in range(6)]
    world.write("train.json", json.dumps(rows))
    recipe = (world.folder / "recipe.yaml").read_text()
    world.write("recipe.yaml", recipe + "gate: {max_drop: {bank: 0.02}}\n")
    world.run()
    return world


def test_scores_of_the_clean_part_stand_beside_the_whole(world: World) -> None:
    clean = [row for row in world.report["clean"] if row["metric"] in ("acc", "accuracy")]
    assert {(row["task"], row["part"], row["n"], row["of"]) for row in clean} == {
        (task, part, n, 20) for task in ("bank", "general_mcq/bank") for part, n in (("clean", 18), ("contaminated", 2))
    }
    assert all(row["base"] is not None and row["delta"] == pytest.approx(row["tuned"] - row["base"]) for row in clean)
    whole = next(row for row in world.report["rows"] if row["task"] == "bank" and row["metric"] == "acc")
    parts = [row for row in clean if row["task"] == "bank"]
    assert sum(row["n"] * row["base"] for row in parts) / 20 == pytest.approx(whole["base"])


def test_both_harnesses_are_held_against_each_other_for_each_model(world: World) -> None:
    found = world.report["reconciled"]
    pairs = {(pair["model"], pair["left"]["task"], pair["right"]["task"], pair["n"]) for pair in found}
    assert pairs == {(model, "bank", "general_mcq/bank", 20) for model in ("base", "tuned")}
    for pair in found:
        assert pair["both_right"] + pair["only_left"] + pair["only_right"] + pair["both_wrong"] == 20
        assert sum(pair["reasons"].values()) == pair["only_left"] + pair["only_right"]
        assert pair["left"]["implementation"]["harness"] == "lm_eval"


def test_the_gate_gives_the_verdict(world: World) -> None:
    assert world.report["verdict"] == "PASS"
    assert [(line["key"], line["kind"], line["verdict"]) for line in world.report["gate"]] == [
        ("bank", "max_drop", "PASS")
    ]


def test_items_are_not_in_the_report(world: World) -> None:
    text = (world.runs / "small/report.json").read_text()
    for path in (world.runs / "stages").glob("eval-*/output/samples.jsonl"):
        keys = [json.loads(line)["doc_key"] for line in path.read_text().splitlines()]
        assert len(keys) == 20
        assert sum(key in text for key in keys) < len(keys)
    assert "loglikelihoods" not in text


def test_items_that_were_changed_are_named_and_their_scores_left_out(world: World) -> None:
    """Of the same size, so nothing but reading them tells."""
    path = next((world.runs / "stages").glob("eval-*/output/samples.jsonl"))
    whole = path.read_text()
    count = len(world.report["scores"])
    try:
        path.write_text(whole[:200] + "\x00" + whole[201:])
        world.run("report")
        report = world.report
    finally:
        path.write_text(whole)
    [remark] = [remark for remark in report["remarks"] if "samples.jsonl" in remark]
    assert re.fullmatch(
        r"eval\.\w+\.\w+: output/samples\.jsonl was changed after it was written; not used, run again", remark
    )
    assert 0 < len(report["scores"]) < count
    world.run("report")
    assert len(world.report["scores"]) == count
