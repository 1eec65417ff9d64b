"""Regressions: each was found by reading the code against a realistic input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import preflight
from pipeline.errors import PreflightError, RecipeError
from pipeline.follower import tracking
from pipeline.harnesses import evalscope, evalscope_read, lm_eval
from pipeline.machine import read_machine
from pipeline.plan import plan
from pipeline.recipe_file import load_recipe
from pipeline.resolve import resolve
from pipeline.sources import digest
from pipeline.store import Store
from pipeline.suites import Benchmark, LmEvalSpec

MACHINES = Path(__file__).parent / "machines"
EVALUATE = """
name: r
model: {path: model}
eval:
  - {harness: lm_eval, tasks: [hellaswag]}
  - {harness: evalscope, datasets: [gsm8k]}
"""


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text)
    return path


def test_a_data_set_with_a_longer_name_is_another_data_set(tmp_path: Path) -> None:
    reviews = tmp_path / "reviews" / evalscope.MODEL_ID
    reviews.mkdir(parents=True)
    score = {"value": {"acc": 1.0}}
    for name in ("mmlu_anatomy", "mmlu_pro_math"):
        record = {"index": 0, "messages": [], "target": "A", "sample_score": {"score": score}}
        (reviews / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
    samples, _ = evalscope_read._read_reviews(tmp_path, "mmlu", {}, ("mmlu_pro_",))
    assert set(samples) == {"anatomy"}
    samples, _ = evalscope_read._read_reviews(tmp_path, "mmlu_pro", {}, ())
    assert set(samples) == {"math"}


def test_a_folder_with_a_dot_is_a_folder() -> None:
    tasks = [Benchmark(name="a", path=Path("arc-v1.1")), Benchmark(name="b", path=Path("bank.jsonl"))]
    spec = LmEvalSpec(harness="lm_eval", tasks=tuple(tasks), precision="float32", device="cpu")
    assert [task["local"] for task in lm_eval.args(spec, chat_template=True)["tasks"]] == [True, "file"]


def test_a_suite_name_has_no_dot(tmp_path: Path) -> None:
    """eval.<suite>.<model> could not be told apart."""
    text = EVALUATE.replace("{harness: lm_eval,", "{harness: lm_eval, name: lm_eval.5shot,")
    with pytest.raises(RecipeError, match=r"r\.yaml:5: eval\[0\]\.name: should be letters"):
        load_recipe(recipe_file(tmp_path, text))


def test_an_evaluation_on_the_cpu_of_a_gpu_machine_is_float32(tmp_path: Path) -> None:
    path = recipe_file(tmp_path, EVALUATE)
    recipe, _ = resolve(load_recipe(path, ["eval.lm_eval.device=cpu"]), read_machine(MACHINES / "gpu_24gb.json"))
    assert [suite.precision for suite in recipe.eval] == ["float32", "bfloat16"]


def test_what_would_fail_late_is_refused_early(tmp_path: Path) -> None:
    text = EVALUATE + "runtime: {offline: true}\ndata: {sources: [{path: d.json}]}\ntrain: {nodes: 2, max_steps: 1}\n"
    recipe, _ = resolve(load_recipe(recipe_file(tmp_path, text)), read_machine(MACHINES / "cpu.json"))
    store = Store(tmp_path / "runs", digest)
    (tmp_path / "model").mkdir()
    (tmp_path / "d.json").write_text("[]")
    with pytest.raises(PreflightError) as caught:
        preflight.check(recipe, plan(recipe).stages.values(), store, {"PATH": ""})
    problems = "\n".join(caught.value.problems)
    assert "train.nodes: 2 nodes can be planned, but not started yet" in problems
    assert "gsm8k: runtime.offline is true, but EvalScope would ask its hub" in problems


def test_offline_keeps_the_experiment_here_whatever_keys_there_are(tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file(tmp_path, EVALUATE + "runtime: {offline: true}\n"))
    assert tracking(recipe, tmp_path, {"SWANLAB_API_KEY": "x" * 20}).mode == "local"
    online = load_recipe(recipe_file(tmp_path, EVALUATE))
    assert tracking(online, tmp_path, {"SWANLAB_API_KEY": "x" * 20}).mode == "online"
