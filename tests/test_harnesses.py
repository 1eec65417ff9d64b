"""Harness output as the real tools wrote it (trimmed captures in tests/fixtures): scores, samples, remarks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from pipeline import mmlu
from pipeline import samples as sample_file
from pipeline.errors import OutputError
from pipeline.harnesses import HARNESSES, evalscope_read, evalscope_samples, lm_eval_read
from pipeline.harnesses.evalscope_samples import prompt_pattern, split_choices
from pipeline.harnesses.lm_eval_samples import read_samples
from pipeline.results import Sample, Score, fingerprint, picked
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

MIXED_LM = LM_EVAL.model_copy(update={"tasks": ("hellaswag", "arc_challenge", "gsm8k", "mmlu_part")})
MIXED_ES = EVALSCOPE.model_copy(update={"datasets": ("hellaswag", "arc", "mmlu", "gsm8k")})


def read(spec: LmEvalSpec | EvalScopeSpec, folder: Path) -> Any:
    stage = evaluate.stage(spec, model=MODEL, chat_template=True, offline=True)
    return HARNESSES[spec.harness].read(folder, stage)


def collect(spec: LmEvalSpec | EvalScopeSpec, folder: Path) -> dict[str, Any]:
    stage = evaluate.stage(spec, model=MODEL, chat_template=True, offline=True)
    return stage.collect(folder, stage, {})


def of(samples: Iterable[Sample], task: str) -> list[Sample]:
    return [sample for sample in samples if sample.task == task]


def items(samples: Sequence[Sample], score: Score) -> list[Sample]:
    """The samples that a score is made of."""
    return [sample for task in score.tasks or (score.task,) for sample in of(samples, task)]


@pytest.mark.parametrize(
    ("spec", "folder"),
    [(LM_EVAL, "lm_eval"), (EVALSCOPE, "evalscope"), (MIXED_LM, "lm_eval_mixed"), (MIXED_ES, "evalscope_mixed")],
)
def test_samples_give_exactly_the_scores(spec: LmEvalSpec | EvalScopeSpec, folder: str) -> None:
    scores, samples, _ = read(spec, FIXTURES / folder)
    assert scores
    for score in scores:
        mine = items(samples, score)
        assert len(mine) == score.n, (score.task, score.metric)
        assert fmean(sample.scores[score.metric] for sample in mine) == pytest.approx(score.value, abs=6e-5)
        assert len({(sample.task, sample.doc_key) for sample in mine}) == score.n
        assert score.mean == "items"
        assert score.implementation.data == fingerprint(mine)
    leaves = {(score.task, score.metric) for score in scores if not score.tasks}
    assert {(sample.task, metric) for sample in samples for metric in sample.scores} == leaves


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
    assert not [name for s in samples for name in s.scores if "bleu" in name.lower()]
    assert not [s for s in scores if "bleu" in s.metric.lower()]
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
    assert evalscope_read._metric_name({"identity": identity, "legacy_name": None}, spellings) == expected
    assert evalscope_read._metric_name({"identity": identity, "legacy_name": "own"}, [*spellings, "own"]) in (
        "own",
        expected,
    )


def test_one_item_has_one_key_in_both_harnesses() -> None:
    _, left, _ = read(LM_EVAL, FIXTURES / "lm_eval")
    _, right, _ = read(EVALSCOPE, FIXTURES / "evalscope")
    for subset in ("bank", "general"):
        keys = {sample.doc_key for sample in of(left, f"demo_{subset}")}
        assert len(keys) == 6
        assert keys <= {sample.doc_key for sample in of(right, f"general_mcq/{subset}")}


@pytest.mark.parametrize(
    ("left", "right", "count"),
    [
        ("hellaswag", "hellaswag", 5), ("arc_challenge", "arc", 5), ("gsm8k", "gsm8k", 5),
        ("mmlu_anatomy", "mmlu/anatomy", 4), ("mmlu_philosophy", "mmlu/philosophy", 5),
    ],
)  # fmt: skip
def test_public_benchmarks_pair_item_by_item(left: str, right: str, count: int) -> None:
    """Both were asked the first items of the same files, four to six of them."""
    ours = of(read(MIXED_LM, FIXTURES / "lm_eval_mixed")[1], left)[:count]
    theirs = of(read(MIXED_ES, FIXTURES / "evalscope_mixed")[1], right)[:count]
    assert len(ours) == len(theirs) == count
    assert [sample.doc_key for sample in ours] == [sample.doc_key for sample in theirs]
    assert [sample.question_sha256 for sample in ours] == [sample.question_sha256 for sample in theirs]
    assert [sample.choices for sample in ours] == [sample.choices for sample in theirs]
    assert fingerprint(ours) == fingerprint(theirs)


def test_an_item_by_likelihood_shows_its_choices() -> None:
    _, samples, _ = read(MIXED_LM, FIXTURES / "lm_eval_mixed")
    for sample in (*of(samples, "hellaswag"), *of(samples, "mmlu_anatomy")):
        assert len(sample.choices) == len(sample.loglikelihoods) == len(sample.greedy) == 4
        assert all(value < 0 for value in sample.loglikelihoods)
        best = max(range(4), key=sample.loglikelihoods.__getitem__)
        assert sample.answer == sample.choices[best]
        assert (sample.scores["acc"] == 1.0) is (sample.answer == sample.target)
        assert sample.question in sample.prompt or sample.task == "hellaswag"
        assert (sample.output, sample.answers) == ("", {})
    # MMLU's scored continuations are letters: the texts of the choices are shown.
    assert len(of(samples, "mmlu_anatomy")[0].choices[0]) > 10
    assert of(samples, "mmlu_anatomy")[0].facts["subject"] == "anatomy"
    assert of(samples, "arc_challenge")[0].facts["id"] == "Mercury_7175875"


def test_a_written_answer_is_one_item_with_a_score_per_rule() -> None:
    _, samples, _ = read(MIXED_LM, FIXTURES / "lm_eval_mixed")
    found = of(samples, "gsm8k")
    assert [sample.target for sample in found] == ["18", "3", "70000", "540", "20"]
    for sample in found:
        assert set(sample.scores) == {"exact_match,strict-match", "exact_match,flexible-extract"}
        assert set(sample.answers) == {"strict-match", "flexible-extract"}
        assert "[invalid]" not in sample.answers.values()
        assert sample.answer == sample.answers["strict-match"]
        assert sample.output and sample.loglikelihoods == () and sample.choices == ()
        assert sample.prompt.count("####") == 2  # two examples and no answer


def test_evalscope_items_are_taken_out_of_their_prompts() -> None:
    _, samples, _ = read(MIXED_ES, FIXTURES / "evalscope_mixed")
    first = of(samples, "gsm8k")[0]
    assert first.question.startswith("Janet") and first.question.endswith("farmers' market?")
    assert "Here are some examples" in first.prompt and json.loads(first.prompt)[-1]["role"] == "user"
    for sample in (*of(samples, "arc"), *of(samples, "mmlu/anatomy")):
        assert len(sample.choices) == 4
        assert sample.target in "ABCD"
        right = picked(sample.answer, sample.choices) == picked(sample.target, sample.choices)
        assert right is (sample.scores["accuracy"] == 1.0)
        assert sample.output


def test_implementations_of_a_group_and_of_its_members() -> None:
    scores, _, _ = read(MIXED_LM, FIXTURES / "lm_eval_mixed")
    found = {(score.task, score.metric): score for score in scores}
    group = found["mmlu_part", "acc"]
    assert group.tasks == ("mmlu_anatomy", "mmlu_philosophy")
    assert (group.n, group.implementation.n_shot, group.implementation.scoring) == (10, 0, "multiple_choice/none")
    assert group.stderr == pytest.approx(
        # lm-eval's pooled error, of the members' own: sqrt(sum((n - 1) n se^2) / (sum n - k) / sum n)
        (
            sum(
                (n - 1) * n * (found[task, "acc"].stderr or 0) ** 2 for task, n in zip(group.tasks, (4, 6), strict=True)
            )
            / 8
            / 10
        )
        ** 0.5
    )
    assert found["hellaswag", "acc"].implementation.normalisation == "none"
    assert found["hellaswag", "acc_norm"].implementation.normalisation == "characters"
    gsm8k = found["gsm8k", "exact_match,strict-match"].implementation
    assert (gsm8k.scoring, gsm8k.normalisation) == ("generate_until/strict-match", "strict-match")
    assert (gsm8k.n_shot, gsm8k.shot_seed, gsm8k.backend) == (2, 42, "hf")
    assert found["hellaswag", "acc"].implementation.shot_seed is None
    prompts = {score.implementation.prompt for score in scores}
    assert len(prompts) == 6  # hellaswag, arc, gsm8k, two subjects (their descriptions differ) and both together
    assert all(len(prompt) == 12 for prompt in prompts)


def test_the_hash_of_a_prompt_knows_its_parts(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "lm_eval_mixed", tmp_path / "out")
    [path] = (tmp_path / "out").rglob("results_*.json")
    told = json.loads(path.read_text())

    def prompt(task: str) -> str:
        path.write_text(json.dumps(told))
        scores, _, _ = read(MIXED_LM, tmp_path / "out")
        return next(score.implementation.prompt for score in scores if score.task == task)

    before = prompt("arc_challenge"), prompt("gsm8k")
    told["configs"]["arc_challenge"]["fewshot_delimiter"] = "###"  # no examples, no delimiter
    told["configs"]["gsm8k"]["fewshot_delimiter"] = "###"
    assert prompt("arc_challenge") == before[0]
    assert prompt("gsm8k") != before[1]
    told["configs"]["arc_challenge"]["doc_to_text"] += " "
    assert prompt("arc_challenge") != before[0]
    told["configs"]["arc_challenge"]["process_docs"] = "<function f at 0x7f01>"
    address = prompt("arc_challenge")
    told["configs"]["arc_challenge"]["process_docs"] = "<function f at 0x7f02>"
    assert prompt("arc_challenge") == address


@pytest.mark.parametrize(
    ("value", "mean"), [((0.25 * 4 + 0.5 * 6) / 10, "items"), ((0.25 + 0.5) / 2, "tasks"), (0.9, "none")]
)
def test_the_figures_tell_how_a_group_was_summed_up(tmp_path: Path, value: float, mean: str) -> None:
    shutil.copytree(FIXTURES / "lm_eval_mixed", tmp_path / "out")
    [path] = (tmp_path / "out").rglob("results_*.json")
    told = json.loads(path.read_text())
    told["results"]["mmlu_anatomy"]["acc,none"], told["results"]["mmlu_philosophy"]["acc,none"] = 0.25, 0.5
    told["results"]["mmlu_part"]["acc,none"] = value
    path.write_text(json.dumps(told))
    [group] = [score for score in read(MIXED_LM, tmp_path / "out")[0] if score.task == "mmlu_part"]
    assert group.mean == mean


def test_the_whole_of_several_subsets_sums_them_up() -> None:
    scores, _, _ = read(MIXED_ES, FIXTURES / "evalscope_mixed")
    found = {score.task: score for score in scores}
    assert set(found["mmlu"].tasks) == {"mmlu/anatomy", "mmlu/philosophy"}
    assert ("evalscope", "mmlu", found["mmlu"].metric) in mmlu.RULES, "the page on MMLU says what counts as right"
    assert (found["mmlu"].n, found["mmlu/anatomy"].n, found["arc"].tasks) == (10, 5, ())
    assert (found["mmlu"].implementation.n_shot, found["gsm8k"].implementation.n_shot) == (0, 2)
    assert found["gsm8k"].implementation.prompt != found["arc"].implementation.prompt


def test_a_metric_of_one_subset_alone_still_meets_its_samples(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "evalscope_mixed", tmp_path / "out")
    [path] = (tmp_path / "out" / "reports").rglob("mmlu.json")
    report = json.loads(path.read_text())
    [metric] = report["metrics"]
    metric["categories"] = [c for c in metric["categories"] if c["subsets"][0]["name"] == "anatomy"]
    metric |= {key: metric["categories"][0]["subsets"][0][key] for key in ("score", "num")}
    path.write_text(json.dumps(report))
    scores, samples, _ = read(MIXED_ES, tmp_path / "out")
    found = {score.task: score for score in scores}
    assert (found["mmlu"].tasks, found["mmlu"].n) == (("mmlu/anatomy",), 5)
    assert found["mmlu/anatomy"].value == fmean(s.scores[found["mmlu"].metric] for s in of(samples, "mmlu/anatomy"))


TEMPLATE = "Choose one of {letters}.\n\n{question}\n\n{choices}"


@pytest.mark.parametrize(
    ("prompt", "question", "choices"),
    [
        ("Choose one of A,B.\n\nWhy?\n\nA) one\nB) two", "Why?", ["one", "two"]),
        (
            "Choose one of A,B.\n\nWhy?\n\nBecause?\n\nA) one\nB) two\nlines\n",
            "Why?\n\nBecause?",
            ["one", "two\nlines"],
        ),
        (
            "Examples:\n\nQ\nA) x\nB) y\nANSWER: A\n\nChoose one of A,B.\n\nWhy?\n\nA) one\nB) two",
            "Why?",
            ["one", "two"],
        ),
        ("Choose one of A,B,C.\n\nA) or B)?\n\nA) A) it is\nB) \nC) c", "A) or B)?", ["A) it is", "", "c"]),
        ("Choose one of A,B.\n\n\n\nA) \nB) two", "", ["", "two"]),
    ],
)
def test_prompts_come_apart(prompt: str, question: str, choices: list[str]) -> None:
    pattern = prompt_pattern({"prompt_template": TEMPLATE, "few_shot_num": 1}, [prompt])
    assert pattern
    match = pattern.fullmatch(prompt)
    assert match
    assert match["question"].strip() == question
    assert split_choices(match["choices"]) == choices


def test_examples_end_where_they_end_in_all_prompts() -> None:
    benchmark = {
        "prompt_template": "{question}\nUse \\boxed{{}}.",
        "few_shot_prompt_template": "Examples:\n\n{fewshot}\n\n{question}\nUse \\boxed{{}}.",
        "few_shot_num": 2,
    }
    questions = ["How many?", "Why?", "One line.\n\nAnother after a blank one: how many?"]
    prompts = [f"Examples:\n\nQ1\n\nA1\n\nQ2\n\nA2\n\n{question}\nUse \\boxed{{}}." for question in questions]
    pattern = prompt_pattern(benchmark, prompts)
    assert pattern
    assert [match["question"] for prompt in prompts if (match := pattern.fullmatch(prompt))] == questions


@pytest.mark.parametrize("template", ["{question}\n{choices}", "Q: {question}\n{choices}"])
def test_templates_that_begin_with_the_question(template: str) -> None:
    plain = template.format(question="Which?\n\nAny?", choices="A) red\nB) green")
    for shots, prompt in ((0, plain), (2, f"Examples:\n\nQ: One\nA) x\nB) y\nANSWER: A\n\n{plain}")):
        pattern = prompt_pattern(
            {"prompt_template": template, "few_shot_num": shots}, [prompt, prompt.replace("\n\nAny?", "")]
        )
        assert pattern
        match = pattern.fullmatch(prompt)
        assert match
        assert (match["question"], match["choices"]) == ("Which?\n\nAny?", "A) red\nB) green")


def test_a_prompt_without_a_template_is_its_own_question(tmp_path: Path) -> None:
    assert prompt_pattern({"prompt_template": None}, ["What?"]) is None
    assert prompt_pattern({"prompt_template": "no place"}, ["What?"]) is None
    shutil.copytree(FIXTURES / "evalscope", tmp_path / "out")
    [path] = (tmp_path / "out").rglob("task_config.yaml")
    path.write_text(path.read_text().replace("{question}", "{query}"))
    _, samples, _ = read(EVALSCOPE, tmp_path / "out")
    assert len({sample.doc_key for sample in samples}) == len(samples)
    assert samples[0].choices == ()


def test_a_failed_judge_is_no_wrong_answer(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "evalscope_mixed", tmp_path / "out")
    [path] = (tmp_path / "out").rglob("arc_ARC-Challenge.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["sample_score"]["score"]["status"] = "parse_error"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, samples, remarks = read(MIXED_ES, tmp_path / "out")
    assert sum(not sample.scores for sample in of(samples, "arc")) == 1
    assert remarks == ["arc: 1 samples have no score (a judge or a request failed); not counted"]


def line(**fields: Any) -> dict[str, Any]:
    given = {
        "doc_id": 0, "doc": {"question": "Who?"}, "target": "0", "filter": "none", "metrics": ["acc"], "acc": 1.0,
        "arguments": {"gen_args_0": {"arg_0": "Who?", "arg_1": " I"}, "gen_args_1": {"arg_0": "Who?", "arg_1": " you"}},
        "resps": [[["-1.5", "True"]], [["-inf", "False"]]], "filtered_resps": [["-1.5", "True"], ["-inf", "False"]],
    }  # fmt: skip
    return given | fields


def one(tmp_path: Path, *lines: dict[str, Any]) -> Sample:
    path = tmp_path / "samples_t_1.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    [sample] = read_samples(path, "t")
    return sample


def test_a_likelihood_that_is_no_number_is_no_score(tmp_path: Path) -> None:
    """lm-eval takes the first NaN for the largest: a model that overflows would answer A to everything."""
    with pytest.raises(OutputError, match=r"t: item 0 has a likelihood that is no number \(NaN\).*precision"):
        one(tmp_path, line(resps=[[["-1.5", "True"]], [["nan", "False"]]]))


def test_other_shapes_of_lm_eval_items(tmp_path: Path) -> None:
    plain = one(tmp_path, line())
    assert (plain.choices, plain.loglikelihoods, plain.greedy) == (("I", "you"), (-1.5, float("-inf")), (True, False))
    assert (plain.target, plain.answer) == ("I", "I")
    # A choice that is asked a second time without the question (acc_mutual_info).
    asked = [(context, choice) for context in ("Who?", "") for choice in (" I", " you")]
    again = {f"gen_args_{i}": {"arg_0": context, "arg_1": choice} for i, (context, choice) in enumerate(asked)}
    resps = [[["-1.5", "True"]], [["-2.0", "False"]], [["-0.1", "False"]], [["-9.0", "False"]]]
    twice = one(tmp_path, line(arguments=again, resps=resps))
    assert (twice.choices, twice.loglikelihoods, twice.answer) == (("I", "you"), (-1.5, -2.0), "I")
    assert twice.doc_key == plain.doc_key
    # One continuation after several contexts (winogrande): the options are in the data.
    contexts = {f"gen_args_{i}": {"arg_0": f"context {i}", "arg_1": " is tall"} for i in (0, 1)}
    doc = {"sentence": "_ is tall", "option1": "Ann", "option2": "Bob", "answer": "1"}
    wino = one(tmp_path, line(arguments=contexts, doc=doc))
    assert (wino.choices, wino.answer, wino.question) == (("Ann", "Bob"), "Ann", "_ is tall")
    # Five letters asked of four options and an empty one: which letter is which option is not told.
    letters = {f"gen_args_{i}": {"arg_0": "Who?", "arg_1": f" {letter}"} for i, letter in enumerate("ABCDE")}
    doc = {"question": "Who?", "A": "I", "B": "you", "C": "", "D": "he", "E": "she", "answer": "E"}
    gap = one(
        tmp_path, line(arguments=letters, doc=doc, resps=[[[str(-n), "False"]] for n in (4, 3, 5, 2, 1)], target="4")
    )
    assert (gap.choices, gap.target, gap.answer, len(gap.loglikelihoods)) == (tuple("ABCDE"), "E", "E", 5)
    # A last word that greedy decoding would not write (lambada).
    last = {"gen_args_0": {"arg_0": "The last", "arg_1": " word"}}
    lambada = one(
        tmp_path, line(arguments=last, resps=[[["-3.0", "False"]]], target=" word", doc={"text": "The last word"})
    )
    assert (lambada.choices, lambada.answer, lambada.target) == (("word",), "", "word")
    # Perplexities have no number of their own for an item.
    text = {"gen_args_0": {"arg_0": "Some text"}}
    rolling = one(
        tmp_path, line(arguments=text, resps=[["-123.4"]], metrics=["word_perplexity"], word_perplexity=[-1.0, 2])
    )
    assert rolling.scores == {}
    # Letters that are written, of several right ones.
    stop = {"gen_args_0": {"arg_0": "Which?", "arg_1": {"until": []}}}
    bank = {"question": "Which?", "A": "red", "B": "green", "C": "blue", "answer": "A,C"}
    several = one(
        tmp_path, line(arguments=stop, resps=[["A and C"]], filtered_resps=["AC"], target="A,C", doc=bank, acc=True)
    )
    assert (several.target, several.answer, several.scores) == ("A,C", "AC", {"acc": 1.0})
    record = {
        "index": 0, "target": ["A", "C"], "messages": [{"role": "user", "content": "Which?\nA) red\nB) green\nC) blue"}],
        "sample_score": {"score": {"value": {}}},
    }  # fmt: skip
    pattern = prompt_pattern({"prompt_template": "{question}\n{choices}"}, [])
    assert evalscope_samples._sample(record, "bank", pattern).doc_key == several.doc_key


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
    ("spec", "folder", "name", "message"),
    [
        (LM_EVAL, "lm_eval", "results_*.json", "cut or no JSON"),
        (LM_EVAL, "lm_eval", "samples_demo_bank*.jsonl", "line 6: cut or no JSON"),
        (EVALSCOPE, "evalscope", "general_mcq.json", "cut or no JSON"),
        (EVALSCOPE, "evalscope", "general_mcq_bank.jsonl", "line 8: cut or no JSON"),
        (EVALSCOPE, "evalscope", "task_config.yaml", "no YAML"),
    ],
)
def test_cut_output_is_named(
    tmp_path: Path, spec: LmEvalSpec | EvalScopeSpec, folder: str, name: str, message: str
) -> None:
    shutil.copytree(FIXTURES / folder, tmp_path / "out")
    [path] = (tmp_path / "out").rglob(name)
    end = b": [" if path.suffix == ".yaml" else b""
    path.write_bytes(path.read_bytes()[:-30] + end)
    with pytest.raises(OutputError, match=f"{path.name}.*{message}") as caught:
        collect(spec, tmp_path / "out")
    assert "run again" in str(caught.value)
    assert not list(tmp_path.rglob(sample_file.FILE))


@pytest.mark.parametrize(
    ("spec", "folder", "name", "message"),
    [
        (LM_EVAL, "lm_eval", "samples_demo_general*.jsonl", "cut: holds 5 of 6 items"),
        (EVALSCOPE, "evalscope", "general_mcq_bank.jsonl", "cut: holds 7 of 8 items"),
    ],
)
def test_lost_items_are_named(
    tmp_path: Path, spec: LmEvalSpec | EvalScopeSpec, folder: str, name: str, message: str
) -> None:
    shutil.copytree(FIXTURES / folder, tmp_path / "out")
    [path] = (tmp_path / "out").rglob(name)
    path.write_text("".join(f"{text}\n" for text in path.read_text().split("\n")[:-2]))
    with pytest.raises(OutputError, match=f"{path.name}: {message}"):
        collect(spec, tmp_path / "out")
    path.unlink()
    with pytest.raises(OutputError, match=f"{path.name}: (missing|cut: holds 0)"):
        collect(spec, tmp_path / "out")


@pytest.mark.parametrize(
    ("spec", "folder", "name", "old"),
    [
        (LM_EVAL, "lm_eval", "results_*.json", '"n-samples"'),
        (LM_EVAL, "lm_eval", "samples_demo_bank*.jsonl", '"arguments"'),
        (EVALSCOPE, "evalscope", "general_mcq.json", '"categories"'),
        (EVALSCOPE, "evalscope", "general_mcq_bank.jsonl", '"sample_score"'),
    ],
)
def test_output_of_another_form_is_named(
    tmp_path: Path, spec: LmEvalSpec | EvalScopeSpec, folder: str, name: str, old: str
) -> None:
    shutil.copytree(FIXTURES / folder, tmp_path / "out")
    [path] = (tmp_path / "out").rglob(name)
    path.write_text(path.read_text().replace(old, '"other"', 1))
    with pytest.raises(OutputError, match=f"{path.name}: not of the expected form .KeyError: '"):
        collect(spec, tmp_path / "out")


def test_items_are_kept_beside_the_result(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "lm_eval", tmp_path / "out")
    (tmp_path / "out" / evaluate.CACHE).mkdir()
    result = collect(LM_EVAL, tmp_path / "out")
    assert result["samples"] == 12
    assert result["remarks"] == []
    assert sample_file.read(tmp_path / "out" / sample_file.FILE, 12) == read(LM_EVAL, FIXTURES / "lm_eval")[1]
    assert not (tmp_path / "out" / evaluate.CACHE).exists()


@pytest.mark.parametrize(
    ("fields", "offline", "own"),
    [
        ({"tasks": ({"name": "arc_challenge", "path": Path("data/arc")},)}, True, True),
        ({"tasks": ({"name": "arc_challenge", "path": Path("data/arc")}, "piqa")}, False, True),
        # What only the shared cache holds could not be found.
        ({"tasks": ({"name": "arc_challenge", "path": Path("data/arc")}, "piqa")}, True, False),
        ({"tasks": ({"name": "piqa", "path": Path("data/piqa.jsonl")},)}, True, False),
        ({"tasks": ("piqa",)}, False, False),
    ],
)
def test_folders_of_data_get_a_cache_of_their_own(fields: dict[str, Any], offline: bool, own: bool) -> None:
    spec = LmEvalSpec.model_validate({"harness": "lm_eval", "precision": "float32", "device": "cpu", **fields})
    stage = evaluate.stage(spec, model=MODEL, chat_template=True, offline=offline)
    deps = {role: dep.path for role, dep in stage.deps.items()}
    env = stage.command(stage, Path("out"), deps).env
    assert env.get("HF_DATASETS_CACHE") == ("out/datasets" if own else None)


@pytest.mark.slow
def test_an_edited_data_file_is_seen(tmp_path: Path) -> None:
    """What the cache of our own is for: with the shared one, datasets answers with what the file held before."""
    folder = tmp_path / "arc"
    folder.mkdir()
    config = {"config_name": "main", "data_files": [{"split": "test", "path": "test.jsonl"}]}
    (folder / "README.md").write_text(f"---\nconfigs: [{json.dumps(config)}]\n---\n")
    script = "import datasets, sys; print(len(datasets.load_dataset(sys.argv[1], 'main')['test']))"

    def rows(cache: str) -> str:
        env = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / cache), "HF_HUB_OFFLINE": "1"}
        return subprocess.run(
            [sys.executable, "-c", script, str(folder)], env=env, capture_output=True, text=True, check=True
        ).stdout.strip()

    (folder / "test.jsonl").write_text('{"question": "one"}\n' * 3)
    assert rows("shared") == "3"
    (folder / "test.jsonl").write_text('{"question": "two"}\n' * 2)
    assert rows("shared") == "3", "datasets now notices edited files: evaluate._command can do without its own cache"
    assert rows("own") == "2"


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
    stamps = old.stem.removeprefix("results_"), "2026-11-22T00-00-00.000000"
    for path in old.parent.glob("samples_*.jsonl"):
        shutil.copy(path, path.with_name(path.name.replace(*stamps)))
    old.with_name(f"results_{stamps[1]}.json").write_text(json.dumps(value))
    scores, samples, _ = read(LM_EVAL, tmp_path / "out")
    assert scores[0].value == 0.125
    assert len(samples) == 12


def test_the_group_that_holds_a_suite_together_is_no_score(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "lm_eval", tmp_path / "out")
    [path] = (tmp_path / "out").rglob("results_*.json")
    value = json.loads(path.read_text())
    both = {"acc,none": 0.5, "acc_stderr,none": "N/A", "sample_len": 12}
    value["results"] |= {"both": both, lm_eval_read.SUITE: {"acc,none": 0.1}}
    value["group_subtasks"] = {"both": ["demo_bank", "demo_general"], lm_eval_read.SUITE: ["both"]}
    path.write_text(json.dumps(value))
    scores, _, _ = read(LM_EVAL, tmp_path / "out")
    assert lm_eval_read.SUITE not in {score.task for score in scores}
    [group] = [score for score in scores if score.task == "both"]
    assert (group.stderr, group.n, group.tasks) == (None, 12, ("demo_bank", "demo_general"))
