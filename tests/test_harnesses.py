"""Harness output as the real tools wrote it (trimmed captures in tests/fixtures): scores, samples, remarks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from pipeline.errors import OutputError
from pipeline.harnesses import HARNESSES, evalscope, lm_eval
from pipeline.results import Sample, doc_key
from pipeline.stage import Source
from pipeline.stages import evaluate
from pipeline.suites import EvalScopeSpec, LmEvalSpec

FIXTURES = Path(__file__).parent / "fixtures"
MODEL = Source(Path("models/SmolLM2-135M-Instruct"))
LM_EVAL = LmEvalSpec(
    harness="lm_eval",
    tasks=("demo_bank", "demo_general"),
    include_path=Path("tasks"),
    precision="float32",
    device="cpu",
)
EVALSCOPE = EvalScopeSpec.model_validate(
    {
        "harness": "evalscope", "precision": "float32", "device": "cpu",
        "datasets": ({"name": "general_mcq", "path": Path("bank")}, {"name": "general_qa", "path": Path("qa")}),
    }
)  # fmt: skip


def read(spec: LmEvalSpec | EvalScopeSpec, folder: Path) -> Any:
    stage = evaluate.stage(spec, model=MODEL, chat_template=True, offline=True)
    return HARNESSES[spec.harness].read(folder, stage)


def collect(spec: LmEvalSpec | EvalScopeSpec, folder: Path) -> dict[str, Any]:
    stage = evaluate.stage(spec, model=MODEL, chat_template=True, offline=True)
    return stage.collect(folder, stage, {})


def of(samples: Iterable[Sample], task: str, metric: str) -> list[Sample]:
    return [s for s in samples if (s.task, s.metric) == (task, metric)]


@pytest.mark.parametrize(("spec", "folder"), [(LM_EVAL, "lm_eval"), (EVALSCOPE, "evalscope")])
def test_samples_give_exactly_the_scores(spec: LmEvalSpec | EvalScopeSpec, folder: str) -> None:
    scores, samples, _ = read(spec, FIXTURES / folder)
    assert scores
    for score in scores:
        mine = of(samples, score.task, score.metric)
        assert len(mine) == score.n, (score.task, score.metric)
        assert fmean(s.score for s in mine) == pytest.approx(score.value, abs=6e-5)
        assert len({s.doc_key for s in mine}) == score.n
    assert {(s.task, s.metric) for s in samples} == {(s.task, s.metric) for s in scores}


def test_lm_eval_scores() -> None:
    scores, _, remarks = read(LM_EVAL, FIXTURES / "lm_eval")
    assert [(s.task, s.metric, s.n) for s in scores] == [
        ("demo_bank", "acc", 6), ("demo_bank", "acc_norm", 6), ("demo_general", "acc", 6), ("demo_general", "acc_norm", 6),
    ]  # fmt: skip
    assert remarks == []
    assert scores[1].value == 0.5
    assert scores[1].stderr == pytest.approx((0.25 / 5) ** 0.5)
    implementation = scores[0].implementation
    assert implementation.version == "0.4.13"
    assert implementation.task_version == "1.0"
    assert implementation.n_shot == 0
    assert implementation.chat_template == "0bc26076a585"
    assert implementation.scoring == "multiple_choice/none"
    assert implementation.precision == "float32"


def test_evalscope_metric_names_are_those_of_the_samples() -> None:
    scores, samples, remarks = read(EVALSCOPE, FIXTURES / "evalscope")
    found = {(s.task, s.metric): s.value for s in scores}
    assert found[("general_mcq/bank", "accuracy")] == 0.25
    assert found[("general_mcq/general", "accuracy")] == 0.25
    rouge = {f"Rouge-{n}-{statistic}" for n in "12L" for statistic in "RPF"}
    assert {metric for task, metric in found if task == "general_qa/open"} == rouge
    # The report's own numbers, in the order in which EvalScope lists them.
    report = json.loads((FIXTURES / "evalscope/reports/model/general_qa.json").read_text())
    names = {"recall": "R", "precision": "P", "f1": "F"}
    for metric in report["metrics"]:
        dimensions = metric["identity"]["dimensions"]
        if metric["identity"]["name"] == "rouge":
            order = str(dimensions.get("ngram") or dimensions["variant"].upper())
            assert found[("general_qa/open", f"Rouge-{order}-{names[dimensions['statistic']]}")] == metric["score"]
    # NLTK's data could not be had: EvalScope reports 0 for BLEU, which is no score.
    assert not [s for s in [*scores, *samples] if "bleu" in s.metric.lower()]
    [remark] = remarks
    assert remark.startswith(
        "general_qa: BLEU could not be computed for 4 samples (LookupError: Resource 'punkt_tab' not"
    )
    assert "\n" not in remark
    implementation = scores[0].implementation
    assert (implementation.version, implementation.task_version, implementation.precision) == (
        "1.14.1",
        "v1.1",
        "float32",
    )


@pytest.mark.parametrize(
    ("identity", "spellings", "expected"),
    [
        ({"name": "accuracy"}, ["accuracy"], "accuracy"),
        ({"name": "accuracy"}, ["acc"], "acc"),
        ({"name": "bleu", "dimensions": {"ngram": 1}}, ["bleu-2", "bleu-1"], "bleu-1"),
        ({"name": "rouge", "dimensions": {"statistic": "f1", "variant": "l"}}, ["Rouge-L-R", "Rouge-L-F"], "Rouge-L-F"),
        ({"name": "exact_match", "dimensions": {"target": "plan"}}, ["accuracy"], "exact_match-plan"),
        ({"name": "f1"}, ["F1"], "F1"),
        ({"name": "r"}, ["recall"], "r"),
    ],
)
def test_metric_names_meet_by_their_words(identity: dict[str, Any], spellings: list[str], expected: str) -> None:
    assert evalscope._metric_name({"identity": identity, "legacy_name": None}, spellings) == expected
    assert evalscope._metric_name({"identity": identity, "legacy_name": "own"}, [*spellings, "own"]) in (
        "own",
        expected,
    )


def test_one_bank_has_one_key_per_item_in_both_harnesses() -> None:
    _, left, _ = read(LM_EVAL, FIXTURES / "lm_eval")
    _, right, _ = read(EVALSCOPE, FIXTURES / "evalscope")
    for subset in ("bank", "general"):
        keys = {s.doc_key for s in of(left, f"demo_{subset}", "acc")}
        assert len(keys) == 6
        assert keys <= {s.doc_key for s in of(right, f"general_mcq/{subset}", "accuracy")}


def test_order_limit_and_shuffled_choices_do_not_change_a_key() -> None:
    key = doc_key("What  is\nit?", ["red", "blue"], "blue")
    assert key == doc_key("What is it?", ["blue ", " red"], "blue")
    assert key != doc_key("What is it?", ["blue", "red"], "red")
    assert key != doc_key("What is it ?", ["blue", "red"], "blue")
    prompt = "Q: Why?\n\nA) one\nB) two"
    other = "Q: Why?\n\nA) two\nB) one"
    template = "Q: {question}\n\n{choices}"
    records = [
        {"messages": [{"role": "user", "content": text}], "target": [letter]}
        for text, letter in ((prompt, "A"), (other, "B"))
    ]
    assert (
        evalscope._key(records[0], template)
        == evalscope._key(records[1], template)
        == doc_key("Why?", ["one", "two"], "one")
    )


def test_a_question_in_lines_that_look_like_choices_is_its_own_key() -> None:
    record = {"messages": [{"role": "user", "content": "A: hello\nB: and then?"}], "target": "fine"}
    other = {"messages": [{"role": "user", "content": "A: hello\nB: and now?"}], "target": "fine"}
    assert evalscope._key(record, "{question}") != evalscope._key(other, "{question}")


@pytest.mark.parametrize(
    ("spec", "folder", "name", "message"),
    [
        (LM_EVAL, "lm_eval", "results_*.json", r"left no results_\*\.json"),
        (EVALSCOPE, "evalscope", "general_qa.json", "left no report for general_qa"),
        (EVALSCOPE, "evalscope", "task_config.yaml", "task_config.yaml"),
    ],
)
def test_missing_output_is_an_output_error(
    tmp_path: Path, spec: LmEvalSpec | EvalScopeSpec, folder: str, name: str, message: str
) -> None:
    shutil.copytree(FIXTURES / folder, tmp_path / "out")
    [path] = (tmp_path / "out").rglob(name)
    path.unlink()
    with pytest.raises(OutputError, match=message):
        collect(spec, tmp_path / "out")


@pytest.mark.parametrize(
    ("spec", "folder", "name"),
    [
        (LM_EVAL, "lm_eval", "results_*.json"), (LM_EVAL, "lm_eval", "samples_demo_bank*.jsonl"),
        (EVALSCOPE, "evalscope", "general_mcq.json"), (EVALSCOPE, "evalscope", "general_mcq_bank.jsonl"),
    ],
)  # fmt: skip
def test_cut_output_is_an_output_error(
    tmp_path: Path, spec: LmEvalSpec | EvalScopeSpec, folder: str, name: str
) -> None:
    shutil.copytree(FIXTURES / folder, tmp_path / "out")
    [path] = (tmp_path / "out").rglob(name)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(OutputError, match=f"cut or not what {folder} .* writes"):
        collect(spec, tmp_path / "out")


def test_an_unusual_line_separator_in_an_answer_is_no_end_of_line(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "evalscope", tmp_path / "out")
    [path] = (tmp_path / "out").rglob("general_mcq_bank.jsonl")
    path.write_text(path.read_text().replace("Ships entering", "Ships\u2028entering", 1))
    assert read(EVALSCOPE, tmp_path / "out")[0] == read(EVALSCOPE, FIXTURES / "evalscope")[0]


def test_the_newest_of_several_lm_eval_results_counts(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "lm_eval", tmp_path / "out")
    [old] = (tmp_path / "out").rglob("results_*.json")
    value = json.loads(old.read_text())
    value["results"]["demo_bank"]["acc,none"] = 0.125
    (old.parent / "results_2026-11-22T00-00-00.000000.json").write_text(json.dumps(value))
    scores, samples, _ = read(LM_EVAL, tmp_path / "out")
    assert scores[0].value == 0.125
    assert samples == []


def test_groups_have_the_samples_of_their_leaves(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "lm_eval", tmp_path / "out")
    [path] = (tmp_path / "out").rglob("results_*.json")
    value = json.loads(path.read_text())
    both = {"acc,none": 0.5, "acc_stderr,none": "N/A", "sample_len": 12}
    value["results"] |= {"both": both, lm_eval.SUITE: {"acc,none": 0.1}}
    value["group_subtasks"] = {"both": ["demo_bank", "demo_general"], lm_eval.SUITE: ["both"]}
    path.write_text(json.dumps(value))
    scores, samples, _ = read(LM_EVAL, tmp_path / "out")
    assert lm_eval.SUITE not in {s.task for s in [*scores, *samples]}
    assert {s.subset for s in of(samples, "both", "acc")} == {"demo_bank", "demo_general"}
    assert len(of(samples, "both", "acc")) == 12
    [group] = [s for s in scores if s.task == "both"]
    assert (group.stderr, group.n) == (None, 12)
