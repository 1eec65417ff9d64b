"""The conversion as a whole: nothing is lost, nothing moves, and what is not right is not vouched for."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.conversation import Conversation
from data_prep.convert import convert
from data_prep.decode import RawRow
from data_prep.errors import InputError, RejectedError
from data_prep.options import Options
from data_prep.rows import RowReader
from data_prep.rules import Rules
from data_prep.sources import FormatName, Source
from data_prep.stats import Stats

SETTINGS = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12).filter(
    str.strip
)
CHATS = st.tuples(st.none() | TEXT, st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
JUNK = st.sampled_from(
    ['{"a":', "5", "null", '{"instruction":"i"}', '{"instruction":"i","output":""}', "NaN", '"\\ud800"']
)
ROW = {"instruction": "i", "output": "o"}
ROW_FILES = ["contaminated.jsonl", "duplicates.jsonl", "rejects.jsonl", "train.jsonl", "val.jsonl"]


def quiet(_line: str) -> None:
    pass


def run(sources: list[Source], outdir: Path, **options: Any) -> Stats:
    return convert(sources, outdir, Options(**{"dedup": "none", **options}), quiet)


def as_messages(system: str | None, pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    head = [] if system is None else [{"role": "system", "content": system}]
    return head + [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def as_record(name: FormatName, system: str | None, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    if name == "alpaca":
        *history, (query, output) = pairs
        return {"instruction": query, "output": output, "history": [list(p) for p in history], "system": system}
    if name == "sharegpt":
        names = {"system": "system", "user": "human", "assistant": "gpt"}
        turns = as_messages(system, pairs)
        return {"conversations": [{"from": names[turn["role"]], "value": turn["content"]} for turn in turns]}
    return {"messages": as_messages(system, pairs)}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").split("\n")[:-1]


def files(outdir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in outdir.iterdir()}


@given(chat=CHATS, name=st.sampled_from(["alpaca", "messages", "sharegpt"]))
def test_every_format_gives_the_same_conversation_back(
    chat: tuple[str | None, list[tuple[str, str]]], name: FormatName
) -> None:
    system, pairs = chat
    system = system or None
    row = RawRow(1, json.dumps(as_record(name, system, pairs)).encode(), None)
    parsed, _ = RowReader(name, {}, Rules(special_tokens="keep")).read(row)
    assert isinstance(parsed, Conversation)
    assert [{"role": m.role, "content": m.content} for m in parsed.messages] == as_messages(system, pairs)


@SETTINGS
@given(
    rows=st.lists(JUNK | st.builds(lambda t: json.dumps({**ROW, "input": t}), TEXT), max_size=12),
    share=st.sampled_from([0.0, 0.3]),
)
def test_rows_in_are_rows_out(rows: list[str], share: float, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("".join(row + "\n" for row in rows), "utf-8")
    out = tmp_path / "out"
    try:
        stats = run([Source("alpaca", str(tmp_path / "in"))], out, val_fraction=share, max_reject_fraction=1)
    except RejectedError:
        assert not (out / "stats.json").exists()
    else:
        assert json.loads((out / "stats.json").read_bytes())["rows_in"] == stats.rows_in == len(rows)
        assert len(lines(out / "train.jsonl")) == stats.rows_train > 0
    written = [len(lines(out / name)) for name in ("train.jsonl", "val.jsonl", "rejects.jsonl")]
    assert sum(written) == len(rows)
    for reject in map(json.loads, lines(out / "rejects.jsonl")):
        assert rows[reject["line"] - 1] == reject["raw"]


@SETTINGS
@given(old=st.lists(TEXT, min_size=1, max_size=15), new=st.lists(TEXT, max_size=15), seed=st.integers(0, 3))
def test_adding_rows_moves_none_and_keeps_the_order(old: list[str], new: list[str], seed: int, tmp_path: Path) -> None:
    def split(name: str, texts: list[str], system: str | None) -> tuple[list[str], list[str]]:
        path = write(tmp_path / name, [{**ROW, "instruction": text} for text in texts])
        out = tmp_path / f"{name}.out"
        with suppress(RejectedError):  # all rows may go to validation; the files are there all the same
            run([Source("alpaca", str(path))], out, val_fraction=0.5, seed=seed, system=system)
        train, val = (
            [json.loads(line)["messages"][-2]["content"] for line in lines(out / f"{side}.jsonl")]
            for side in ("train", "val")
        )
        return train, val

    train, val = split("old", old, None)
    more_train, more_val = split("more", [*new, *old], "s")
    assert more_train[len(more_train) - len(train) :] == train
    assert more_val[len(more_val) - len(val) :] == val
    assert not set(more_train) & set(more_val)


def test_the_rows_and_the_files_are_exactly_these(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [ROW, {"instruction": "你好", "output": "", "id": 7}])
    stats = run([Source("alpaca", str(path))], tmp_path / "o", val_fraction=0, system="s", max_reject_fraction=0.5)
    assert lines(tmp_path / "o" / "train.jsonl") == [
        '{"messages":[{"role":"system","content":"s"},{"role":"user","content":"i"},{"role":"assistant","content":"o"}]}'
    ]
    assert (tmp_path / "o" / "val.jsonl").read_bytes() == b""
    assert [json.loads(line) for line in lines(tmp_path / "o" / "rejects.jsonl")] == [
        {
            "source": str(path),
            "line": 2,
            "reason": "empty_content",
            "raw": '{"instruction": "你好", "output": "", "id": 7}',
        }
    ]
    assert json.loads((tmp_path / "o" / "stats.json").read_bytes()) == {
        "schema": 2,
        "rows_in": 2,
        "rows_train": 1,
        "rows_val": 0,
        "rows_rejected": 1,
        "rows_deduplicated": 0,
        "rows_decontaminated": 0,
        "rows_unsampled": 0,
        "rows_repeated": 0,
        "reject_fraction": 0.5,
        "rejected": {"empty_content": 1},
        "repaired": {},
        "dedup": "none",
        "near_threshold": None,
        "deduplicated": {"exact": 0, "near": 0},
        "decontaminated": {},
        "val_fraction": 0,
        "seed": 42,
        "sources": [
            {
                "source": str(path),
                "format": "alpaca",
                "files": [str(path)],
                "weight": 1.0,
                "limit": None,
                "rows_in": 2,
                "rows_kept": 1,
                "rows_rejected": 1,
                "rejected": {"empty_content": 1},
                "rows_deduplicated": 0,
                "rows_decontaminated": 0,
                "rows_unsampled": 0,
                "rows_repeated": 0,
            }
        ],
        "train": {
            "rows": 1,
            "turns": 2,
            "assistant_turns": 1,
            "chars": 3,
            "chars_mean": 3.0,
            "chars_p50": 3,
            "chars_p95": 3,
            "chars_max": 3,
        },
        "val": {
            "rows": 0,
            "turns": 0,
            "assistant_turns": 0,
            "chars": 0,
            "chars_mean": 0.0,
            "chars_p50": 0,
            "chars_p95": 0,
            "chars_max": 0,
        },
    }
    assert sorted(files(tmp_path / "o")) == [*ROW_FILES[:3], "stats.json", *ROW_FILES[3:]]
    assert stats.train.rows == 1


def test_same_input_same_bytes(tmp_path: Path) -> None:
    rows = [{**ROW, "instruction": str(number)} for number in range(300)]
    sources = [Source("auto", str(write(tmp_path / "a", rows))), Source("messages", str(tmp_path / "b"))]
    write(tmp_path / "b", [as_record("messages", None, [("q", "a")])])
    outs = [tmp_path / "one", tmp_path / "two", tmp_path / "two"]
    first, second, again = [(run(sources, out, val_fraction=0.1), files(out))[1] for out in outs]
    assert first == second == again
    assert 10 < len(first["val.jsonl"].splitlines()) < 60


def test_another_seed_is_another_split(tmp_path: Path) -> None:
    source = Source("alpaca", str(write(tmp_path / "a", [{**ROW, "instruction": str(n)} for n in range(100)])))
    run([source], tmp_path / "one", val_fraction=0.3, seed=1)
    run([source], tmp_path / "two", val_fraction=0.3, seed=2)
    assert files(tmp_path / "one")["val.jsonl"] != files(tmp_path / "two")["val.jsonl"]


def test_stale_stats_do_not_outlive_a_failure(tmp_path: Path) -> None:
    path = write(tmp_path / "in", [ROW])
    run([Source("alpaca", str(path))], tmp_path / "o", val_fraction=0)
    write(path, [ROW, {}, {}])
    with pytest.raises(RejectedError, match="missing_field"):
        run([Source("alpaca", str(path))], tmp_path / "o", val_fraction=0)
    assert sorted(files(tmp_path / "o")) == ROW_FILES


def test_a_broken_array_fails_with_its_good_rows_counted(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text(json.dumps([ROW] * 50)[:-20])
    with pytest.raises(RejectedError, match="ends inside element 50"):
        run([Source("alpaca", str(path))], tmp_path / "o", val_fraction=0, max_reject_fraction=1)
    assert len(lines(tmp_path / "o" / "train.jsonl")) == 49
    assert json.loads(lines(tmp_path / "o" / "rejects.jsonl")[0])["reason"] == "truncated"


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", [as_record("messages", None, [("q", "a")])])
    before = path.read_bytes()
    with pytest.raises(InputError, match="overwritten"):
        run([Source("messages", str(path))], tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [{"val_fraction": 1.0}, {"val_fraction": float("nan")}, {"max_reject_fraction": 1.1}, {"system": " "}],
)
def test_arguments_out_of_range(options: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "in", [ROW])
    with pytest.raises(InputError, match=next(iter(options))):
        run([Source("alpaca", str(path))], tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()


def test_progress_speaks_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: next(clock) / 2)
    said: list[str] = []
    path = write(tmp_path / "in", [{**ROW, "input": str(number)} for number in range(2000)])
    convert([Source("alpaca", str(path))], tmp_path / "o", Options(step=2048), said.append)
    assert 1 <= len(said) <= 12
    assert all("rows/s, ETA" in line for line in said)
