"""The whole pipeline as users call it, in real processes; only the tools behind it are stand-ins (tests/bin)."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline import run
from tests.worlds import ROOT, STEPS, World, build, wait_for

WHOLE = ["sft", "export", "evalscope", "evalscope", "lm_eval", "lm_eval"]
"""In the order in which one worker runs them the first time: checks, training, then what takes longest."""
CANARIES = {"SWANLAB_API_KEY": "canary-swan-5d1f", "HF_TOKEN": "canary-hf-77e2", "MODELSCOPE_API_TOKEN": "canary-ms-9c"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return build(tmp_path)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One whole run; tests work on copies, for identity is content, not place."""
    world = build(tmp_path_factory.mktemp("done"))
    world.write("output.txt", world.run())
    assert world.tools() == WHOLE
    return world


@pytest.fixture
def done(template: World, tmp_path: Path) -> World:
    shutil.copytree(template.folder, tmp_path / "world", symlinks=True)
    return World(tmp_path / "world")


# ---- the normal course


def test_full_run_ends_with_the_table_and_all_files(done: World) -> None:
    output = (done.folder / "output.txt").read_text()
    assert re.search(r"bank +acc +20 +0\.400 +0\.950 +\+0\.550", output), output
    assert re.search(r"general_mcq/bank +accuracy +20 ", output), output
    folder = done.runs / "small"
    for name in ("report.json", "report.md", "report.html", "scores.csv", "recipe.yaml", "stages.json"):
        assert (folder / name).stat().st_size > 0
    report = done.report
    assert {(row["suite"], row["metric"], row["n"]) for row in report["rows"]} == {
        ("lm_eval", "acc", 20), ("lm_eval", "acc_norm", 20), ("evalscope", "accuracy", 20),
    }  # fmt: skip
    assert all(row["gained"] == 11 and row["lost"] == 0 and row["p_value"] < 0.01 for row in report["rows"])
    assert [p["step"] for p in report["curve"] if "loss" in p] == list(range(1, STEPS + 1))
    assert report["train"]["steps"] == STEPS
    assert report["data"]["rows_in"] == 40
    assert not [line for line in report["stages"] if not line["done"]]
    states = json.loads((folder / "stages.json").read_text())["stages"]
    assert {line["status"] for line in states} == {"done"}


def test_rerun_starts_no_tool(done: World) -> None:
    output = done.run()
    assert done.tools() == []
    assert "eval.lm_eval.tuned: already done" in output
    assert "+0.550" in output


def test_reports_of_other_variants_are_kept_whole(done: World) -> None:
    folder = done.runs / "small"
    done.run("submission")
    done.run("data", "--set", "train.rank=4")
    assert (folder / "history" / "1" / "submission.zip").is_file()
    assert not (folder / "submission.zip").exists(), "it holds other results than the report beside it"
    (folder / "history" / "1").rename(folder / "history" / "2")  # an older one was deleted by hand
    done.run("data", "--set", "train.rank=8")
    assert sorted(path.name for path in (folder / "history").iterdir()) == ["2", "3"]


def test_what_a_file_manager_leaves_among_attempts_is_no_attempt(done: World) -> None:
    (done.stage("train") / "attempts" / ".DS_Store").write_bytes(b"")
    assert "+0.550" in done.run()


def test_a_changed_setting_runs_only_what_depends_on_it(done: World) -> None:
    done.run("--set", "train.learning_rate=0.0002")
    assert sorted(done.tools()) == ["evalscope", "export", "lm_eval", "sft"]
    assert (done.runs / "small" / "history" / "1" / "report.json").is_file()
    done.run()  # back to the first variant: all of it is still there
    assert done.tools() == []


def test_changed_data_prepares_and_trains_again(done: World) -> None:
    rows = json.loads((done.folder / "train.json").read_text())
    rows[0]["output"] = "Something else."
    done.write("train.json", json.dumps(rows))
    done.run("train")
    assert done.tools() == ["sft"]
    assert len(list((done.runs / "stages").glob("data-*"))) == 2


def test_touching_and_moving_inputs_changes_nothing(done: World) -> None:
    os.utime(done.folder / "train.json")
    (done.folder / "model").rename(done.folder / "elsewhere")
    done.run("--set", "model.path=elsewhere")
    assert done.tools() == []


