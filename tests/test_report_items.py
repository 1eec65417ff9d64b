"""The sample browser, errors.csv, and the page's script: what is chosen, what is marked, and that nothing gets out."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import browser, errors, items
from pipeline.report.render_html import to_html
from pipeline.results import Sample
from tests.reports import ASKED, EMPTY, EVIL, Elements, asked, demo, score
from tests.test_scripts import script

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")


def sample(key: str, value: float, **more: Any) -> Sample:
    return Sample(**{"task": "t", "doc_key": key, "scores": {"acc": value}, **more})


def payload(report: Any, samples: Any) -> dict[str, Any]:
    made = browser.browser(report, samples)
    assert made
    value: dict[str, Any] = json.loads(made.data)
    return value


def test_states_of_an_item() -> None:
    base, tuned = "eval.s.base", "eval.s.tuned"
    keys = {"gained": (0, 1), "lost": (1, 0), "wrong": (0, 0), "right": (1, 1)}
    samples = {
        base: [sample(key, pair[0]) for key, pair in keys.items()],
        tuned: [sample(key, pair[1]) for key, pair in keys.items()],
    }
    assert {item.key: item.state for item in items.items(samples, None)} == {key: key for key in keys}
    graded = {base: [sample("x", 0.25)], tuned: [sample("x", 1)]}
    assert [item.state for item in items.items(graded, None)] == ["graded"]
    many = {f"eval.s.qwen2.5-{i}b": [sample("x", float(i == 7))] for i in (1, 3, 7)}
    [item] = items.items(many, None)
    assert (item.state, list(item.answers)) == ("split", ["qwen2.5-1b", "qwen2.5-3b", "qwen2.5-7b"])
    mixed = {
        base: [sample("x", 0.2, scores={"f1": 0.2, "acc": 1})],
        tuned: [sample("x", 0, scores={"f1": 0, "acc": 0})],
    }
    assert [(item.metric, item.state) for item in items.items(mixed, None)] == [("acc", "lost")]


def test_1_is_not_right_where_lower_is_better() -> None:
    # crows_pairs of lm-eval: the share of stereotypes that the model prefers.
    names = ("base", "tuned")
    pairs = {"gained": (1, 0), "lost": (0, 1)}
    samples = {
        f"eval.lm_eval.{model}": [sample(key, 0, scores={"stereotype": v[i]}) for key, v in pairs.items()]
        for i, model in enumerate(names)
    }
    scores = [score(model, "t", 0.5, metric="stereotype", higher_is_better=False) for model in names]
    assert [(item.metric, item.state) for item in items.items(samples, None, scores)] == [("", "graded")] * 2
    assert errors.to_errors(EMPTY.model_copy(update={"scores": scores}), samples).count("\n") == 1
    # Beside a metric that is better when higher, that one tells.
    both = {
        label: [s.model_copy(update={"scores": {**s.scores, "acc": 1.0}}) for s in v] for label, v in samples.items()
    }
    assert {(item.metric, item.state) for item in items.items(both, None, scores)} == {("acc", "right")}


def test_an_item_that_training_rows_hold_is_marked_in_both_harnesses() -> None:
    found = items.items(asked(), demo().contamination)
    assert [(item.suite, int(item.key, 16)) for item in found if item.contaminated] == [
        ("lm_eval", 2),
        ("evalscope", 2),
    ]


def test_flips_come_first_and_small_tasks_are_not_hidden_by_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(right: float) -> list[Sample]:
        large = [sample(f"{i}", right if i % 2 else 0, task="large") for i in range(500)]
        return [*large, *(sample(f"{i}", right if i % 2 else 0, task="small") for i in range(4))]

    samples = {"eval.s.base": run(0), "eval.s.tuned": run(1)}
    monkeypatch.setattr(browser, "MOST_ITEMS", 30)
    made = browser.browser(EMPTY, samples)
    assert made
    shown = json.loads(made.data)["items"]
    assert (made.shown, made.total, made.states) == (30, 504, {"gained": 30})
    assert {item["f"] for item in shown} == {"gained"}
    assert [item["t"] for item in shown[:5]] == ["large", "small", "large", "small", "large"]
    monkeypatch.setattr(browser, "MOST_BYTES", 2000)
    made = browser.browser(EMPTY, samples)
    assert made
    assert 0 < made.shown < 30
    assert len(made.data) < 2200
    assert browser.browser(EMPTY, {}) is None


def test_what_the_browser_is_told() -> None:
    found = payload(demo(), asked())
    assert found["models"] == ["base", "tuned"]
    by_place = {(item["s"], item["k"]): item for item in found["items"]}
    likely = by_place["lm_eval", f"{4:016x}"]
    assert likely["f"] == "gained"
    assert likely["a"][0] == {"v": {"acc": 0}, "a": "red", "l": [-1.5, -0.5, None, -3.0]}, "log 0 has no number in JSON"
    assert (likely["c"], likely["r"]) == (["red", "银行", "blue", "green"], [0])
    written = by_place["evalscope", f"{4:016x}"]
    assert "k" not in written["a"][0]
    assert written["a"][1]["k"] == [0]
    assert written["a"][1]["o"] == "The answer is 4. </script><!--"
    assert by_place["lm_eval", f"{2:016x}"]["x"] == 1


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", []),
        ("Question: [a]", [("", "Question: [a]")]),
        ('[{"role": "user", "content": "Hi"}]', [("user", "Hi")]),
        ("[1] is a footnote", [("", "[1] is a footnote")]),
        ("[1, 2]", [("", "[1, 2]")]),
        ('[{"role": "user", "content": [{"text": "银"}]}]', [("user", '[{"text": "银"}]')]),
    ],
)
def test_turns_of_a_prompt(prompt: str, expected: list[tuple[str, str]]) -> None:
    assert browser.turns(prompt) == expected


def test_long_texts_lose_their_middle() -> None:
    text = browser.shorten("a" * 9000 + "b" * 9000)
    assert len(text) == browser.MOST_TEXT + len(browser.CUT)
    assert text.startswith("a")
    assert text.endswith("b")
    assert browser.shorten("a\r\nb\x1b\u202e\ud800") == "a\nb\ufffd\ufffd\ufffd"


def test_errors_csv_has_each_item_the_tuned_model_got_wrong() -> None:
    rows = list(csv.DictReader(io.StringIO(errors.to_errors(demo(), asked()))))
    assert tuple(rows[0]) == errors.HEADER
    assert {row["model"] for row in rows} == {"tuned"}
    assert [(row["suite"], int(row["id"], 16)) for row in rows] == [
        (suite, i) for suite in ("lm_eval", "evalscope") for i in range(8, ASKED) if i % 3
    ]
    assert rows[0]["choices"] == "*red | 银行 | blue | green"
    assert (rows[0]["flip"], rows[0]["base_answer"], rows[0]["score"]) == ("wrong", "red", "0.0")
    assert EVIL in rows[0]["question"]
    assert rows[-1]["answer"] == "The answer is 11. </script><!--", (
        "what was written, where no answer could be made out"
    )
    single = {"eval.s.a": [sample("x", 0), sample("y", 1)], "eval.s.b": [sample("x", 0), sample("y", 0)]}
    rows = list(csv.DictReader(io.StringIO(errors.to_errors(EMPTY, single))))
    assert [(row["id"], row["model"], row["flip"]) for row in rows] == [
        ("x", "a", "wrong"), ("x", "b", "wrong"), ("y", "b", "split"),
    ]  # fmt: skip
    assert len(errors.to_errors(EMPTY, {}).splitlines()) == 1


def test_only_the_script_that_is_meant_can_run() -> None:
    text = to_html(demo(), asked())
    page = Elements(text)
    scripts = [attributes for tag, attributes in page.found if tag == "script"]
    assert [attributes.get("type") for attributes in scripts] == ["application/json", None]
    [code] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    [policy] = [a["content"] for tag, a in page.found if tag == "meta" and "Policy" in a.get("http-equiv", "")]
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|XMLHttp|import\(", code
    )
    [data] = re.findall(r'<script type="application/json" id="item-data">(.*?)</script>', text, re.DOTALL)
    assert "</script" not in data.lower()
    assert "<" not in data
    assert len(json.loads(data)["items"]) == 2 * ASKED


@needs_chromium
def test_the_browser_draws_the_items_and_asks_nobody(tmp_path: Path) -> None:
    """In a real browser whose every request is logged: only the file itself is loaded."""
    page = tmp_path / "report.html"
    page.write_text(to_html(demo(), asked()), encoding="utf-8")
    flags = script("report_shot").FLAGS
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path}/profile", f"--log-net-log={tmp_path}/net.json",
               "--enable-logging=stderr", "--dump-dom", f"{page.as_uri()}?lang=zh"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert '<html lang="zh">' in done.stdout
    assert done.stdout.count('<article class="item">') == 1 + 20, "the template's, and a page of items"
    assert "</script>&lt;!--" not in done.stdout
    asked_for = set(re.findall(r'"url":"([^"]+)"', (tmp_path / "net.json").read_text(encoding="utf-8")))
    # Chromium's own services ask at start, whatever page is shown; the page's requests are told by their initiator.
    net = json.loads((tmp_path / "net.json").read_text(encoding="utf-8"))
    own = [event for event in net["events"] if "file://" in str(event.get("params", {}).get("initiator", ""))]
    assert own == [], asked_for


STEPS = """<script>
const told = [], $ = (q) => document.querySelector(q);
const note = () => told.push(`${$("#matches").textContent}/${document.querySelectorAll("#list .item").length}`);
note(); $("#more").click(); note();
$('a[data-state="gained"]').click(); note();
$("#search").value = "QUESTION 4?"; $("#search").dispatchEvent(new Event("input")); note();
$('#states [data-state="contaminated"]').click(); note();
$("#search").value = ""; $("#search").dispatchEvent(new Event("input")); $("#task").value = ""; $("#task").dispatchEvent(new Event("change")); note();
$("#task").value = "lm_eval · all_banks"; $("#task").dispatchEvent(new Event("change")); note();
$("#list details.prompt").open = true;
setTimeout(() => { document.title = told.join(" ") + " " + $("#list details.prompt pre").textContent.slice(0, 4); }, 100);
</script>"""


@needs_chromium
def test_filters_of_the_browser(tmp_path: Path) -> None:
    shot = script("report_shot")
    page = tmp_path / "report.html"
    # The steps are a script of their own, which the page's policy would stop.
    summed = score("tuned", "all_banks", 0.5, tasks=("demo_bank", "demo_general"))
    report = demo().model_copy(update={"scores": [*demo().scores, summed]})
    page.write_text(shot._CSP.sub("", to_html(report, asked())) + STEPS, encoding="utf-8")
    command = [str(CHROMIUM), *shot.FLAGS, f"--user-data-dir={tmp_path}/profile", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.findall(r"<title>(.*?)</title>", done.stdout)[0]
    assert title == "24/20 24/24 4/4 1/1 0/0 2/2 1/1 Q2Q2"


@needs_chromium
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_phone_needs_no_sideways_scrolling(tmp_path: Path, language: str) -> None:
    page = tmp_path / "report.html"
    page.write_text(to_html(demo(), asked()), encoding="utf-8")
    assert script("report_shot").measured(page, 390, language) == 390
