"""The report's part on training: figures and their formula, the plan, the merge check, in both languages."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.report import merge_tables, render, training_tables
from pipeline.report.compile import Report
from pipeline.report.phrases import Phrase, recall
from pipeline.report.training_remarks import training_remarks
from pipeline.training import health, merge_check, steps
from pipeline.training.spec import TrainSpec
from tests.reports import EMPTY, EVIL, PLAN, Elements, demo, merge, throughput


def cells(report: Report) -> dict[str, str]:
    return {row[0]: row[1] for row in training_tables.speed_facts(report).rows}


def test_the_figures_and_how_they_were_made() -> None:
    found = cells(demo())
    assert found["tokens/s per GPU"] == "40,276"
    assert (found["with padding"], found["share of padding"]) == ("43,625", "7.68%")
    assert (found["MFU"], found["GPU hours"], found["cost"]) == ("8.55%", "0.951", "3.23 EUR")
    assert found["peak memory of a GPU"] == "15.74 GiB"
    note = training_tables.speed_note(demo())
    assert "40,276 × 2.1e9 / 989.4e12 (NVIDIA H200) = 8.55%" in note
    assert "over 104 optimizer steps, without start-up" in note


def test_a_cpu_has_no_gpus_to_speak_of() -> None:
    own = {"gpus": 0, "processes": 1, "gpu_hours": None, "cost": None, "peak_memory": None, "mfu": None}
    report = demo().model_copy(update={"throughput": throughput().model_copy(update=own)})
    assert "tokens/s per process" in cells(report)
    assert not {"GPUs", "GPU hours", "cost", "MFU", "peak memory of a GPU"} & cells(report).keys()
    assert "MFU" not in training_tables.speed_note(report)


def test_next_to_no_padding_is_not_worth_a_line() -> None:
    own = {"padded_tokens": throughput().tokens, "padded_tokens_per_second": 40_276.4}
    report = demo().model_copy(update={"throughput": throughput().model_copy(update=own)})
    assert not {"with padding", "share of padding"} & cells(report).keys()


def test_a_gpu_that_is_not_in_the_table_is_named() -> None:
    own = {"device": "NVIDIA X1", "mfu": None, "peak_flops": None}
    report = demo().model_copy(update={"throughput": throughput().model_copy(update=own)})
    assert training_tables.speed_note(report).endswith("No MFU: the peak of NVIDIA X1 is not known.")


def test_the_plan_beside_what_came_and_alone() -> None:
    rows = {row[0]: row[1:] for row in training_tables.planned(demo()).rows}
    assert rows["optimizer steps"] == ("120", "120", "0%")
    assert rows["memory, at its peak"] == ("14.50 GiB", "15.74 GiB", "+8.5%")
    assert rows["time"] == ("15m00s–20m50s", "21m52s", "+5.0%")
    alone = training_tables.planned(EMPTY.model_copy(update={"plan": PLAN}))
    assert [row[2:] for row in alone.rows] == [("–", "–")] * 5
    assert training_tables.planned(EMPTY).rows == ()
    assert training_tables.memory_parts(demo()).rows[0] == ("activations", "9.00 GiB")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "better"),
        ({"verdict": "differ"}, "worse"),
        ({"verdict": "lost in rounding"}, "worse"),
        ({"verdict": "unchecked", "logits": {"unchecked": "too large"}}, "unclear"),
        ({"logits": None, "tensors": {"compared": 9, "different": [], "missing": [], "changed": 9}}, "better"),
    ],
)
def test_the_verdict_on_the_merge_has_a_colour(change: dict[str, Any], kind: str) -> None:
    report = demo().model_copy(update={"merge": {**merge(), **change}})
    words, told = merge_tables.merge_verdict(report)
    assert told == kind
    assert words in render.to_markdown(report)
    assert kind in next(
        a["class"] for tag, a in Elements(render.to_html(report)).found if "found" in a.get("class", "")
    )


def test_prompts_that_differ_are_shown_and_cannot_run() -> None:
    table = merge_tables.template_differences(demo())
    assert [row[:2] for row in table.rows] == [("evalscope", "a system prompt")]
    assert ("prompts rendered as in training", "5 of 6") in merge_tables.merge_facts(demo()).rows
    page = Elements(render.to_html(demo()))
    assert EVIL in page.text
    assert "img" not in {tag for tag, _ in page.found}
    assert merge_tables.merge_facts(EMPTY).rows == ()


def test_numbers_that_are_not_there_are_dashes() -> None:
    broken = {"verdict": "differ", "logits": {"mean_abs": None, "tolerance": 0.1, "top1_agreement": 0.0}}
    report = demo().model_copy(update={"merge": broken})
    facts = {row[0]: row[1] for row in merge_tables.merge_facts(report).rows}
    assert facts["distance from base and adapter, nats"] == "–"


def test_the_terminal_has_one_line_of_it() -> None:
    text = " ".join(render.to_terminal(demo(), 200).split())
    assert "training: 40,276 tokens/s per GPU, 0.951 GPU hours, MFU 8.55%, peak memory of a GPU 15.74 GiB" in text
    assert "training:" not in render.to_terminal(EMPTY)


def test_both_languages_and_a_link_to_it() -> None:
    page = render.to_html(demo())
    for text in ("每 GPU 每秒词元数", "计划与实测", "合并后的模型即基座加适配器", 'href="#merge"', 'id="training"'):
        assert text in page
    assert "merge" not in {a.get("id") for _, a in Elements(render.to_html(EMPTY)).found}


def test_what_was_remarked_of_plan_training_and_merge() -> None:
    found = training_remarks(
        {"problems": ["few steps"], "remarks": ["12 rows cut"]}, {"remarks": ["slow"]}, {"remarks": []}
    )
    assert list(found) == ["plan: few steps", "plan: 12 rows cut", "training: slow"]
    assert list(training_remarks(None, None, None)) == []


def test_what_is_remarked_most_is_known_in_chinese() -> None:
    train = TrainSpec(gpus=1, micro_batch_size=1, max_steps=5000)
    plan = [
        *steps.remarks(steps.Rows(rows=100, kept=100, dropped=0, cut=5, exact=True), train),
        *steps.remarks(steps.Rows(rows=100, kept=95, dropped=5, cut=0, tokens=9), train),
    ]
    few = steps.Rows(rows=8, kept=8, dropped=0, cut=0, tokens=90, exact=True)
    short = TrainSpec(gpus=1, micro_batch_size=1, epochs=1.0, packing=False)
    plan += [
        *steps.remarks(steps.Rows(rows=100, kept=95, dropped=5, cut=5, tokens=9, exact=True), train),
        *steps.problems(few, short),
    ]
    slow = health.slow([1.0] * 40 + [9.0] * 10)
    quantized = {"verdict": "lost in rounding", "quantization": "4bit", "export_changed": ["user only"]}
    weak = {"base_distance": 0.01, "merged_dtype": "bfloat16", "tolerance": 0.05}
    differs = {"equal": False, "diff": "a system prompt", "advice": "set one", "reader": "lm_eval", "case": "user"}
    flat = health.flat([{"step": float(n), "loss": 1.0} for n in range(20)], 20, ended=True)
    merged = [
        *merge_check.remarks({"verdict": "no effect"}),
        *merge_check.remarks({"verdict": "unchecked", "logits": {"unchecked": "too large"}}),
        *merge_check.remarks({**quantized, "logits": weak, "templates": [differs]}),
    ]
    trained = [
        flat, slow, "passed over checkpoint-6 of attempt 1: optimizer.pt is cut or damaged",
        "no checkpoint to go on from: from the beginning", "started a second time: rank 1 was killed",
    ]  # fmt: skip
    told = list(training_remarks({"remarks": plan}, {"remarks": trained}, {"remarks": merged}))
    assert len(told) == 20
    assert "100 行中有 5 行（5%）" in str(getattr(recall(told[1]), "zh", ""))
    assert [remark for remark in told if not isinstance(recall(remark), Phrase)] == []
