"""The tracker: what it reads out of a run directory, and what a real follower leaves in SwanLab's local store."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tracking import data as tracking_data
from pipeline.tracking import report as tracking_report
from pipeline.tracking import store, view
from pipeline.tracking.pictures import pictures

ROOT = Path(__file__).parents[1]
CANARY = "canary-3f1c7e-key"
Curve = list[tuple[int, float]]


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def record(step: int, **numbers: object) -> str:
    return json.dumps({**numbers, "epoch": step / 10, "global_step/max_steps": f"{step}/50", "elapsed_time": "10s"})


def stage(run_dir: Path, label: str, name: str, result: dict[str, Any] | None = None) -> Path:
    """Add a stage to the run directory; with a result it is done."""
    listed = view.read_json(run_dir / "stages.json").get("stages", [])
    status = "pending" if result is None else "done"
    entry = {"label": label, "name": name, "dir": f"stages/{label}-1", "status": status}
    write(run_dir / "stages.json", {"schema": 1, "recipe": "demo", "run_id": "r", "stages": [*listed, entry]})
    folder = run_dir / "stages" / f"{label}-1"
    if result is not None:
        write(folder / "result.json", {"schema": 1, "label": label, "stage": name, "seconds": 2.5, "result": result})
    return folder


def scores(value: float) -> dict[str, Any]:
    score = {"task": "facts", "harness": "lm_eval", "metric": "acc", "value": value, "stderr": None, "n": 50}
    return {"scores": [score]}


def small_run(run_dir: Path) -> Path:
    """Data, base score, half a training (resumed once), tuned score, report. Returns the training's folder."""
    stage(run_dir, "data", "data", {"rows_in": 10, "rows_train": 8, "rows_val": 1, "rows_rejected": 1})
    stage(run_dir, "eval.lm_eval.base", "eval", scores(0.25))
    train = stage(run_dir, "train", "train")
    write(train / "attempts/1/logging.jsonl", "\n".join([record(5, loss=2.0), record(10, loss=1.5), '{"loss": 1.']))
    row = {"task": "facts", "harness": "lm_eval", "metric": "acc", "n": 50, "base": 0.25, "tuned": 0.75}
    row |= {"delta": 0.5, "ci_low": 0.3, "ci_high": 0.7, "p_value": 0.001, "p_adjusted": 0.002}
    bound = {"key": "facts", "kind": "min_gain", "bound": 0.1, "gain": 0.5, "low": 0.3, "high": 0.7, "verdict": "PASS"}
    asked = {"messages": [{"role": "user", "content": "Where?"}], "reference": "Here.", "answers": {"base": "There."}}
    report = {"verdict": "PASS", "confidence": 0.95, "gate": [bound], "rows": [row], "dialogues": [asked]}
    write(run_dir / "report.json", report)
    return train


def found(run_dir: Path, *, with_report: bool = False) -> dict[str, list[tuple[int, float]]]:
    series: dict[str, list[tuple[int, float]]] = {}
    for point in view.points(run_dir, with_report=with_report):
        series.setdefault(point.key, []).append((point.step, point.value))
    return series


