"""MMLU in several implementations: task files, prompts, what is computed afterwards, and the page's figures."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2
import pytest
import yaml
from scipy.stats import binomtest
from tokenizers import Tokenizer, models, pre_tokenizers

from pipeline import mmlu
from pipeline.catalog.entries import ENTRIES
from pipeline.command import Command
from pipeline.harnesses import lm_eval
from pipeline.report import ways_tables
from pipeline.report.model_score import ModelScore
from pipeline.report.ways import ways
from pipeline.results import Implementation, Sample, Score
from pipeline.stage import Source
from pipeline.stages import evaluate
from pipeline.suites import LmEvalSpec
from scripts import mmlu_tasks

DOC = {"question": "Who?", "subject": "us_foreign_policy", "choices": ["he", "she", "it", "they"], "answer": 2}
INSTRUCTION = "The following are multiple choice questions (with answers) about us foreign policy."
FOUR = "A. he\nB. she\nC. it\nD. they\nAnswer:"


class Loader(yaml.SafeLoader):
    pass


Loader.add_constructor("!function", lambda _, node: f"function {node.value}")


def template(way: str) -> dict:
    return yaml.load((mmlu.FOLDER / f"_{way.removeprefix('mmlu_')}_yaml").read_text(encoding="utf-8"), Loader)


def render(text: str) -> str:
    """As lm-eval does (utils.apply_template)."""
    env = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return env.from_string(text).render(**DOC)


def test_the_files_of_the_subjects_are_what_the_script_writes():
    there = {path: path.read_text(encoding="utf-8") for path in mmlu.FOLDER.glob("*/*.yaml")}
    assert there == mmlu_tasks.files()
    assert sorted(mmlu_tasks.SUBJECTS) == sorted(ENTRIES["mmlu"].subsets)


@pytest.mark.parametrize(
    ("way", "description", "text", "commit"),
    [
        (mmlu.ORIGINAL, f"{INSTRUCTION}\n\n", f"Who?\n{FOUR}", "hendrycks/test/pull/13"),
        (mmlu.HELM, f"{INSTRUCTION}\n\n\n", f"Question: Who?\n{FOUR}", "helm/tree/cab5d89"),
        (mmlu.HARNESS, "", f"Question: Who?\nChoices:\n{FOUR}", "lm-evaluation-harness/tree/e47e01b"),
    ],
)
def test_prompt_and_pinned_commit(way, description, text, commit):
    task = template(way)
    assert render(task.get("description", "")) == description
    assert render(task["doc_to_text"]) == text
    assert commit in task["metadata"]["source"]
    assert (task["num_fewshot"], task["fewshot_config"]) == (5, {"sampler": "first_n"})


def test_helm_writes_one_token():
    task = template(mmlu.HELM)
    assert task["output_type"] == "generate_until"
    assert task["generation_kwargs"]["max_gen_toks"] == 1
    assert render(task["doc_to_target"]) == "C"


def command(**spec: object) -> Command:
    spec |= {"harness": "lm_eval", "precision": "float32", "device": "cpu"}
    suite = LmEvalSpec.model_validate_json(json.dumps(spec))
    stage = evaluate.stage(suite, model=Source(Path("/m")), chat_template=False, offline=True)
    deps = {role: dep.path for role, dep in stage.deps.items() if isinstance(dep, Source)}
    return lm_eval.command(stage, Path("/out"), deps)


def after(command: Command, flag: str) -> str:
    return command.argv[command.argv.index(flag) + 1]


def test_our_tasks_are_found_through_the_include_path():
    assert after(command(tasks=["mmlu_helm"]), "--include_path") == str(mmlu.FOLDER)
    assert "--include_path" not in command(tasks=["mmlu"]).argv


def test_a_group_with_local_data_is_asked_by_the_suites_name(tmp_path):
    """By its path the suite hands its own list of tasks down to the group: TypeError in lm-eval 0.4.13."""
    found = command(tasks=[{"name": "mmlu", "path": str(tmp_path)}])
    assert after(found, "--tasks") == "pipeline_suite"
    assert after(found, "--include_path") == "/out"
    assert yaml.safe_load(found.files[Path("/out/suite.yaml")])["task"] == [
        {"group": "mmlu", "dataset_path": str(tmp_path)}
    ]


def test_several_include_paths_go_by_the_configuration_file(tmp_path):
    entry = {"name": "mmlu_original", "path": str(tmp_path), "args": {"shot_seed": 3}}
    found = command(tasks=[entry], include_path=str(tmp_path))
    config = yaml.safe_load(found.files[Path(after(found, "--config"))])
    assert config == {"include_path": [str(tmp_path), str(mmlu.FOLDER), "/out"]}
    assert yaml.safe_load(found.files[Path("/out/suite.yaml")])["task"][0]["shot_seed"] == 3


def test_an_order_is_asked_of_our_tasks_alone():
    tasks = [
        {"name": name, "args": {"shot_seed": seed}}
        for name, seed in (("mmlu", 1), ("mmlu_helm", 1), ("mmlu_original", "x"))
    ]
    suite = LmEvalSpec.model_validate_json(json.dumps({"harness": "lm_eval", "tasks": tasks}))
    first, second = lm_eval.problems(suite, chat_template=False)
    assert first.startswith("mmlu: shot_seed is known to mmlu_original, mmlu_helm")
    assert second == "mmlu_original: shot_seed should be a whole number, not 'x'"


# What takes the tokenizer.


@pytest.fixture
def out(tmp_path):
    """A tokenizer of one token a word, and two items as lm-eval leaves them."""
    words = ["[UNK]", "Answer", ":", "A", "B", "C", "D", ".", *"one two three four five six".split()]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "model").mkdir()
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    lines = []
    for at in (1, 0):  # in no order
        answers = ["A. one", "B. one two three", "C. one", "D. one"]
        arguments = {f"gen_args_{i}": {"arg_0": "Answer:", "arg_1": f" {text}"} for i, text in enumerate(answers)}
        lines.append(json.dumps({"doc_id": at, "arguments": arguments}))
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "samples_mmlu_harness_2023_anatomy_2026-01-01.jsonl").write_text("\n".join(lines))
    return tmp_path


ANSWERS = ("A. one", "B. one two three", "C. one", "D. one")


def likely(target: str, *values: float) -> Sample:
    return Sample(
        task="mmlu_harness_2023_anatomy", doc_key=target, scores={"acc": 0.0}, choices=ANSWERS,
        loglikelihoods=values, target=target,
    )  # fmt: skip


def score(task: str, metric: str, value: float, n: int = 2, **fields: object) -> Score:
    implementation = Implementation(harness="lm_eval", version="1", normalisation="none")
    return Score(task=task, harness="lm_eval", metric=metric, value=value, n=n, implementation=implementation, **fields)


def test_likelihood_by_tokens_is_another_metric_than_by_characters(out):
    # Tokens: 3, 5, 3, 3. -4/3 < -5/5: B is the likeliest per token, A in sum; of the second item A in both.
    samples = [likely("B. one two three", -4.0, -5.0, -9.0, -9.0), likely("B. one two three", -1.0, -5.0, -9.0, -9.0)]
    leaf = "mmlu_harness_2023_anatomy"
    scores = [score(leaf, "acc", 0.0, stderr=0.1), score("mmlu_harness_2023", "acc", 0.0, tasks=(leaf,))]
    found, items, remarks = mmlu.finish(out, out / "model", scores, samples)
    assert [item.scores for item in items] == [
        {"acc": 0.0, "acc_norm_tokens": 1.0},
        {"acc": 0.0, "acc_norm_tokens": 0.0},
    ]
    assert [(s.task, s.metric, s.value, s.stderr) for s in found[2:]] == [
        (leaf, "acc_norm_tokens", 0.5, None),
        ("mmlu_harness_2023", "acc_norm_tokens", 0.5, None),
    ]
    assert found[2].implementation.normalisation == "tokens"
    assert remarks == []


def test_no_tokenizer_is_a_remark(out):
    (out / "model" / "tokenizer.json").unlink()
    found, items, remarks = mmlu.finish(
        out, out / "model", [score("t", "acc", 0.0)], [likely("A. one", -1, -2, -3, -4)]
    )
    assert (len(found), items[0].scores) == (1, {"acc": 0.0})
    assert "no tokenizer.json" in remarks[0]


def test_letters_of_several_tokens_are_told(out):
    tokenizer = Tokenizer.from_file(str(out / "model" / "tokenizer.json"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(out / "model" / "tokenizer.json"))
    _, _, remarks = mmlu.finish(out, out / "model", [], [])
    assert "[2, 2, 2, 2] tokens" in remarks[0]


# The page.


def told(model: str, suite: str, task: str, metric: str, value: float, seed: int | None = None) -> ModelScore:
    implementation = Implementation(harness="lm_eval", version="1", shot_seed=seed)
    better = metric != mmlu.NONE_OF_LETTERS
    return ModelScore(
        model=model, suite=suite, task=task, harness="lm_eval", metric=metric, value=value, n=4, stderr=0.1,
        higher_is_better=better, implementation=implementation,
    )  # fmt: skip


def item(task: str, key: str, prompt: str = "p", **fields: object) -> Sample:
    return Sample(task=task, doc_key=key, question=key, prompt=prompt, **fields)


def page():
    scores = [
        told("small", "ways", "mmlu_original", "acc", 0.50),
        told("small", "ways", "mmlu_original", "none_of_letters", 0.25),
        told("small", "ways", "mmlu_helm", "exact_match", 0.25),
        told("large", "ways", "mmlu_original", "acc", 0.25),
        told("large", "ways", "mmlu_helm", "exact_match", 0.50),
        told("large", "ways", "mmlu_anatomy", "acc", 0.50),
        told("small", "order_3", "mmlu_original", "acc", 0.75, seed=3),
        told("small", "order_4", "mmlu_original", "acc", 0.25, seed=4),
        told("small", "ways", "hellaswag", "acc", 0.9),
    ]
    original = [
        item("mmlu_original_anatomy", "q1", "longer", scores={"acc": 1.0, "none_of_letters": 1.0}, target="x"),
        item("mmlu_original_anatomy", "q2", "p", scores={"acc": 0.0, "none_of_letters": 0.0}, answer="y", target="z"),
    ]
    helm = [item("mmlu_helm_anatomy", "q1", "asked so", scores={"exact_match": 0.0}, output=" Zygote", target="x")]
    own = [
        item("mmlu_anatomy", key, scores={"acc": right}, greedy=greedy)
        for key, right, greedy in (("q1", 1.0, (False,) * 4), ("q2", 0.0, (True, False, False, False)))
    ]
    samples = {
        "eval.ways.small": original + helm,
        "eval.ways.large": own,
        "eval.order_3.small": original,
        "eval.order_4.small": original,
    }
    found = ways(scores, samples)
    assert found
    return found


def test_ranks_and_flips():
    found = page()
    names = [(way.name, way.metric) for way in found.ways]
    assert names == [("mmlu_original", "acc"), ("mmlu_helm", "exact_match"), ("mmlu", "acc")]
    assert {(names[s.way][0], s.model): s.rank for s in found.standings} == {
        ("mmlu_original", "small"): 1, ("mmlu_helm", "small"): 2,
        ("mmlu_original", "large"): 2, ("mmlu_helm", "large"): 1, ("mmlu", "large"): 1,
    }  # fmt: skip
    (flip,) = found.flips
    assert (flip.ways, flip.models, flip.by_first, flip.by_second) == (
        (0, 1), ("small", "large"), (0.50, 0.25), (0.25, 0.50),
    )  # fmt: skip
    assert "hendrycks/test" in found.ways[0].source and "four letters" in found.ways[0].rule


def test_a_change_of_order_holds_only_where_both_differences_are_no_chance():
    def scores(model: str, original: int, helm: int) -> list[ModelScore]:
        return [
            told(model, "ways", "mmlu_original", "acc", original / 40),
            told(model, "ways", "mmlu_helm", "exact_match", helm / 40),
        ]

    def items(original: int, helm: int) -> list[Sample]:
        return [
            item(f"{task}_anatomy", f"q{number}", scores={metric: float(number < right)})
            for task, metric, right in (("mmlu_original", "acc", original), ("mmlu_helm", "exact_match", helm))
            for number in range(40)
        ]

    marks = {"a": (30, 10), "b": (20, 20), "c": (19, 21)}
    found = ways(
        [score for model, both in marks.items() for score in scores(model, *both)],
        {f"eval.ways.{model}": items(*both) for model, both in marks.items()},
    )
    assert found
    flips = {flip.models: flip for flip in found.flips}
    assert {models: flip.sure for models, flip in flips.items()} == {
        ("a", "b"): True, ("a", "c"): True, ("b", "c"): False,
    }  # fmt: skip
    assert [flip.models for flip in found.flips][-1] == ("b", "c")
    exact = binomtest(0, 10).pvalue  # ten items that only one of the two got right
    assert flips["a", "b"].p_values == pytest.approx((exact, exact))
    assert flips["b", "c"].p_values == (1.0, 1.0)
    first, *others = map(str, ways_tables.order_flips(found))
    assert first.startswith("Changes of order: 3. 2 of them hold: both differences have p < 0.05")
    assert "a is ahead of b (0.750 to 0.500, p 0.002)" in others[0]
    # Of other items nothing can be said.
    apart = ways(
        [score for model, both in marks.items() for score in scores(model, *both)],
        {
            "eval.ways.a": items(30, 10),
            "eval.ways.b": [s.model_copy(update={"doc_key": "x"}) for s in items(20, 20)[:1]],
        },
    )
    assert apart and not any(flip.sure for flip in apart.flips)


def test_subjects_without_the_group_are_taken_together():
    standing = next(s for s in page().standings if page().ways[s.way].name == "mmlu")
    assert (standing.value, standing.n, round(standing.stderr or 0, 3)) == (0.5, 2, 0.5)


def test_how_often_the_likeliest_token_is_no_letter():
    assert {(one.name, one.model): (one.share, one.n) for one in page().none_of_letters} == {
        ("mmlu_original", "small"): (0.5, 2),
        ("mmlu", "large"): (0.5, 2),
    }


def test_orders_of_the_examples():
    (orders,) = page().orders
    assert orders.values == {"file": 0.50, "3": 0.75, "4": 0.25}
    assert (orders.spread, orders.model, orders.n) == (0.5, "small", 2)


def test_one_question_in_all_prompts():
    found = page()
    assert found.question == "q1"  # all three ask it
    assert {one.name: (one.prompt, one.answers, one.right) for one in found.rendered} == {
        "mmlu_original": ("longer", {"small": ""}, {"small": True}),
        "mmlu_helm": ("asked so", {"small": " Zygote"}, {"small": False}),
        "mmlu": ("p", {"large": ""}, {"large": True}),
    }


def test_one_way_alone_is_no_page():
    assert ways([told("small", "ways", "mmlu_original", "acc", 0.5)], {}) is None
