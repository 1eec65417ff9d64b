"""Reading rows: arrays and lines under any name, in any chunking, whole or broken."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep import read
from data_prep.conversation import Reason, Reject
from data_prep.decode import RawRow, decode
from data_prep.errors import InputError, RejectedError
from data_prep.read import read_rows

SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(['"', "\\", '\\"', "]}", "[{,"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def values(path: Path) -> list[object]:
    return [decode(row) for row in read_rows(path)]


def fault(data: bytes, *, last: bool = False) -> str:
    found = decode(RawRow(1, data, None, last))
    assert isinstance(found, Reject)
    return found.reason.value


@SETTINGS
@given(
    rows=st.lists(VALUES, max_size=6), indent=st.sampled_from([None, 1]), chunk=st.integers(1, 9), ascii_=st.booleans()
)
def test_array_gives_its_elements_in_any_chunking(
    rows: list[Any], indent: int | None, chunk: int, ascii_: bool, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=ascii_), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "_CHUNK", chunk)
        assert values(path) == rows


@SETTINGS
@given(
    rows=st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=6), end=st.sampled_from(["\n", "\r\n", "\n\n"])
)
def test_lines_give_their_rows(rows: list[Any], end: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode())
    assert values(path) == rows


@SETTINGS
@given(data=st.binary(max_size=80) | st.text('[]{}",:\\1n ', max_size=40).map(str.encode), chunk=st.integers(1, 9))
def test_any_bytes_end_in_rows_or_in_a_known_error(data: bytes, chunk: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "_CHUNK", chunk)
        with suppress(InputError, RejectedError):
            values(path)


@pytest.mark.parametrize("text", ['[{"a":1},{"a":2}]', '{"a":1}\n{"a":2}', '{"a":1}\r\n\r\n{"a":2}\r\n'])
def test_byte_order_mark_is_skipped(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert values(path) == [{"a": 1}, {"a": 2}]


def test_line_separator_characters_end_no_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a":"x\u2028\x85y"}\n', "utf-8")
    assert values(path) == [{"a": "x\u2028\x85y"}]


def test_numbers_are_lines_or_elements(tmp_path: Path) -> None:
    lines, array = tmp_path / "l", tmp_path / "a"
    lines.write_text("{}\n\n{}\n")
    array.write_text("[{},\n\n{}]")
    assert [row.number for row in read_rows(lines)] == [1, 3]
    assert [row.number for row in read_rows(array)] == [1, 2]


def test_a_list_on_the_first_line_does_not_make_an_array(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('[]\n{"a":1}\n')
    assert values(path) == [[], {"a": 1}]


def test_a_broken_element_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"a":1}, {"a":}, {"a":3},]')
    assert values(path) == [{"a": 1}, Reject(Reason.NOT_JSON), {"a": 3}]


@pytest.mark.parametrize("text", ['[{"a":1},{"a":', '[{"a":1},{"a":"b}]', '[{"a":1},', "[", '[{"a":1}'])
def test_an_unclosed_array_is_an_error_after_its_rows(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    rows: list[RawRow] = []
    with pytest.raises(RejectedError, match="cut off"):  # noqa: PT012 - the rows before the error count too
        for row in read_rows(path):
            rows.append(row)  # noqa: PERF402 - the rows before the error count too
    assert rows[-1].fault is Reason.TRUNCATED


@pytest.mark.parametrize("text", ["[{}, \n{}]\n[{}]", "[\n{}\n]\n{}", "[{}}"])
def test_more_after_an_array_is_an_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(RejectedError, match="not one JSON array"):
        values(path)


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("big", ["x" * 5000, '\\"' * 2500, "\\\\" * 2501])
def test_a_giant_row_is_refused_without_being_held(
    array: bool, big: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr(read, "_CHUNK", 301)
    monkeypatch.setattr(read, "_KEEP", 50)
    path = tmp_path / "rows"
    rows = ['{"a":1}', '{"a":"' + big + '"}', '{"a":3}']
    path.write_text("[" + ",".join(rows) + "]" if array else "\n".join(rows))
    assert values(path) == [{"a": 1}, Reject(Reason.TOO_LARGE), {"a": 3}]
    assert [len(row.data) for row in read_rows(path)][1] == 50


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{'a': 1}", "not_json"),
        (b"instruction,output", "not_json"),
        (b'{"a": 1} {"b": 2}', "extra_data"),
        (b'{"a": NaN}', "non_finite_number"),
        (b'{"a": -Infinity}', "non_finite_number"),
        (b'{"a": 1e999}', "non_finite_number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "non_finite_number"),
        (b'{"a": "\\ud800"}', "lone_surrogate"),
        (b'{"a": "x\\udc00yyyyyyyyyyyy"}', "lone_surrogate"),
        (b'{"a": "\xff"}', "invalid_utf8"),
        (b'{"a": "\xed\xa0\x80"}', "invalid_utf8"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
    ],
)
def test_undecodable_rows_are_told_apart(data: bytes, reason: str) -> None:
    assert fault(data) == reason


@pytest.mark.parametrize("data", [b'{"a": "b', b'{"a": 1, ', b'{"a": "\xe4\xb8'])
def test_only_a_last_line_without_end_counts_as_cut_off(data: bytes) -> None:
    assert fault(data, last=True) == "truncated"
    assert fault(data) in ("not_json", "invalid_utf8")


@pytest.mark.parametrize("data", [b"PK\x03\x04", b"\xff\xfe{\x00", b"<!DOCTYPE html>"])
def test_foreign_files_are_named(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    with pytest.raises(InputError, match="this is"):
        list(read_rows(path))
