"""What is decided once everything has been read: duplicates, overlap with benchmarks, limits and weights."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.convert import convert
from data_prep.errors import InputError, RejectedError
from data_prep.options import Options
from data_prep.sources import Source
from data_prep.stats import Stats

LONG = "Tell me in a few sentences how the tides of the sea come about and why there are two of them on most days."
ANSWER = (
    "The moon pulls at the water on the near side more than at the earth, and at the earth more than at the far side."
)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def row(question: str, answer: str = "o", **more: Any) -> dict[str, Any]:
    return {"instruction": question, "output": answer, **more}


def run(sources: list[Source] | Path, out: Path, **options: Any) -> Stats:
    given = [Source("alpaca", str(sources))] if isinstance(sources, Path) else sources
    return convert(given, out, Options(**{"val_fraction": 0.0, **options}), lambda _line: None)


def questions(out: Path, side: str = "train") -> list[str]:
    lines = (out / f"{side}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["messages"][-2]["content"] for line in lines]


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_exact_duplicates_are_told_by_words_not_by_case_or_spacing(tmp_path: Path) -> None:
    rows = [row("What is it?"), row("what  is\nit?"), row("What is it!"), row("你好 吗"), row("你好\u3000吗")]
    rows += [row("What is it?", system="s"), row("What is it?", "other"), row("WHAT IS IT?")]
    stats = run(write(tmp_path / "in", rows), tmp_path / "o")
    assert stats.deduplicated == {"exact": 3, "near": 0}
    assert questions(tmp_path / "o") == ["What is it?", "What is it!", "你好 吗", "What is it?", "What is it?"]
    source = str(tmp_path / "in")
    assert read(tmp_path / "o" / "duplicates.jsonl") == [
        {
            "kept": {"source": source, "line": 1},
            "dropped": [{"kind": "exact", "source": source, "line": line} for line in (2, 8)],
        },
        {"kept": {"source": source, "line": 4}, "dropped": [{"kind": "exact", "source": source, "line": 5}]},
    ]


def test_near_duplicates_stay_where_the_first_one_stays(tmp_path: Path) -> None:
    edited = ANSWER.replace("far side", "other side")
    rows = [row(LONG, ANSWER), row(LONG, edited), row("How do planes fly?", ANSWER[::-1]), row(LONG.upper(), ANSWER)]
    stats = run(write(tmp_path / "in", rows), tmp_path / "o", dedup="near", near_threshold=0.7)
    assert stats.deduplicated == {"exact": 1, "near": 1}
    assert questions(tmp_path / "o") == [LONG, "How do planes fly?"]
    (group,) = read(tmp_path / "o" / "duplicates.jsonl")
    assert (group["kept"]["line"], [item["line"] for item in group["dropped"]]) == (1, [2, 4])
    near = group["dropped"][0]
    assert near["kind"] == "near"
    assert 0.7 <= near["similarity"] < 1
    assert "other side" in near["text"]
    assert run(tmp_path / "in", tmp_path / "p", dedup="near", near_threshold=0.99).deduplicated["near"] == 0


def test_a_group_names_the_row_that_stays(tmp_path: Path) -> None:
    edited = ANSWER.replace("far side", "other side")
    rows = [row(LONG, ANSWER), row(LONG, edited), row(LONG.upper(), edited)]  # 3 is exactly 2, and 2 is nearly 1
    stats = run(write(tmp_path / "in", rows), tmp_path / "o", dedup="near")
    assert stats.deduplicated == {"exact": 1, "near": 1}
    (group,) = read(tmp_path / "o" / "duplicates.jsonl")
    assert group["kept"]["line"] == 1
    assert [(item["kind"], item["line"]) for item in group["dropped"]] == [("near", 2), ("exact", 3)]
    assert group["dropped"][0]["similarity"] == group["dropped"][1]["similarity"] < 1


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 50), old=st.integers(2, 30))
def test_more_data_drops_nothing_that_was_kept(seed: int, old: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("more")
    rows = [
        row(" ".join(LONG.split()[number % 7 : 12 + number % 5]), ANSWER[: 60 + number % 9]) for number in range(40)
    ]
    kept = []
    for name, part in (("old", rows[:old]), ("all", rows)):
        with suppress(RejectedError):  # all of a few rows may go to validation
            run(write(folder / name, part), folder / f"{name}.out", dedup="near", seed=seed, val_fraction=0.3)
        kept.append([questions(folder / f"{name}.out", side) for side in ("train", "val")])
    assert kept[1][0][: len(kept[0][0])] == kept[0][0]
    assert kept[1][1][: len(kept[0][1])] == kept[0][1]


def test_rows_that_overlap_a_benchmark_are_dropped_and_named(tmp_path: Path) -> None:
    item = "A boy has seven red apples and gives two of them to each of his three friends how many are missing"
    chinese = "小明有七个红苹果给三个朋友每人两个请问他还缺少几个苹果才够分"
    bank = write(tmp_path / "bank.jsonl", [{"question": item, "answer": "0"}, {"question": chinese, "answer": "0"}])
    rows = [
        row("Solve this.", item),
        row(item.upper().replace(" ", "  ")),
        row("解题", f"题目:{chinese}。"),
        row("A boy has seven red apples and eats them."),
        row("Solve this.", item),
    ]
    stats = run(write(tmp_path / "in", rows), tmp_path / "o", decontaminate=(("bank", bank),))
    assert questions(tmp_path / "o") == ["A boy has seven red apples and eats them."]
    assert stats.decontaminated == {"bank": 4}
    assert (stats.rows_decontaminated, stats.rows_deduplicated) == (4, 0)
    found = read(tmp_path / "o" / "contaminated.jsonl")
    assert [(line["line"], line["benchmark"], line["containment"]) for line in found] == [
        (number, "bank", 1.0) for number in (1, 2, 3, 5)
    ]
    assert found[2]["item"].endswith("bank.jsonl:2")


def test_a_row_that_goes_for_a_benchmark_takes_no_duplicate_along(tmp_path: Path) -> None:
    leak = " ".join(ANSWER.split()[-14:])
    clean = ANSWER.replace("far side", "dark side")
    bank = write(tmp_path / "bank.jsonl", [{"question": leak}])
    rows = [row(LONG, ANSWER), row(LONG, clean)]
    stats = run(write(tmp_path / "in", rows), tmp_path / "o", dedup="near", decontaminate=(("bank", bank),))
    assert (stats.rows_decontaminated, stats.rows_deduplicated, stats.rows_train) == (1, 0, 1)
    assert json.loads((tmp_path / "o" / "train.jsonl").read_text())["messages"][1]["content"] == clean


def test_a_limit_takes_the_same_rows_in_any_order(tmp_path: Path) -> None:
    rows = [row(f"question {number}") for number in range(200)]
    taken = []
    for name, ordered in (("a", rows), ("b", rows[::-1])):
        stats = run([Source("alpaca", str(write(tmp_path / name, ordered)), limit=50)], tmp_path / f"{name}.out")
        assert (stats.rows_train, stats.rows_unsampled, stats.sources[0].rows_kept) == (50, 150, 50)
        taken.append(questions(tmp_path / f"{name}.out"))
    assert sorted(taken[0]) == sorted(taken[1])
    assert taken[0] == sorted(taken[0], key=lambda text: int(text.split()[1]))  # in the order of the input
    more = run([Source("alpaca", str(tmp_path / "a"), limit=80)], tmp_path / "more")
    assert more.rows_train == 80
    assert set(taken[0]) < set(questions(tmp_path / "more"))


def test_weights_mix_sources(tmp_path: Path) -> None:
    first = write(tmp_path / "a", [row(f"a{number}") for number in range(400)])
    second = write(tmp_path / "b", [row(f"b{number}") for number in range(100)])
    sources = [Source("alpaca", str(first), weight=0.5), Source("alpaca", str(second), weight=2.5)]
    stats = run(sources, tmp_path / "o", val_fraction=0.2)
    train, val = questions(tmp_path / "o"), questions(tmp_path / "o", "val")
    half, twice = stats.sources
    assert 150 < half.rows_kept < 250
    assert half.rows_repeated == 0
    assert (twice.rows_kept, twice.rows_unsampled) == (100, 0)
    counts = {text: train.count(text) for text in set(train) if text.startswith("b")}
    assert set(counts.values()) == {2, 3}
    assert twice.rows_repeated == sum(counts.values()) - len(counts)
    assert len(val) == len(set(val))  # a row is measured once
    assert not set(val) & set(train)
    assert stats.rows_in + stats.rows_repeated == len(train) + len(val) + stats.rows_unsampled


def test_system_prompts_are_put_in_after_all_is_decided(tmp_path: Path) -> None:
    path = write(tmp_path / "in", [row("q", system="own"), row("q"), *(row(f"x{number}") for number in range(30))])
    plain = run(path, tmp_path / "plain", val_fraction=0.3)
    prompted = run(path, tmp_path / "prompted", val_fraction=0.3, system="given")
    assert questions(tmp_path / "plain") == questions(tmp_path / "prompted")
    systems = [
        json.loads(line)["messages"][0]
        for side in ("train", "val")
        for line in (tmp_path / "prompted" / f"{side}.jsonl").read_text().splitlines()
    ]
    assert {message["role"] for message in systems} == {"system"}
    assert sorted({message["content"] for message in systems}) == ["given", "own"]
    added = 31 * len("given")
    assert prompted.train.chars + prompted.val.chars == plain.train.chars + plain.val.chars + added


def test_counts_are_those_of_the_files(tmp_path: Path) -> None:
    rows = [row(f"q{number}", "a" * number, history=[["h", "i"]] if number % 3 else []) for number in range(1, 60)]
    for dedup in ("none", "exact"):
        stats = run(write(tmp_path / "in", rows), tmp_path / dedup, dedup=dedup, val_fraction=0.3)
        for side, counted in (("train", stats.train), ("val", stats.val)):
            kept = read(tmp_path / dedup / f"{side}.jsonl")
            lengths = sorted(sum(len(turn["content"]) for turn in item["messages"]) for item in kept)
            assert counted.rows == len(kept)
            assert counted.turns == sum(len(item["messages"]) for item in kept)
            assert counted.assistant_turns == counted.turns // 2
            assert (counted.chars, counted.chars_max) == (sum(lengths), lengths[-1])
            assert counted.chars_p50 == lengths[(len(lengths) + 1) // 2 - 1]


@pytest.mark.parametrize(
    ("source", "says"),
    [({"limit": 0}, "limit"), ({"weight": 0.0}, "weight"), ({"columns": {"instructio": "x"}}, "instruction")],
)
def test_wrong_settings_of_a_source(source: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "in", [row("q")])
    with pytest.raises(InputError, match=says):
        run([Source("alpaca", str(path), **source)], tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_mapping_of_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "in", [{"prompt": "q", "answer": "a"}, {"prompt": "r", "answer": ""}])
    columns = {"instruction": "prompt", "output": "answer"}
    stats = run([Source("auto", str(path), columns=columns)], tmp_path / "o", max_reject_fraction=1.0)
    assert (questions(tmp_path / "o"), stats.rejected) == (["q"], {"empty_content": 1})


def test_no_row_goes_for_one_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path / "in", [row(f"q{number}") for number in range(100)])
    for sampled in ({"limit": 1}, {"weight": 0.1}):
        sources = [Source("alpaca", str(path), **sampled), Source("alpaca", str(path))]
        stats = run(sources, tmp_path / "o")
        assert sorted(questions(tmp_path / "o")) == sorted(f"q{number}" for number in range(100))
        assert stats.rows_deduplicated == stats.sources[0].rows_kept < 30


def test_a_weight_counts_within_a_limit(tmp_path: Path) -> None:
    path = write(tmp_path / "in", [row(f"q{number}") for number in range(1000)])
    for weight, low, high in ((0.5, 60, 140), (1.5, 260, 340)):
        stats = run([Source("alpaca", str(path), limit=200, weight=weight)], tmp_path / "o")
        assert low < stats.rows_train < high


def test_a_benchmark_that_overlaps_nothing_is_named(tmp_path: Path) -> None:
    bank = write(tmp_path / "bank.jsonl", [{"question": " ".join(f"w{number}" for number in range(20))}])
    stats = run(write(tmp_path / "in", [row("q")]), tmp_path / "o", decontaminate=(("bank", bank),))
    assert stats.decontaminated == {"bank": 0}


def test_what_stands_in_which_turn_counts(tmp_path: Path) -> None:
    rows = [row("中文", "好的"), row("中", "文好的"), row("ab", "c"), row("a", "bc")]
    assert run(write(tmp_path / "in", rows), tmp_path / "o").rows_deduplicated == 0


def test_a_second_conversion_into_the_folder_reads_its_own_rows(tmp_path: Path) -> None:
    run(write(tmp_path / "a", [row("q" * 30), row("r" * 30)]), tmp_path / "o", dedup="near")
    rows = [row(LONG, ANSWER), row(LONG, ANSWER.replace("far side", "other side"))]
    assert run(write(tmp_path / "b", rows), tmp_path / "o", dedup="near").deduplicated["near"] == 1
