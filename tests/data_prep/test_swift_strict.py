"""What is written loads in ms-swift's own loader with ``--strict true``: no row lost, no turn changed, marks honoured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from data_prep.conversation import Conversation, Message
from data_prep.decode import RawRow
from data_prep.rows import RowReader
from data_prep.rules import Rules
from data_prep.sources import FormatName

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]
CALL = {"name": "f", "arguments": {"x": 1, "y": {"z": ["ä", None]}}}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}},
    },
    {"name": "g", "description": "another shape", "strict": True},
]
ASKED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "1", "function": CALL}, {"id": "2", "function": CALL}],
}
ANSWERED = [
    {"role": "tool", "tool_call_id": "2", "content": "two"},
    {"role": "tool", "tool_call_id": "1", "content": "one"},
]


def q(text: str = "q") -> dict[str, str]:
    return {"role": "user", "content": text}


def a(text: str = "a", **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


ROWS: list[tuple[FormatName, dict[str, Any]]] = [
    ("alpaca", {"instruction": "i", "input": "x", "output": "o"}),
    ("alpaca", {"instruction": "i", "output": "o", "system": "s", "history": [["u", "v"]]}),
    ("sharegpt", {"conversations": [{"from": "human", "value": "2020-01-01"}, {"from": "gpt", "value": "2020-01-02"}]}),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": json.dumps(CALL)},
                {"from": "observation", "value": '{"a": 1}'},
                {"from": "gpt", "value": "a"},
            ],
            "tools": json.dumps(TOOLS),
        },
    ),
    ("query", {"query": "q", "response": "a", "history": [["u", "v"]], "system": "s"}),
    ("xtuner", {"conversation": [{"system": "s", "input": "q", "output": "a"}, {"input": "r", "output": "b"}]}),
    ("xtuner", {"conversation": [{"input": "q", "output": "a", "output_with_loss": False}, {"input": "r", "output": "b"}]}),
    ("messages", {"messages": [q(), ASKED, *ANSWERED, a()], "tools": TOOLS}),
    ("messages", {"messages": [q(), {**ASKED, "content": "let me see"}, *ANSWERED, a()], "tools": [TOOLS[1]]}),
    ("messages", {"messages": [q(), {**ASKED, "reasoning_content": "hm"}, *ANSWERED, a(reasoning="so")], "tools": TOOLS}),
    ("messages", {"messages": [q(), {**ASKED, "loss": False}, *ANSWERED, a()], "tools": TOOLS}),
    ("messages", {"messages": [q(), {"role": "tool_call", "content": CALL}]}),
    ("messages", {"messages": [q(), a(reasoning_content="r")]}),
    ("messages", {"messages": [q(), a("masked", loss=False), q(), a("learned", weight=1)]}),
    ("messages", {"messages": [q('🙂\u2028\x7f\\"\n'), a("<b>\t")]}),
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "value": "q"}]},
                {
                    "role": "assistant",
                    "content": [{"type": "reasoning", "value": "r"}, {"type": "tool_call", "value": json.dumps(CALL)}],
                    "loss_weight": 1.0,
                },
                {"role": "tool", "content": [{"type": "text", "value": "3"}]},
                {"role": "assistant", "content": [{"type": "text", "value": "a"}]},
            ],
            "tools": json.dumps(TOOLS),
        },
    ),
]  # fmt: skip


def made() -> list[Conversation]:
    """Every row of `ROWS` as it would be written."""
    rows = []
    for name, record in ROWS:
        parsed, _ = RowReader(name, {}, Rules()).read(RawRow(1, json.dumps(record).encode(), None))
        assert isinstance(parsed, Conversation), record
        rows.append(parsed)
    return rows


def write(path: Path, rows: list[Conversation]) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path


def swift(folder: Path, *args: str | Path) -> Any:
    """What ``swift_loader.py`` prints, run without a network and with caches of its own."""
    caches = {"MODELSCOPE_CACHE": str(folder / "ms"), "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, TESTS / "data_prep" / "swift_loader.py", *args],
        env=os.environ | caches, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def as_loaded(row: Conversation) -> dict[str, Any]:
    """What swift's loader should make of ``row``: the same, with ``tools`` as objects."""
    plain = json.loads(msgspec.json.encode(row))
    return plain | ({"tools": json.loads(plain["tools"])} if "tools" in plain else {})