@pytest.mark.parametrize(
    ("files", "key", "expected"),
    [
        ({"attempts/1": [record(5, loss=2.0), record(10, loss=1.0)]}, "train/loss", [(5, 2.0), (10, 1.0)]),
        ({"attempts/1": [record(5, loss=2.0), '{"loss": 1.0, "global_st']}, "train/loss", [(5, 2.0)]),
        (
            {"attempts/1": [record(5, loss=2.0), record(10, loss=1.0)], "attempts/2": [record(10, loss=0.9)]},
            "train/loss",
            [(5, 2.0), (10, 0.9)],
        ),
        (
            {"attempts/2": [record(5, loss=2.0)], "attempts/9": [record(5, loss=3.0)], "output": [record(5, loss=4.0)]},
            "train/loss",
            [(5, 4.0)],
        ),
        ({"attempts/2": [record(5, loss=2.0)], "attempts/10": [record(5, loss=3.0)]}, "train/loss", [(5, 3.0)]),
        ({"attempts/1/v0-2026": [record(5, loss=2.0)]}, "train/loss", [(5, 2.0)]),
        ({"output": [record(5, eval_loss=2.0, eval_runtime=9.0)]}, "val/loss", [(5, 2.0)]),
        ({"output": [record(5, loss=float("nan")), record(10, loss=1.0)]}, "train/loss", [(10, 1.0)]),
        ({"output": [record(5, loss=float("nan"), grad_norm=float("inf"))]}, "train/non_finite", [(5, 2.0)]),
        ({"output": [record(5, loss=1.0)]}, "train/non_finite", []),
        ({"output": [record(5, loss=1.0)]}, "train/elapsed_time", []),
        ({"output": [record(5, loss=1.0), record(5, train_runtime=9.0, train_loss=1.0)]}, "train/train_loss", []),
        ({"output": [record(5, loss=1.0), '{"last_model_checkpoint": "x"}']}, "train/global_step", []),
        ({"output": [record(5, **{"token_acc(a/b)": 1.5})]}, "train/token_acc(a_b)", [(5, 1.5)]),
        ({"output": [record(5, **{"memory(GiB)": 1.5})]}, "throughput/memory_gib", [(5, 1.5)]),
        ({"output": [record(5, **{"train_speed(s/it)": 1.5})]}, "train/train_speed(s_it)", []),
    ],
)
def test_curve(tmp_path: Path, files: dict[str, list[str]], key: str, expected: Curve) -> None:
    folder = stage(tmp_path, "train", "train")
    for name, lines in files.items():
        write(folder / name / "logging.jsonl", "\n".join(lines) + ("\n" if lines[-1].endswith("}") else ""))
    assert found(tmp_path).get(key, []) == expected


def test_speed_by_step_and_what_the_training_took(tmp_path: Path) -> None:
    folder = stage(tmp_path, "train", "train")
    stage(tmp_path, "plan", "plan", {"tokens_per_step": 1200, "processes": 2})

    def timed(step: int, seconds: float, start: int = 0) -> str:
        """`seconds` since the attempt went on from `start`."""
        own = {"train_speed(s/it)": seconds / (step - start), "elapsed_time": f"{seconds:.0f}s", "loss": 1.0}
        return json.dumps({**own, "global_step/max_steps": f"{step}/50"}) + "\n"

    write(folder / "attempts/1/logging.jsonl", timed(1, 40) + timed(5, 48) + timed(10, 58))
    write(folder / "output/logging.jsonl", timed(10, 21, 5) + timed(15, 41, 5))
    series = found(tmp_path)
    assert series["throughput/seconds_per_step"] == [(5, 2.0), (10, 2.0), (15, 4.0)]
    assert series["throughput/tokens_per_second"] == [(5, 300.0), (10, 300.0), (15, 150.0)]
    took = {"tokens_per_second": 300.0, "mfu": 0.4, "gpu_hours": 2.0, "cost": None, "peak_memory": 3 * 2**30}
    write(tmp_path / "report.json", {"throughput": took})
    series = found(tmp_path, with_report=True)
    assert series["throughput/mean_tokens_per_second"] == [(0, 300.0)]
    assert (series["throughput/mfu"], series["throughput/peak_memory_gib"]) == ([(0, 0.4)], [(0, 3.0)])
    assert "throughput/cost" not in series


def test_curve_is_read_again_when_it_grows(tmp_path: Path) -> None:
    path = stage(tmp_path, "train", "train") / "attempts/1/logging.jsonl"
    write(path, record(5, loss=2.0) + "\n")
    assert found(tmp_path)["train/loss"] == [(5, 2.0)]
    with path.open("a", encoding="utf-8") as file:
        file.write(record(10, loss=1.0) + "\n")
    assert found(tmp_path)["train/loss"] == [(5, 2.0), (10, 1.0)]


@pytest.mark.parametrize(
    ("label", "score", "expected"),
    [
        ("eval.lm_eval.base", {"task": "facts", "harness": "lm_eval", "metric": "acc"}, "facts/acc/lm_eval"),
        ("eval.five.base", {"task": "facts", "harness": "lm_eval", "metric": "acc"}, "facts/acc/lm_eval.five"),
        ("eval.lm_eval.base", {"task": "f", "harness": "lm_eval", "metric": "acc,none"}, "f/acc/lm_eval"),
        ("eval.lm_eval.base", {"task": "f", "harness": "lm_eval", "metric": "em,strict"}, "f/em_strict/lm_eval"),
        ("eval.evalscope.tuned", {"task": "a/b\n", "harness": "evalscope", "metric": "."}, "a_b_/_/evalscope"),
        ("", {"task": "f", "harness": "lm_eval", "metric": "acc", "suite": "five"}, "f/acc/lm_eval.five"),
        ("eval.five.qwen2.5-0.5b", {"task": "f", "harness": "lm_eval", "metric": "acc"}, "f/acc/lm_eval.five"),
    ],
)
def test_score_key(label: str, score: dict[str, Any], expected: str) -> None:
    assert tracking_report.score_key(label, score) == expected


