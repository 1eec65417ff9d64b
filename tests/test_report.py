"""The report: what a user reads at the end, in every format, also of an unfinished run and of hostile names."""

from __future__ import annotations

import csv
import io
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report import contamination_tables, data_tables, figures, tables, token_tables
from pipeline.report.compile import StageLine
from pipeline.report.data_remarks import data_remarks
from pipeline.report.histogram import histogram
from pipeline.report.model_score import ModelScore
from pipeline.report.render import CSV_HEADER, to_csv, to_html, to_markdown, to_terminal
from pipeline.report.terminal import chunks, display_width
from pipeline.report.wording import BETTER, INCOMPARABLE, UNCLEAR, UNTESTED, WORSE, fixed, folded_parents, judge, line
from pipeline.results import Implementation
from tests.reports import EMPTY, EVIL, MMLU, Elements, asked, captured, demo, leaderboard, partial, row, score


@pytest.mark.parametrize(
    ("low", "high", "p", "higher", "word"),
    [
        (0.01, 0.2, 0.03, True, BETTER),
        (-0.2, -0.01, 0.03, True, WORSE),
        (0.01, 0.2, 0.03, False, WORSE),
        (-0.2, -0.01, 0.03, False, BETTER),
        (-0.01, 0.2, 0.03, True, UNCLEAR),
        (0.0, 0.2, 0.03, True, UNCLEAR),
        (0.01, 0.2, 0.05, True, UNCLEAR),
        (None, None, None, True, UNTESTED),
    ],
)
def test_better_and_worse_need_interval_and_p(
    low: float | None, high: float | None, p: float | None, higher: bool, word: str
) -> None:
    assert judge(row("t", 0.5, 0.6, low, high, p, higher_is_better=higher)) == word


def test_what_is_not_clear_says_why() -> None:
    unclear = row("t", 0.5, 0.6, 0.02, 0.18, 0.01, mde=0.09, p_adjusted=0.08)
    assert (line(unclear).word, line(unclear).blind) == (UNCLEAR, "clear by itself, not after the correction")
    assert line(row("t", 0.5, 0.6, -0.1, 0.2, 0.3, mde=0.09, p_adjusted=0.6)).blind == "may miss changes below 0.090"
    assert line(row("t", 0.5, 0.6, 0.02, 0.18, 0.01, mde=0.09, p_adjusted=0.04)).blind == ""


def test_other_implementation_is_neither_subtracted_nor_judged() -> None:
    entry = line(row("t", 0.5, 0.6, None, None, None, delta=None, remark="not the same implementation: n_shot: 0 / 5"))
    assert (entry.word, entry.delta) == (INCOMPARABLE, "–")
    assert "n_shot: 0 / 5" in entry.why
    assert line(row("t", 0.5, 0.6, None, None, None)).why


def test_digits() -> None:
    entry = line(row("t", 0.2083333, 0.25, 0.00021, 0.1, 0.0499999))
    assert (entry.base, entry.tuned, entry.delta, entry.p) == ("0.2083", "0.2500", "+0.0417", "0.05000")
    assert entry.interval == ("+0.0002", "+0.1000")
    assert line(row("t", 0.2083, 0.9167, 0.6, 0.8, 1e-9)).base == "0.208"
    assert line(row("t", 37.1423, 40.0, -1, 3, 0.5)).base == "37.14"
    assert fixed(-0.0001, 3, sign=True) == "0.000"


