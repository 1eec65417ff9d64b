"""The general path of a row: any JSON value ends in a kept row that keeps the contract, or in a reason."""

from __future__ import annotations

import json
import pickle
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.columns import FIELDS, check_columns, renamed
from data_prep.conversation import Conversation, Reason, Reject, Repair
from data_prep.decode import RawRow, decode, repeats_key
from data_prep.errors import InputError
from data_prep.rows import KEYS, PARSERS, RowReader
from data_prep.rules import Rules
from data_prep.sources import FormatName

MANY = settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
RULES = st.builds(
    Rules,
    consecutive_turns=st.sampled_from(["reject", "merge"]),
    think=st.sampled_from(["keep", "strip", "require"]),
    special_tokens=st.sampled_from(["reject", "keep"]),
)
NAMES = sorted(
    {key for keys in KEYS.values() for key in keys} | {"type", "reasoning", "weight", "label", "images", "id"}
)
CALL = '{"name":"f","arguments":{"x":1}}'
WORDS = st.sampled_from(
    [
        "user", "human", "assistant", "gpt", "system", "tool", "tool_call", "text", "reasoning", CALL, "", " ", "\0", "a",
        "<think>t</think>a", "<think>", "<|im_end|>", "<image>", "[]", "q", "\u3000", "🙂", "\u2028",
    ]
)  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
ROLES = st.sampled_from(
    ["system", "user", "human", "assistant", "gpt", "tool", "tool_call", "observation", "User", "x"]
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "reasoning", "tool_call", "image_url", "x"]), "value": WORDS},
    optional={"text": WORDS},
)
TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": ROLES, "from": ROLES, "content": WORDS | st.lists(PARTS | WORDS, max_size=3) | VALUES, "value": WORDS,
        "reasoning_content": WORDS, "loss": st.sampled_from([None, True, False, 0, 1, 0.5, "x"]),
        "tool_calls": st.none() | st.lists(st.fixed_dictionaries({"id": WORDS, "function": VALUES | st.just(json.loads(CALL))})),
    },
)  # fmt: skip
PAIR = st.tuples(
    st.fixed_dictionaries({"role": st.just("user"), "content": WORDS}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": WORDS}, optional={"loss": st.booleans(), "reasoning": WORDS}
    ),
).map(list)
CHATS = st.lists(PAIR, min_size=1, max_size=3).map(lambda pairs: [turn for pair in pairs for turn in pair])
ROUND = st.fixed_dictionaries(
    {"input": WORDS, "output": WORDS}, optional={"system": WORDS, "output_with_loss": st.booleans()}
)
RECORDS = VALUES | st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("instruction", "input", "output", "query", "response", "system", "tools"), WORDS | VALUES),
        "messages": st.lists(TURN, max_size=4) | CHATS,
        "conversations": st.lists(TURN, max_size=4) | CHATS,
        "conversation": st.lists(ROUND, max_size=3),
        "history": st.lists(st.lists(WORDS, min_size=2, max_size=2), max_size=2),
    },
)


def raw(record: object) -> RawRow:
    return RawRow(1, json.dumps(record).encode(), None)


def reader(name: FormatName, rules: Rules | None = None, **columns: str) -> RowReader:
    return RowReader(name, columns, rules or Rules())


def kept(parsed: Conversation | Reject) -> list[tuple[str, str]] | str:
    if isinstance(parsed, Reject):
        return parsed.reason.value
    return [(message.role, message.content) for message in parsed.messages]


def assert_contract(line: bytes, rules: Rules) -> None:
    """Raise AssertionError unless ``line`` is a row as the trainer wants it."""
    row = json.loads(line)
    assert set(row) <= {"messages", "tools"}
    if "tools" in row:
        tools = json.loads(row["tools"])
        assert isinstance(tools, list) and tools and all(isinstance(tool, dict) for tool in tools)
    messages = row["messages"]
    for message in messages:
        assert set(message) <= {"role", "content", "loss"}
        assert isinstance(message["role"], str) and isinstance(message["content"], str)
        assert "\0" not in message["content"]
        if "loss" in message:
            assert message["loss"] is False and message["role"] in ("assistant", "tool_call")
        if message["role"] != "tool_response":
            assert message["content"].strip()
        if message["role"] == "tool_call":
            call = json.loads(message["content"])
            assert (
                set(call) == {"name", "arguments"} and isinstance(call["name"], str) and call["arguments"] is not None
            )
        if rules.special_tokens == "reject":
            assert "<|im_end|>" not in message["content"]
        if message["role"] == "assistant" and rules.think == "strip":
            assert "think>" not in message["content"]
        if message["role"] == "assistant" and rules.think == "require" and "loss" not in message:
            assert message["content"].lstrip().startswith("<think>")
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    assert turns[0] == "user" and turns[-1] in ("assistant", "tool_call") and "loss" not in messages[-1]
    after = {
        "user": {"assistant", "tool_call"},
        "assistant": {"user", "tool_call", "tool_response"},
        "tool_call": {"tool_call", "tool_response"},
        "tool_response": {"tool_response", "tool_call", "assistant"},
    }
    assert all(second in after[first] for first, second in pairwise(turns))