@given(st.text(), st.text(), st.text())
def test_score_keys_are_legal(task: str, metric: str, harness: str) -> None:
    key = "base/" + tracking_report.score_key("eval.x.base", {"task": task, "metric": metric, "harness": harness})
    assert key.count("/") == 3
    assert key.isprintable()
    assert all(part and part == part.strip(" .") for part in key.split("/"))


def captured(name: str) -> dict[str, Any]:
    """What data_prep really wrote for invented rows."""
    value: dict[str, Any] = json.loads((ROOT / "tests/fixtures/data_prep" / name).read_text(encoding="utf-8"))
    return value


def test_data_its_checks_and_its_lengths(tmp_path: Path) -> None:
    counts = {
        "rows_in": 10,
        "rows_repeated": 2,
        "rows_train": 8,
        "rows_val": 1,
        "rows_rejected": 0,
        "rows_deduplicated": 3,
    }
    source = {"source": "a.json", "files": ["a.json"], "limit": None, "rows_in": 10, "rejected": {"not_json": 2}}
    stats = {**counts, "deduplicated": {"exact": 3, "near": 0}, "repaired": {"merged_turns": 4}, "sources": [source]}
    stage(tmp_path, "data", "data", stats)
    stage(tmp_path, "data.contamination", "contamination", captured("contamination.json"))
    stage(tmp_path, "data.tokens", "tokens", captured("tokens.json"))
    series = found(tmp_path)
    assert series["data/rows_deduplicated"] == [(0, 3)]
    assert series["data/rows_repeated"] == [(0, 2)]
    assert series["contaminated/rows"] == [(0, 4)]
    assert (series["contaminated/bank"], series["contaminated/harp"]) == ([(0, 3)], [(0, 0)])
    assert series["tokens/mean"] == [(0, 219.853)]
    assert series["tokens/over_max_length"] == [(0, 0.066667)]
    assert series["tokens/steps_per_epoch"] == [(0, 76)]
    lengths = captured("tokens.json")["train"]["histogram"]
    assert series["tokens/rows_by_length"] == list(zip(lengths["edges"], lengths["counts"], strict=False))
    notes = {note.key: dict(note.rows) for note in view.notes(tmp_path, with_report=False)}
    assert notes["data/summary"]["deduplicated"] == "exact 3"
    assert notes["data/summary"]["repaired"] == "merged_turns 4"
    assert notes["data/summary"]["source 1"] == "source a.json, rows_in 10, rejected not_json 2"
    assert notes["contamination/summary"]["rows"] == "train 4 of 34, val 1 of 1"
    assert notes["contamination/summary"]["bank"] == "3 of 6 items in 3 training rows"
    assert "guild" not in json.dumps([note.rows for note in view.notes(tmp_path, with_report=False)]), (
        "no training text"
    )
    assert notes["tokens/summary"]["train"] == (
        "219.9 tokens per row (206.8 to 233), over 512: 0.06667 (0.05093 to 0.08682), 600 of 3000 rows measured"
    )
    assert "steps 76" in notes["tokens/summary"]["one epoch"]
    [(key, picture)] = pictures(tmp_path)
    assert key == "tokens/histogram"
    assert min(picture.size) > 400


@pytest.mark.parametrize("kind", ["data", "contamination", "tokens"])
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner) | st.lists(inner)
    )
)
def test_results_of_another_version_say_less_and_break_nothing(kind: str, value: Any) -> None:
    result = value if isinstance(value, dict) else dict.fromkeys(("train", "benchmarks", "sources", "rows_hit"), value)
    list(tracking_data.numbers(kind, result))
    list(tracking_data.texts(kind, result))