def test_the_recipe_beside_the_report_runs_again_and_finds_everything(done: World) -> None:
    done.run()  # given by a relative path, from the working directory
    assert "already done" in done.run(recipe="runs/small/recipe.yaml")
    assert done.tools() == []


def test_another_recipe_shares_the_base_evaluation(done: World) -> None:
    text = (done.folder / "recipe.yaml").read_text()
    done.write("other.yaml", text.replace("name: small", "name: other").replace("max_steps: 8", "max_steps: 6"))
    output = done.run(recipe="other.yaml")
    assert sorted(done.tools()) == ["evalscope", "export", "lm_eval", "sft"]
    assert "eval.lm_eval.base: already done" in output


def test_targets_one_after_another_go_on(world: World) -> None:
    world.run("train")
    assert world.tools() == ["sft"]
    world.run("eval")
    assert world.tools() == WHOLE[1:]
    world.run()
    assert world.tools() == []


def test_status_says_what_is_there(done: World) -> None:
    assert re.findall(r"^(\S+) +(\w+)", done.run("status"), re.MULTILINE) == [
        (label, "done")
        for label in (
            "data", "data.contamination", "plan", "train", "export",
            "eval.lm_eval.base", "eval.lm_eval.tuned", "eval.evalscope.base", "eval.evalscope.tuned",
        )
    ]  # fmt: skip
    shutil.rmtree(done.stage("train"))
    assert re.search(r"^train +missing", done.run("status"), re.MULTILINE)


def test_a_lost_output_is_not_taken_for_done(done: World) -> None:
    [weights] = done.stage("export").glob("output/merged/*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    for folder in (done.runs / "stages").glob("eval-*"):
        shutil.rmtree(folder)
    done.run()
    assert "export" in done.tools()


def test_dry_run_prints_every_command_and_starts_nothing(world: World) -> None:
    output = world.run("--dry-run")
    for part in ("-m data_prep", "swift sft", "swift export", "lm_eval run", "evalscope eval"):
        assert part in output
    assert world.tools() == []
    assert not world.runs.exists()


def test_dry_run_is_a_script_that_does_the_same(done: World) -> None:
    text = (done.folder / "recipe.yaml").read_text()
    # A task with local data of its own needs a file beside the command: lm-eval's suite.
    done.write("recipe.yaml", text.replace("tasks: [bank]", "tasks: [{name: bank, path: bank/bank_val.jsonl}]"))
    script = done.write("run.sh", done.run("--dry-run"))
    env = done.env() | {"PATH": f"{ROOT / 'tests' / 'bin'}:{done.env()['PATH']}", "RUNS": str(done.folder / "by hand")}
    subprocess.run(["sh", "-eu", str(script)], env=env, cwd=done.folder, check=True, stdout=subprocess.DEVNULL)
    assert sorted(done.tools()) == sorted(WHOLE)
    done.run()
    assert done.tools() == ["lm_eval", "lm_eval"]
    for name in ("bank", "general_mcq_bank"):
        theirs = sorted(path.read_text() for path in (done.folder / "by hand").rglob(f"*{name}*.jsonl"))
        ours = {path.read_text() for path in done.runs.rglob(f"*{name}*.jsonl")}
        assert theirs
        assert set(theirs) <= ours


# ---- failures, each with its exit code


def test_failing_tool_tells_stage_command_cause_and_last_lines(world: World) -> None:
    world.extra = {
        "FAKE_FAIL": "sft",
        "FAKE_FAIL_TEXT": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate",
    }
    output = world.run(status=4)
    log = world.stage("train") / "log.txt"
    assert "train: the tool ended with status 1: GPU memory ran out: lower micro_batch_size" in output
    assert f"last lines of {log}:" in output
    assert "  | torch.OutOfMemoryError: CUDA out of memory" in output
    assert "not run, for want of that: export, eval.lm_eval.tuned, eval.evalscope.tuned" in output
    assert world.tools() == ["sft", "evalscope", "lm_eval"], "the base model is evaluated all the same"
    assert not (world.stage("train") / "result.json").exists()
    # The command that is printed does by itself what the pipeline did.
    command = output.split("command:\n")[1].split("last lines of")[0]
    shutil.rmtree(world.stage("train") / "attempts")
    world.extra = {}
    env = world.env() | {"PATH": f"{ROOT / 'tests' / 'bin'}:{world.env()['PATH']}"}
    subprocess.run(["sh", "-c", command], env=env, cwd=world.folder, check=True, stdout=subprocess.DEVNULL)
    assert (world.stage("train") / f"attempts/1/checkpoint-{STEPS}").is_dir()
    # What was finished before the failure is reported, and the next call goes on behind it.
    done = [line["label"] for line in world.report["stages"] if line["done"]]
    assert done == ["data", "data.contamination", "plan", "eval.lm_eval.base", "eval.evalscope.base"]
    world.calls()
    world.run("train")
    assert world.tools() == ["sft"]


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"FAKE_NAN": "3"}, r"training diverged: step 3: grad_norm = nan"),
        ({"FAKE_UNTRAINED": "1"}, r"all 1 lora_B matrices are zero"),
        ({"FAKE_NO_OUTPUT": "sft"}, r"left no whole checkpoint"),
        ({"FAKE_NO_OUTPUT": "export"}, r"left no config\.json or no safetensors"),
        ({"FAKE_NO_OUTPUT": "lm_eval"}, r"left no results_\*\.json"),
        ({"FAKE_NO_OUTPUT": "evalscope"}, r"left no report for general_mcq"),
    ],
)
def test_wrong_output_ends_with_5_and_only_what_does_not_depend_on_it_runs(
    world: World, switches: dict[str, str], message: str
) -> None:
    world.extra = switches
    output = world.run(status=5)
    assert re.search(message, output), output
    assert "Traceback" not in output
    broken = switches.get("FAKE_NO_OUTPUT", "sft")
    behind = {"sft": ["export", "evalscope", "lm_eval"], "export": ["evalscope", "lm_eval"]}.get(broken, [])
    tools = world.tools()
    assert sorted([*tools, *behind]) == sorted(WHOLE)
    states = json.loads((world.runs / "small" / "stages.json").read_text())["stages"]
    failed = [line for line in states if line["status"] == "failed"]
    assert len(failed) == tools.count(broken)
    for line in failed:
        folder = world.runs / "small" / line["dir"]
        assert (folder / "attempts" / "1").is_dir(), "what the tool left stays for a look at it"
        assert not (folder / "result.json").exists()
        assert not (folder / "output").exists()


