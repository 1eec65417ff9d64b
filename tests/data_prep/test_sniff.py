"""Telling the format of a file: what it is taken for and why, and what is refused in which words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import InputError, RejectedError
from data_prep.sniff import sniff
from data_prep.sources import SourceFile

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ALPACA = {"instruction": "i", "output": "o"}


def file(folder: Path, rows: Sequence[Any], name: str = "rows.jsonl") -> SourceFile:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return SourceFile(name, path)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (ALPACA, "alpaca"),
        ({"instruction": "", "input": "i", "output": "o", "history": []}, "alpaca"),
        ({"input": "i", "output": "o"}, "alpaca"),
        ({"messages": TURNS}, "messages"),
        ({"messages": TURNS, "prompt": "q", "prompt_id": "1"}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "value": "q"}]}]}, "messages"),
        ({"conversations": [{"from": "human", "value": "q"}]}, "sharegpt"),
        ({"conversation": TURNS}, "sharegpt"),
        ({"conversations": []}, "sharegpt"),
        ({"conversation": [{"input": "q", "output": "a"}]}, "xtuner"),
        ({"conversation": [{"system": "s", "input": "q", "output": "a"}]}, "xtuner"),
        ({"query": "q", "response": "a"}, "query"),
        ({"question": "q", "answer": "a", "images": None}, "query"),
        ({"prompt": "q", "completion": "a"}, "query"),
    ],
)
def test_a_format_is_known_by_its_fields(row: object, name: str, tmp_path: Path) -> None:
    found, because = sniff([file(tmp_path, [row] * 20)])
    assert found == name
    assert because.startswith("20 of the first 20 rows have ")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "q", "chosen": "a", "rejected": "b"}], "preference data .a chosen and a rejected"),
        ([{"conversations": TURNS, "chosen": {"value": "a"}, "rejected": {"value": "b"}}], "preference data"),
        ([{"messages": TURNS, "rejected_response": "b"}], "preference data"),
        ([{"chosen_messages": TURNS, "rejected_messages": TURNS}], "preference data"),
        ([{"messages": TURNS, "label": True}, {"messages": TURNS, "label": False}], "as for KTO"),
        ([{"messages": TURNS, "images": ["x.png"]}], "multimodal"),
        ([{"messages": TURNS, "audios": ["x.mp3"]}], "multimodal"),
        ([{"conversations": TURNS, "image": "x.png"}], "multimodal"),
        ([{"messages": [{"role": "user", "content": [{"type": "image_url", "value": "x"}]}]}], "multimodal"),
        ([{"text": "once upon a time"}], "plain text"),
        ([{"text": "<|im_start|>user\nq<|im_end|>"}], "chat template has been applied"),
        ([{"one": {"file_name": "x"}, "two": {}}], "settings"),
        ([ALPACA, {"messages": TURNS}], "not sure.*10 alpaca, 10 messages"),
        ([{**ALPACA, "messages": TURNS}], "the fields of both messages and alpaca"),
        ([{"prompt": "p", "question": "q", "answer": "a"}], "the fields answer, prompt, question.*--columns"),
        ([{"a": 1}], "the fields a"),
        ([5], "no JSON object"),
    ],
)
def test_others_are_refused_with_what_they_are(rows: list[Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        sniff([file(tmp_path, rows * 10)])


def test_one_object_over_several_lines_is_told(tmp_path: Path) -> None:
    for record, words in (({"data": [ALPACA]}, "one JSON object over several lines"), ({"a": {"b": 1}}, "settings")):
        path = tmp_path / "rows.json"
        path.write_text(json.dumps(record, indent=1))
        with pytest.raises(InputError, match=words):
            sniff([SourceFile("rows.json", path)])


def test_one_row_of_unknown_fields_is_no_object_over_several_lines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 with the fields a"):
        sniff([file(tmp_path, [{"a": 1}])])


def test_a_few_odd_rows_do_not_matter(tmp_path: Path) -> None:
    assert (
        sniff([file(tmp_path, [ALPACA] * 95 + [5, {}, {"messages": TURNS}, {**ALPACA, "image": "x"}, None])])[0]
        == "alpaca"
    )
    with pytest.raises(InputError, match="not sure"):
        sniff([file(tmp_path, [ALPACA] * 89 + [{}] * 11)])


def test_columns_of_the_recipe_count(tmp_path: Path) -> None:
    rows = file(tmp_path, [{"dialog": TURNS, "prompt": "q"}] * 3)
    with pytest.raises(InputError, match="not sure"):
        sniff([rows])
    assert sniff([rows], {"messages": "dialog"})[0] == "messages"
    pairs = file(tmp_path, [{"title": "q", "best": "a"}] * 3, "pairs.jsonl")
    assert sniff([pairs], {"instruction": "title", "output": "best"})[0] == "alpaca"
    assert sniff([pairs], {"query": "title", "response": "best"})[0] == "query"
    with pytest.raises(InputError, match="did you mean messages"):
        sniff([rows], {"mesages": "dialog"})
    with pytest.raises(InputError, match="messages has no field 'output'"):
        sniff([rows], {"messages": "dialog", "output": "x"})


def test_files_of_several_formats_are_refused(tmp_path: Path) -> None:
    files = [file(tmp_path, [ALPACA], "a.jsonl"), file(tmp_path, [{"messages": TURNS}], "b.jsonl")]
    with pytest.raises(InputError, match=r"a.jsonl looks like alpaca; b.jsonl looks like messages.*--also"):
        sniff(files)
    assert sniff([files[0], file(tmp_path, [], "empty.jsonl")])[0] == "alpaca"


def test_no_rows_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="no rows"):
        sniff([file(tmp_path, [])])