def test_markdown_says_what_happened() -> None:
    text = to_markdown(demo())
    assert (
        "| demo_bank | lm_eval | acc | 120 | 0.208 | 0.917 | +0.708 | +0.601 to +0.789 | <0.001 |".replace("<", "&lt;")
        in text
    )
    assert re.search(r"\| demo_bank \| lm_eval \| acc_norm \|.*\*\*better\*\* \|", text)
    assert re.search(r"\| gsm8k \|.*\*\*worse\*\* \|", text)
    assert re.search(r"\| wikitext \| lm_eval \| word_perplexity ↓ \|.*−3.35.*\*\*better\*\* \|", text)
    assert re.search(r"\| lambada_openai \|.*\*\*worse\*\* \|", text)
    assert re.search(r"\| general_qa/open \|.*not tested \(not a mean over items: no paired interval\) \|", text)
    assert re.search(r"\| ceval \|.*\| – \|  \| – \| – \| not comparable \(not the same implementation", text)
    assert "12 rows of subsets of mmlu (evalscope) left out" in text
    assert "mmlu/subject_03" not in text.split("## What the scores are of")[0]
    assert "better on 3 of 6 scores (demo_bank acc +0.708" in text
    for expected in ("rouge1_max", "empty_assistant", "4.00%", "checkpoint-120", "21m52s", "no GPU: bf16", "ms-swift"):
        assert expected in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row_text)) for row_text in block.splitlines()}) == 1, block


def test_html_is_whole_and_fetches_nothing() -> None:
    text = to_html(demo(), asked())
    page = Elements(text)
    assert not page.open
    assert text.startswith("<!doctype html>")
    assert not {"link", "img", "iframe", "object", "form"} & {tag for tag, _ in page.found}
    assert not re.search(r"url\(|@import|https?:|<[^>]* (?:src|action)=", text)
    assert {a["href"][0] for _, a in page.found if "href" in a} == {"#"}
    ids = [a["id"] for _, a in page.found if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for _, a in page.found if "href" in a}
    assert targets <= set(ids)
    assert any(a.get("charset") == "utf-8" for _, a in page.found)
    assert {a["id"] for t, a in page.found if t == "section" and "id" in a} == {
        "comparison", "forest", "flips", "subjects", "unmatched", "clean", "reconciled", "merge", "dialogues", "training", "data",
        "contamination", "tokens", "items", "details",
    }  # fmt: skip
    assert "mmlu/subject_03" in page.details
    assert "银行业务与个人理财知识" in page.text
    for expected in ("not the same implementation: precision", "empty_assistant", "train.packing", "0.4.13", "21m52s"):
        assert expected in page.text


