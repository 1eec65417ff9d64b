"""Scores on the clean and on the contaminated part of a task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.clean import CleanRow, clean_rows, contaminated, is_hit
from pipeline.harnesses import evalscope_samples, lm_eval_samples
from pipeline.results import Implementation, Sample, Score

IMPLEMENTATION = Implementation(harness="lm_eval", version="0.4.13")


def report(*raws: dict[str, Any], name: str = "bank") -> dict[str, Any]:
    items = [{"question": next(iter(raw.values())), "raw": raw} for raw in raws]
    return {"benchmarks": {name: {"contaminated": items}, "other": {"contaminated": []}}}


def sample(number: int, value: float, *, task: str = "bank", **fields: Any) -> Sample:
    return Sample(task=task, doc_key=f"key{number}", scores={"acc": value}, question=f"Question {number}?", **fields)


def score(samples: list[Sample], task: str = "bank", **fields: Any) -> Score:
    mine = [s.scores["acc"] for s in samples if s.task in fields.get("tasks", (task,))]
    given = {"value": sum(mine) / len(mine), "n": len(mine), **fields}
    return Score(task=task, harness="lm_eval", metric="acc", implementation=IMPLEMENTATION, **given)


def rows(
    base: list[Sample], tuned: list[Sample], scores: tuple[dict[str, Any], ...] = ({},), *hit: int
) -> list[CleanRow]:
    items = contaminated(report(*({"question": f"Question {number}?"} for number in hit)))
    left, right = ([score(side, **given) for given in scores] for side in (base, tuned))
    return clean_rows(items, "lm_eval", left, right, base, tuned)


def test_both_parts_are_means_of_their_own_items() -> None:
    base = [sample(n, float(n < 4)) for n in range(10)]  # right: 0 1 2 3
    tuned = [sample(n, float(n < 8)) for n in range(10)]  # gained: 4 5 6 7
    clean, hit = rows(base, tuned, ({},), 4, 5, 6)
    assert (clean.part, clean.n, clean.of) == ("clean", 7, 10)
    assert (clean.base, clean.tuned, clean.gained, clean.lost) == (4 / 7, 5 / 7, 1, 0)
    assert clean.delta == pytest.approx(1 / 7)
    assert (hit.part, hit.n, hit.of, hit.base, hit.tuned, hit.gained) == ("contaminated", 3, 10, 0.0, 1.0, 3)
    assert clean.ci_low is not None and hit.p_value is not None


def test_tasks_without_contaminated_items_have_no_rows() -> None:
    both = [sample(n, 1.0) for n in range(4)] + [sample(n + 10, 0.0, task="clean") for n in range(4)]
    found = rows(both, both, ({}, {"task": "clean"}), 1)
    assert {row.task for row in found} == {"bank"}
    assert rows(both, both, ({}, {"task": "clean"})) == []


def test_a_task_that_sums_up_others_is_touched_by_its_members() -> None:
    both = [sample(n, float(n % 2), task=("x", "y")[n > 3]) for n in range(12)]
    scores = ({"task": "x"}, {"task": "y"}, {"task": "all", "tasks": ("x", "y")})
    found = rows(both, both, scores, 0)
    assert [(row.task, row.part, row.n, row.of) for row in found] == [
        ("x", "clean", 3, 4), ("x", "contaminated", 1, 4), ("all", "clean", 11, 12), ("all", "contaminated", 1, 12),
    ]  # fmt: skip


def test_a_mean_of_tasks_stays_one() -> None:
    both = [sample(n, float(n < 4), task=("x", "y")[n > 3]) for n in range(12)]  # x is all right, y all wrong
    found = rows(both, both, ({"task": "all", "tasks": ("x", "y"), "mean": "tasks", "value": 0.5},), 0, 1)
    assert [(row.part, row.base) for row in found] == [("clean", 0.5), ("contaminated", 1.0)]


def test_what_is_no_mean_has_no_part() -> None:
    both = [sample(n, 1.0) for n in range(4)]
    assert rows(both, both, ({"mean": "none"},), 0) == []


def test_all_contaminated_leaves_no_clean_row() -> None:
    both = [sample(n, 1.0) for n in range(4)]
    assert [row.part for row in rows(both, both, ({},), 0, 1, 2, 3)] == ["contaminated"]


MMLU = {"question": "Which is true?", "choices": ["red", "green", "blue", "white"], "answer": 1}
BLANK = {"question": "Which light?", "sentence": "Ships are met by ___ light.", "A": "green", "B": "amber"}
PIQA = {"goal": "Ready a cage.", "sol1": "Use paper.", "sol2": "Use jeans."}


@pytest.mark.parametrize(
    ("raw", "question", "choices", "hit"),
    [
        (MMLU, "Which  is true?", ("red", "green", "blue", "white"), True),
        (MMLU, "Which is true?", ("white", "Blue", "green", "red"), True),
        (MMLU, "Which is true?", ("A. red", "B. green", "C. blue", "D. white"), True),
        (MMLU, "Which is true?", ("iron", "gold", "tin", "lead"), False),  # another item that asks in the same words
        (MMLU, "Which is false?", ("red", "green", "blue", "white"), False),
        (MMLU, "Which is true?", (), True),
        (BLANK, "Which light?", ("Ships are met by green light.", "Ships are met by amber light."), True),
        (BLANK, "Which light?", ("Ships are met by red light.", "Ships are met by blue light."), False),
        (PIQA, "Ready a cage.", ("Use paper.", "Use jeans."), True),
        ({"question": "Is it so?", "passage": "It is."}, "Is it so?", ("no", "yes"), True),
    ],
)
def test_an_item_is_its_question_and_its_options(
    raw: dict[str, Any], question: str, choices: tuple[str, ...], hit: bool
) -> None:
    items = contaminated(report(raw))
    assert is_hit(Sample(task="t", doc_key="k", scores={}, question=question, choices=choices), items) is hit


def test_no_check_no_items() -> None:
    assert contaminated(None) == {}
    real = json.loads((Path(__file__).parent / "fixtures/data_prep/contamination.json").read_text())
    assert (
        sum(map(len, contaminated(real).values()))
        == sum(len(b["contaminated"]) for b in real["benchmarks"].values())
        > 0
    )


def test_a_planted_item_is_found_again_in_both_harnesses(tmp_path: Path) -> None:
    """From a training row through data_prep's check to the samples of both, on items of three kinds."""
    fixtures = Path(__file__).parent / "fixtures"
    names = {"demo_bank": "general_mcq_bank", "arc_challenge": "arc_ARC-Challenge", "hellaswag": "hellaswag_default"}
    against = []
    rows = []
    for task in names:
        [path] = fixtures.glob(f"lm_eval*/*/samples_{task}_*.jsonl")
        docs = [json.loads(line)["doc"] for line in path.read_text().split("\n") if line]
        for doc in docs:  # what lm-eval adds to HellaSwag's columns
            for key in ("query", "gold", *(["choices"] if "endings" in doc else [])):
                doc.pop(key, None)
        (tmp_path / f"{task}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
        against += ["--against", f"{task}={tmp_path / task}.jsonl"]
        rows.append(" ".join(str(docs[2].get(key, "")) for key in ("question", "sentence", "ctx")))
    (tmp_path / "rows").mkdir()
    turns = [[{"role": "user", "content": text}, {"role": "assistant", "content": "I know that one."}] for text in rows]
    (tmp_path / "rows/train.jsonl").write_text("".join(json.dumps({"messages": turn}) + "\n" for turn in turns))
    (tmp_path / "rows/val.jsonl").write_text("")
    command = [sys.executable, "-m", "data_prep", "contamination", "rows", "out", *against]
    subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path.cwd())}, check=True, capture_output=True
    )
    items = contaminated(json.loads((tmp_path / "out/contamination.json").read_text()))
    assert sum(map(len, items.values())) == 3
    for task, reviews in names.items():
        [path] = fixtures.glob(f"lm_eval*/*/samples_{task}_*.jsonl")
        ours = lm_eval_samples.read_samples(path, task)
        [path] = fixtures.glob(f"evalscope*/reviews/model/{reviews}.jsonl")
        config = yaml.safe_load((path.parents[2] / "configs/task_config.yaml").read_text())
        name = "general_mcq" if task == "demo_bank" else reviews.partition("_")[0]
        theirs, _ = evalscope_samples.read_samples(path, task, config["resolved_benchmarks"][name])
        hits = [[sample.doc_key for sample in side if is_hit(sample, items)] for side in (ours, theirs)]
        assert hits == [[ours[2].doc_key], [ours[2].doc_key]], task
        shas = {
            item["question_sha256"]
            for item in json.loads((tmp_path / "out/contamination.json").read_text())["benchmarks"][task][
                "contaminated"
            ]
        }
        assert [sample.question_sha256 in shas for sample in ours] == [at == 2 for at in range(len(ours))]
