"""One table per format: what a row becomes, and why a bad one is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from data_prep.conversation import Conversation, Reject
from data_prep.decode import RawRow
from data_prep.rows import RowReader
from data_prep.rules import Rules
from data_prep.sources import FormatName

Turns = list[tuple[str, str]]

USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}
CALL = '{"name":"f","arguments":{"x":1}}'


def read(name: FormatName, record: object) -> Conversation | Reject:
    row = RawRow(1, json.dumps(record, ensure_ascii=False).encode(), None)
    return RowReader(name, {}, Rules()).read(row)[0]


def outcome(name: FormatName, record: object) -> Turns | str:
    parsed = read(name, record)
    if isinstance(parsed, Reject):
        return parsed.reason.value
    return [(message.role, message.content) for message in parsed.messages]


def turns(*pairs: tuple[str, str], **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs], **fields}


ALPACA: list[tuple[str, object, Turns | str]] = [
    ("input joined", {"instruction": "i", "input": "x", "output": "o"}, [("user", "i\nx"), ("assistant", "o")]),
    ("null input", {"instruction": "i", "input": None, "output": "o"}, [("user", "i"), ("assistant", "o")]),
    ("no input", {"instruction": "i", "output": "o"}, [("user", "i"), ("assistant", "o")]),
    ("blank input", {"instruction": "i", "input": " \n", "output": "o"}, [("user", "i"), ("assistant", "o")]),
    ("input only", {"instruction": "", "input": "x", "output": "o"}, [("user", "x"), ("assistant", "o")]),
    ("text untouched", {"instruction": " i\n", "output": "\to "}, [("user", " i\n"), ("assistant", "\to ")]),
    (
        "system and history",
        {"instruction": "i", "output": "o", "system": "s", "history": [["u", "v"]]},
        [("system", "s"), ("user", "u"), ("assistant", "v"), ("user", "i"), ("assistant", "o")],
    ),
    ("blank system", {"instruction": "i", "output": "o", "system": " "}, [("user", "i"), ("assistant", "o")]),
    ("scalar", 5, "not_an_object"),
    ("null row", None, "not_an_object"),
    ("no output", {"instruction": "i"}, "missing_field"),
    ("no instruction", {"output": "o"}, "missing_field"),
    ("empty question", {"instruction": "", "input": "", "output": "o"}, "empty_content"),
    ("empty output", {"instruction": "i", "output": " \n"}, "empty_content"),
    ("null output", {"instruction": "i", "output": None}, "empty_content"),
    ("number", {"instruction": 3, "output": "o"}, "wrong_type"),
    ("list output", {"instruction": "i", "output": ["o"]}, "list_output"),
    ("bad history", {"instruction": "i", "output": "o", "history": [["u"]]}, "wrong_type"),
    ("bad system", {"instruction": "i", "output": "o", "system": 1}, "wrong_type"),
    ("nul", {"instruction": "i\0", "output": "o"}, "nul_character"),
    ("image", {"instruction": "i", "output": "o", "images": ["x.png"]}, "unsupported_media"),
    ("preference", {"instruction": "i", "chosen": "o", "rejected": "p"}, "preference_data"),
]

SHAREGPT: list[tuple[str, object, Turns | str]] = [
    (
        "from and value",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        [("user", "q"), ("assistant", "a")],
    ),
    (
        "role and content, singular key",
        {"conversation": [{"role": "User", "content": "q"}, {"role": "chatgpt", "content": "a"}]},
        [("user", "q"), ("assistant", "a")],
    ),
    (
        "system field",
        {"conversations": [{"from": "user", "value": "q"}, {"from": "bing", "value": "a"}], "system": "s"},
        [("system", "s"), ("user", "q"), ("assistant", "a")],
    ),
    (
        "system turn wins over the field",
        {
            "conversations": [
                {"from": "system", "value": "t"},
                {"from": "user", "value": "q"},
                {"from": "bard", "value": "a"},
            ],
            "system": "s",
        },
        [("system", "t"), ("user", "q"), ("assistant", "a")],
    ),
    (
        "tools",
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "3"},
                {"from": "model", "value": "a"},
            ]
        },
        [("user", "q"), ("tool_call", CALL), ("tool_response", "3"), ("assistant", "a")],
    ),
    (
        "text instead of value",
        {"conversations": [{"from": "human", "text": "q"}, {"role": "bot", "text": "a"}]},
        [("user", "q"), ("assistant", "a")],
    ),
    ("no conversations", {"messages": []}, "missing_field"),
    ("no turns", {"conversations": []}, "empty_content"),
    ("text", {"conversations": "q"}, "wrong_type"),
    ("turn is text", {"conversations": ["q"]}, "wrong_type"),
    ("no value", {"conversations": [{"from": "human"}]}, "missing_field"),
    ("no from", {"conversations": [{"value": "q"}]}, "missing_field"),
    ("null value", {"conversations": [{"from": "human", "value": None}]}, "empty_content"),
    ("role", {"conversations": [{"from": "alien", "value": "q"}]}, "unknown_role"),
    ("bad call", {"conversations": [{"from": "function_call", "value": "f(1)"}]}, "bad_tool_call"),
]

MESSAGES: list[tuple[str, object, Turns | str]] = [
    ("plain", turns(("user", "q"), ("assistant", "a")), [("user", "q"), ("assistant", "a")]),
    (
        "text parts",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}, "r"]}, ASSISTANT]},
        [("user", "qr"), ("assistant", "a")],
    ),
    ("blank system", turns(("system", ""), ("user", "q"), ("assistant", "a")), [("user", "q"), ("assistant", "a")]),
    (
        "developer",
        turns(("developer", "d"), ("user", "q"), ("assistant", "a")),
        [("system", "d"), ("user", "q"), ("assistant", "a")],
    ),
    (
        "tool calls, answered out of order",
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
                        {"id": "2", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}},
                    ],
                },
                {"role": "tool", "tool_call_id": "2", "content": "two"},
                {"role": "tool", "tool_call_id": "1", "content": "one"},
                ASSISTANT,
            ]
        },
        [
            ("user", "q"),
            ("tool_call", CALL),
            ("tool_call", CALL),
            ("tool_response", "one"),
            ("tool_response", "two"),
            ("assistant", "a"),
        ],
    ),
    ("ends with a call", turns(("user", "q"), ("tool_call", CALL)), [("user", "q"), ("tool_call", CALL)]),
    ("image part", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "unsupported_media"),
    ("unknown part", {"messages": [USER, {"role": "assistant", "content": [{"type": "file"}]}]}, "unsupported_content"),
    ("part without text", {"messages": [USER, {"role": "assistant", "content": [{"type": "text"}]}]}, "wrong_type"),
    (
        "thought as a part, as LLaMA-Factory has it",
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": [{"type": "reasoning", "value": "\nr\n"}, {"type": "text", "value": "\na"}],
                    "loss_weight": 1.0,
                },
            ]
        },
        [("user", "q"), ("assistant", "<think>\nr\n</think>\n\na")],
    ),
    (
        "thought and calls as parts",
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "reasoning", "value": "r"},
                        {"type": "tool_call", "value": CALL},
                        {"type": "tool_call", "value": CALL},
                    ],
                },
                {"role": "tool", "content": [{"type": "text", "value": "3"}]},
                ASSISTANT,
            ]
        },
        [
            ("user", "q"),
            ("assistant", "<think>\nr\n</think>\n\n"),
            ("tool_call", CALL),
            ("tool_call", CALL),
            ("tool_response", "3"),
            ("assistant", "a"),
        ],
    ),
    (
        "text after a call",
        {"messages": [USER, {"role": "assistant", "content": [{"type": "tool_call", "value": CALL}, "a"]}]},
        "unsupported_content",
    ),
    (
        "a call of the user",
        {"messages": [{"role": "user", "content": [{"type": "tool_call", "value": CALL}]}, ASSISTANT]},
        "bad_tool_call",
    ),
    *(
        (
            f"thought as {key}",
            {"messages": [USER, {**ASSISTANT, key: "r"}]},
            [("user", "q"), ("assistant", "<think>\nr\n</think>\n\na")],
        )
        for key in ("reasoning_content", "reasoning", "thinking")
    ),
    (
        "thought before a call",
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": "",
                    "reasoning_content": "r",
                    "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}],
                },
                {"role": "tool", "content": "3"},
                ASSISTANT,
            ]
        },
        [
            ("user", "q"),
            ("assistant", "<think>\nr\n</think>\n\n"),
            ("tool_call", CALL),
            ("tool_response", "3"),
            ("assistant", "a"),
        ],
    ),
    (
        "a thought written twice counts once",
        {"messages": [USER, {"role": "assistant", "content": "<think>r</think>a", "reasoning_content": "r"}]},
        [("user", "q"), ("assistant", "<think>r</think>a")],
    ),
    (
        "two thoughts that differ",
        {"messages": [USER, {"role": "assistant", "content": "<think>s</think>a", "reasoning_content": "r"}]},
        "malformed_think",
    ),
    ("blank thought", {"messages": [USER, {**ASSISTANT, "reasoning": " "}]}, [("user", "q"), ("assistant", "a")]),
    ("thought of the user", {"messages": [{**USER, "reasoning": "r"}, ASSISTANT]}, "unsupported_content"),
    ("thought in pieces", {"messages": [USER, {**ASSISTANT, "reasoning": ["r"]}]}, "unsupported_content"),
    ("all masked", {"messages": [USER, {**ASSISTANT, "loss": False}]}, "masked_turn"),
    ("half a weight", {"messages": [USER, {**ASSISTANT, "weight": 0.5}]}, "weighted_turn"),
    ("mask is text", {"messages": [USER, {**ASSISTANT, "loss": "false"}]}, "wrong_type"),
    (
        "nulls of an export",
        {"messages": [USER, {**ASSISTANT, "tool_calls": None, "loss": None, "name": None, "reasoning": None}]},
        [("user", "q"), ("assistant", "a")],
    ),
    (
        "mask on a user turn means nothing",
        {"messages": [{**USER, "loss": False}, ASSISTANT]},
        [("user", "q"), ("assistant", "a")],
    ),
    ("bad answer", turns(("user", "q"), ("assistant", "a"), label=False), "preference_data"),
    ("two user turns", turns(("user", "q"), ("user", "q"), ("assistant", "a")), "consecutive_turns"),
    ("two answers", turns(("user", "q"), ("assistant", "a"), ("assistant", "b")), "consecutive_turns"),
    ("assistant first", turns(("assistant", "a"), ("user", "q"), ("assistant", "a")), "starts_with_assistant"),
    ("tool first", turns(("tool", "t"), ("assistant", "a")), "starts_with_tool"),
    ("no answer", turns(("user", "q")), "no_assistant_turn"),
    ("system only", turns(("system", "s")), "empty_content"),
    ("system later", turns(("user", "q"), ("system", "s"), ("assistant", "a")), "system_not_first"),
    ("two systems", turns(("system", "s"), ("system", "s"), ("user", "q"), ("assistant", "a")), "system_not_first"),
    ("open question", turns(("user", "q"), ("assistant", "a"), ("user", "q")), "ends_with_user"),
    ("open tool", turns(("user", "q"), ("tool_call", CALL), ("tool", "t")), "ends_with_tool"),
    ("call unanswered", turns(("user", "q"), ("tool_call", CALL), ("user", "q"), ("assistant", "a")), "tool_order"),
    ("blank answer", turns(("user", "q"), ("assistant", "\u3000")), "empty_content"),
    ("role is a number", {"messages": [{"role": 1, "content": "q"}]}, "wrong_type"),
    ("content is a number", {"messages": [{"role": "user", "content": 1}]}, "wrong_type"),
    (
        "huge integer in a call",
        turns(("user", "q"), ("tool_call", CALL.replace("1", "9" * 30))),
        [("user", "q"), ("tool_call", CALL.replace("1", "9" * 30))],
    ),
    ("bad tools", turns(("user", "q"), ("assistant", "a"), tools="search"), "bad_tools"),
]


QUERY: list[tuple[str, object, Turns | str]] = [
    ("plain", {"query": "q", "response": "a"}, [("user", "q"), ("assistant", "a")]),
    (
        "system and history",
        {"query": "q", "response": "a", "system": "s", "history": [["u", "v"]]},
        [("system", "s"), ("user", "u"), ("assistant", "v"), ("user", "q"), ("assistant", "a")],
    ),
    (
        "history as text",
        {"query": "q", "response": "a", "history": '[["u", "v"]]'},
        [("user", "u"), ("assistant", "v"), ("user", "q"), ("assistant", "a")],
    ),
    ("blank history", {"query": "q", "response": "a", "history": ""}, [("user", "q"), ("assistant", "a")]),
    ("prompt and completion", {"prompt": "q", "completion": "a"}, [("user", "q"), ("assistant", "a")]),
    (
        "own names win",
        {"query": "q", "prompt": "p", "response": "a", "answer": "b"},
        [("user", "q"), ("assistant", "a")],
    ),
    ("two questions", {"prompt": "p", "question": "q", "answer": "a"}, "ambiguous_field"),
    ("two answers", {"query": "q", "completion": "a", "answer": "b"}, "ambiguous_field"),
    ("no answer", {"query": "q"}, "missing_field"),
    ("no question", {"response": "a"}, "missing_field"),
    ("several answers", {"query": "q", "response": ["a", "b"]}, "list_output"),
    ("question is a number", {"query": 1, "response": "a"}, "wrong_type"),
    ("answer is a number", {"query": "q", "response": 1}, "wrong_type"),
    ("bad history", {"query": "q", "response": "a", "history": "u v"}, "wrong_type"),
    ("null answer", {"query": "q", "response": None}, "empty_content"),
    ("null question", {"query": None, "response": "a"}, "empty_content"),
]

XTUNER: list[tuple[str, object, Turns | str]] = [
    (
        "rounds",
        {"conversation": [{"system": "s", "input": "q", "output": "a"}, {"input": "r", "output": "b"}]},
        [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")],
    ),
    (
        "blank system",
        {"conversation": [{"system": "", "input": "q", "output": "a"}]},
        [("user", "q"), ("assistant", "a")],
    ),
    ("no input", {"conversation": [{"output": "a"}]}, "missing_field"),
    ("blank input, as for pre-training", {"conversation": [{"input": "", "output": "a"}]}, "empty_content"),
    ("several answers", {"conversation": [{"input": "q", "output": ["a"]}]}, "list_output"),
    ("round is text", {"conversation": ["q"]}, "wrong_type"),
    ("system is a number", {"conversation": [{"system": 1, "input": "q", "output": "a"}]}, "wrong_type"),
    ("no conversation", {"conversations": []}, "missing_field"),
    ("text", {"conversation": "q"}, "wrong_type"),
    ("no rounds", {"conversation": []}, "empty_content"),
    (
        "system later",
        {"conversation": [{"input": "q", "output": "a"}, {"system": "s", "input": "q", "output": "a"}]},
        "system_not_first",
    ),
]


@pytest.mark.parametrize(("record", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ALPACA])
def test_alpaca(record: object, expected: Turns | str) -> None:
    assert outcome("alpaca", record) == expected


@pytest.mark.parametrize(("record", "expected"), [pytest.param(*row[1:], id=row[0]) for row in SHAREGPT])
def test_sharegpt(record: object, expected: Turns | str) -> None:
    assert outcome("sharegpt", record) == expected


@pytest.mark.parametrize(("record", "expected"), [pytest.param(*row[1:], id=row[0]) for row in MESSAGES])
def test_messages(record: object, expected: Turns | str) -> None:
    assert outcome("messages", record) == expected


@pytest.mark.parametrize(("record", "expected"), [pytest.param(*row[1:], id=row[0]) for row in QUERY])
def test_query(record: object, expected: Turns | str) -> None:
    assert outcome("query", record) == expected


@pytest.mark.parametrize(("record", "expected"), [pytest.param(*row[1:], id=row[0]) for row in XTUNER])
def test_xtuner(record: object, expected: Turns | str) -> None:
    assert outcome("xtuner", record) == expected


@pytest.mark.parametrize("tools", ['[{"name": "f"}]', [{"name": "f"}], {"name": "f"}])
def test_tools_become_one_text(tools: object) -> None:
    parsed = read("messages", turns(("user", "q"), ("assistant", "a"), tools=tools))
    assert isinstance(parsed, Conversation)
    assert parsed.tools == '[{"name":"f"}]'


@pytest.mark.parametrize("tools", [None, "", "[]", []])
def test_absent_tools_leave_no_field(tools: object) -> None:
    parsed = read("messages", turns(("user", "q"), ("assistant", "a"), tools=tools))
    assert set(msgspec.to_builtins(parsed)) == {"messages"}
