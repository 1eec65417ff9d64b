"""A model behind a URL gives the answers the same model gives from its folder: a real `swift deploy` on the CPU."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import endpoint
from pipeline.endpoint import Endpoint
from tests.e2e.conftest import ROOT, Runner, environment

pytestmark = pytest.mark.slow

KEY = "geheim-e2e-4711"
ASK = """\
task: ask
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["###"], do_sample: false}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture(scope="module")
def model(work: Path) -> Path:
    """A tiny model whose answers differ from question to question."""
    subprocess.run([sys.executable, str(ROOT / "tests" / "tiny_model.py"), str(work / "talker"), "untied"], check=True)
    return work / "talker"


@pytest.fixture(scope="module")
def server(model: Path, work: Path) -> Iterator[str]:
    """Base URL of the tiny model's server, which wants a key; it may still be loading."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = ["--model", str(model), "--model_type", "llama", "--template", "chatml", "--torch_dtype", "float32"]
    words += [
        "--infer_backend",
        "transformers",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--served_model_name",
        "tiny",
    ]
    env = environment() | {
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    argv = [str(Path(sys.executable).parent / "swift"), "deploy", *words, "--api_key", KEY]
    with (work / "deploy.log").open("w") as log:
        process = subprocess.Popen(argv, env=env, cwd=work, stdout=log, stderr=log, start_new_session=True)
    yield f"http://127.0.0.1:{port}/v1"
    os.killpg(process.pid, signal.SIGTERM)  # the launcher and the server, which it would leave behind
    process.wait(timeout=30)


def wait_for(url: str, work: Path) -> None:
    deadline = time.monotonic() + 120
    while problem := endpoint.problem(Endpoint(url, "tiny"), {}):
        assert time.monotonic() < deadline, problem + (work / "deploy.log").read_text()[-3000:]
        time.sleep(0.2)


def recipe(work: Path, name: str, model: dict[str, Any]) -> Path:
    demo = ROOT / "recipes" / "demo"
    tasks = work / "ask-tasks"
    tasks.mkdir(exist_ok=True)
    (tasks / "ask.yaml").write_text(ASK.replace("FILE", str(demo / "evalscope" / "bank_val.jsonl")))
    text = {
        "name": name,
        "model": model,
        "eval": [
            {"harness": "lm_eval", "tasks": ["ask"], "include_path": str(tasks), "limit": 5, "max_tokens": 12,
             "batch_size": 1},
            {"harness": "evalscope", "limit": 5, "max_tokens": 12, "batch_size": 1, "datasets": [
                {"name": "general_qa", "path": str(demo / "evalscope_qa"), "args": {"subset_list": ["open"], "metric_list": ["Rouge"]}}
            ]},
        ],
        "dialogues": {"prompts": ["Who are you?", "Name a colour."], "system": "Be brief.", "max_tokens": 12},
        "runtime": {"offline": True},
        "tracking": {"mode": "disabled"},
    }  # fmt: skip
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
    return path


def outputs(work: Path, name: str) -> dict[str, Any]:
    """What the model wrote, by suite and item."""
    listing = json.loads((work / "runs" / name / "stages.json").read_text())["stages"]
    found: dict[str, Any] = {}
    for line in listing:
        file = work / "runs" / name / line["dir"] / "output" / "samples.jsonl"
        if file.is_file():
            samples = [json.loads(text) for text in file.read_text().split("\n") if text]
            found |= {f"{line['label']} {s['doc_key']}": (s.get("output"), s["scores"]) for s in samples}
    report = json.loads((work / "runs" / name / "report.json").read_text())
    return found | {d["messages"][-1]["content"]: d["answers"] for d in report["dialogues"]}


def test_a_served_model_answers_as_from_its_folder(server: str, model: Path, work: Path, pipeline: Runner) -> None:
    local = {"path": str(model), "model_type": "llama", "template": "chatml"}
    served = {"url": server, "served_as": "tiny", "key_env": "TINY_KEY"}
    for name, which in (("folder", local), ("served", served)):
        if which is served:
            wait_for(server, work)
        done = pipeline(recipe(work, name, which), TINY_KEY=KEY)
        assert done.returncode == 0, done.stderr[-3000:]
    offline, online = outputs(work, "folder"), outputs(work, "served")
    assert len(offline) == 5 + 5 + 2
    assert online == offline
    assert len({json.dumps(value) for value in offline.values()}) > 6, "the model says more than one thing"
    files = [path for path in (work / "runs").rglob("*") if path.is_file()]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_without_its_key_the_server_is_not_scored(server: str, work: Path, pipeline: Runner) -> None:
    wait_for(server, work)
    model = {"url": server, "served_as": "tiny", "revision": "2"}
    done = pipeline(recipe(work, "keyless", model), "eval", "--set", "dialogues=null", OPENAI_API_KEY="wrong-key")
    assert done.returncode == 4, done.stderr[-3000:]
    assert "API key error" in done.stderr or "400" in done.stderr
