"""Regressions: each was found by reading the code against a realistic input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import preflight
from pipeline.catalog import local_data
from pipeline.catalog.installed import lm_eval_data, lm_eval_task
from pipeline.catalog.task_index import scan
from pipeline.errors import PreflightError, RecipeError
from pipeline.harnesses import evalscope, evalscope_read, lm_eval
from pipeline.machine import read_machine
from pipeline.plan import plan
from pipeline.recipe_file import load_recipe
from pipeline.resolve import resolve
from pipeline.sources import digest
from pipeline.stage import Source
from pipeline.stages import evaluate
from pipeline.store import Store
from pipeline.suites import Benchmark, LmEvalSpec
from pipeline.tracking.follower import tracking

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


def test_a_folder_with_a_dot_has_a_cache_of_its_own() -> None:
    """Else `datasets` answers with what another folder of that name held."""
    for path, own in (("arc-v1.1", True), ("arc", True), ("bank.jsonl", False)):
        task = Benchmark(name="arc_easy", path=Path(path))
        spec = LmEvalSpec(harness="lm_eval", tasks=(task,), precision="float32", device="cpu")
        made = evaluate.stage(spec, model=Source(Path("m")), chat_template=True, offline=False)
        assert made.plumbing.get("own_cache", False) is own, path


@pytest.mark.parametrize("section", ["train: {max_steps: 2}", ""])
def test_a_folder_of_checkpoints_is_not_trained(tmp_path: Path, section: str) -> None:
    """Silently, the first of them would be."""
    data = f"data: {{sources: [{{path: t.json, format: alpaca}}]{'' if section else ', max_tokens: 100'}}}"
    text = f"name: r\nmodel: {{path: model, checkpoints: all}}\n{data}\n{section}\n"
    with pytest.raises(RecipeError, match="exactly one model"):
        load_recipe(recipe_file(tmp_path, text))


@pytest.mark.parametrize(
    "given",
    ["dialogues: {}", "dialogues: {from_validation: 0}", "dialogues: {}\ndata: {val_fraction: 0, sources: [S]}"],
)
def test_dialogues_without_anything_to_ask_are_refused_before_the_evaluations(tmp_path: Path, given: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "t.json").write_text("[]")
    text = EVALUATE + given.replace("S", "{path: t.json, format: alpaca}") + "\n"
    recipe, _ = resolve(load_recipe(recipe_file(tmp_path, text)), read_machine(MACHINES / "cpu.json"))
    store = Store(tmp_path / "runs", digest)
    with pytest.raises(PreflightError, match="dialogues: nothing to ask"):
        preflight.check(recipe, plan(recipe).stages.values(), store, {})


def test_a_key_in_a_header_is_refused(tmp_path: Path) -> None:
    text = EVALUATE.replace("tasks: [hellaswag]", "tasks: [hellaswag], model_args: {header: {Authorization: x}}")
    with pytest.raises(RecipeError, match="secrets belong in the environment"):
        load_recipe(recipe_file(tmp_path, text))


def test_two_checkpoints_of_one_name_are_refused(tmp_path: Path) -> None:
    """One of them would take the other's place in the table."""
    for name in ("checkpoint-5", "step-5"):
        (tmp_path / "model" / name).mkdir(parents=True)
        (tmp_path / "model" / name / "config.json").write_text("{}")
    text = EVALUATE.replace("{path: model}", "{path: model, checkpoints: all}")
    with pytest.raises(PreflightError, match="two models would be called model-step-5"):
        resolve(load_recipe(recipe_file(tmp_path, text)), read_machine(MACHINES / "cpu.json"))


