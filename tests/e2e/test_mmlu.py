"""Three implementations of MMLU by the real lm-eval: what is asked to the letter, and every score made anew."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.report.model_score import ModelScore
from pipeline.report.ways import ways
from pipeline.samples import read
from scripts.mmlu_tasks import SUBJECTS
from tests.e2e.conftest import ROOT, Runner

pytestmark = pytest.mark.slow

CHOICES = ("one", "two ", "six", "ten")
DEV = [{"question": f"{at}?", "subject": "us_foreign_policy", "choices": CHOICES, "answer": at % 4} for at in range(5)]
TEST = [
    {"question": f" {at}!", "subject": "us_foreign_policy", "choices": CHOICES, "answer": at % 4} for at in range(3)
]
INSTRUCTION = "The following are multiple choice questions (with answers) about us foreign policy."


def lines(row: dict[str, Any]) -> str:
    return "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", CHOICES, strict=True)) + "\nAnswer:"


def original(row: dict[str, Any]) -> str:
    return row["question"] + lines(row)


def helm(row: dict[str, Any]) -> str:
    return f"Question: {row['question']}{lines(row)}"


def harness(row: dict[str, Any]) -> str:
    return f"Question: {row['question']}\nChoices:{lines(row)}"


def letter(row: dict[str, Any]) -> str:
    return f" {'ABCD'[row['answer']]}"


def text(row: dict[str, Any]) -> str:
    return f"{letter(row)}. {CHOICES[row['answer']]}"


PROMPTS = {
    "mmlu_original": (f"{INSTRUCTION}\n\n", original, letter),
    "mmlu_helm": (f"{INSTRUCTION}\n\n\n", helm, letter),
    "mmlu_harness_2023": ("", harness, text),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pipeline: Runner, work: Path) -> dict[str, Path]:
    """Label -> folder of each evaluation: all 57 subjects for one way, one subject for the others and another order."""
    folder = tmp_path_factory.mktemp("mmlu")
    files = [{"split": split, "path": f"{split}.jsonl"} for split in ("dev", "test")]
    configs = yaml.safe_dump({"configs": [{"config_name": name, "data_files": files} for name in SUBJECTS]})
    (folder / "README.md").write_text(f"---\n{configs}---\n")
    for split, rows in (("dev", DEV), ("test", TEST)):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    subjects = [{"name": f"{way}_us_foreign_policy", "path": str(folder)} for way in (*PROMPTS, "mmlu")]
    common = {"harness": "lm_eval", "num_fewshot": 5}
    recipe = {
        "name": "mmlu",
        "model": {"path": str(tiny_model), "name": "base"},
        "chat_template": False,
        "eval": [
            common | {"name": "ways", "tasks": subjects},
            common | {"name": "order_1", "tasks": [subjects[0] | {"args": {"shot_seed": 1}}]},
            common | {"name": "group", "limit": 1, "tasks": [{"name": "mmlu_helm", "path": str(folder)}]},
        ],
        "tracking": {"mode": "disabled"},
    }
    path = work / "mmlu.yaml"
    path.write_text(yaml.safe_dump(recipe))
    result = pipeline(path)
    assert result.returncode == 0, result.stderr
    listing = json.loads((work / "runs" / "mmlu" / "stages.json").read_text())["stages"]
    return {line["label"]: (work / "runs" / "mmlu" / line["dir"]).resolve() for line in listing}


@pytest.mark.parametrize("way", PROMPTS)
def test_the_prompt_to_the_letter(runs: dict[str, Path], way: str) -> None:
    head, asked, answer = PROMPTS[way]
    shots = "".join(f"{asked(row)}{answer(row)}\n\n" for row in DEV)
    found = [s for s in read(runs["eval.ways.base"] / "output" / "samples.jsonl") if s.task.startswith(way)]
    assert [sample.prompt for sample in found] == [head + shots + asked(row) for row in TEST]


def test_another_order_of_the_same_examples(runs: dict[str, Path]) -> None:
    plain, other = (
        [s for s in read(runs[label] / "output" / "samples.jsonl") if s.task.startswith("mmlu_original")]
        for label in ("eval.ways.base", "eval.order_1.base")
    )
    for one, two in zip(plain, other, strict=True):
        assert one.doc_key == two.doc_key
        assert one.prompt != two.prompt
        assert sorted(one.prompt.split("\n\n")[1:-1]) == sorted(two.prompt.split("\n\n")[1:-1])
    assert len({sample.prompt.rpartition("\n\n")[0] for sample in other}) == 1, "one order for all questions"


@pytest.mark.parametrize("label", ["eval.ways.base", "eval.order_1.base", "eval.group.base"])
def test_every_score_made_anew_from_the_raw_samples(runs: dict[str, Path], label: str) -> None:
    likelihoods = ["--likelihoods", "2"] if "ways" in label else []
    argv = [sys.executable, "-m", "tests.mmlu_check", str(runs[label]), *likelihoods]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"eval.ways.base": "8 scores", "eval.order_1.base": "2 scores", "eval.group.base": "116 scores"}[label] in (
        done.stdout
    )


def test_the_page(runs: dict[str, Path], work: Path) -> None:
    report = json.loads((work / "runs" / "mmlu" / "report.json").read_text())
    scores = [ModelScore(**score) for score in report["scores"]]
    page = ways(scores, {label: read(folder / "output" / "samples.jsonl") for label, folder in runs.items()})
    assert page
    assert {(way.name, way.metric) for way in page.ways} == {
        ("mmlu_original", "acc"), ("mmlu_helm", "exact_match"), ("mmlu_harness_2023", "acc"),
        ("mmlu_harness_2023", "acc_norm"), ("mmlu_harness_2023", "acc_norm_tokens"), ("mmlu", "acc"),
    }  # fmt: skip
    (orders,) = page.orders
    assert set(orders.values) == {"file", "1"}
    assert {one.name for one in page.rendered} == {*PROMPTS, "mmlu"}
    assert {one.name for one in page.none_of_letters} == {"mmlu_original", "mmlu_helm", "mmlu"}