def without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    messages = [{key: value for key, value in message.items() if value is not None} for message in row["messages"]]
    return {**row, "messages": messages}


def test_every_shape_of_row_loads_and_none_is_lost_or_changed(tmp_path: Path) -> None:
    rows = made()
    path = write(tmp_path / "rows.jsonl", rows)
    loaded = swift(tmp_path, "load", path)[str(path)]
    assert [without_nulls(row) for row in loaded] == [as_loaded(row) for row in rows]


def test_a_field_that_comes_late_loads_only_if_the_first_row_shows_it(tmp_path: Path) -> None:
    plain = Conversation((Message("user", "q" * 500), Message("assistant", "a" * 500)))
    late = [row for row in made() if row.tools or any(message.loss is False for message in row.messages)]
    many = [plain] * 12_000  # over 10 MiB: the loader has settled the columns before it sees the rest
    narrow = write(tmp_path / "narrow.jsonl", [*many, *late])
    wide = write(tmp_path / "wide.jsonl", [plain.widened(tools=True, loss=True), *many, *late])
    loaded = swift(tmp_path, "load", narrow, wide)
    assert isinstance(loaded[str(narrow)], str)  # when this fails, `widened` is needed no more
    assert [without_nulls(row) for row in loaded[str(wide)][-len(late) :]] == [as_loaded(row) for row in late]
    assert len(loaded[str(wide)]) == 1 + len(many) + len(late)
    assert not loaded[str(wide)][0].get("tools")


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    subprocess.run([sys.executable, TESTS / "tiny_model.py", folder], check=True, capture_output=True)
    return folder


def test_marks_thoughts_and_calls_reach_the_labels(tiny_model: Path, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"messages": [q(), a("hidden", loss=False), q(), a("seen")]},
        {"messages": [q(), a("seen"), q(), a("hidden", loss=False)]},
        {"messages": [q(), {**ASKED, "content": "hidden", "loss": False}, *ANSWERED, a("seen")], "tools": TOOLS},
        {"messages": [q(), {**ASKED, "reasoning_content": "thought"}, *ANSWERED, a("seen")], "tools": TOOLS},
        {"messages": [q(), a("seen", reasoning_content="thought")]},
        {"messages": [q(), a("seen")]},
    ]
    reader = RowReader("messages", {}, Rules())
    rows = [reader.read(RawRow(1, json.dumps(record).encode(), None))[0] for record in records]
    assert all(isinstance(row, Conversation) for row in rows)
    good = [row for row in rows if isinstance(row, Conversation)]
    path = write(tmp_path / "rows.jsonl", [*good, good[5].widened(tools=True, loss=True)])
    encoded = swift(tmp_path, "encode", tiny_model, "qwen3", path)
    end = "<|im_end|>\n"
    empty = "<think>\n\n</think>\n\n"
    assert "hidden" in encoded[0]["all"] and encoded[0]["learned"] == f"{empty}seen{end}"
    assert encoded[1]["learned"] == f"{empty}seen{end}"
    assert (
        "hidden" in encoded[2]["all"] and "hidden" not in encoded[2]["learned"] and '"f"' not in encoded[2]["learned"]
    )
    assert encoded[3]["learned"].startswith("<think>\nthought\n</think>\n\n<tool_call>\n{")
    assert encoded[3]["all"].index("one") < encoded[3]["all"].index("two")
    assert encoded[4]["learned"] == f"<think>\nthought\n</think>\n\nseen{end}"
    assert encoded[5]["learned"] == f"{empty}seen{end}"
    assert encoded[6] == encoded[5]


def test_a_masked_last_turn_would_teach_its_end_token(tiny_model: Path, tmp_path: Path) -> None:
    # Why the turns after the last learned one are dropped. When this fails, they need not be any more.
    row = Conversation(
        (
            Message("user", "q"),
            Message("assistant", "seen"),
            Message("user", "q"),
            Message("assistant", "hidden", loss=False),
        )
    )
    path = write(tmp_path / "rows.jsonl", [row])
    learned = swift(tmp_path, "encode", tiny_model, "chatml", path)[0]["learned"]
    assert "hidden" not in learned
    assert learned.count("<|im_end|>") == 2
