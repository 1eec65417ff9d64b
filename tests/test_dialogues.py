"""Sample dialogues: which conversations are asked, how, and the answers side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import dialogues as talk
from pipeline.command import Command
from pipeline.endpoint import Endpoint
from pipeline.errors import OutputError, PreflightError
from pipeline.machine import Gpu, Machine
from pipeline.plan import Plan, plan
from pipeline.preflight import check, check_sources
from pipeline.recipe import Recipe
from pipeline.resolve import resolve
from pipeline.sources import digest
from pipeline.stage import Source, Stage
from pipeline.stages import dialogues
from pipeline.store import Store

ROOT = Path(__file__).parents[1]
CPU = Machine(system="Linux", cpus=2, memory_gb=8, gpus=())
GPU = Machine(system="Linux", cpus=2, memory_gb=8, gpus=(Gpu(name="A100", memory_gb=80, compute_capability=(8, 0)),))


def turns(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """Turns of user and assistant in turn."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def planned(machine: Machine = CPU, **fields: Any) -> Plan:
    data = {
        "name": "r",
        "model": {"path": "m", "model_type": "llama"},
        "data": {"sources": [{"path": "d.json"}], "val_fraction": 0.1},
        "train": {"max_steps": 4},
        "dialogues": {"prompts": ["Hello"]},
        **fields,
    }
    recipe = Recipe.model_validate_json(json.dumps({k: v for k, v in data.items() if v is not None}))
    return plan(resolve(recipe, machine)[0])


def words(stage: Stage) -> Command:
    return stage.command(stage, Path("out"), {role: Path("in") / role for role in stage.deps})


@pytest.mark.parametrize(
    ("messages", "asked", "reference"),
    [
        (turns("q", "a"), turns("q"), "a"),
        (turns("q"), turns("q"), None),
        (turns("q", "a", "r", "b"), turns("q", "a", "r"), "b"),
        (turns("q", "a", system="s"), turns("q", system="s"), "a"),
        ([*turns("q"), {"role": "system", "content": "s"}], turns("q"), None),
    ],
)
def test_a_conversation_is_asked_up_to_the_last_user_turn(messages: Any, asked: Any, reference: Any) -> None:
    assert talk.split(messages) == (asked, reference)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "should be"),
        ({"messages": "x"}, "should be"),
        ({"messages": []}, "no user turn"),
        ({"messages": [{"role": "user", "content": 1}]}, "a text as content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "a role out of"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "no user turn"),
        ({"messages": turns("q")}, None),
    ],
)
def test_what_cannot_be_asked_is_told(record: Any, message: str | None) -> None:
    found = talk.problem(record)
    assert found is None if message is None else message in str(found)


def test_the_choice_is_by_content_and_of_answered_conversations() -> None:
    rows: list[dict[str, Any]] = [{"messages": turns(f"q{i}", f"a{i}")} for i in range(40)]
    some = talk.chosen(rows, 5)
    assert len(some) == 5
    assert talk.chosen(reversed(rows), 5) == some
    assert talk.chosen(rows, 7)[:5] == some
    assert (
        talk.chosen([{"messages": turns("only asked")}, {"messages": [{"role": "tool_call", "content": "{}"}]}], 5)
        == []
    )


def test_answers_meet_by_conversation() -> None:
    def row(question: str, answer: str) -> dict[str, Any]:
        return {"messages": turns(question), "reference": f"known {question}", "answer": answer}

    found = talk.side_by_side({"base": [row("a", "1"), row("b", "2")], "tuned": [row("a", "3"), row("b", "4")]})
    assert [d.answers for d in found] == [{"base": "1", "tuned": "3"}, {"base": "2", "tuned": "4"}]
    assert [d.reference for d in found] == ["known a", "known b"]
    assert talk.side_by_side({"base": [row("a", "1")]})[0].answers == {"base": "1"}
    assert talk.side_by_side({}) == []


def run(folder: Path, stage: Stage, **deps: Path) -> subprocess.CompletedProcess[str]:
    command = stage.command(stage, folder / "out", deps)
    for path, text in command.files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    argv = [sys.executable, *command.argv[1:]]
    return subprocess.run(
        argv, capture_output=True, text=True, cwd=folder, env={"PYTHONPATH": str(ROOT)}, timeout=60, check=False
    )


