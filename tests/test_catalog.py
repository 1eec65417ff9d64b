"""The catalogue against the installed harnesses, and names, subsets and local folders as each harness gets them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline import benchmarks as listing
from pipeline.catalog import local_data, lookup
from pipeline.catalog.entries import ENTRIES
from pipeline.catalog.entry import HarnessName
from pipeline.catalog.installed import TASKS, evalscope_set, folder, lm_eval_task, names
from pipeline.catalog.task_index import Names, scan
from pipeline.errors import PreflightError
from pipeline.harnesses import lm_eval
from pipeline.harnesses.base import benchmarks
from pipeline.machine import Machine
from pipeline.recipe import Recipe
from pipeline.resolve import Choice, resolve
from pipeline.suites import Benchmark

CPU = Machine(system="Linux", cpus=2, memory_gb=8)


@pytest.fixture(scope="module")
def lm_eval_names(tmp_path_factory: pytest.TempPathFactory) -> Names:
    return names("lm_eval", tmp_path_factory.mktemp("cache"), own=[TASKS])


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES.values() if entry.lm_eval])
def test_lm_eval_has_what_the_catalogue_says(name: str, lm_eval_names: Names) -> None:
    stated = ENTRIES[name].lm_eval
    assert stated is not None
    task = lm_eval_task(stated.name, lm_eval_names)
    assert task is not None
    assert (len(task.subsets) > 1) == stated.group
    assert {f"{use}_split": split for use, split in task.splits.items()} == stated.splits
    if not stated.group:
        assert task.configs == ((stated.config,) if stated.config else ())
    if stated.subset:
        assert {stated.subset.format(part) for part in ENTRIES[name].subsets} == set(task.subsets)


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES.values() if entry.evalscope])
def test_evalscope_has_what_the_catalogue_says(name: str) -> None:
    stated = ENTRIES[name].evalscope
    assert stated is not None
    known = evalscope_set(stated.name)
    assert known is not None
    assert set(stated.subsets) <= set(known.subsets)
    if ENTRIES[name].subsets:
        assert set(ENTRIES[name].subsets) == set(known.subsets)


def test_what_a_benchmark_needs(lm_eval_names: Names) -> None:
    def needs(name: str) -> set[str]:
        task = lm_eval_task(name, lm_eval_names)
        assert task is not None
        return set(task.needs)

    assert needs("hellaswag") == needs("mmlu") == {"likelihood"}
    assert needs("gsm8k") == needs("bbh") == {"generate"}
    assert needs("humaneval") == {"generate", "code"}
    judged, run = evalscope_set("chinese_simpleqa"), evalscope_set("humaneval")
    assert judged is not None
    assert run is not None
    assert judged.needs == {"generate", "judge"}
    assert run.needs == {"generate", "code"}


@pytest.mark.slow
def test_the_index_is_lm_evals_own() -> None:
    from lm_eval.tasks._index import TaskIndex

    place = folder("lm_eval")
    assert place is not None
    theirs, ours = TaskIndex.build([place]), scan(place)
    assert set(theirs) == set(ours)
    assert {n: str(e.yaml_path or "") for n, e in theirs.items()} == {n: at.file for n, at in ours.items()}
    assert all(entry.tags == set(ours[name].members) for name, entry in theirs.items() if entry.yaml_path is None)


def test_the_index_is_kept_and_made_anew_when_cut(tmp_path: Path) -> None:
    first = names("lm_eval", tmp_path)
    kept = tmp_path / "lm_eval_tasks.json"
    assert names("lm_eval", tmp_path) == first
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({**content, "names": {"only": ["x.yaml", []]}}))
    assert list(names("lm_eval", tmp_path)) == ["only"], "the kept list is what is read"
    kept.write_text(kept.read_text()[:20])
    assert names("lm_eval", tmp_path) == first


TRANSLATED: list[tuple[HarnessName, str, str, dict[str, Any]]] = [
    ("lm_eval", "ceval", "ceval-valid", {}),
    ("lm_eval", "ceval_law", "ceval-valid_law", {}),
    ("lm_eval", "bbh_snarks", "bbh_cot_fewshot_snarks", {}),
    ("lm_eval", "trivia_qa", "triviaqa", {}),
    ("lm_eval", "arc_challenge", "arc_challenge", {}),
    ("lm_eval", "mmlu_anatomy", "mmlu_anatomy", {}),
    ("evalscope", "arc_challenge", "arc", {"subset_list": ["ARC-Challenge"]}),
    ("evalscope", "arc", "arc", {}),
    ("evalscope", "cmmlu_professional_psychology", "cmmlu", {"subset_list": ["professional_psychology"]}),
    ("evalscope", "mmlu_redux", "mmlu_redux", {}),
    ("evalscope", "openbookqa", "openbookqa", {}),
    ("evalscope", "nobody_knows", "nobody_knows", {}),
]


@pytest.mark.parametrize(("harness", "name", "own", "args"), TRANSLATED)
def test_names(harness: HarnessName, name: str, own: str, args: Mapping[str, Any]) -> None:
    found = lookup.translate(Benchmark(name=name), harness)
    assert (found.name, found.args) == (own, args)
    assert lookup.translate(found, harness) == found


def settled(root: Path | None, *tasks: object, harness: str = "lm_eval") -> tuple[Recipe, list[Choice]]:
    section = "tasks" if harness == "lm_eval" else "datasets"
    suite = {"harness": harness, section: tasks, **({"data_root": str(root)} if root else {})}
    text = json.dumps({"name": "r", "model": {"path": "m"}, "eval": [suite]})
    return resolve(Recipe.model_validate_json(text), CPU)


def write(path: Path, text: str = '{"x": 1}\n') -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_subsets_of_one_data_set_are_joined() -> None:
    recipe, _ = settled(None, "arc_easy", "arc_challenge", harness="evalscope")
    assert benchmarks(recipe.eval[0]) == [Benchmark(name="arc", args={"subset_list": ["ARC-Easy", "ARC-Challenge"]})]
    with pytest.raises(PreflightError, match="mmlu is listed twice"):
        settled(None, "mmlu", "mmlu_anatomy", harness="evalscope")


def test_data_root(tmp_path: Path) -> None:
    write(tmp_path / "arc" / "ARC-Challenge" / "test.jsonl")
    front = '---\nconfigs:\n- config_name: ARC-Challenge\n  data_files: [{split: test, path: "ARC-Challenge/test.jsonl"}]\n---\n'
    write(tmp_path / "arc" / "README.md", front)
    write(tmp_path / "boolq" / "validation.jsonl")
    write(tmp_path / "own" / "x.jsonl")
    recipe, choices = settled(
        tmp_path, "arc_challenge", "boolq", "gsm8k", {"name": "piqa", "path": str(tmp_path / "own")}
    )
    arc, boolq, gsm8k, piqa = benchmarks(recipe.eval[0])
    assert (arc.path, arc.args) == (tmp_path / "arc", {"training_split": None, "validation_split": None})
    assert (boolq.path, boolq.args) == (tmp_path / "boolq", {"dataset_name": None, "training_split": None})
    assert gsm8k.path is None
    assert piqa.args == {"validation_split": None}, "files without a telling name are split `train`"
    told = {choice.where: choice.value for choice in choices if choice.reason == "found in data_root"}
    assert told == {"eval[0].tasks.arc_challenge": str(arc.path), "eval[0].tasks.boolq": str(boolq.path)}
    assert resolve(recipe, CPU)[0] == recipe


def test_what_the_user_says_wins(tmp_path: Path) -> None:
    write(tmp_path / "hellaswag" / "validation.jsonl")
    recipe, _ = settled(tmp_path, {"name": "hellaswag", "args": {"training_split": "validation"}})
    assert benchmarks(recipe.eval[0])[0].args == {"training_split": "validation"}


def test_groups_are_asked_as_groups(tmp_path: Path) -> None:
    write(tmp_path / "bbh" / "test.jsonl")
    recipe, _ = settled(tmp_path, "bbh")
    args = lm_eval.args(recipe.eval[0], chat_template=True)
    assert lookup.is_group("bbh")
    assert not lookup.is_group("gsm8k")
    assert args["tasks"][0]["name"] == "bbh"


SPLITS = [
    (["train.jsonl", "test.jsonl"], {"train", "test"}),
    (["dev.jsonl", "val/x.parquet"], {"validation"}),
    (["data/train-00000-of-00001.parquet"], {"train"}),
    (["questions.jsonl"], {"train"}),
    (["notes.md", ".cache/test.jsonl"], set()),
]


@pytest.mark.parametrize(("files", "expected"), SPLITS)
def test_splits_by_file_name(files: list[str], expected: set[str], tmp_path: Path) -> None:
    for name in files:
        write(tmp_path / name)
    assert local_data.splits(tmp_path) == expected


def test_splits_that_are_declared_but_not_there(tmp_path: Path) -> None:
    front = "---\nconfigs:\n- config_name: a\n  data_files: [{split: test, path: t.jsonl}, {split: dev, path: d.jsonl}]\n---\n"
    write(tmp_path / "README.md", front)
    write(tmp_path / "t.jsonl")
    assert local_data.splits(tmp_path, "a") == {"test"}


def test_search(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert listing.main(["psychology"]) == 0
    told = capsys.readouterr().out
    assert "cmmlu_professional_psychology" in told
    assert "mmlu_high_school_psychology" in told
    assert listing.main(["openbookqa", "--harness", "evalscope"]) == 1
    assert "nothing matches" in capsys.readouterr().out
    assert listing.main([]) == 0
    told = capsys.readouterr().out
    assert "EvalScope does not have it" in told
    assert "graded by a judge model" in told