def test_a_diverged_attempt_is_not_gone_on_from(world: World) -> None:
    world.extra = {"FAKE_NAN": "3"}
    world.run("train", status=5)
    world.calls()
    world.extra = {}
    world.run("train")
    [call] = world.calls()
    resumed = [word for word in call["argv"] if "checkpoint-" in word]
    # Only a checkpoint from before the divergence may be used.
    assert not resumed or resumed[0].endswith("checkpoint-2"), resumed


def test_recipe_mistakes_end_with_2(world: World) -> None:
    world.write("recipe.yaml", (world.folder / "recipe.yaml").read_text().replace("max_steps", "max_step"))
    output = world.run(status=2)
    assert "recipe.yaml:8: train.max_step: unknown key; did you mean 'max_steps'?" in output
    assert world.tools() == []
    world.run("--set", "train.nothing=1", status=2)
    world.run(recipe="absent.yaml", status=2)


def _cut_weights(world: World) -> None:
    path = world.folder / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def _auto_map(world: World) -> None:
    path = world.folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoModel": "m.M"}}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: shutil.rmtree(w.folder / "model"), r"no such model folder; check model\.path"),
        (lambda w: (w.folder / "model" / "config.json").unlink(), r"no config\.json"),
        (_cut_weights, r"model\.safetensors: \d+ bytes, the header says \d+"),
        (lambda w: w.write("model/config.json", '{"model_type": "lla'), r"config\.json: not JSON, so it is cut"),
        (lambda w: w.write("model/tokenizer.json", ""), r"tokenizer\.json: not JSON, so it is cut"),
        (_auto_map, r"auto_map makes the tools run code"),
        (lambda w: w.write("model/modeling.py", "x = 1"), r"modeling\.py: the tools would run this file"),
        (
            lambda w: (w.folder / "model" / "model.safetensors").rename(w.folder / "model" / "w.bin"),
            r"no \*\.safetensors",
        ),
        (lambda w: (w.folder / "train.json").unlink(), r"train\.json: no such file or folder; check data\.sources"),
        (lambda w: shutil.rmtree(w.folder / "bank"), r"bank: no such file or folder; check eval"),
    ],
)
def test_preflight_ends_with_3_before_anything_starts(world: World, damage: object, message: str) -> None:
    damage(world)  # type: ignore[operator]
    output = world.run(status=3)
    assert re.search(message, output), output
    assert world.tools() == []
    assert not (world.runs / "stages").exists()


