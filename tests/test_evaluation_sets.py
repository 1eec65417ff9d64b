"""Which local data the evaluations of a recipe read: given paths, task files of the user's own, and what is not here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import EvaluationSet
from pipeline.evaluation_sets import local_sets, unchecked
from pipeline.machine import Machine
from pipeline.recipe import Recipe
from pipeline.resolve import resolve
from tests.golden import ROOT

CPU = Machine(system="Linux", cpus=2, memory_gb=8)
EVALSCOPE = {"harness": "evalscope", "datasets": ["gsm8k", {"name": "general_mcq", "path": "bank"}]}


def recipe(*suites: dict[str, Any], **data: Any) -> Recipe:
    section = {"sources": [{"path": "a.json"}], **data}
    text = json.dumps({"name": "r", "model": {"path": "m"}, "data": section, "eval": suites})
    return resolve(Recipe.model_validate_json(text), CPU)[0]


def found(*suites: dict[str, Any]) -> dict[str, str]:
    read = recipe(*suites)
    return {entry.name: str(entry.path) for entry in local_sets(read.eval)}


def task(folder: Path, text: str, name: str = "t.yaml") -> dict[str, Any]:
    (folder / "tasks").mkdir(exist_ok=True)
    (folder / "tasks" / name).write_text(text)
    return {"harness": "lm_eval", "tasks": ["mine"], "include_path": str(folder / "tasks")}


def test_every_path_of_every_suite_once() -> None:
    one = {"harness": "lm_eval", "tasks": ["arc_easy", {"name": "gsm8k", "path": "own/gsm8k"}]}
    two = EVALSCOPE | {"name": "two"}
    other = {"harness": "evalscope", "name": "three", "datasets": [{"name": "gsm8k", "path": "other/gsm8k"}]}
    assert found(one, EVALSCOPE, two, other) == {
        "gsm8k": "own/gsm8k", "general_mcq": "bank", "gsm8k-2": "other/gsm8k",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "args", "expected"),
    [
        ("dataset_path: json\ndataset_kwargs: {data_files: {test: q.jsonl, train: t.jsonl}}\ntest_split: test", {}, ["q.jsonl"]),
        ("dataset_path: json\ndataset_kwargs: {data_files: {test: [q.jsonl, t.jsonl]}}\ntest_split: test", {}, ["q.jsonl", "t.jsonl"]),
        ("dataset_path: json\ndataset_kwargs: {data_files: {val: q.jsonl, train: t.jsonl}}\nvalidation_split: val", {}, ["q.jsonl"]),
        ("dataset_path: json\ndataset_kwargs: {data_files: {a: q.jsonl, b: t.jsonl}}", {}, ["q.jsonl", "t.jsonl"]),
        ("dataset_path: json\ndataset_kwargs: {data_files: q.jsonl}\nprocess_docs: !function utils.f", {}, ["q.jsonl"]),
        ("dataset_path: folder", {}, ["folder"]),
        ("dataset_path: some/hub-set", {}, []),
        ("dataset_path: json\ndataset_kwargs: {data_files: {test: absent.jsonl}}\ntest_split: test", {}, []),
        ("dataset_path: json\ndataset_kwargs: {data_files: {test: 3}}\ntest_split: test", {}, []),
        ("dataset_path: some/hub-set", {"dataset_path": "folder"}, ["folder"]),
    ],
)  # fmt: skip
def test_task_files_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, args: dict[str, Any], expected: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where lm-eval looks
    (tmp_path / "folder").mkdir()
    for name in ("q.jsonl", "t.jsonl"):
        (tmp_path / name).write_text("{}")
    suite = task(tmp_path, f"task: mine\n{text}\n")
    suite["tasks"] = [{"name": "mine", "args": args}]
    assert list(found(suite).values()) == expected


@pytest.mark.parametrize("text", ["", "- a\n", "task: [mine]\n", "task: mine\n  x: [\n", "task: other\n", "\x00"])
def test_files_that_are_no_task_are_passed_over(tmp_path: Path, text: str) -> None:
    assert found(task(tmp_path, text)) == {}
    assert found({"harness": "lm_eval", "tasks": ["mine"], "include_path": str(tmp_path / "absent")}) == {}


def test_the_choice_is_printed_and_stays_when_resolved_again() -> None:
    text = json.dumps({"name": "r", "model": {"path": "m"}, "data": {"sources": [{"path": "a"}]}, "eval": [EVALSCOPE]})
    resolved, choices = resolve(Recipe.model_validate_json(text), CPU)
    assert resolved.data
    assert resolved.data.contamination.benchmarks == (EvaluationSet(name="general_mcq", path=Path("bank")),)
    told = next(choice for choice in choices if choice.where == "data.contamination.benchmarks")
    assert (told.value, told.reason) == ("general_mcq", "the evaluation sets on this machine")
    assert resolve(resolved, CPU) == (resolved, [])


def test_what_is_not_checked_is_named() -> None:
    own = {"action": "report", "benchmarks": [{"name": "arc_easy", "path": "copy"}, {"name": "mine", "path": "bank"}]}
    suite = {"harness": "lm_eval", "tasks": ["arc_easy", "hellaswag"]}
    assert unchecked(recipe(suite, EVALSCOPE)) == ["arc_easy", "hellaswag", "gsm8k"]
    assert unchecked(recipe(suite, EVALSCOPE, contamination=own)) == ["hellaswag", "gsm8k"]
    assert unchecked(recipe(EVALSCOPE, contamination={"benchmarks": []})) == ["gsm8k", "general_mcq"]


def test_the_demo_is_checked_against_all_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.recipe_file import load_recipe

    monkeypatch.chdir(ROOT)
    demo = resolve(load_recipe(Path("recipes/demo.yaml"), env={}), CPU)[0]
    assert unchecked(demo) == []
    assert all(entry.path.exists() for entry in local_sets(demo.eval))
