"""Own question banks through both real harnesses: what is asked, what pairs, and every figure made again from raw files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from pipeline import samples
from pipeline.results import Sample
from tests.e2e.conftest import Runner

SINGLE = [
    {"id": f"s{i}", "question": f"Which colour has lamp {i}?", "choices": ["red", "green", "blue", "white"][: 2 + i % 3], "answer": "AB"[i % 2], "type": ["old", "new"][i % 2]}
    for i in range(6)
]  # fmt: skip
SEVERAL = [
    {"id": "m1", "question": "哪些是水果？", "choices": ["C、石头", "A、苹果", "B、梨"], "answer": "A,B"},
    {"id": "m2", "question": "哪个是{动物}？", "choices": ["猫", "", "桌子"], "answer": "A"},
]
OPEN = [
    {"query": "你好吗？", "response": "我很好，谢谢", "key_points": ["好", "谢谢"]},
    {"query": "Say the quick word.", "response": "the quick brown fox"},
]


@pytest.fixture(scope="module")
def finished(pipeline: Runner, work: Path, tiny_model: Path) -> Path:
    folder = work / "banks"
    folder.mkdir()
    for name, rows in {"single": SINGLE, "several": SEVERAL, "open": OPEN}.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    other = shutil.copytree(tiny_model, folder / "other")
    weights = load_file(other / "model.safetensors")
    noise = np.random.default_rng(1)
    noisy = {name: (w + noise.normal(0, 0.5, w.shape)).astype(w.dtype) for name, w in weights.items()}
    save_file(noisy, other / "model.safetensors", metadata={"format": "pt"})
    recipe = {
        "name": "banks",
        "model": [{"path": str(tiny_model), "name": "first"}, {"path": str(other), "name": "second"}],
        "benchmarks": {
            "single": {"path": "single.jsonl", "few_shot": 1, "few_shot_path": "several.jsonl"},
            "several": {"path": "several.jsonl", "max_tokens": 8},
            "open": {"path": "open.jsonl", "kind": "open_qa", "max_tokens": 8},
        },
        "eval": [
            {"harness": "lm_eval", "tasks": ["single", "several", "open"]},
            {"harness": "evalscope", "datasets": ["several", "open"]},
        ],
        "runtime": {"offline": True},
        "tracking": {"mode": "disabled"},
    }  # fmt: skip
    path = folder / "banks.yaml"
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    done = pipeline(path)
    assert done.returncode == 0, done.stdout + done.stderr
    return work / "runs"


def stages(runs: Path, harness: str) -> list[Path]:
    """Output folders of both models' evaluations."""
    run = runs / "banks"
    listed = json.loads((run / "stages.json").read_text(encoding="utf-8"))["stages"]
    of_harness = sorted(stage["label"] for stage in listed if stage["label"].startswith(f"eval.{harness}."))
    places = {stage["label"]: run / stage["dir"] / "output" for stage in listed}
    found = [places[label] for label in of_harness]
    assert len(found) == 2
    return found


def of(folder: Path, bank: str) -> list[Sample]:
    return [sample for sample in samples.read(folder / samples.FILE) if sample.task.split("/")[0] == bank]


def raw(folder: Path, pattern: str) -> list[dict]:
    [path] = folder.glob(pattern)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.slow
@pytest.mark.parametrize("harness", ["lm_eval", "evalscope"])
def test_items_pair_across_models_and_differ_in_their_answers(finished, harness):
    first, second = (samples.read(folder / samples.FILE) for folder in stages(finished, harness))
    assert {(s.task, s.doc_key) for s in first} == {(s.task, s.doc_key) for s in second}
    assert any(s.output != t.output or s.loglikelihoods != t.loglikelihoods for s, t in zip(first, second, strict=True))


@pytest.mark.slow
def test_both_harnesses_ask_the_same_prompt_of_the_same_items(finished):
    for ours, theirs in zip(stages(finished, "lm_eval"), stages(finished, "evalscope"), strict=True):
        for bank in ("several", "open"):
            left, right = of(ours, bank), of(theirs, bank)
            assert [sample.doc_key for sample in left] == [sample.doc_key for sample in right] and left
            for one, other in zip(left, right, strict=True):
                assert json.loads(other.prompt)[-1]["content"] in one.prompt
    asked = json.loads(of(stages(finished, "evalscope")[0], "several")[1].prompt)[-1]["content"]
    assert asked.endswith("哪个是{动物}？\nA) 猫\nB) 桌子")


@pytest.mark.slow
def test_likelihood_accuracy_is_that_of_the_raw_log_likelihoods(finished):
    for folder in stages(finished, "lm_eval"):
        right = []
        for record in raw(folder, "*/samples_bank_single_*.jsonl"):
            likely = [float(response[0][0]) for response in record["resps"]]
            row = next(row for row in SINGLE if row["id"] == record["doc"]["id"])
            right.append(float("ABCD"[int(np.argmax(likely))] == row["answer"]))
            assert len(likely) == len(row["choices"])
        assert right == [sample.scores["accuracy"] for sample in of(folder, "single")]
        assert len(right) == 6


@pytest.mark.slow
def test_figures_of_the_report_are_those_of_the_raw_texts(finished):
    """ROUGE-1 and key points of the English and the Chinese item, from lm-eval's and EvalScope's own files."""
    for harness in ("lm_eval", "evalscope"):
        for folder in stages(finished, harness):
            if harness == "lm_eval":
                texts = [record["resps"][0][0] for record in raw(folder, "*/samples_bank_open_*.jsonl")]
            else:
                records = sorted(raw(folder, "reviews/*/general_qa_open.jsonl"), key=lambda record: record["index"])
                texts = [record["messages"][-1]["content"] for record in records]
            found = of(folder, "open")
            assert [sample.output for sample in found] == texts
            assert found[0].scores["key_points"] == sum(point in texts[0] for point in ("好", "谢谢")) / 2
            assert set(found[1].scores) == {"rouge_1", "rouge_l", "bleu"}


@pytest.mark.slow
def test_types_have_scores_of_their_own(finished):
    [folder, _] = stages(finished, "lm_eval")
    result = json.loads((folder.parent / "result.json").read_text(encoding="utf-8"))
    scores = {(s["task"], s["metric"]): s for s in (result.get("result") or result)["scores"]}
    assert {task for task, _ in scores} == {"single", "single/type/old", "single/type/new", "several", "open"}
    halves = [scores[f"single/type/{kind}", "accuracy"] for kind in ("old", "new")]
    assert [half["n"] for half in halves] == [3, 3]
    assert scores["single", "accuracy"]["value"] == pytest.approx(sum(half["value"] for half in halves) / 2)
