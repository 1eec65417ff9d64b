"""Figures of many models and many subjects, the gate's lines, and the clean part: what is drawn, in what order."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.gate import GateSpec, gate_lines, verdict
from pipeline.report import flips, headlines, ladder, subjects, trust
from pipeline.report.render import to_html, to_markdown, to_terminal
from pipeline.report.wording import comparison
from tests.reports import EMPTY, Elements, demo, leaderboard, many_ways, row, score


def checkpoints() -> Any:
    values = {"base": 0.25, "tuned-200": 0.5, "tuned-50": 0.3, "tuned": 0.45}
    scores = [score(model, "mmlu", value) for model, value in values.items()]
    scores += [score(model, f"mmlu_s{i}", value) for model, value in values.items() for i in range(9)]
    return EMPTY.model_copy(update={"recipe": "steps", "scores": scores, "train": {"steps": 300}})


def test_flips_are_of_the_first_right_or_wrong_metric_of_each_task() -> None:
    found = flips.flips(comparison(demo()).lines)
    assert [(f.line.task, f.gained, f.lost) for f in found] == [("demo_bank", 86, 1), ("demo_general", 5, 7)]
    assert found[0].gained_width == max(f.gained_width for f in found) <= 100
    assert found[1].lost_width == pytest.approx(7 / 86 * found[0].gained_width, abs=0.1)
    assert flips.flips(comparison(leaderboard()).lines) == []


def test_subjects_are_ranked_by_change() -> None:
    [figure] = subjects.by_subject(demo())
    assert (figure.task, figure.metric, figure.count) == ("mmlu", "acc", 12)
    assert [dots.name for dots in figure.top][:2] == ["subject 11", "subject 10"]
    assert (figure.risen, figure.fallen) == (12, 0)
    worse = [r.model_copy(update={"higher_is_better": False}) if r.part_of else r for r in demo().rows]
    [figure] = subjects.by_subject(demo().model_copy(update={"rows": worse}))
    assert (figure.risen, figure.fallen, figure.top[0].name) == (0, 12, "subject 00")


def test_of_many_subjects_the_middle_is_folded_and_sums_are_no_subjects() -> None:
    rows = [row("mmlu", 0.4, 0.5, 0.01, 0.2, 0.01)]
    rows += [row(f"mmlu_s{i:02}", 0.4, 0.3 + i / 100, -0.2, 0.2, 0.5, part_of="mmlu") for i in range(57)]
    rows.append(row("mmlu_stem", 0.4, 0.9, 0.1, 0.9, 0.01, part_of="mmlu"))
    sums = [score("base", "mmlu_stem", 0.4, tasks=("mmlu_s00", "mmlu_s01"))]
    report = EMPTY.model_copy(update={"rows": rows, "scores": sums})
    [figure] = subjects.by_subject(report)
    assert (len(figure.top), len(figure.middle), len(figure.bottom)) == (10, 37, 10)
    assert [dots.rank for dots in (*figure.top, *figure.middle, *figure.bottom)] == list(range(1, 58))
    assert figure.top[0].name == "s56"
    page = Elements(to_html(report))
    assert "s30" in " ".join(page.details)
    assert "mmlu_stem" in page.text


def test_the_best_model_stands_on_top() -> None:
    found = {figure.metric: figure for figure in ladder.ladders(leaderboard())}
    assert [rung.model for rung in found["acc"].rungs] == ["通义千问-7b-instruct", "qwen2.5-1.5b", "qwen2.5-0.5b"]
    assert found["word_perplexity"].rungs[0].value == "15.32", "lower is better"
    for figure in found.values():
        for rung in figure.rungs:
            assert 0 <= rung.low <= rung.at <= rung.high <= 100
    assert "gsm8k" not in {figure.task for figure in ladder.ladders(leaderboard())}, "not of the same implementation"
    assert ladder.ladders(demo()) == []


def test_scores_by_step_start_with_base_and_end_with_tuned() -> None:
    [climb] = ladder.climbs(checkpoints())
    assert [(stop.step, stop.value) for stop in climb.stops] == [
        (0, "0.250"), (50, "0.300"), (200, "0.500"), (300, "0.450"),
    ]  # fmt: skip
    assert climb.stops[0].y > climb.stops[2].y, "up is more"
    assert all(stop.high <= stop.y <= stop.low for stop in climb.stops)
    assert ladder.climbs(demo()) == []
    assert ladder.climbs(leaderboard()) == []
    revisions = [score(f"SmolLM2@step-{n}", "piqa", n / 1e6) for n in (125000, 250000)]
    [climb] = ladder.climbs(EMPTY.model_copy(update={"scores": revisions}))
    assert [stop.step for stop in climb.stops] == [125000, 250000]


def test_two_trainings_are_two_curves() -> None:
    labels = [f"pythia-{size}-step{n}" for size in ("70m", "160m") for n in (1000, 2000)]
    scores = [score(label, "piqa", 0.5 + i / 100) for i, label in enumerate(labels)]
    report = EMPTY.model_copy(update={"scores": scores})
    found = ladder.climbs(report)
    assert [(c.of, [(s.step, s.value) for s in c.stops]) for c in found] == [
        ("pythia-70m", [(1000, "0.500"), (2000, "0.510")]), ("pythia-160m", [(1000, "0.520"), (2000, "0.530")]),
    ]  # fmt: skip
    assert "acc · pythia-70m" in Elements(to_html(report)).text
    # Models without a step do not make the steps of one training another.
    beside = EMPTY.model_copy(update={"scores": [*scores[:2], score("qwen", "piqa", 0.4)]})
    assert len(ladder.climbs(beside)) == 1


def test_the_gate_is_told_in_every_format() -> None:
    report = demo()
    page = to_html(report)
    assert Elements(page).text.index("the gate is not passed") < Elements(page).text.index("Base against tuned")
    text = to_markdown(report)
    assert "**FAIL**: the gate is not passed." in text
    assert "| FAIL | lm\\_eval" not in text
    assert "| PASS | lm_eval · demo_bank · acc | must gain 0.3 or more |" in text
    assert "| INCONCLUSIVE | evalscope · mmlu · acc | may drop by 0.0001 at most |" in text
    terminal = to_terminal(report)
    assert (
        "FAIL: lm_eval · gsm8k · exact_match,strict-match may drop by 0.02 at most: -0.1084 (-0.1760 to -0.0360)"
        in " ".join(terminal.split())
    )
    for passed in (True, False):
        bounds = gate_lines(GateSpec(min_gain={"t": 0.01 if passed else 0.9}), [row("t", 0.1, 0.5, 0.3, 0.5, 0.001)])
        said = headlines.bounds(bounds)
        assert [bound.verdict for bound in said] == [verdict(bounds)] == ["PASS" if passed else "FAIL"]
    assert "verdict" not in {a.get("id") for _, a in Elements(to_html(EMPTY)).found}


def test_the_clean_part_stands_below_the_whole() -> None:
    table = trust.clean_part(demo())
    assert [(cells[1], cells[2], cells[5]) for cells in table.rows] == [
        ("all items", "120", "+0.708"), ("clean items", "114", "+0.700"), ("contaminated items", "6", "+0.900"),
    ]  # fmt: skip
    assert "| contaminated items | 6 |" in to_markdown(demo())


def test_two_implementations_are_side_by_side_and_not_subtracted() -> None:
    table = trust.reconciled(demo())
    [cells] = table.rows
    assert cells[1:3] == ("demo_bank · acc (lm_eval): 0.500", "demo_bank · acc (evalscope): 0.500")
    assert "demo_bank" in to_html(demo())
    assert "change" not in table.header
    told = trust.differences(demo())
    assert len(told) == sum(len(pair.examples) for pair in demo().reconciled)


def test_dialogues_have_base_before_tuned_and_the_known_answer_last() -> None:
    [talk] = trust.dialogues(demo())
    assert [who for who, _, _ in talk.answers] == ["base", "tuned", "the answer in the data"]
    page = Elements(to_html(demo())).text
    assert "What is <Brasko>?" in page
    assert "I do not know.\nSorry." in page
    assert "> user: What is &lt;Brasko&gt;?" in to_markdown(demo())


@pytest.mark.parametrize("make", [checkpoints, leaderboard])
def test_pages_of_many_models_are_whole(make: Any) -> None:
    page = Elements(to_html(make()))
    assert not page.open
    assert {"leaderboard", "models"} <= {a.get("id") for _, a in page.found}


def test_one_benchmark_in_several_ways() -> None:
    report = many_ways()
    text = to_markdown(report)
    assert "| small | 0.500 ± 0.042 (rank 1) | 0.250 ± 0.042 (rank 2) |" in text
    assert (
        "- By mmlu_original · acc (lm_eval), small is ahead of large (0.500 to 0.250, p –); "
        "by mmlu_helm · exact_match (lm_eval) it is behind (0.250 to 0.500, p –)." in text
    )
    assert "- Changes of order: 1. 0 of them hold: both differences have p" in text
    assert "| mmlu_original (lm_eval) | small | 100.0% | 1 |" in text
    page = Elements(to_html(report))
    assert not page.open
    assert "mmlu_helm: Where is <it>?" in page.text
    assert "MMLU 的 2 种实现" in page.text
    assert "按 mmlu_original · acc (lm_eval)，small 领先 large" in page.text