def test_report_counts_only_at_the_end(tmp_path: Path) -> None:
    small_run(tmp_path)
    assert "delta/facts/acc/lm_eval" not in found(tmp_path)
    assert found(tmp_path, with_report=True)["delta/facts/acc/lm_eval"] == [(0, 0.5)]
    rows = {note.key: dict(note.rows) for note in view.notes(tmp_path, with_report=True)}
    assert rows["report/summary"]["verdict"] == "PASS"
    assert rows["report/summary"]["gate facts"] == "PASS: must gain at least 0.1, gain 0.5 (+0.3 to +0.7)"
    assert rows["report/summary"]["facts"] == (
        "acc (lm_eval): 0.25 → 0.75, +0.5 (95% interval +0.3 to +0.7), p = 0.001, p (Holm) = 0.002, n = 50"
    )
    assert rows["report/dialogues"] == {"Where?": "base: There.\nin the data: Here."}


def test_checkpoints_are_a_line_over_the_steps() -> None:
    def score(model: str, value: float) -> dict[str, Any]:
        return {
            "model": model,
            "task": "piqa",
            "harness": "lm_eval",
            "suite": "lm_eval",
            "metric": "acc",
            "value": value,
        }

    models = [score("tuned", 0.4), score("base", 0.1), score("tuned-100", 0.3), score("other", 0.9)]
    report = {"scores": models, "train": {"steps": 200}}
    line = [(step, value) for key, step, value in tracking_report.numbers(report) if key == "by_step/piqa/acc/lm_eval"]
    assert line == [(0, 0.1), (100, 0.3), (200, 0.4)]
    assert not list(tracking_report.numbers({**report, "scores": models[:2]})), "base and tuned alone are no line"


def test_a_model_with_dots_in_its_name(tmp_path: Path) -> None:
    stage(tmp_path, "eval.lm_eval.qwen2.5-0.5b", "eval", scores(0.25))
    assert found(tmp_path)["qwen2.5-0.5b/facts/acc/lm_eval"] == [(0, 0.25)]


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)))  # fmt: skip
def test_a_report_of_another_version_says_less_and_breaks_nothing(value: Any) -> None:
    keys = ("verdict", "confidence", "gate", "rows", "scores", "dialogues", "train")
    for report in (
        dict.fromkeys(keys, value),
        {
            key: [
                {"model": value, "delta": value, **dict.fromkeys(("ci_low", "ci_high", "answers", "messages"), value)}
            ]
            for key in keys
        },
    ):
        list(tracking_report.numbers(report))
        list(tracking_report.texts(report))


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"stages": 1}', '{"stages": [1, {"label": "x"}]}'])
def test_no_stages_no_points(tmp_path: Path, text: str) -> None:
    write(tmp_path / "stages.json", text)
    assert found(tmp_path, with_report=True) == {}