@pytest.mark.parametrize("make", [demo, partial, leaderboard])
def test_drawn_numbers_are_finite(make: Any) -> None:
    page = Elements(to_html(make()))
    geometry = [a[k] for t, a in page.found if t in ("line", "path", "text", "svg", "circle", "rect") for k in a.keys() & {
        "x", "y", "x1", "x2", "y1", "y2", "d", "r", "width", "height", "viewbox"}]  # fmt: skip
    for text in geometry:
        numbers = re.findall(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", text)
        assert numbers
        assert all(math.isfinite(float(n)) for n in numbers)
        assert re.fullmatch(r"[-\d.%MLhZ ]+", text), text


def test_forest_keeps_places_in_order_and_units_apart() -> None:
    panels = figures.forest([line(r) for r in demo().rows[:6]])
    assert [panel.unit for panel in panels] == ["", "word_perplexity", "perplexity"]
    for bar in panels[0].bars:
        assert 0 <= bar.low <= bar.at <= bar.high <= 100
        assert (bar.line.row.ci_low or 0) > 0 or bar.low <= panels[0].zero


def test_curve_with_holes() -> None:
    assert figures.chart([], [("loss", "")], 100) is None
    assert figures.chart([{"step": 1, "loss": math.nan}, {"step": 2, "loss": None}], [("loss", "")], 100) is None
    one = figures.chart([{"step": 5, "loss": 2.0}], [("loss", ""), ("eval_loss", "")], 100)
    assert one
    assert [(s.key, len(s.dots)) for s in one.series] == [("loss", 1)]
    long = figures.thin([(float(i), float(i % 97 == 0) * 9) for i in range(50_000)])
    assert len(long) <= figures.MAX_POINTS + 2
    assert max(v for _, v in long) == 9
    assert long == sorted(long)


def evil_overlap() -> dict[str, Any]:
    excerpt = {"text": EVIL * 3, "begin": len(EVIL), "end": 2 * len(EVIL), "cut_before": 1, "cut_after": 1}
    pair = {"item": EVIL, "file": EVIL, "line": 3, "containment": 1.0, "row_text": excerpt, "item_text": excerpt}
    return {"benchmarks": {EVIL: {"items": 1, "worst": [pair, {}], "contaminated": []}}}


def test_hostile_names_stay_text() -> None:
    report = demo().model_copy(update={
        "rows": [row(EVIL, 0.1, 0.9, 0.5, 0.9, 1e-5, metric=EVIL, suite=EVIL, remark=EVIL)], "recipe": EVIL,
        "scores": [score(EVIL, EVIL, 0.1, suite=EVIL), score("bad\x1b[31m\u202e", EVIL, 0.2, suite="s")],
        "remarks": [EVIL, "# no heading\n# here"], "description": EVIL, "data": {"rejected": {EVIL: 3}}, "verdict": EVIL,
        "train": {EVIL: EVIL}, "choices": [{"where": EVIL, "value": EVIL, "reason": EVIL}],
        "contamination": evil_overlap(), "unchecked": [EVIL],
        "provenance": {"tools": {EVIL: EVIL}}, "stages": [StageLine(label=EVIL, done=True, folder=EVIL)],
    })  # fmt: skip
    page = Elements(to_html(report))
    assert EVIL in page.text
    assert "img" not in {tag for tag, _ in page.found}
    assert not any(name.startswith("on") for _, attributes in page.found for name in attributes)
    text, _, recipe = to_markdown(report).partition("## The recipe\n\n")
    assert re.fullmatch(r"````yaml\n[^`]*```[^`]*\n````\n", recipe), "the fence is longer than what it holds"
    assert "<" not in text
    assert not re.search(r"(?<!\\)\[|(?<!\\)`|^- #", text.replace("`auto`", ""), re.MULTILINE)
    for plain_text in (to_terminal(report), text, page.text):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", plain_text)


def test_only_many_subsets_are_folded_and_never_all_there_is() -> None:
    assert folded_parents(["mmlu", *MMLU]) == dict.fromkeys(MMLU, "mmlu")
    assert folded_parents(["mmlu", *MMLU[:8]]) == {}
    assert folded_parents(MMLU) == {}
    nested = ["mmlu", "mmlu_stem", *(f"mmlu_stem_{i}" for i in range(9)), "mmlus"]
    assert set(folded_parents(nested).values()) == {"mmlu"}
    assert "mmlus" not in folded_parents(nested)


def test_an_implementation_is_no_subset_of_another_that_its_name_begins_with() -> None:
    # The three ways beside lm-eval's own mmlu, in one suite: mmlu_helm sums up its own subjects.
    owners = {f"{way}_subject_{i}": way for way in ("mmlu", "mmlu_helm", "mmlu_original") for i in range(9)}
    tasks = [*owners, "mmlu", "mmlu_helm", "mmlu_original"]
    assert folded_parents(tasks, owners) == owners
    scores = [
        score("m", way, 0.5, tasks=[task for task, owner in owners.items() if owner == way])
        for way in ("mmlu", "mmlu_helm", "mmlu_original")
    ] + [score("m", task, 0.5) for task in owners]
    [board] = tables.boards(EMPTY.model_copy(update={"scores": scores}))
    assert [entry.task for entry in board.lines] == ["mmlu", "mmlu_helm", "mmlu_original"]
    assert len(board.folded) == 27


def test_csv_round_trip() -> None:
    report = demo().model_copy(update={"scores": [*demo().scores, score("base", 'a,"b";c,银行', 1 / 3, stderr=None)]})
    records = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert tuple(records[0]) == CSV_HEADER
    back = []
    for r in records:
        own = {k: r[k] for k in ("harness", "version", "task_version", "chat_template", "scoring", "precision")}
        back.append(ModelScore(
            model=r["model"], suite=r["suite"], task=r["task"], harness=r["harness"], metric=r["metric"],
            value=float(r["value"]), stderr=float(r["stderr"]) if r["stderr"] else None, n=int(r["n"]),
            higher_is_better=r["higher_is_better"] == "True",
            implementation=Implementation(**own, n_shot=int(r["n_shot"]) if r["n_shot"] else None),
        ))  # fmt: skip
    assert back == report.scores


def test_terminal_lines_up_with_chinese_names() -> None:
    text = to_terminal(demo(), 100)
    block = next(b for b in text.split("\n\n") if b.startswith("evalscope"))
    lines = block.splitlines()
    end = lines[1].index("tuned") + len("tuned")
    for entry in (e for e in lines[2:] if re.search(r"\d\.\d{3}", e)):
        cell = 0
        for i, character in enumerate(entry):
            cell += display_width(character)
            if cell == end:
                assert re.search(r" \d\.\d+$", entry[: i + 1]), entry
                break
        else:
            pytest.fail(f"no cell ends at column {end}: {entry}")
    assert "银行" in block
    assert "not a mean over items: no paired interval" in block
    assert "12 rows of subsets of mmlu left out" in block
    assert "mmlu/subject" not in text
    assert chunks("银行业务", 5) == ["银行", "业务"]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("make", [demo, partial, leaderboard])
def test_terminal_keeps_its_width(make: Any, width: int) -> None:
    assert max(map(display_width, to_terminal(make(), width).splitlines())) <= width


def test_every_row_of_the_data_is_told_by_source() -> None:
    report = demo()
    assert dict(data_tables.data_rows(report.data).rows) == {
        "rows in": "520", "taken again, for a weight": "87", "to train": "456", "to validation": "24",
        "rejected": "20 (4.00%)", "duplicates": "24 (exact 19, near 5)", "left out, for a limit or weight": "83",
    }  # fmt: skip
    text = to_markdown(report)
    assert (
        "| 银行问答.json | alpaca; at most 87; weight 2 | 180 | 174 | 6 | 4 | 83 | 87 | no_assistant_turn 6 |" in text
    )
    assert "| repair | rows |\n| --- | ---: |\n| merged_turns | 12 |" in text
    old = {"rows_in": 5, "rows_train": 4, "rows_val": 0, "rows_rejected": 1, "sources": [{"source": "a", "rows_in": 5}]}
    assert len(data_tables.data_rows(old).rows) == 4, "a record of before there were duplicates"
    assert data_tables.data_sources(old).rows == (("a", "–", "5", "–", "–", ""),)
    dropped = {**old, "rows_decontaminated": 2, "decontaminated": {"gsm8k": 2}}
    assert "| gsm8k | 2 |" in to_markdown(EMPTY.model_copy(update={"data": dropped}))


def test_evaluation_items_in_training_rows_are_side_by_side_with_what_they_share_marked() -> None:
    report = demo()
    page = to_html(report)
    assert page.count('<div class="pair">') == 5
    assert "<mark>WHEN THE FERRIES OF BRASKO STOP FOR WINTER" in page
    assert "ISLANDS</mark>? &lt;b&gt;Think&lt;/b&gt; &amp; answer. ¶ GLASS" in page
    assert "<mark>维尔莫拉群岛最北边的灯塔" in page
    text = to_markdown(report)
    assert "| bank | 6 | 5 | 3 | 3 | 1 |" in text
    assert "| harp | 1 | 1 | 0 | 0 | 0 |" in text
    assert re.search(
        r"- bank, 100% of item bank_val\.jsonl:2 in train\.jsonl:10: Here is something: \*\*WHEN THE", text
    )
    for shown in (page, text):
        assert "both have 13 words running in common, or when a question of 8 to 12 words" in shown
        assert "Not compared, because their data are not on this machine: gsm8k, ceval." in shown


def test_an_excerpt_is_cut_around_what_is_shared() -> None:
    text = "a" * 1000 + " the shared words " + "b" * 1000
    excerpt = {"text": text, "begin": 1001, "end": 1017, "cut_before": 0, "cut_after": 0}
    worst = [
        {"row_text": excerpt, "item_text": {**excerpt, "text": text[1001:1017], "begin": 0, "end": 16, "cut_after": 9}}
    ]
    [pair] = contamination_tables.pairs({"benchmarks": {"b": {"worst": worst}}})
    assert pair.row_text.match == pair.item_text.match == "the shared words"
    assert pair.row_text.before == "…" + "a" * 199 + " "
    assert (pair.item_text.before, pair.item_text.after) == ("", "…")


def test_the_terminal_tells_of_the_data_before_there_are_scores() -> None:
    report = demo().model_copy(update={"rows": [], "scores": []})
    text = " ".join(to_terminal(report).split())
    assert "training rows: 456, rejected rows: 20, rows with evaluation items: 4, rows over max_length: 6.67%" in text


def test_what_is_found_is_said_in_the_remarks() -> None:
    said = list(data_remarks(captured("contamination.json"), ["gsm8k"], captured("tokens.json")))
    assert said == [
        "4 of 34 training rows hold text of items that are scored (bank: 3 of 6 items, in 3 rows; general_mcq: 1 of 2 items, "
        "in 1 rows); scores on these items may be too good",
        "training rows were not compared with gsm8k: no local data (a `path` in the suite) to compare with",
    ]
    nothing = captured("contamination.json") | {"rows_hit": {"train": 0, "val": 1}}
    assert list(data_remarks(nothing, [], None)) == []
    tokens = captured("tokens.json")
    tokens["train"]["failed"] = {"rows": {"share": 0.0123}, "line": 7, "error": "no call before the answer"}
    [said] = data_remarks(None, [], tokens)
    assert said == (
        "ms-swift's template cannot encode 1.23% of the training rows and leaves them out; the first is line 7: "
        "no call before the answer"
    )
    assert " and 3 more: no local data" in next(iter(data_remarks(None, [f"b{i}" for i in range(15)], None)))


def test_token_lengths() -> None:
    report = demo()
    text = to_markdown(report)
    assert "| train | 3,000 | 600 | 219.9 (206.8 – 233) | 158 | 549 | 1,382 | 6.67% (5.09% – 8.68%) | 77% |" in text
    assert "| validation | 60 | 60 | 106.4 | 91 | 160 | 169 | 0% | 76.4% |" in text, "all measured: no interval"
    assert "| packed rows of 512 | 1,212 (99.5% full) |" in text
    assert "| optimizer steps | 76 |" in text
    page = Elements(to_html(report))
    assert "600 of 3,000 rows measured; the line is max_length, 512 tokens" in page.text
    assert len([1 for tag, _ in page.found if tag == "rect"]) == 12
    counts = captured("tokens.json")["train"]["histogram"]["counts"]
    drawn = token_tables.drawn(report.tokens)
    assert drawn
    assert [column.count for column in drawn.columns] == [count for count in counts if count]
    assert sum(column.width for column in drawn.columns) == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize(
    ("edges", "counts", "limit", "columns", "marked"),
    [
        ([0, 16, 23, 32], [0, 2, 1], 23, 2, 50.0),
        ([0, 16, 23, 32], [0, 2, 0], 27.5, 2, 75.0),
        ([0, 16], [5], 16, 1, 100.0),
        ([0, 16], [5], 4096, 1, None),
        ([0, 16], [5], None, 1, None),
    ],
)
def test_histogram(
    edges: list[int], counts: list[int], limit: float | None, columns: int, marked: float | None
) -> None:
    figure = histogram(edges, counts, limit, 100)
    assert figure
    assert len(figure.columns) == columns
    assert figure.limit == marked
    for column in figure.columns:
        assert column.top + column.tall == pytest.approx(100)
        assert (column.tall >= 1) == (column.count > 0)


@pytest.mark.parametrize(("edges", "counts"), [([], []), ([0, 1], [0]), ([0, 1], [1, 2]), ([5, 5], [1])])
def test_no_histogram(edges: list[int], counts: list[int]) -> None:
    assert histogram(edges, counts, 3, 100) is None


def test_unfinished_run() -> None:
    report = partial()
    for text in (to_markdown(report), Elements(to_html(report)).text, to_terminal(report)):
        assert "not done yet: train" in text
        assert "456" in text
        assert "better" not in text
    assert 'aria-label="Loss by optimizer step"' in to_html(report)
    assert len(to_csv(report).splitlines()) == 1


@pytest.mark.parametrize(
    "kept",
    [
        "rows",
        "scores",
        "data",
        "contamination",
        "unchecked",
        "tokens",
        "train",
        "curve",
        "stages",
        "choices",
        "remarks",
        "provenance",
    ],
)
def test_any_part_alone(kept: str) -> None:
    report = EMPTY.model_copy(update={kept: getattr(demo(), kept)})
    assert not Elements(to_html(report)).open
    assert to_markdown(report)
    assert to_terminal(report)
    assert to_csv(report)


def test_base_scored_but_tuned_not_yet() -> None:
    report = partial().model_copy(update={"train": demo().train, "scores": [score("base", "demo_bank", 0.208)]})
    assert "the tuned model is not scored, so there is nothing to compare" in to_markdown(report)
    assert "| demo_bank | lm_eval | acc | 120 | 0.208 ± 0.042 |" in to_markdown(report)


def test_leaderboard_has_a_column_per_model() -> None:
    report = leaderboard()
    text = to_markdown(report)
    assert "| task | harness | metric | n | qwen2.5-0.5b | qwen2.5-1.5b | 通义千问-7b-instruct |" in text
    assert "| mmlu | lm_eval | acc | 120 | 0.476 ± 0.042 | 0.601 ± 0.042 | **0.734 ± 0.042** |" in text
    assert "word_perplexity ↓ | 120 | 20.48 ± 0.04 | 17.97 ± 0.04 | **15.32 ± 0.04** |" in text
    assert "gsm8k acc: the models' scores differ in chat_template" in text
    assert "| gsm8k | lm_eval | acc | 120 | 0.276" in text
    assert "10 rows of subsets left out" in text
    assert "change" not in text
    assert "mmlu_s3" in Elements(to_html(report)).details
    assert "differ in chat_template" in to_terminal(report)


def test_implementations_are_grouped() -> None:
    table = tables.implementations(demo())
    assert len(table.rows) == 3
    assert "bfloat16" in next(r for r in table.rows if r[0] == "ceval")


_number = st.floats(allow_nan=False, allow_infinity=False)
_maybe = st.none() | _number
_text = st.text(max_size=30)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(_text, _text, _number, _number, _maybe, _maybe, _maybe, st.booleans()), max_size=5),
    st.lists(st.dictionaries(st.sampled_from(["loss", "eval_loss", "learning_rate"]), st.floats()), max_size=5),
    st.integers(60, 200),
)
def test_any_report_renders(numbers: list[Any], curve: list[dict[str, Any]], width: int) -> None:
    """Whatever names and numbers: every format renders, stays within its bounds and can be encoded."""
    rows = [
        row(t, base, tuned, low, high, p, metric=m, delta=low, higher_is_better=up)
        for t, m, base, tuned, low, high, p, up in numbers
    ]
    report = EMPTY.model_copy(update={
        "rows": rows, "curve": [{"step": i, **point} for i, point in enumerate(curve)],
        "scores": [score("base", r.task, r.base, metric=r.metric) for r in rows],
    })  # fmt: skip
    terminal = to_terminal(report, width)
    page = to_html(report)
    drawn = re.findall(r' (?:[xy][12]?|d)="([^"]*)"', page)
    assert all(re.fullmatch(r"[-\d.%MLhZ ]+", text) for text in drawn)
    assert not Elements(page).open
    assert len(list(csv.reader(io.StringIO(to_csv(report))))) == len(rows) + 1
    for text in (terminal, page, to_markdown(report)):
        text.encode()
    assert max(map(display_width, terminal.splitlines())) <= width