@MANY
@given(record=RECORDS, name=st.sampled_from(sorted(PARSERS)), rules=RULES)
def test_any_value_is_kept_by_the_contract_or_refused_with_a_reason(
    record: object, name: FormatName, rules: Rules
) -> None:
    parsed, repairs = reader(name, rules).read(raw(record))
    assert set(repairs) <= set(Repair) and list(repairs) == sorted(repairs)
    if isinstance(parsed, Reject):
        assert parsed.reason in Reason and repairs == ()
    else:
        assert_contract(msgspec.json.encode(parsed), rules)


@MANY
@given(chat=CHATS | st.lists(TURN, max_size=4), tools=st.sampled_from([None, [{"name": "f"}]]), rules=RULES)
def test_a_kept_row_read_again_is_itself(chat: list[Any], tools: object, rules: Rules) -> None:
    parsed, _ = reader("messages", rules).read(raw({"messages": chat, "tools": tools}))
    if isinstance(parsed, Conversation):
        again, repairs = reader("messages", rules).read(RawRow(1, msgspec.json.encode(parsed), None))
        assert again == parsed
        assert repairs == ()


@MANY
@given(data=st.binary(max_size=60) | st.text('[]{}",:\\1nmesag ', max_size=40).map(str.encode), last=st.booleans())
def test_any_bytes_are_a_row_or_a_reason(data: bytes, last: bool) -> None:
    parsed, _ = reader("messages").read(RawRow(1, data, None, last))
    assert isinstance(parsed, Conversation | Reject)


