"""What `inspect` shows: marks around what is learned, and nothing that a terminal would obey."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import InputError
from data_prep.inspect_rows import Piece, escaped, legend, line_numbers, main, named_lines, shown
from tests.tiny_model import make

ROW = [
    Piece("<|im_start|>", False, "special"),
    Piece("user\nq\x1b[31m", False, "text"),
    Piece("床前\n明月", True, "text"),
    Piece("<|im_end|>", True, "special"),
    Piece("\n", False, "text"),
]


def test_plain_marks() -> None:
    assert shown(iter(ROW), colour=False) == "<|im_start|>user\nq\\x1b[31m⟦床前\n明月<|im_end|>⟧\n"


def test_colours() -> None:
    text = shown(iter(ROW), colour=True)
    assert text == (
        "\x1b[2m<|im_start|>\x1b[0muser\nq\\x1b[31m\x1b[32m床前\x1b[0m\n\x1b[32m明月\x1b[0m"
        "\x1b[1;35m<|im_end|>\x1b[0m\n"
    )
    assert "⟦" not in legend(colour=True) and "⟦learned⟧" in legend(colour=False)


@given(st.text(max_size=30))
def test_no_text_steers_the_terminal(text: str) -> None:
    safe = escaped(text)
    assert all(unicodedata.category(char) not in ("Cc", "Cs") or char == "\n" for char in safe)
    assert not re.search("[⟦⟧\u202a-\u202e\u2066-\u2069\u2028\u2029]", safe)
    if text.isalnum():
        assert safe == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [("\t\r\x9b", "\\t\\x0d\\x9b"), ("a\u202eb", "a\\u202eb"), ("⟦\ud800", "\\u27e6\\ud800"), ("问é👍\n", "问é👍\n")],
)
def test_escapes(text: str, safe: str) -> None:
    assert escaped(text) == safe


def test_lines_by_number(tmp_path: Path) -> None:
    assert line_numbers("17,5,5") == [5, 17]
    for text in ("", "0", "a", "1,-2"):
        with pytest.raises(InputError, match="--lines"):
            line_numbers(text)
    path = tmp_path / "a.jsonl"
    path.write_text('{"messages":[]}\n\n{"messages":[]}\n')
    assert [line.number for line in named_lines(path, [1, 3])] == [1, 3]
    with pytest.raises(InputError, match="no row in line 2"):
        named_lines(path, [2])


def test_a_folder_without_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--model", "m"]) == 2
    (tmp_path / "train.jsonl").touch()
    assert main([str(tmp_path), "--model", "m"]) == 2
    assert main([str(tmp_path), "--model", "m", "-n", "0"]) == 2
    said = capsys.readouterr().err
    assert "no such file" in said and "there are no rows in it" in said and "-n is 0" in said


def turns(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in pairs]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        turns(
            ("system", "你是助手"),
            ("user", "写\x1b[2J"),
            ("assistant", "床前明月光\n"),
            ("user", "q"),
            ("assistant", "a"),
        ),
        {**turns(("user", "q"), ("assistant", "a")), "tools": '[{"name":"f","parameters":{}}]'},
        turns(("user", "not shown"), ("assistant", "a")),
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    model = make(tmp_path / "model")
    words = [str(tmp_path), f"--model={model}", "--model-type=llama", "--template=chatml", "--lines=1,2"]
    assert main(words) == 0
    out = capsys.readouterr().out
    header, first, second = out.split("\n--- ")
    assert "template chatml of model type llama" in header and "⟦learned⟧" in header
    number = re.match(r"line 1: (\d+) tokens, (\d+) of them trained\n", first)
    assert number is not None and 0 < int(number[2]) < int(number[1])
    assert first[number.end() :].rstrip() == (
        "<|im_start|>system\n你是助手<|im_end|>\n<|im_start|>user\n写\\x1b[2J<|im_end|>\n<|im_start|>assistant\n"
        "⟦床前明月光\n<|im_end|>\n⟧<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦a<|im_end|>\n⟧"
    )
    assert second.startswith("line 2: swift cannot encode it, and leaves it out: ValueError")
    assert "\x1b" not in out and "not shown" not in out

    assert main([*words[:4], "-n=1", "--colour=always", "--set", "agent_template=hermes"]) == 0
    assert "\x1b[32m" in capsys.readouterr().out