def test_prompts_a_file_and_validation_rows_are_asked(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text(json.dumps({"messages": turns("own", "known", system="mine")}) + "\n\n")
    rows = [{"messages": turns(f"v{i}", f"w{i}")} for i in range(9)]
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "prompts": ["-- first\u2028prompt", "zweite"],
        "path": str(tmp_path / "own.jsonl"),
        "from_validation": 2,
        "system": "-s",
    }
    stage = planned(dialogues=spec).stages["dialogues"]
    done = run(tmp_path, stage, path=tmp_path / "own.jsonl", data=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [
        json.loads(line)["messages"] for line in (tmp_path / "out" / "asked.jsonl").read_text().split("\n") if line
    ]
    picked = [talk.split(row["messages"]) for row in talk.chosen(rows, 2)]
    assert found == [
        turns("-- first\u2028prompt", system="-s"), turns("zweite", system="-s"), turns("own", system="mine"),
        *(turns(asked[0]["content"], system="-s") for asked, _ in picked),
    ]  # fmt: skip
    references = json.loads((tmp_path / "out" / "references.json").read_text())
    assert references == [None, None, "known", *(reference for _, reference in picked)]
    assert stage.collect(tmp_path / "out", stage, {}) == {"asked": 5}


def test_a_recipe_without_data_asks_its_prompts_alone(tmp_path: Path) -> None:
    alone = planned(data=None, train=None, eval=[{"harness": "lm_eval", "tasks": ["arc_easy"]}])
    stage = alone.stages["dialogues"]
    assert stage.deps == {}
    assert run(tmp_path, stage).returncode == 0
    assert stage.collect(tmp_path / "out", stage, {}) == {"asked": 1}
    assert {"dialogues", "dialogues.base"} <= alone.stages.keys()
    without = planned(dialogues={"from_validation": 3}, data={"sources": [{"path": "d"}], "val_fraction": 0}).stages[
        "dialogues"
    ]
    assert run(tmp_path, without).returncode == 0
    with pytest.raises(OutputError, match="nothing to ask"):
        without.collect(tmp_path / "out", without, {})


def test_base_and_tuned_are_asked_the_same_greedily() -> None:
    stages = planned(dialogues={"prompts": ["Hi"], "max_tokens": 9, "precision": "float32"}).stages
    base, tuned = stages["dialogues.base"], stages["dialogues.tuned"]
    assert base.args == tuned.args
    assert tuned.deps["model"] is stages["export"]
    assert base.deps["asked"] is tuned.deps["asked"] is stages["dialogues"]
    argv = words(tuned).argv
    expected = {
        "temperature": "0",
        "max_new_tokens": "9",
        "torch_dtype": "float32",
        "model_type": "llama",
        "load_args": "false",
    }
    assert {flag: argv[argv.index(f"--{flag}") + 1] for flag in expected} == expected
    assert argv[argv.index("--val_dataset") + 1] == "in/asked/asked.jsonl"
    assert tuned.env["CUDA_VISIBLE_DEVICES"] == ""
    assert planned(GPU).stages["dialogues.base"].gpus == 1


def test_a_served_model_is_asked_over_its_url() -> None:
    stages = planned(
        data=None, train=None, model={"url": "http://127.0.0.1:8000/v1", "served_as": "x", "key_env": "MY_KEY"},
        eval=[{"harness": "lm_eval", "tasks": ["gsm8k"]}],
    ).stages  # fmt: skip
    command = words(stages["dialogues.base"])
    assert command.argv[:5] == ("python", "-m", "pipeline.endpoint", "http://127.0.0.1:8000/v1", "x")
    assert command.keys == {"OPENAI_API_KEY": "MY_KEY"}
    assert set(stages["dialogues.base"].deps) == {"asked"}


def test_every_answer_is_there_or_none_counts(tmp_path: Path) -> None:
    spec = planned().stages["dialogues.base"]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps({"messages": turns(q)}) + "\n" for q in "ab"))
    (tmp_path / "references.json").write_text('["r", null]')
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"response": "one", "labels": null}\n{"response": ""}\n')
    assert spec.collect(tmp_path, spec, {"asked": tmp_path}) == {
        "dialogues": [
            {"messages": turns("a"), "reference": "r", "answer": "one"},
            {"messages": turns("b"), "reference": None, "answer": ""},
        ]
    }
    for text in ('{"response": "one"}\n', '{"response": "one"}\n{"respon', '{"response": "one"}\n{"response": null}\n'):
        answers.write_text(text)
        with pytest.raises(OutputError, match="answers.jsonl"):
            spec.collect(tmp_path, spec, {"asked": tmp_path})


def test_a_bad_file_is_refused_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    spec = {"path": str(path)}
    recipe = resolve(
        Recipe.model_validate_json(
            json.dumps(
                {
                    "name": "r",
                    "model": {"path": str(tmp_path)},
                    "dialogues": spec,
                    "eval": [{"harness": "lm_eval", "tasks": ["arc_easy"]}],
                }
            )
        ),
        CPU,
    )[0]
    stages = list(plan(recipe).stages.values())
    with pytest.raises(PreflightError, match=r"own.jsonl: no such file or folder; check dialogues.path"):
        check_sources(recipe, stages, tmp_path, {})
    path.write_text('{"messages": [{"role": "user", "content": "q"}]}\n{"messages": []}\nnot json\n')
    with pytest.raises(PreflightError) as error:
        check(recipe, stages, Store(tmp_path / "runs", digest), {})
    assert f"{path}, line 2: holds no user turn" in str(error.value)
    assert f"{path}, line 3: no JSON" in str(error.value)


def test_the_stage_knows_what_a_served_model_is() -> None:
    spec = Recipe.model_validate_json(json.dumps({
        "name": "r", "model": {"path": "m"}, "eval": [{"harness": "lm_eval", "tasks": ["x"]}], "dialogues": {"prompts": ["q"]},
    })).dialogues  # fmt: skip
    assert spec is not None
    asked = dialogues.asked(spec, data=None)
    model = Recipe.model_validate_json(
        '{"name": "r", "model": {"path": "m"}, "eval": [{"harness": "lm_eval", "tasks": ["x"]}]}'
    ).models[0]
    marks = {
        dialogues.stage(spec, model, model=place, asked=asked, chat_template=True).fingerprint(lambda s: str(s.path))
        for place in (
            Source(Path("a")),
            Source(Path("b")),
            Endpoint("http://h/v1", "x"),
            Endpoint("http://h/v1", "x", key_env="K_KEY"),
        )
    }
    assert len(marks) == 3