def test_preflight_names_all_problems_at_once(world: World) -> None:
    shutil.rmtree(world.folder / "model")
    (world.folder / "train.json").unlink()
    output = world.run("--set", "runtime.min_free_gb=1e9", status=3)
    for part in ("no such model folder", "train.json: no such file", "runtime.min_free_gb asks for"):
        assert part in output


def test_missing_tool_ends_with_3(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    for name, value in (("PATH", "/nonexistent"), ("PIPELINE_TOOLS", ""), ("CUDA_VISIBLE_DEVICES", "")):
        monkeypatch.setenv(name, value)
    assert run.main([str(world.folder / "recipe.yaml"), "--runs-dir", str(world.runs)]) == 3
    text = capsys.readouterr().err
    for tool in ("swift", "lm_eval", "evalscope"):
        assert f"{tool}: not found; run `make setup`" in text


def test_code_in_the_model_runs_only_when_allowed(world: World) -> None:
    world.write("model/modeling.py", "x = 1")
    world.run("data", "--set", "trust_remote_code=true")
    world.run("train", "--set", "trust_remote_code=true")
    assert world.tools() == ["sft"]


# ---- stops and deaths


def _hanging(world: World, *words: str) -> subprocess.Popen[str]:
    """A pipeline whose training, in two workers with sessions of their own, hangs behind checkpoint-4."""
    world.extra = {"FAKE_WORKERS": "2", "FAKE_HANG_AT": "5"}
    process = world.start("train", *words)
    wait_for(lambda: list(world.runs.glob("stages/train-*/attempts/*/checkpoint-4/trainer_state.json")))
    wait_for(lambda: len(world.living()) == 3)
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_everything_and_the_next_call_goes_on(world: World, number: int, status: int) -> None:
    process = _hanging(world)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == status, output
    assert f"stopped by signal {int(number)}; run the same command again" in output
    assert world.living() == []
    world.calls()
    world.extra = {}
    output = world.run("train")
    assert "attempts/1/checkpoint-4" in output
    [call] = world.calls()
    assert call["argv"][-2:] == ["--resume_from_checkpoint", str(world.stage("train") / "attempts/1/checkpoint-4")]


def test_a_second_signal_does_not_leave_processes(world: World) -> None:
    process = _hanging(world)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (130, 143)
    wait_for(lambda: world.living() == [], 5)


@pytest.mark.parametrize("damaged", [False, True])
def test_after_kill_9_strays_are_ended_and_training_goes_on(world: World, damaged: bool) -> None:
    process = _hanging(world)
    process.kill()
    process.communicate()
    assert len(world.living()) == 3, "the workers should have outlived the pipeline"
    if damaged:
        weights = world.stage("train") / "attempts/1/checkpoint-4/adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-3])
    strays = world.living()
    world.calls()
    world.extra = {}
    output = world.run()
    assert "train: ended 3 processes that an earlier, killed run had left" in output
    assert not set(strays) & set(world.living())
    step = 2 if damaged else 4
    resumed = world.stage("train") / f"attempts/1/checkpoint-{step}"
    [sft] = [call for call in world.calls() if call["tool"] == "sft"]
    assert sft["argv"][-2:] == ["--resume_from_checkpoint", str(resumed)]
    assert f"train: going on from {resumed}" in output
    report = world.report
    assert [p["step"] for p in report["curve"] if "loss" in p] == list(range(1, STEPS + 1))
    assert [p["step"] for p in report["curve"] if "eval_loss" in p] == [4, STEPS]
    assert report["train"]["steps"] == STEPS
    assert report["train"]["first_loss"] == 2.0, "of the whole training, not of the last attempt"
    left = sorted(path.name for path in (world.stage("train") / "attempts/1").iterdir())
    assert left == ["args.json", "learnable_rows.py", "logging.jsonl"], "the log for the curve, no checkpoints"


def test_two_pipelines_on_one_recipe_exclude_each_other(world: World) -> None:
    first = _hanging(world)
    try:
        output = world.run("train", status=3)
        assert f"small: process {first.pid} on " in output
        assert "is running this recipe" in output
        assert re.search(r"^train +running", world.run("status"), re.MULTILINE)
    finally:
        first.terminate()
        first.communicate(timeout=60)
    assert world.living() == []


def test_two_recipes_racing_for_one_evaluation_run_it_once(world: World) -> None:
    text = (world.folder / "recipe.yaml").read_text()
    evaluation = "eval:\n" + text.split("eval:\n")[1].split("  - harness: evalscope")[0]
    for name in ("one", "two"):
        model = "model: {path: model, model_type: llama, template: chatml}\n"
        world.write(f"{name}.yaml", f"name: {name}\n{model}{evaluation}tracking: {{mode: disabled}}\n")
    world.extra = {"FAKE_EVAL_SLEEP": "2"}
    both = [world.start(recipe=name) for name in ("one.yaml", "two.yaml")]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert world.tools() == ["lm_eval"]
    assert sum("eval.lm_eval.base: waiting for process" in output for output in outputs) == 1
    assert all(re.search(r"bank +acc .*0\.400", output) for output in outputs), outputs


# ---- several at a time, on GPUs


@pytest.fixture
def six(world: World) -> World:
    """Six suites on one model, and the facts of a machine with two GPUs."""
    suites = [
        f"  - {{harness: lm_eval, name: s{limit}, tasks: [bank], include_path: tasks, limit: {limit}}}\n"
        for limit in range(11, 17)
    ]
    model = "model: {path: model, model_type: llama, template: chatml}\n"
    world.write("six.yaml", f"name: small\n{model}eval:\n{''.join(suites)}tracking: {{mode: disabled}}\n")
    gpu = {"name": "A100", "memory_gb": 80, "compute_capability": [8, 0]}
    world.write("two.json", json.dumps({"system": "Linux", "cpus": 8, "memory_gb": 64, "gpus": [gpu, gpu]}))
    return world


SIX = ("--machine", "two.json")


def _states(world: World) -> list[str]:
    listing = world.runs / "small" / "stages.json"
    return sorted(line["status"] for line in json.loads(listing.read_text())["stages"]) if listing.exists() else []


def _never_two_on_one_gpu(times: list[dict[str, Any]]) -> None:
    for gpu in {row["gpus"] for row in times}:
        mine = sorted((row["start"], row["end"]) for row in times if row["gpus"] == gpu)
        assert all(earlier[1] <= later[0] for earlier, later in pairwise(mine)), mine


def test_six_evaluations_on_two_gpus_with_one_failure(six: World) -> None:
    six.extra = {"FAKE_EVAL_SLEEP": "0.4", "FAKE_FAIL_WORD": "13"}
    output = six.run(*SIX, recipe="six.yaml", status=4)
    times = six.times()
    assert {row["gpus"] for row in times} == {"0", "1"}
    assert len(times) == 6
    _never_two_on_one_gpu(times)
    starts, ends = sorted(row["start"] for row in times), sorted(row["end"] for row in times)
    assert starts[1] < ends[0], "two ran at a time"
    assert "eval.s13.base: the tool ended with status 1" in output
    assert {(score["suite"], score["n"]) for score in six.report["scores"]} == {
        (f"s{limit}", limit) for limit in (11, 12, 14, 15, 16)
    }
    assert "report: runs/small/report.html" in output
    six.calls()
    six.extra = {}
    six.run(*SIX, recipe="six.yaml")
    [call] = six.calls()
    assert "13" in call["argv"]
    assert len(six.report["scores"]) == 12


def test_the_users_own_gpus_are_the_ones_that_are_used(six: World) -> None:
    six.extra = {"CUDA_VISIBLE_DEVICES": "GPU-c0ffee,5"}
    six.run(*SIX, recipe="six.yaml")
    times = six.times()
    assert {row["gpus"] for row in times} == {"GPU-c0ffee", "5"}
    _never_two_on_one_gpu(times)


def test_ctrl_c_stops_all_that_run_and_the_next_call_does_only_the_rest(six: World) -> None:
    six.extra = {"FAKE_EVAL_SLEEP_BUT": "600:11,12"}
    process = six.start(*SIX, recipe="six.yaml")
    wait_for(lambda: _states(six) == ["done"] * 4 + ["running"] * 2 and len(six.living()) == 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "stopping 2 running stages" in output
    assert six.living() == []
    six.calls()
    six.extra = {}
    six.run(*SIX, recipe="six.yaml")
    assert sorted(call["argv"][call["argv"].index("--limit") + 1] for call in six.calls()) == ["11", "12"]


def test_a_killed_evaluation_resumes_without_repeating_what_was_finished(six: World) -> None:
    six.extra = {"FAKE_EVAL_SLEEP_BUT": "600:11,12"}
    process = six.start(*SIX, recipe="six.yaml")
    wait_for(lambda: _states(six) == ["done"] * 4 + ["running"] * 2 and len(six.living()) == 2)
    process.kill()
    process.communicate()
    strays = six.living()
    assert len(strays) == 2
    six.calls()
    six.extra = {}
    output = six.run(*SIX, recipe="six.yaml")
    assert output.count("ended 1 processes that an earlier, killed run had left") == 2
    assert not set(strays) & set(six.living())
    assert sorted(call["argv"][call["argv"].index("--limit") + 1] for call in six.calls()) == ["11", "12"]
    assert len(six.report["scores"]) == 12


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("result.json", "result.json is cut, or something else"),
        ("output/samples.jsonl", "output/samples.jsonl has "),
    ],
)
def test_a_damaged_result_is_named_never_scored_and_made_again(done: World, file: str, words: str) -> None:
    folder = next(
        path.parent for path in (done.runs / "stages").glob("eval-*/result.json") if "lm_eval" in path.read_text()
    )
    path = folder / file
    path.write_bytes(path.read_bytes()[:-9])
    assert re.search(r"^eval\.lm_eval\.\w+ +damaged", done.run("status"), re.MULTILINE)
    output = done.run()
    assert f"runs/stages/{folder.name}: {words}" in output
    assert "not used, made again" in output
    assert done.tools() == ["lm_eval"]
    assert {row["n"] for row in done.report["rows"]} == {20}


