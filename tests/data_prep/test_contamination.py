"""Training rows against benchmark items: equal to a naive search, leaks found however dressed, near misses not."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import contamination_report
from data_prep.contamination import Index, load_index, row_text
from data_prep.contamination_cli import check, main
from data_prep.contamination_excerpt import excerpt, longest_run, span
from data_prep.eval_items import eval_items
from data_prep.words import words

QUESTION = "A robe takes 2 bolts of blue fiber and half that much white fiber; how many bolts in total does it take?"
CHINESE = "在农业生产中被当作极其重要的劳动对象发挥作用，最主要的不可替代的基本生产资料是"
SHORT = "Who painted the lanterns of old Ostrel harbour?"  # 8 words


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def index_of(folder: Path, rows: list[dict[str, object]]) -> Index:
    return load_index([("bench", write(folder / "items.jsonl", rows))])


def probe(index: Index, *texts: str) -> list[bool]:
    found = index.probe(words(texts))
    assert found.dtype == bool
    return found.tolist()


def naive(path: Path) -> set[tuple[str, ...]]:
    """Every gram that makes an overlap, by sets of tuples of words; ASCII only."""
    owners, texts, short = defaultdict(set), defaultdict(set), defaultdict(set)
    items = list(eval_items("bench", path))
    for number, item in enumerate(items):
        split = {text: tuple(re.findall(r"\w+", text.lower())) for text in item.segments}
        used = [(t, w) for t, w in split.items() if len(w) >= 13 or (t == item.question and len(w) >= 8)]
        if not used and len(item.question) < 100:
            asked = tuple(re.findall(r"\w+", item.question.lower()))
            used = [((item.question, t), asked + w) for t, w in split.items() if t != item.question]
        for text, sequence in used:
            if len(sequence) >= 13:
                for at in range(len(sequence) - 12):
                    owners[sequence[at : at + 13]].add(number)
                    texts[sequence[at : at + 13]].add(text)
            elif len(sequence) >= 8:
                short[sequence].add(number)
    share = max(10, 0.01 * len(items))
    grams = {gram for gram in owners if len(owners[gram]) <= share and len(texts[gram]) <= 10}
    for number, item in enumerate(items):  # a short question counts wherever its words stand
        asked = item.question if len(item.question) < 100 else ""
        for text in (*item.segments, *(f"{asked} {text}" for text in item.segments if asked and text != asked)):
            sequence = tuple(re.findall(r"\w+", text.lower()))
            for size in range(8, 13):
                for at in range(len(sequence) - size + 1):
                    if sequence[at : at + size] in short:
                        short[sequence[at : at + size]].add(number)
    return grams | {gram for gram in short if len(short[gram]) <= 2}


def naively(grams: set[tuple[str, ...]], text: str) -> bool:
    found = tuple(re.findall(r"\w+", text.lower()))
    return any(found[at : at + size] in grams for size in range(8, 14) for at in range(max(0, len(found) - size + 1)))


WORD = st.sampled_from("a b c d The cat, sat_on 12 Ostrel's".split())
TEXT = st.lists(WORD, min_size=1, max_size=18).map(" ".join)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[dict[str, object]], list[str]]:
    items = draw(st.lists(st.fixed_dictionaries({"question": TEXT, "answer": TEXT}), min_size=1, max_size=14))
    if draw(st.booleans()):  # wording that all share
        head = draw(TEXT)
        items = [{**item, "question": f"{head} {item['question']}"} for item in items]
    rows = []
    for _ in range(draw(st.integers(1, 6))):
        parts = draw(st.lists(TEXT, max_size=3))
        if draw(st.booleans()):
            item = draw(st.sampled_from(items))
            leak = f"{item['question']} {item['answer']}".split()
            begin = draw(st.integers(0, len(leak)))
            size = draw(st.integers(5, 20))
            parts.insert(draw(st.integers(0, len(parts))), " ".join(leak[begin : begin + size]))
        rows.append("\x1f".join(parts))
    return items, rows


@given(case=cases())
@settings(max_examples=150)
def test_probe_equals_a_naive_search(
    case: tuple[list[dict[str, object]], list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    items, rows = case
    folder = tmp_path_factory.mktemp("naive")
    index = index_of(folder, items)
    grams = naive(folder / "items.jsonl")
    expected = [naively(grams, row) for row in rows]
    assert probe(index, *rows) == expected
    # A row's fate depends on that row alone, and what is flagged can be explained.
    assert [probe(index, row)[0] for row in rows] == expected
    assert [bool(matches) for matches in index.explain(rows)] == expected


@pytest.mark.parametrize(
    "leak",
    [
        QUESTION,
        QUESTION.replace(" ", "  \n\t"),
        QUESTION.upper(),
        re.sub(r"[;?]", " --", QUESTION).replace(" ", ", "),
        "Q: " + QUESTION + " A: 3",
        " ".join(QUESTION.split()[4:18]),
        row_text([" ".join(QUESTION.split()[:9]), " ".join(QUESTION.split()[9:])]),
        CHINESE,
        " ".join(CHINESE),
        CHINESE.replace("，", "\n"),
        "请问：" + CHINESE[8:24] + "（ ）",
        SHORT,
        "so: WHO painted -- the lanterns of old Ostrel harbour",
        "1. Predators eat? B. many small and rather quick bunnies every day",
    ],
)
@pytest.mark.parametrize("before", [0, 1, 5, 12])
def test_planted_leaks_are_found(tmp_path: Path, leak: str, before: int) -> None:
    rows = [
        {"question": QUESTION, "answer": "3"},
        {"question": CHINESE, "A": "土地"},
        {"question": SHORT, "A": "nobody"},
        {"question": "Predators eat", "choices": ["B many small and rather quick bunnies every day"]},
    ]
    text = " ".join(["filler"] * before) + " " + leak + " and so on"
    assert probe(index_of(tmp_path, rows), "clean text", text, "") == [False, True, False]


@pytest.mark.parametrize(
    "near",
    [
        " ".join(QUESTION.split()[:12]),  # one word less than 13
        QUESTION.replace("half", "twice").replace("bolts in", "rolls in"),
        CHINESE[:12],
        CHINESE.replace("极", "很").replace("象", "像").replace("最", "").replace("替", "取"),
        SHORT.replace("old ", ""),
        SHORT.replace("harbour", "port"),
        "Ostrel harbour lanterns: who painted the old of?",
        "painted with great care by the harbour master himself",  # a short answer alone is found anywhere
        "Predators eat",
    ],
)
def test_near_misses_are_not_found(tmp_path: Path, near: str) -> None:
    rows = [
        {"question": QUESTION, "answer": "3"},
        {"question": CHINESE, "A": "土地"},
        {"question": SHORT, "A": "painted with great care by the harbour master himself"},
        {"question": "Predators eat", "choices": ["bunnies"]},
    ]
    assert probe(index_of(tmp_path, rows), near) == [False]


def test_wording_of_the_benchmark_is_no_overlap(tmp_path: Path) -> None:
    wording = "For which of these two scenarios does the main character do something that is clearly morally wrong"
    rows = [{"question": f"{wording}: story {number} {'x' * number}"} for number in range(11)]
    index = index_of(tmp_path, rows)
    assert probe(index, wording) == [False]
    stats = index.benchmarks[0]
    assert (stats.items, stats.checkable, stats.boilerplate_grams) == (11, 11, 6)  # "story" is in all of them too
    assert stats.items == stats.checkable + stats.too_short + stats.boilerplate_only
    assert probe(index_of(tmp_path, rows[:10]), wording) == [True]


def test_a_passage_of_many_questions_stays_but_an_instruction_of_all_goes(tmp_path: Path) -> None:
    passage = "The lanterns of Ostrel were painted in one night by a crew of sailors who never came back"
    order = "Read the passage with care and answer the question that follows with one single word only please"
    rows: list[dict[str, object]] = [
        {"instruction": order, "passage": passage if number < 12 else "", "question": f"{number} ?"}
        for number in range(1300)
    ]
    assert probe(index_of(tmp_path, rows), passage, order) == [True, False]


def test_a_short_question_of_several_items_is_no_overlap(tmp_path: Path) -> None:
    rows = [{"question": "下列说法正确的是", "A": f"{number}"} for number in range(3)]
    index = index_of(tmp_path, [*rows, {"question": SHORT, "A": "nobody"}])
    assert probe(index, "下列说法正确的是什么", SHORT) == [False, True]
    assert index.benchmarks[0].boilerplate_only == 3
    assert probe(index_of(tmp_path, rows[:2]), "下列说法正确的是什么") == [True]
    wording = "Which one of the following statements is true"
    longer: list[dict[str, object]] = [{"question": f"Of {topic * 12}: {wording}, if any?"} for topic in ("a ", "b ")]
    index = index_of(tmp_path, [{"question": f"{wording}?"}, *longer])
    assert probe(index, wording) == [False]
    assert index.benchmarks[0].boilerplate_only == 1


@pytest.mark.parametrize("rows", [[{"question": QUESTION}, {"question": SHORT}], [{"question": "why?"}]])
def test_a_saved_index_is_the_same(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    index = index_of(tmp_path, rows)
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index")
    texts = [QUESTION, SHORT, "clean", ""]
    assert probe(loaded, *texts) == probe(index, *texts)
    assert loaded.explain(texts) == index.explain(texts)
    assert loaded.benchmarks == index.benchmarks
    assert loaded.raw(0) == index.raw(0)


def test_matches_tell_which_items_and_how_much(tmp_path: Path) -> None:
    mmlu = write(tmp_path / "mmlu" / "test.jsonl", [{"question": "too short"}, {"question": QUESTION, "answer": 3}])
    other = write(tmp_path / "o.jsonl", [{"question": QUESTION + " And how many robes are there in all?"}])
    index = load_index([("mmlu", mmlu.parent), ("other", other)])
    found = index.explain([QUESTION, "clean", " ".join(QUESTION.split()[:13])])
    grams = len(QUESTION.split()) - 12
    assert [(index.place(m.item), m.shared, m.containment) for m in found[0]] == [
        ("test.jsonl:2", grams, 1.0),
        ("o.jsonl:1", grams, round(grams / (grams + 8), 4)),
    ]
    assert found[1] == []
    assert [match.shared for match in found[2]] == [1, 1]
    assert json.loads(index.raw(found[0][0].item)) == {"question": QUESTION, "answer": 3}
    told = index.explain_one(QUESTION)
    assert told == {
        "benchmark": "mmlu", "item": "test.jsonl:2", "containment": 1.0, "question": QUESTION,
        "benchmarks": ["mmlu", "other"],
    }  # fmt: skip
    with pytest.raises(ValueError, match="shares nothing"):
        index.explain_one("clean")


def test_one_name_with_two_paths_has_the_items_of_both(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "test.jsonl", [{"question": QUESTION}])
    second = write(tmp_path / "b" / "test.jsonl", [{"question": CHINESE}])
    index = load_index([("x", first.parent), ("x", second.parent), ("x", first.parent)])
    assert [stats.name for stats in index.benchmarks] == ["x"]
    assert index.benchmarks[0].files == ["a/test.jsonl", "b/test.jsonl"]
    assert probe(index, QUESTION, CHINESE) == [True, True]
    assert index.explain_one(CHINESE)["item"] == "b/test.jsonl:1"


@given(row=st.lists(st.integers(0, 3), max_size=40), item=st.lists(st.integers(0, 3), max_size=40))
@settings(max_examples=200)
def test_longest_run_equals_trying_all(row: list[int], item: list[int]) -> None:
    at_row, at_item, size = longest_run(row, item, 3)
    sizes = [
        n
        for i in range(len(row))
        for j in range(len(item))
        for n in range(3, 41)
        if len(row[i : i + n]) == n and row[i : i + n] == item[j : j + n]
    ]
    assert size == max(sizes, default=0)
    assert row[at_row : at_row + size] == item[at_item : at_item + size]
    places = range(len(item) - size + 1)
    assert not any(row[i : i + size] == item[j : j + size] for i in range(at_row) for j in places if size)


@pytest.mark.parametrize(
    ("text", "first", "count", "expected"),
    [
        ("one, two three.", 0, 1, "one"),
        ("one, two three.", 1, 2, "two three"),
        ("“İstanbul” ist größer", 0, 2, "İstanbul” ist"),
        ("问：法国的首都是Paris吗？", 3, 4, "的首都是"),
        ("问：法国的首都是Paris吗？", 7, 1, "Paris"),
        ("हिन्दी भाषा है", 0, 2, "हिन्दी भाषा"),
        ("x" * 700 + " y", 1, 1, "y"),
    ],
)
def test_span_finds_words_in_the_text(text: str, first: int, count: int, expected: str) -> None:
    begin, end = span(text, first, count)
    assert text[begin:end] == expected


def test_excerpt_keeps_the_match_readable() -> None:
    text = "a" * 5000 + "MATCH" + "b" * 5000
    cut = excerpt(text, 5000, 5005, 100)
    assert cut.text[cut.begin : cut.end] == "MATCH"
    assert len(cut.text) == 100
    assert cut.cut_before + len(cut.text) + cut.cut_after == len(text)
    long = excerpt(text, 100, 9000, 100)
    assert (long.begin, long.end, long.cut_before) == (0, 100, 100)
    whole = excerpt("short", 1, 3)
    assert (whole.text, whole.begin, whole.end, whole.cut_before, whole.cut_after) == ("short", 1, 3, 0, 0)


def turns(*texts: str) -> dict[str, object]:
    return {"messages": [{"role": "user" if n % 2 == 0 else "assistant", "content": t} for n, t in enumerate(texts)]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [turns("hello", "hi"), turns(f"Solve: {QUESTION}", "3"), turns("x", QUESTION.lower()), turns(SHORT, "me")]
    write(tmp_path / "data" / "train.jsonl", [*rows, *[turns("clean", f"row {n}") for n in range(3000)]])
    write(tmp_path / "data" / "val.jsonl", [turns("你好", CHINESE)])
    write(tmp_path / "gsm8k" / "test.jsonl", [{"question": "why?"}, {"question": QUESTION, "answer": "It takes 3"}])
    write(tmp_path / "own.jsonl", [{"question": CHINESE, "A": "土地"}, {"question": SHORT, "A": "sailors"}])
    return tmp_path


def test_the_command_writes_counts_pairs_and_items(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    against = ["--against", f"gsm8k={data / 'gsm8k'}", "--against", f"own={data / 'own.jsonl'}"]
    assert main([str(data / "data"), str(data / "out"), *against]) == 0
    assert "3 of 3004 training rows and 1 of 1 validation rows overlap" in capsys.readouterr().out
    report = json.loads((data / "out" / "contamination.json").read_text(encoding="utf-8"))
    assert (report["schema"], report["action"]) == (1, "report")
    assert report["rows"] == {"train": 3004, "val": 1}
    assert report["rows_hit"] == {"train": 3, "val": 1}
    gsm8k, own = report["benchmarks"]["gsm8k"], report["benchmarks"]["own"]
    assert (gsm8k["items"], gsm8k["checkable"], gsm8k["too_short"]) == (2, 1, 1)
    assert gsm8k["train"] == {"items_hit": 1, "rows_hit": 2}
    assert own["train"] == {"items_hit": 1, "rows_hit": 1}
    assert own["val"] == {"items_hit": 1, "rows_hit": 1}
    [pair] = gsm8k["worst"]
    assert (pair["item"], pair["file"], pair["line"], pair["containment"]) == ("test.jsonl:2", "train.jsonl", 2, 1.0)
    assert pair["words_running"] == len(QUESTION.split())
    row, item = pair["row_text"], pair["item_text"]
    assert row["text"][row["begin"] : row["end"]] == QUESTION.rstrip("?")
    assert item["text"][item["begin"] : item["end"]] == QUESTION.rstrip("?")
    [leaked] = gsm8k["contaminated"]
    assert (leaked["item"], leaked["rows"], leaked["line"]) == ("test.jsonl:2", 2, 2)
    assert leaked["raw"] == {"question": QUESTION, "answer": "It takes 3"}
    # The item that only a validation row overlaps does not make its score suspect, but is there to look at.
    assert [leak["question"] for leak in own["contaminated"]] == [SHORT]
    assert [pair["file"] for pair in own["worst"]] == ["train.jsonl", "val.jsonl"]


def test_action_fail_names_counts_and_remedies(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [str(data / "data"), str(data / "out"), "--against", f"gsm8k={data / 'gsm8k'}", "--action", "fail"]
    assert main(argv) == 5
    said = capsys.readouterr().err
    assert "gsm8k: 1 of 2 items, in 2 rows" in said
    assert "action: drop" in said
    assert f"--decontaminate gsm8k={data / 'gsm8k'}" in said
    assert json.loads((data / "out" / "contamination.json").read_text(encoding="utf-8"))["action"] == "fail"
    write(data / "data" / "train.jsonl", [turns("clean", "row")])
    assert main(argv) == 0  # rows of val.jsonl are not trained on


def test_an_older_report_does_not_outlive_a_failure(data: Path) -> None:
    argv = [str(data / "data"), str(data / "out"), "--against", f"gsm8k={data / 'gsm8k'}"]
    assert main(argv) == 0
    with (data / "data" / "train.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"messages": [')
    assert main(argv) == 2
    assert list((data / "out").iterdir()) == []


def test_pairs_are_limited_and_each_of_another_item(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contamination_report, "WORST_PAIRS", 2)
    asked = [f"{QUESTION} Variant {n} has its own ending with some {n} words more" for n in range(5)]
    write(data / "own.jsonl", [{"question": text} for text in asked])
    write(data / "data" / "train.jsonl", [turns(asked[n], "x") for n in (3, 3, 1)])
    report = check(data / "data", data / "out", [("own", data / "own.jsonl")], say=lambda _: None)
    assert [pair.item for pair in report.benchmarks["own"].worst] == ["own.jsonl:2", "own.jsonl:4"]
    assert [leak.rows for leak in report.benchmarks["own"].contaminated] == [3] * 5
    assert [leak.line for leak in report.benchmarks["own"].contaminated] == [1, 3, 1, 1, 1]


def test_a_training_row_is_shown_before_a_worse_validation_row(data: Path) -> None:
    write(data / "data" / "train.jsonl", [turns(" ".join(QUESTION.split()[:14]), "x")])
    write(data / "data" / "val.jsonl", [turns(QUESTION, "x")])
    report = check(data / "data", data / "out", [("gsm8k", data / "gsm8k")], say=lambda _: None)
    [pair] = report.benchmarks["gsm8k"].worst
    assert (pair.file, pair.line, pair.shared_grams) == ("train.jsonl", 1, 2)


def test_all_turns_count_and_the_system_prompt_does_not_part_them(data: Path) -> None:
    def row(*turns: tuple[str, str]) -> dict[str, object]:
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    half = QUESTION.split()
    rows = [
        row(("user", "x"), ("tool_call", "{}"), ("tool_response", QUESTION), ("assistant", "x")),
        row(("system", QUESTION), ("user", "x"), ("assistant", "x")),
        row(("system", " ".join(half[:8])), ("user", " ".join(half[8:16])), ("assistant", "x")),
        row(("system", "be kind"), ("user", " ".join(half[:8])), ("assistant", " ".join(half[8:16]))),
    ]
    write(data / "data" / "train.jsonl", rows)
    report = check(data / "data", data / "out", [("gsm8k", data / "gsm8k")], say=lambda _: None)
    assert report.benchmarks["gsm8k"].contaminated[0].rows == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no_train", r"train\.jsonl: no such file"),
        ("bad_row", r"train\.jsonl: line 2 is no row"),
        ("no_equals", r"'gsm8k' should be NAME=PATH"),
        ("no_path", r"nowhere: no such file or folder"),
    ],
)
def test_wrong_arguments_leave_nothing(
    data: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    against = f"gsm8k={data / 'gsm8k'}"
    if change == "no_train":
        (data / "data" / "train.jsonl").unlink()
    elif change == "bad_row":
        (data / "data" / "train.jsonl").write_text('{"messages": []}\n{"instruction": "x"}\n', encoding="utf-8")
    else:
        against = "gsm8k" if change == "no_equals" else "gsm8k=nowhere"
    assert main([str(data / "data"), str(data / "out"), "--against", against]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (data / "out").exists()


def test_a_blank_is_filled_with_each_option(tmp_path: Path) -> None:
    rows = [
        {
            "sentence": "Sarah was a better surgeon than Maria so _ always got the easier cases",
            "option1": "Sarah",
            "option2": "Maria",
        },
        {
            "question": "By which light?",
            "sentence": "All ships entering Ostrel are met by ___ light.",
            "A": r"\\1",
            "B": "amber",
        },
    ]
    index = index_of(tmp_path, rows)
    leaks = [str(rows[0]["sentence"]).replace("_", name) for name in ("Maria", "Sarah", "_", "Terry")]
    leaks += ["all ships entering Ostrel are met by amber light", "all ships entering Ostrel are met by violet light"]
    assert probe(index, *leaks) == [True, True, True, False, True, False]
    assert [index.explain([leak])[0][0].containment for leak in leaks[:3]] == [1.0, 1.0, 1.0]
    write(tmp_path / "data" / "train.jsonl", [turns(leak, "x") for leak in leaks])
    report = check(tmp_path / "data", tmp_path / "out", [("bench", tmp_path / "items.jsonl")], say=lambda _: None)
    assert sorted(pair.words_running for pair in report.benchmarks["bench"].worst) == [9, 14]


def test_no_run_goes_from_one_row_into_the_next(tmp_path: Path) -> None:
    twelve = "Who painted the lanterns of old Ostrel harbour in one long night?"
    index = index_of(tmp_path, [{"question": QUESTION}, {"question": twelve}])
    for leak in (QUESTION, twelve):
        parts = leak.split()
        for cut in range(1, len(parts)):
            for before in range(7):
                first, second = " ".join(["w"] * before + parts[:cut]), " ".join(parts[cut:])
                apart = probe(index, first, second)
                assert apart == [probe(index, first)[0], probe(index, second)[0]]
                assert len(parts) > 20 or not any(apart)


def test_words_of_another_block_do_not_matter(tmp_path: Path) -> None:
    index = index_of(tmp_path, [{"question": QUESTION}, {"question": CHINESE}, {"question": SHORT}])
    rng = np.random.default_rng(0)
    texts = [" ".join(["w"] * int(n)) + " " + leak for n in rng.integers(0, 30, 40) for leak in (QUESTION, SHORT, "")]
    together = probe(index, *texts)
    assert together == [probe(index, text)[0] for text in texts]
    assert sum(together) == 80