def test_a_model_that_was_fetched_is_not_asked_for_again_offline(tmp_path: Path) -> None:
    (tmp_path / "bank").mkdir()
    text = """
name: r
model: [{id: a/one, revision: r}, {id: a/two, revision: r}]
eval: [{harness: evalscope, datasets: [{name: general_mcq, path: bank}]}]
runtime: {offline: true}
"""
    recipe, _ = resolve(load_recipe(recipe_file(tmp_path, text)), read_machine(MACHINES / "cpu.json"))
    stages = plan(recipe).stages
    store = Store(tmp_path / "runs", digest)
    attempt = store.folder(stages["model.one-r"]) / "attempts" / "1"
    (attempt / "one").mkdir(parents=True)
    store.publish(stages["model.one-r"], attempt, {"seconds": 1.0, "result": {}})
    with pytest.raises(PreflightError) as caught:
        preflight.check(recipe, [stage for stage in stages.values() if not store.result(stage)], store, {})
    assert "a/two: runtime.offline" in str(caught.value)
    assert "a/one" not in str(caught.value)


def test_a_task_file_that_is_not_utf8_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("task: 心理学\ntag: [测试]\n".encode("gbk"))
    (tmp_path / "b.yaml").write_text("task: b\n")
    assert "b" in scan(tmp_path)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("data_dir: part", {"train", "test"}),
        ("data_files: {absolute}", {"train"}),
        ("data_files: [{{split: test, path: ''}}]", set()),
        ("description: nothing about files", {"train", "test"}),
    ],
)
def test_splits_of_a_configuration_however_it_names_its_files(tmp_path: Path, files: str, expected: set[str]) -> None:
    (tmp_path / "part").mkdir()
    for name in ("train", "test"):
        (tmp_path / "part" / f"{name}.jsonl").write_text('{"question": "?"}\n')
    said = files.format(absolute=tmp_path / "part" / "*.jsonl")
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: c\n  {said}\n---\n")
    assert local_data.splits(tmp_path, "c") == expected
    assert local_data.columns(tmp_path, "c") == ({"question"} if expected else set())


def test_tasks_by_a_pattern_or_a_file_are_looked_into_like_any_other(tmp_path: Path) -> None:
    """Else a likelihood task meets a chat endpoint only when it runs, and `fetch` fetches nothing without a word."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(
            f"task: my_{name}\noutput_type: multiple_choice\ndataset_path: a/{name}\n"
        )
    found = scan(tmp_path)
    for word, data in (("my_*", ["a/one", "a/two"]), (str(tmp_path / "two.yaml"), ["a/two"]), ("others_*", [])):
        assert [path for path, _, _ in lm_eval_data(word, found)] == data
        task = lm_eval_task(word, found)
        assert (task.needs if task else set()) == ({"likelihood"} if data else set())


def test_a_missing_tokenizer_of_a_server_is_looked_for_in_its_own_section(tmp_path: Path) -> None:
    model = "{url: 'http://127.0.0.1:1/v1', served_as: m, tokenizer: nowhere}"
    text = EVALUATE.replace("{path: model}", model)
    recipe, _ = resolve(load_recipe(recipe_file(tmp_path, text)), read_machine(MACHINES / "cpu.json"))
    with pytest.raises(PreflightError, match=r"nowhere: no such file or folder; check model\.tokenizer"):
        preflight.check_sources(recipe, plan(recipe).stages.values(), tmp_path, {})


@pytest.mark.parametrize("folder", ["a, b", "a [1]"])
@pytest.mark.parametrize("tasks", ["{name: arc_easy, args: {num_fewshot: 1}}", "arc_easy"])
def test_a_runs_folder_that_lm_eval_would_not_read_from_is_refused(tmp_path: Path, folder: str, tasks: str) -> None:
    """It takes a comma for the end of a task's name, and brackets for a pattern: 'Tasks not found'."""
    text = f"name: r\nmodel: {{path: model}}\neval: [{{harness: lm_eval, tasks: [{tasks}]}}]\n"
    recipe, _ = resolve(load_recipe(recipe_file(tmp_path, text)), read_machine(MACHINES / "cpu.json"))
    stages = plan(recipe).stages.values()
    refusals = list(preflight._places(stages, Store(tmp_path / folder / "runs", digest)))
    assert len(refusals) == ("args" in tasks)
    assert all("--runs-dir" in text for text in refusals)
    assert not list(preflight._places(stages, Store(tmp_path / "空 格" / "runs", digest)))