def test_out_of_memory_halves_the_batch_until_it_fits(world: World) -> None:
    text = (
        (world.folder / "recipe.yaml")
        .read_text()
        .replace("    tasks: [bank]", "    tasks: [bank]\n    batch_size: auto")
    )
    world.write("recipe.yaml", text)
    world.extra = {"FAKE_OOM_ABOVE": "8"}
    output = world.run()
    calls = [call["argv"] for call in world.calls() if call["tool"] == "lm_eval"]
    assert [argv[argv.index("--batch_size") + 1] for argv in calls] == ["16", "8"] * 2
    assert "eval.lm_eval.base: batch_size 16 -> 8 after out of memory; starting it again" in output
    assert "lm_eval, base: batch_size 16 -> 8 after out of memory" in world.report["remarks"]
    world.extra = {"FAKE_OOM_ABOVE": "0"}
    world.run("--set", "eval.0.limit=7", status=4)
    calls = [call["argv"] for call in world.calls()]
    assert [argv[argv.index("--batch_size") + 1] for argv in calls] == ["16", "8", "4", "2", "1"] * 2


def test_smoke_runs_come_first_and_stop_everything_when_they_fail(world: World) -> None:
    smoke = ("--set", "runtime.smoke=true")
    world.extra = {"FAKE_FAIL": "lm_eval"}
    output = world.run(*smoke, status=4)
    assert sorted(world.tools()) == ["evalscope", "lm_eval"]
    assert "smoke.lm_eval.base: the tool ended with status 1" in output
    assert not list((world.runs / "stages").glob("data-*"))
    world.extra = {}
    world.run(*smoke)
    calls = world.calls()
    assert [call["tool"] for call in calls] == ["lm_eval", *WHOLE]
    limits = [call["argv"][call["argv"].index("--limit") + 1] if "--limit" in call["argv"] else None for call in calls]
    assert limits == ["5", *[None] * len(WHOLE)]
    script = world.run("--dry-run", *smoke)
    assert script.index("# smoke.evalscope.base") < script.index("# data")
    for folder in (world.runs / "stages").glob("smoke-*"):
        shutil.rmtree(folder)
    world.run(*smoke)
    assert world.tools() == [], "what is there needs no smoke run"


