"""`fetch`: models, data and benchmarks through the real clients and a loopback hub; afterwards nothing is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import preflight
from pipeline.errors import PreflightError
from pipeline.hub.fetching import stages
from pipeline.machine import Machine
from pipeline.plan import plan
from pipeline.recipe import Recipe
from pipeline.resolve import resolve
from pipeline.store import Store
from tests.hubs import HuggingFace, ModelScope, serving
from tests.test_hub_chain import MODEL

ROOT = Path(__file__).resolve().parents[1]
CPU = Machine(system="Linux", cpus=2, memory_gb=8)
ITEMS = [{"goal": f"open jar {i}", "sol1": "turn the lid", "sol2": "turn the jar", "label": i % 2} for i in range(9)]
BENCHMARK = {
    "README.md": b"---\nconfigs:\n- config_name: default\n  data_files:\n"
    b"  - {split: train, path: train.jsonl}\n  - {split: validation, path: validation.jsonl}\n---\n",
    "train.jsonl": "".join(json.dumps(row) + "\n" for row in ITEMS).encode(),
    "validation.jsonl": "".join(json.dumps(row) + "\n" for row in ITEMS[:4]).encode(),
    "extra/huge.bin": bytes(3 << 20),
}


def recipe(**sections: object) -> Recipe:
    text = json.dumps({"name": "r", "model": {"path": "m"}, **sections})
    return resolve(Recipe.model_validate_json(text), CPU)[0]


def test_what_is_fetched(tmp_path: Path) -> None:
    bank = tmp_path / "mine.jsonl"
    bank.write_text('{"id": 1, "question": "Which?", "choices": ["this", "that"], "answer": "B"}\n')
    asked = stages(
        recipe(
            model=[{"id": "team/one"}, {"path": "m"}],
            data={"sources": [{"id": "team/rows", "hub": "huggingface"}, {"path": "own.jsonl"}]},
            benchmarks={"mine": {"path": str(bank)}},
            eval=[
                {"harness": "lm_eval", "tasks": ["piqa", "ceval", {"name": "gsm8k", "path": "gsm8k"}, "mine"]},
                {"harness": "evalscope", "datasets": ["arc_easy"], "extra_args": {"dataset-hub": "huggingface"}},
                {"harness": "evalscope", "name": "own", "datasets": [{"name": "general_mcq", "path": "bank"}]},
            ],
        )
    )
    assert list(asked) == ["model.one", "fetch.team--rows", "fetch.lm_eval", "fetch.evalscope"]
    assert asked["fetch.lm_eval"].args["names"] == ["piqa", "ceval-valid"]
    assert asked["fetch.evalscope"].args == {"harness": "evalscope", "names": ["arc"], "hub": "huggingface"}


def test_all_of_it_local() -> None:
    assert stages(recipe(eval=[{"harness": "lm_eval", "tasks": [{"name": "gsm8k", "path": "gsm8k"}]}])) == {}


def call(*words: str, cwd: Path, url: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": url,
        "MODELSCOPE_ENDPOINT": url,
        "MODELSCOPE_DOMAIN": url.removeprefix("http://"),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        **more,
    }
    argv = [sys.executable, *words]
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=180, check=False)


LOAD = "import datasets, sys; print(len(datasets.load_dataset('baber/piqa', None)['validation']))"


@pytest.mark.slow
def test_lm_eval_finds_it_offline(tmp_path: Path) -> None:
    """Only the files of the configuration are fetched, a cut one is resumed; then `datasets` needs no network."""
    hub = HuggingFace({("dataset", "baber/piqa"): BENCHMARK, ("model", "team/Tiny-1M"): MODEL})
    hub.faults["model.safetensors"] = "cut"
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: r\nmodel: {id: team/Tiny-1M, hub: huggingface}\neval: [{harness: lm_eval, tasks: [piqa]}]\n"
        "tracking: {mode: disabled}\n"
    )
    with serving(hub) as url:
        done = call("-m", "pipeline.run", str(path), "fetch", cwd=tmp_path, url=url)
        assert done.returncode == 0, done.stdout + done.stderr
        first, second = hub.starts("model.safetensors")
        assert first == 0 < second
        assert hub.starts("extra/huge.bin") == []
        sent = len(hub.transfers)
        again = call("-m", "pipeline.run", str(path), "fetch", cwd=tmp_path, url=url)
        assert again.returncode == 0, again.stdout + again.stderr
        assert len(hub.transfers) - sent <= 1, "whole files were loaded again"
    read = call("-c", LOAD, cwd=tmp_path, url="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert read.stdout.strip() == "4", read.stderr


@pytest.mark.slow
def test_evalscope_finds_it_offline(tmp_path: Path) -> None:
    hub = ModelScope({("dataset", "extraordinarylab/piqa"): BENCHMARK})
    path = tmp_path / "recipe.yaml"
    path.write_text("name: r\nmodel: {path: m}\neval: [{harness: evalscope, datasets: [piqa]}]\n")
    look = (
        "from evalscope.api.dataset.hub import DatasetHub\n"
        "print(len(DatasetHub('extraordinarylab/piqa').load(split='validation')))"
    )
    with serving(hub) as url:
        done = call("-m", "pipeline.run", str(path), "fetch", cwd=tmp_path, url=url)
        assert done.returncode == 0, done.stdout + done.stderr
    read = call("-c", look, cwd=tmp_path, url="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert read.stdout.split()[-1] == "4", read.stderr


def test_a_hub_without_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: r\nmodel: {path: m}\neval: [{harness: evalscope, datasets: [piqa]}]\n")
    with serving(ModelScope({})) as url:
        done = call("-m", "pipeline.run", str(path), "fetch", cwd=tmp_path, url=url)
    assert done.returncode == 4
    assert "extraordinarylab/piqa" in done.stdout + done.stderr
    alone = call("-m", "pipeline.run", str(path), "fetch", "eval", cwd=tmp_path, url="http://127.0.0.1:9")
    assert alone.returncode == 2
    assert "give it alone" in alone.stdout + alone.stderr


def test_offline_and_not_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "data" / "arc").mkdir(parents=True)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own.yaml").write_text("task: mine\noutput_type: multiple_choice\ndataset_path: json\n")
    suite = {"harness": "lm_eval", "tasks": ["gsm8k", "mine"], "include_path": str(tmp_path / "tasks")}
    asked = recipe(eval=[{**suite, "data_root": str(tmp_path / "data")}], runtime={"offline": True})
    store, pending = Store(tmp_path, lambda source: str(source.path)), plan(asked).stages.values()
    with pytest.raises(
        PreflightError, match=r"^gsm8k: runtime\.offline is true, but .* has no folder for it \(it has arc\)"
    ):
        preflight.check(asked, pending, store, {})


def test_offline_after_fetch(tmp_path: Path) -> None:
    """What was fetched is no obstacle to an offline run; what was not is named with the remedy."""
    asked = recipe(
        model={"id": "team/one", "hub": "huggingface"},
        data={"sources": [{"id": "team/rows"}]},
        eval=[{"harness": "evalscope", "datasets": ["piqa"]}],
        runtime={"offline": True},
    )
    store = Store(tmp_path, lambda source: str(source.path))
    pending = list(plan(asked).stages.values())
    with pytest.raises(PreflightError) as refused:
        preflight.check(asked, pending, store, {})
    texts = [text for text in refused.value.problems if "runtime.offline" in text]
    assert [text.split(":")[0] for text in texts] == ["piqa", "team/one", "team/rows"]
    assert all("RECIPE fetch" in text for text in texts)
    for stage in stages(asked).values():
        attempt, _ = store.next_attempt(stage)
        attempt.mkdir(parents=True)
        store.publish(stage, attempt, {"result": {}})
    preflight.check(asked, [stage for stage in pending if stage.name != "model"], store, {})
