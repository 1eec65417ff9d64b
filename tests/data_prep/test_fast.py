"""The fast path gives what the general path gives, or leaves the row to it; and whether it does is the row's affair."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.decode import RawRow
from data_prep.fast import fast_path
from data_prep.rows import RowReader
from data_prep.rules import Rules, suspicious

EXAMPLES = settings(max_examples=400, suppress_health_check=list(HealthCheck))
TEXT = st.sampled_from(["a", "q b", " x ", "　", "é\n", "", "output", "role", '"output":1', "\0", "你好", "a\x7f\\"])
SYSTEM = st.sampled_from([None, "", " ", "s"])
LIST = st.sampled_from([None, [], ["x"]])
ALPACA = st.fixed_dictionaries(
    {"instruction": TEXT, "output": TEXT},
    optional={
        "input": st.sampled_from([None, "", " ", "x", 1, []]),
        "system": SYSTEM,
        "history": st.sampled_from([None, [], [["a", "b"]], [["a"]], "", [["a", ""]], [["a", "b"], ["c", "d"]]]),
        "id": st.sampled_from([1, "x", None, {"output": 1}]),
        "label": st.sampled_from([None, True, False]),
        "tools": st.sampled_from([None, "", "[]", []]),
        "images": LIST,
        "system_prompt": SYSTEM,
        "prompt": TEXT,
    },
)


def turns(role: str, content: str, users: list[str], answers: list[str]) -> st.SearchStrategy[list[Any]]:
    def turn(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
        return st.fixed_dictionaries(
            {role: st.sampled_from(names), content: TEXT},
            optional={
                "loss": st.sampled_from([None, True, False, 1]),
                "name": TEXT,
                "tool_calls": st.sampled_from([None, []]),
                "reasoning": st.sampled_from([None, "", "r"]),
            },
        )

    pairs = st.lists(st.tuples(turn(users), turn(answers)), min_size=1, max_size=3)
    head = st.just([]) | st.lists(turn(["system"]), max_size=1)
    return st.builds(lambda first, rest: first + [item for pair in rest for item in pair], head, pairs)


BESIDE: dict[str, st.SearchStrategy[Any]] = {
    "system": SYSTEM,
    "tools": st.sampled_from([None, "", "[]", []]),
    "id": st.integers(),
    "conversation": st.just([]),
    "system_prompt": SYSTEM,
}
MESSAGES = st.fixed_dictionaries(
    {"messages": turns("role", "content", ["user", "user", "system"], ["assistant", "assistant", "user"])},
    optional=BESIDE,
)
SHAREGPT = st.fixed_dictionaries(
    {"conversations": turns("from", "value", ["human", "user"], ["gpt", "assistant", "tool"])}, optional=BESIDE
)
RECORDS = st.one_of(
    st.tuples(st.just("alpaca"), ALPACA),
    st.tuples(st.just("messages"), MESSAGES),
    st.tuples(st.just("sharegpt"), SHAREGPT),
)
KEYS = [None, None, "output", "input", "content", "role", "messages", "value", "system", "tools", "loss", "id"]


def encoded(record: Any, *, compact: bool, ascii_only: bool, repeated: str | None) -> bytes:
    text = json.dumps(record, ensure_ascii=ascii_only, separators=(",", ":") if compact else None)
    if repeated is not None:  # once more, in front of the value that counts
        text = text.replace(f'"{repeated}":', f'"{repeated}": "x", "{repeated}":', 1)
    return text.encode()


@EXAMPLES
@given(
    record=RECORDS,
    repeated=st.sampled_from(KEYS),
    compact=st.booleans(),
    ascii_only=st.booleans(),
    only_lines=st.booleans(),
)
def test_a_row_taken_is_the_row_read(
    record: tuple[str, Any], repeated: str | None, compact: bool, ascii_only: bool, only_lines: bool
) -> None:
    name, value = record
    data = encoded(value, compact=compact, ascii_only=ascii_only, repeated=repeated)
    fast = fast_path(name, {}, only_lines=only_lines)
    assert fast is not None
    taken = fast.each([data])
    (line,), (conversation,) = taken.lines, taken.conversations
    if line is None or any(suspicious(Rules()).spots(line)):
        return
    expected, repairs = RowReader(name, {}, Rules()).read(RawRow(1, data, None))  # type: ignore[arg-type]
    assert repairs == ()
    assert line == msgspec.json.encode(expected)
    assert conversation in ((None, expected) if only_lines else (expected,))
    if taken.chars[0]:
        assert taken.chars[0] == sum(len(turn["content"]) for turn in json.loads(line)["messages"])


@EXAMPLES
@given(
    records=st.lists(ALPACA, min_size=1, max_size=6),
    junk=st.lists(st.sampled_from([b"{", b"", b"5", b'{"instruction":"a","output":"b"}{}', b"  "]), max_size=2),
    compact=st.booleans(),
    repeated=st.sampled_from(KEYS),
    ended=st.booleans(),
)
def test_neighbours_do_not_matter(
    records: list[Any], junk: list[bytes], compact: bool, repeated: str | None, ended: bool
) -> None:
    rows = [encoded(record, compact=compact, ascii_only=False, repeated=None) for record in records]
    rows[0] = encoded(records[0], compact=compact, ascii_only=False, repeated=repeated)
    rows[1:1] = junk
    fast = fast_path("alpaca", {}, only_lines=True)
    assert fast is not None
    alone = [fast.each([row]).lines[0] for row in rows]
    together = fast.lines(b"\n".join(rows) + b"\n" * (ended or not rows[-1]))
    assert [line for line in together.lines if line] == [line for line in alone if line]
    if together.raw is not None:
        assert [line is None for line in together.lines] == [line is None for line in alone]


def test_usual_rows_are_taken_and_unusual_ones_left() -> None:
    fast = fast_path("alpaca", {}, only_lines=False)
    assert fast is not None
    for usual in (
        {"instruction": "i", "input": "x", "output": "o"},
        {"instruction": "i", "output": "o"},
        {"instruction": "i", "input": None, "output": "o", "id": 7},
        {"instruction": "i", "input": "", "output": "你", "system": "s", "history": [["a", "b"]]},
    ):
        for ascii_only in (True, False):
            assert fast.each([json.dumps(usual, ensure_ascii=ascii_only).encode()]).lines[0] is not None
    for unusual in (
        b'{"instruction":"i","output":"a","output":"b"}',
        b'{"instruction":"i","output":"a","\\u006futput":"b"}',
        b'{"instruction":"i","output":"a","note":"\xff"}',
        b'{"instruction":"i","output":""}',
        b'{"instruction":"i","output":"o","images":["x.png"]}',
    ):
        assert fast.each([unusual]).lines[0] is None


@pytest.mark.parametrize(
    ("indent", "row"),
    [
        (0, b'{"instruction":"i","input":"x","output":"o","system":"s","":"\xff"}'),  # as long as with usual spaces
        (2, b'{"instruction":"i","input":"x","output":"123456789","output":"o"}'),  # as long as on five lines
        (2, b'{"instruction":"i","input":"x",\n"output":"12345678","output":"o"}'),
        (2, b'{"instruction":"i","input":"x","output":"123456","output":"o"\n  }'),
        (8, b'{|"instruction":"i",|"input":"","input":"x",|"output":"o" }'.replace(b"|", b"\n" + b" " * 16)),
    ],
)
def test_there_is_no_room_for_more_than_was_read(indent: int, row: bytes) -> None:
    fast = fast_path("alpaca", {}, only_lines=True)
    assert fast is not None
    assert fast.each([row], indent=indent).lines == [None]


def test_rows_of_an_indented_array_are_told_by_size() -> None:
    fast = fast_path("alpaca", {}, only_lines=True)
    assert fast is not None
    row = {"instruction": "i", "input": "x", "output": "output"}
    data = json.dumps([row, row], indent=4)[1:-1].encode()
    taken = fast.elements(data, rb"\}\s*(,)\s*\{\s*", 4)
    assert taken is not None
    assert None not in taken.lines


@pytest.mark.parametrize(
    "columns",
    [{"instruction": "input"}, {"output": "label"}, {"role": "who"}, {"instruction": "p", "output": "p"}],
)
def test_columns_that_would_be_mistaken_take_the_general_path(columns: dict[str, str]) -> None:
    assert fast_path("alpaca", columns, only_lines=True) is None


def test_short_names_of_columns_are_not_told_by_size() -> None:
    columns = {"instruction": "q", "output": "a"}
    fast = fast_path("alpaca", columns, only_lines=True)
    assert fast is not None
    assert fast.each([b'{"q":"x","a":"y"}']).lines[0] is not None
    assert fast.each([b'{"q":"x","a":"y","a":""}', b'{"q":"x","a":"","a":"y"}']).lines == [None, None]
