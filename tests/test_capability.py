"""What a harness cannot do is refused before anything starts: everything at once, each with its remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.capability import Installed, problems, remarks
from pipeline.machine import Machine, read_machine
from pipeline.recipe import Recipe
from pipeline.recipe_file import load_recipe
from pipeline.resolve import resolve
from tests.golden import ROOT

CPU = Machine(system="Linux", cpus=2, memory_gb=8)
GPUS = read_machine(ROOT / "tests" / "machines" / "gpu_80gb.json")
JUDGE = {"url": "https://judge.example/v1", "model": "judge"}
SERVED = {"url": "http://127.0.0.1:9/v1", "served_as": "tuned"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("cache"))


def recipe(*suites: Mapping[str, object], **sections: object) -> Recipe:
    text = json.dumps({"name": "r", "model": {"path": "m"}, "eval": suites, **sections})
    return resolve(Recipe.model_validate_json(text), CPU)[0]


def lm_eval(*tasks: object, **settings: object) -> dict[str, object]:
    return {"harness": "lm_eval", "tasks": tasks, **settings}


def evalscope(*datasets: object, **settings: object) -> dict[str, object]:
    return {"harness": "evalscope", "datasets": datasets, **settings}


def told(
    installed: Installed, *suites: Mapping[str, object], env: Mapping[str, str] | None = None, **more: object
) -> list[str]:
    return list(problems(recipe(*suites, **more), installed, env or {}))


ROW = json.dumps(dict.fromkeys("question choices answer answerKey ctx_a ctx_b endings label activity_label".split(), 1))


def write(path: Path, text: str = ROW) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_what_both_have(installed: Installed) -> None:
    names = (
        "hellaswag arc_easy arc_challenge mmlu piqa winogrande boolq gsm8k ceval cmmlu bbh race trivia_qa truthful_qa"
    )
    assert told(installed, lm_eval(*names.split(), "openbookqa"), evalscope(*names.split())) == []


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_benchmark_of_the_recipes_exists(path: Path, installed: Installed) -> None:
    asked = resolve(load_recipe(path, env={}), GPUS)[0]
    assert list(problems(asked, installed, {})) == []


UNKNOWN = [
    (
        evalscope("openbookqa"),
        ["EvalScope 1.", "has no such", "lm-eval has it", "`harness: lm_eval`", "nearest in EvalScope"],
    ),
    (lm_eval("chinese_simpleqa"), ["lm-eval 0.4.", "EvalScope has it", "`harness: evalscope`"]),
    (lm_eval("helaswag"), ["nearest in lm-eval: hellaswag"]),
    (evalscope("ceval-valid"), ["it is called ceval here"]),
]


@pytest.mark.parametrize(("suite", "words"), UNKNOWN)
def test_a_pair_that_does_not_exist(suite: dict[str, object], words: list[str], installed: Installed) -> None:
    (text,) = told(installed, suite)
    assert text.startswith("eval[0].")
    assert [word for word in words if word not in text] == []


def test_patterns_files_tags_and_own_tasks_are_known(installed: Installed, tmp_path: Path) -> None:
    write(tmp_path / "one.yaml", "task: mine\noutput_type: multiple_choice\ndataset_path: json\n")
    own = lm_eval("mine", "hellaswag", include_path=str(tmp_path))
    assert told(installed, own, {**lm_eval("mmlu_*", "ai2_arc", str(tmp_path / "one.yaml")), "name": "b"}) == []
    assert len(told(installed, lm_eval("mine", "hellaswag"))) == 1


def test_own_banks_are_known(installed: Installed, tmp_path: Path) -> None:
    write(tmp_path / "q.jsonl", '{"id": 1, "question": "Which?", "choices": ["this", "that"], "answer": "B"}\n')
    assert (
        told(installed, lm_eval("mine"), evalscope("mine"), benchmarks={"mine": {"path": str(tmp_path / "q.jsonl")}})
        == []
    )


def test_likelihoods_over_an_api(installed: Installed, tmp_path: Path) -> None:
    (text,) = told(installed, lm_eval("hellaswag", "gsm8k"), evalscope("hellaswag"), model=SERVED)
    assert text.startswith("eval[0].tasks.hellaswag: is scored by log-likelihoods, which a chat endpoint does not give")
    plain = {**SERVED, "tokenizer": str(tmp_path)}
    assert told(installed, lm_eval("hellaswag", chat_template=False), model=plain) == []
    assert len(told(installed, lm_eval("hellaswag"), model=plain)) == 1


def test_judge(installed: Installed) -> None:
    (text,) = told(installed, evalscope("chinese_simpleqa"))
    assert "judge: {url" in text
    (text,) = told(installed, evalscope("chinese_simpleqa", judge=JUDGE))
    assert "OPENAI_API_KEY" in text
    assert told(installed, evalscope("chinese_simpleqa", judge=JUDGE), env={"OPENAI_API_KEY": "k"}) == []
    near = {**JUDGE, "url": "http://127.0.0.1:8000/v1"}
    assert told(installed, evalscope("chinese_simpleqa", judge=near)) == []


def test_code_is_run_only_if_allowed(installed: Installed) -> None:
    both = told(installed, lm_eval("humaneval"), evalscope("humaneval"))
    assert [text.split(":")[0] for text in both] == ["eval[0].tasks.humaneval", "eval[1].datasets.humaneval"]
    assert all("unsafe_code: true" in text for text in both)
    assert told(installed, lm_eval("humaneval", unsafe_code=True), evalscope("humaneval", unsafe_code=True)) == []
    assert told(installed, evalscope("humaneval", extra_args={"sandbox": {"enabled": True}})) == []


def test_examples_that_are_not_there(installed: Installed, tmp_path: Path) -> None:
    write(tmp_path / "hellaswag" / "validation.jsonl")
    write(
        tmp_path / "gsm8k" / "README.md",
        "---\nconfigs:\n- config_name: main\n  data_files: [{split: test, path: t.jsonl}]\n---\n",
    )
    write(tmp_path / "gsm8k" / "t.jsonl")
    root = {"data_root": str(tmp_path)}
    assert told(installed, lm_eval("hellaswag", **root), evalscope("hellaswag", **root)) == []
    (text,) = told(installed, lm_eval("hellaswag", num_fewshot=5, **root))
    assert "5 examples" in text
    assert "`num_fewshot: 0`" in text
    few = {"name": "hellaswag", "args": {"few_shot_num": 2}}
    (text,) = told(installed, evalscope(few, **root))
    assert "few_shot_num can only be 0" in text
    both = told(installed, lm_eval("gsm8k", **root), evalscope("gsm8k", **root))
    assert [text.split(":")[0] for text in both] == ["eval[0].tasks.gsm8k", "eval[1].datasets.gsm8k"], (
        "both ask 4 or 5 shots"
    )
    none = {"name": "gsm8k", "args": {"few_shot_num": 0}}
    assert told(installed, lm_eval("gsm8k", num_fewshot=0, **root), evalscope(none, **root)) == []


def test_folders_that_lack_what_is_asked(installed: Installed, tmp_path: Path) -> None:
    write(
        tmp_path / "arc" / "README.md",
        "---\nconfigs:\n- config_name: ARC-Challenge\n  data_files: [{split: test, path: t.jsonl}]\n---\n",
    )
    write(tmp_path / "arc" / "t.jsonl")
    write(tmp_path / "mmlu" / "test.jsonl")
    (tmp_path / "piqa").mkdir()
    root = {"data_root": str(tmp_path)}
    assert told(installed, lm_eval("arc_challenge", **root), evalscope("arc_challenge", **root)) == []
    (text,) = told(installed, lm_eval("arc_challenge", data_root=str(tmp_path / "nowhere")))
    assert text == f"eval[0].data_root: {tmp_path / 'nowhere'}: no such folder"
    easy = told(installed, lm_eval("arc_easy", **root), evalscope("arc_easy", **root))
    assert [("ARC-Easy" in text, "ARC-Challenge" in text) for text in easy] == [(True, True)] * 2
    (text,) = told(installed, lm_eval("mmlu", **root))
    assert "and 54 more" in text
    assert all("no data files" in text for text in told(installed, lm_eval("piqa", **root), evalscope("piqa", **root)))


def test_columns(installed: Installed, tmp_path: Path) -> None:
    """The two harnesses read piqa out of differently named columns: the second would end with a KeyError, late."""
    write(tmp_path / "piqa" / "validation.jsonl", '{"goal": "g", "sol1": "a", "sol2": "b", "label": 0}\n')
    (text,) = told(installed, lm_eval("piqa", data_root=str(tmp_path)), evalscope("piqa", data_root=str(tmp_path)))
    assert text.startswith("eval[1].datasets.piqa: ")
    assert "has the columns goal, label, sol1, sol2, but EvalScope reads question, choices, answer; " in text


def test_limit_is_told(installed: Installed) -> None:
    asked = recipe(lm_eval("ceval", "gsm8k", limit=100), evalscope("ceval", "mmlu_anatomy", limit=5))
    assert list(remarks(asked, installed)) == [
        "eval[0].tasks.ceval-valid: limit 100 is for each of 52 tasks: up to 5,200 questions",
        "eval[1].datasets.ceval: limit 5 is for each of 52 subsets: up to 260 questions",
    ]
    assert list(remarks(recipe(lm_eval("ceval")), installed)) == []


def test_all_at_once(installed: Installed) -> None:
    found = told(
        installed, lm_eval("nope", "humaneval", "hellaswag"), evalscope("openbookqa", "chinese_simpleqa"), model=SERVED
    )
    assert len(found) == 5
