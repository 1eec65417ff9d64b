"""One table per format: what a row becomes, and why a bad one is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from data_prep import alpaca, messages, sharegpt
from data_prep.conversation import Conversation, Reject

Turns = list[tuple[str, str]]

USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}
CALL = '{"name":"f","arguments":{"x":1}}'


def outcome(parsed: Conversation | Reject) -> Turns | str:
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
    ("list output", {"instruction": "i", "output": ["o"]}, "wrong_type"),
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
    (
        "reasoning part",
        {"messages": [{"role": "assistant", "content": [{"type": "reasoning"}]}]},
        "unsupported_content",
    ),
    ("reasoning field", {"messages": [USER, {**ASSISTANT, "reasoning_content": "r"}]}, "unsupported_content"),
    ("masked", {"messages": [USER, {**ASSISTANT, "loss": False}]}, "masked_turn"),
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


@pytest.mark.parametrize(("record", "expected"), [pytest.param(*row[1:], id=row[0]) for row in ALPACA])
def test_alpaca(record: object, expected: Turns | str) -> None:
    assert outcome(alpaca.parse(record)) == expected


@pytest.mark.parametrize(("record", "expected"), [pytest.param(*row[1:], id=row[0]) for row in SHAREGPT])
def test_sharegpt(record: object, expected: Turns | str) -> None:
    assert outcome(sharegpt.parse(record)) == expected


@pytest.mark.parametrize(("record", "expected"), [pytest.param(*row[1:], id=row[0]) for row in MESSAGES])
def test_messages(record: object, expected: Turns | str) -> None:
    assert outcome(messages.parse(record)) == expected


@pytest.mark.parametrize("tools", ['[{"name": "f"}]', [{"name": "f"}], {"name": "f"}])
def test_tools_become_one_text(tools: object) -> None:
    parsed = messages.parse(turns(("user", "q"), ("assistant", "a"), tools=tools))
    assert isinstance(parsed, Conversation)
    assert parsed.tools == '[{"name":"f"}]'


@pytest.mark.parametrize("tools", [None, "", "[]", []])
def test_absent_tools_leave_no_field(tools: object) -> None:
    parsed = messages.parse(turns(("user", "q"), ("assistant", "a"), tools=tools))
    assert set(msgspec.to_builtins(parsed)) == {"messages"}