def test_what_is_made_of_a_row_does_not_depend_on_others() -> None:
    rows = [
        raw({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": c}]})
        for c in ("a", "", "<|im_end|>")
    ]
    alone = [reader("messages").read(row) for row in rows]
    together = reader("messages")
    assert [together.read(row) for row in (*rows, *rows[::-1])] == [*alone, *alone[::-1]]


def test_a_reader_can_be_sent_to_another_process() -> None:
    row = raw({"prompt": "q", "output": "a"})
    one = reader("alpaca", Rules(tokens=("<s>",)), instruction="prompt")
    assert pickle.loads(pickle.dumps(one)).read(row) == one.read(row)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("alpaca", b'{"instruction":"i","output":"a","output":"b"}'),
        ("messages", b'{"messages":[{"role":"user","content":"q","content":"r"},{"role":"assistant","content":"a"}]}'),
        ("messages", b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a","loss":false,"loss" :true}]}'),
        ("messages", b'{"messages":[],"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}'),
        ("sharegpt", b'{"conversations":[{"from":"human","value":"q"},{"from":"gpt","from":"gpt","value":"a"}]}'),
        ("xtuner", b'{"conversation":[{"input":"q","output":"a","output":"b"}]}'),
        ("query", b'{"query":"q","response":"a","query":"q"}'),
        ("alpaca", b'{"instruction":"i","output":"a","tools":[{}],"tools":null}'),
        ("messages", b'{"system":"s","messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"system":null}'),
    ],
)  # fmt: skip
def test_a_field_that_occurs_twice_is_refused(name: FormatName, data: bytes) -> None:
    assert kept(reader(name).read(RawRow(1, data, None))[0]) == "duplicate_key"


@pytest.mark.parametrize(
    "data",
    [
        b'{"instruction":"\\"output\\": \\"output\\":","output":"a"}',
        b'{"instruction":"i","output":"a","id":1,"id":2}',
        b'{"instruction":"output","input":"instruction","output":"output"}',
        b'{"instruction":"i","output":"a","meta":{"output":"b","input":"c"}}',
        b'{"instruction":"i","output":"\\u0061"}',
    ],
)
def test_what_only_looks_like_a_second_field_is_kept(data: bytes) -> None:
    assert isinstance(reader("alpaca").read(RawRow(1, data, None))[0], Conversation)


@MANY
@given(record=RECORDS, name=st.sampled_from(sorted(PARSERS)))
def test_rows_without_a_second_field_are_never_called_so(record: object, name: FormatName) -> None:
    assert kept(reader(name).read(raw(record))[0]) != "duplicate_key"


@given(record=st.dictionaries(st.sampled_from(["a", "b"]), VALUES, min_size=1), key=st.sampled_from(["a", "b"]))
def test_repeated_keys_are_found_at_any_depth(record: dict[str, Any], key: str) -> None:
    data = json.dumps([record]).encode()
    assert not repeats_key(data, ["a", "b"])
    assert repeats_key(b'[{"' + key.encode() + b'":0,"' + key.encode() + b'":' + data + b"}]", ["a", "b"])


@pytest.mark.parametrize(
    ("name", "columns", "record"),
    [
        ("alpaca", {"instruction": "prompt", "output": "answer"}, {"prompt": "q", "answer": "a"}),
        ("alpaca", {"instruction": "input"}, {"input": "q", "output": "a"}),
        ("alpaca", {"output": "instruction", "instruction": "output"}, {"instruction": "a", "output": "q"}),
        ("alpaca", {"instruction": "p"}, {"p": "q", "instruction": "no", "output": "a"}),
        ("alpaca", {"instruction": "p", "system": "s"}, {"p": "q", "output": "a", "system_prompt": "no", "s": ""}),
        ("query", {"query": "x"}, {"x": "q", "prompt": "no", "question": "no", "answer": "a"}),
        ("query", {"query": "instruction", "response": "answer"}, {"instruction": "q", "answer": "a", "completion": "no"}),
        ("messages", {"messages": "dialog"}, {"dialog": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}),
        (
            "sharegpt",
            {"conversations": "turns", "role": "speaker", "content": "utterance"},
            {"turns": [{"speaker": "human", "utterance": "q", "from": "gpt"}, {"speaker": "bot", "utterance": "a"}]},
        ),
        ("xtuner", {"conversation": "rounds"}, {"rounds": [{"input": "q", "output": "a"}], "conversation": "no"}),
    ],
)  # fmt: skip
def test_columns_of_the_recipe(name: FormatName, columns: dict[str, str], record: dict[str, Any]) -> None:
    assert kept(reader(name, None, **columns).read(raw(record))[0]) == [("user", "q"), ("assistant", "a")]


def test_a_mapped_field_is_read_from_its_column_or_not_at_all() -> None:
    assert (
        kept(reader("alpaca", None, output="answer").read(raw({"instruction": "q", "output": "a"}))[0])
        == "missing_field"
    )


def test_a_mapped_column_may_not_occur_twice() -> None:
    row = RawRow(1, b'{"instruction":"q","answer":"a","answer":"b"}', None)
    assert kept(reader("alpaca", None, output="answer").read(row)[0]) == "duplicate_key"


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        ("alpaca", {"instructon": "prompt"}, "did you mean instruction"),
        ("alpaca", {"messages": "dialog"}, "that is a field of messages"),
        ("alpaca", {"prompt": "instruction"}, "the field comes first"),
        ("alpaca", {"zzz": "x"}, "misspelling"),
        ("alpaca", {"output": ""}, "names no column"),
        ("alpaca", {"output": "x", "input": "x"}, "more than one field"),
        ("auto", {"mesages": "x"}, "did you mean messages"),
    ],
)
def test_wrong_columns_are_named_with_a_remedy(name: FormatName, columns: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_columns(name, columns)


def test_every_format_is_complete() -> None:
    assert set(PARSERS) == set(KEYS) == set(FIELDS)


@given(record=st.dictionaries(st.sampled_from(["instruction", "input", "output", "x"]), LEAVES))
def test_no_columns_change_nothing(record: dict[str, Any]) -> None:
    assert renamed(record, {}) == record


def test_a_fault_of_the_reader_is_the_reason() -> None:
    assert decode(RawRow(1, b"", Reason.TOO_LARGE)) == Reject(Reason.TOO_LARGE)