# ---- secrets, proxies, cleaning


def test_secrets_reach_no_tool_no_argv_and_no_file(world: World) -> None:
    world.extra = {
        **CANARIES,
        "FAKE_SAY_FILE": str(world.write("say.txt", "\n".join(f"key={v}" for v in CANARIES.values()))),
    }
    output = world.run()
    world.extra["FAKE_FAIL"] = "sft"
    output += world.run("--set", "train.rank=4", status=4)
    calls = world.calls()
    assert [call["tool"] for call in calls] == [*WHOLE, "sft"]
    # A task of the user's own may read from a hub, so lm_eval gets the hubs' tokens; nobody else gets anything.
    hubs = ["HF_TOKEN", "MODELSCOPE_API_TOKEN"]
    assert [call["canaries"] for call in calls] == [hubs if call["tool"] == "lm_eval" else [] for call in calls]
    assert "canary-" not in output
    files = [path for path in world.runs.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert [path for path in files if b"canary-" in path.read_bytes()] == []
    assert "key=***" in (next(world.runs.glob("stages/export-*")) / "log.txt").read_text()
    assert "canary-" not in json.dumps([call["argv"] for call in calls])


def test_offline_needs_no_secret_at_all(world: World) -> None:
    world.extra = dict(CANARIES)
    world.run("--set", "runtime.offline=true")
    assert [call["canaries"] for call in world.calls()] == [[]] * len(WHOLE)


def test_tools_reach_the_loopback_past_a_proxy(world: World) -> None:
    world.extra = {"http_proxy": "http://proxy.invalid:3128", "NO_PROXY": "intra.example", "no_proxy": ""}
    world.run("train")
    [call] = world.calls()
    hosts = "intra.example,127.0.0.1,localhost,::1"
    assert call["proxies"] == {"NO_PROXY": hosts, "no_proxy": hosts}


def test_gc_asks_removes_and_a_rerun_starts_nothing(done: World) -> None:
    before = sorted(path.name for path in (done.runs / "stages").iterdir())
    output = done.run("gc")  # no terminal: nobody to say yes
    export = done.stage("export")
    assert re.search(rf"MB +{export.name} +\(merged model, evaluated\)", output)
    assert "nothing removed" in output
    assert sorted(path.name for path in (done.runs / "stages").iterdir()) == before
    assert "removed, " in done.run("gc", "--yes")
    assert not export.exists()
    assert "+0.550" in done.run()
    assert done.tools() == []
    assert "nothing to remove" in done.run("gc", "--yes")


def test_gc_removes_stages_of_no_report(done: World) -> None:
    done.run("train", "--set", "train.rank=4")
    done.run("train")
    assert "no report refers to it" not in done.run("gc", "--yes"), "the other variant's report is in history"
    shutil.rmtree(done.runs / "small" / "history")
    output = done.run("gc", "--yes")
    assert re.search(r"train-\w+ +\(no report refers to it\)", output), output
    assert len(list((done.runs / "stages").glob("train-*"))) == 1


def test_a_place_that_cannot_be_written_is_named(world: World) -> None:
    world.write("file", "")
    output = world.run("--runs-dir", "file", status=3)
    assert "Traceback" not in output
    assert re.search(r"error: .*/file\b.*; free some space or give another --runs-dir", output), output
    assert world.tools() == []


def _random_deaths(world: World, seed: int) -> None:
    generator = random.Random(seed)
    world.extra = {"FAKE_WORKERS": "2", "FAKE_SLEEP_PER_STEP": "0.05"}
    for _ in range(3):
        process = world.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=generator.uniform(0.4, 4))
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_whenever_it_is_killed_the_result_is_that_of_an_undisturbed_run(
    world: World, template: World, seed: int
) -> None:
    _random_deaths(world, seed)
    world.run()
    undisturbed, disturbed = template.report, world.report
    assert disturbed["rows"] == undisturbed["rows"]
    assert disturbed["curve"] == undisturbed["curve"]
    # A training that was complete and then killed goes back one checkpoint, and says so.
    assert {**disturbed["train"], "remarks": ()} == {**undisturbed["train"], "remarks": ()}
    assert world.living() == []
    world.calls()
    world.run()
    assert world.tools() == []


def test_a_damaged_header_is_no_crash(world: World) -> None:
    path = world.folder / "model" / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2) + b"[]")
    assert "the header is not JSON" in world.run(status=3)