def environment(tmp_path: Path, mode: str, **more: str) -> dict[str, str]:
    settings = {
        "mode": mode,
        "project": "demo",
        "workspace": None,
        "experiment": "demo",
        "description": None,
        "tags": ["a"],
        "group": None,
        "log_dir": str(tmp_path / "swanlog"),
        "config": {"name": "demo"},
    }
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SWANLAB_")}
    # SWANLAB_PROJECT as many have it in .env: swanlab itself does not start with it.
    own = {"PIPELINE_TRACKING": json.dumps(settings), "SWANLAB_API_KEY": CANARY, "SWANLAB_PROJECT": "mh-sft"}
    return {**kept, **own, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HOME": str(tmp_path), **more}


def start(run_dir: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline.tracking", str(run_dir)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def end(follower: subprocess.Popen[str], words: str) -> str:
    out, err = follower.communicate(words, timeout=60)
    assert follower.returncode == 0, err
    assert out == ""
    return err


def wait_for(run_dir: Path, state: str) -> None:
    until = time.monotonic() + 30
    while store.read(run_dir).get("state") != state:
        assert time.monotonic() < until, store.read(run_dir)
        time.sleep(0.05)


def stored(log_dir: Path) -> tuple[list[tuple[str, int]], dict[str, Curve]]:
    """(name, status) of each experiment the dashboard lists, and the numbers of the first one."""
    with sqlite3.connect(log_dir / store.DATABASE) as database:
        experiments = database.execute("SELECT id, run_id, name, status FROM experiment").fetchall()
        tags = database.execute("SELECT name, folder FROM tag WHERE experiment_id = ?", experiments[0][:1]).fetchall()
    series = {}
    for name, folder in tags:
        lines = (log_dir / experiments[0][1] / "logs" / folder / "1000.log").read_text(encoding="utf-8").splitlines()
        series[name] = sorted((json.loads(line)["index"], json.loads(line)["data"]) for line in lines)
    return [(name, status) for _, _, name, status in experiments], series


def table(log_dir: Path) -> dict[str, Any]:
    """The dashboard's own answer for its table: value by column, by experiment."""
    code = "import json; from swanboard.db import connect; import os; connect(path=os.environ['SWANLAB_LOG_DIR'])\n"
    code += "from swanboard.controller.project import get_project_summary as f; a = f()\n"
    code += "print(json.dumps(json.loads(a.body) if hasattr(a, 'body') else a))"
    env = {**os.environ, "SWANLAB_LOG_DIR": str(log_dir)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)["data"]["summaries"]
    return answer


def test_local_run_live_and_again(tmp_path: Path) -> None:
    run_dir, log_dir = tmp_path / "runs" / "demo", tmp_path / "swanlog"
    train = small_run(run_dir)
    follower = start(run_dir, environment(tmp_path, "local"))
    wait_for(run_dir, "running")
    for signum in (signal.SIGINT, signal.SIGTERM):
        follower.send_signal(signum)
    live: dict[str, Any] = {}
    until = time.monotonic() + 30
    while live.get("train/loss") != [(5, 2.0), (10, 1.5)]:
        assert time.monotonic() < until, live
        time.sleep(0.1)
        with contextlib.suppress(OSError, ValueError, LookupError, sqlite3.Error):  # it is being written
            live = stored(log_dir)[1]
    assert "tuned/facts/acc/lm_eval" not in live
    # The training is resumed at step 5, published, and the tuned model evaluated.
    write(train / "attempts/2/logging.jsonl", "\n".join([record(10, loss=1.4), record(15, loss=1.0), ""]))
    (train / "attempts/2").rename(train / "output")
    stage(run_dir, "eval.lm_eval.tuned", "eval", scores(0.75))
    assert end(follower, "end ok\n") == ""

    experiments, series = stored(log_dir)
    assert experiments == [("demo", 1)]
    assert series["train/loss"] == [(5, 2.0), (10, 1.4), (15, 1.0)]
    for key, value in {
        "data/rows_in": 10,
        "base/facts/acc/lm_eval": 0.25,
        "tuned/facts/acc/lm_eval": 0.75,
        "delta/facts/acc/lm_eval": 0.5,
        "p_value/facts/acc/lm_eval": 0.001,
        "seconds/data": 2.5,
    }.items():
        assert series[key] == [(0, value)]
    shown = table(log_dir)["demo"]
    assert (shown["tuned/facts/acc/lm_eval"], shown["train/loss"], shown["data/rows_in"]) == (0.75, 1.0, 10)
    assert "TypeError" not in shown.values()

    first = store.read(run_dir)
    assert end(start(run_dir, environment(tmp_path, "local")), "end ok\n") == ""
    second = store.read(run_dir)
    assert (second["id"], second["state"], second["superseded"]) == (first["id"], "finished", [])
    assert second["runs"]["local"] != first["runs"]["local"]
    assert [str(path) for path in log_dir.glob("run-*")] == [second["runs"]["local"]]
    assert stored(log_dir) == ([("demo", 1)], series)
    assert "TypeError" not in table(log_dir)["demo"].values()
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert holders == []


@pytest.mark.parametrize(("words", "reason"), [("", "died: "), ("end failed\n", "failed: train")])
def test_experiment_of_a_failed_run_is_crashed(tmp_path: Path, words: str, reason: str) -> None:
    run_dir = tmp_path / "demo"
    stage(run_dir, "train", "train")
    write(run_dir / "stages.json", (run_dir / "stages.json").read_text().replace("pending", "failed"))
    assert end(start(run_dir, environment(tmp_path, "local")), words) == ""
    assert store.read(run_dir)["state"] == "crashed"
    with sqlite3.connect(tmp_path / "swanlog" / store.DATABASE) as database:
        assert database.execute("SELECT status FROM experiment").fetchall() == [(-1,)]
    (log,) = (tmp_path / "swanlog").glob("run-*/console/error.log")
    assert reason in log.read_text()


def test_offline_leaves_one_folder_to_sync(tmp_path: Path) -> None:
    run_dir = tmp_path / "demo"
    small_run(run_dir)
    for _ in range(2):
        assert end(start(run_dir, environment(tmp_path, "offline")), "end ok\n") == ""
    (folder,) = (tmp_path / "swanlog").glob("run-*")
    now = store.read(run_dir)
    assert now["dashboard"] == f"swanlab sync --id {now['id']} {folder}"


def test_unreachable_service_costs_no_run(tmp_path: Path) -> None:
    run_dir = tmp_path / "demo"
    small_run(run_dir)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        host = f"http://127.0.0.1:{unused.getsockname()[1]}"
        error = end(start(run_dir, environment(tmp_path, "online", SWANLAB_API_HOST=host)), "end ok\n")
        done = check(environment(tmp_path, "online", SWANLAB_API_HOST=host))
    assert error.count("\n") == 1
    assert error.startswith("tracking stopped, the run goes on: ")
    now = store.read(run_dir)
    assert now["state"] == "error"
    assert "no connection to http://127.0.0.1" in now["error"]
    assert (done.returncode, "no connection to http://127.0.0.1" in done.stdout) == (3, True)


def test_settings_are_missing(tmp_path: Path) -> None:
    env = environment(tmp_path, "local", PIPELINE_TRACKING="{}")
    assert "PIPELINE_TRACKING" in end(start(tmp_path, env), "end ok\n")
    assert "PIPELINE_TRACKING" in store.read(tmp_path)["error"]


def check(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.tracking", "--check"]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=30)


@pytest.fixture
def service(request: pytest.FixtureRequest) -> Iterator[str]:
    """A SwanLab API on the loopback that answers each login with the status given."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(request.param)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("service", "code", "says"),
    [(200, 0, ""), (401, 3, "refuses SWANLAB_API_KEY (HTTP 401)"), (503, 3, "answers HTTP 503")],
    indirect=["service"],
)
def test_check_online(tmp_path: Path, service: str, code: int, says: str) -> None:
    done = check(environment(tmp_path, "online", SWANLAB_API_HOST=service))
    assert (done.returncode, done.stderr) == (code, "")
    assert says in done.stdout
    assert done.stdout.count("\n") == (1 if says else 0)
    assert CANARY not in done.stdout


@pytest.mark.parametrize(("mode", "code"), [("local", 0), ("offline", 0), ("online", 3)])
def test_check_without_key(tmp_path: Path, mode: str, code: int) -> None:
    done = check(environment(tmp_path, mode, SWANLAB_API_KEY=""))
    assert done.returncode == code
    assert ("SWANLAB_API_KEY is not set" in done.stdout) == (code == 3)


def test_only_swanlab_folders_are_removed(tmp_path: Path) -> None:
    precious = tmp_path / "run-20260101_000000-abc"
    write(precious / "thesis.txt", "x")
    write(tmp_path / "other" / "run-x.swanlab", "x")
    assert not store.remove_experiment(precious)
    assert not store.remove_experiment(tmp_path / "other")
    assert (precious / "thesis.txt").exists()
    assert (tmp_path / "other" / "run-x.swanlab").exists()


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ({}, None),
        ({"id": "x", "stages": {"train": "train-1"}}, "x"),
        ({"id": "x", "stages": {"data": "data-9"}}, "x"),
        ({"id": "x", "stages": {"train": "train-2"}}, None),
        ({"id": "x", "stages": None}, None),
    ],
)
def test_experiment_goes_on_only_with_the_same_stages(before: dict[str, Any], expected: str | None) -> None:
    assert store.resumable_id(before, {"train": "train-1"}) == expected


@pytest.mark.parametrize(
    ("mode", "run_id", "expected"),
    [("local", "x", ["/log/old", "/log/l"]), ("online", "x", ["/log/old", "/log/o"]), ("local", None, ["/log/old"])],
)
def test_only_what_is_repeated_is_superseded(mode: str, run_id: str | None, expected: list[str]) -> None:
    before = {"runs": {"local": "/log/l", "online": "/log/o"}, "superseded": ["/log/old"]}
    assert store.superseded_by(before, mode, run_id) == expected


def test_another_variant_keeps_its_experiment(tmp_path: Path) -> None:
    run_dir = tmp_path / "demo"
    small_run(run_dir)
    end(start(run_dir, environment(tmp_path, "local")), "end ok\n")
    write(run_dir / "stages.json", (run_dir / "stages.json").read_text().replace("train-1", "train-2"))
    (run_dir / "stages/train-1").rename(run_dir / "stages/train-2")
    end(start(run_dir, environment(tmp_path, "local")), "end ok\n")
    assert sorted(stored(tmp_path / "swanlog")[0]) == [("demo", 1), ("demo-2", 1)]
    shown = table(tmp_path / "swanlog")
    assert [row["train/loss"] for name, row in sorted(shown.items())] == [1.5, 1.5]
