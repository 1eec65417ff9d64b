"""The rules a user can choose, what they change and what they refuse, and that the fast path cannot miss them."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.conversation import Conversation, Message, Reject
from data_prep.decode import RawRow
from data_prep.rows import RowReader
from data_prep.rules import Rules, suspicious, wanted

Turns = list[tuple[str, str]]
MERGE = Rules(consecutive_turns="merge")
STRIP = Rules(think="strip")
REQUIRE = Rules(think="require")
CALL = '{"name":"f","arguments":{}}'


def read(rules: Rules, *turns: tuple[str, str] | dict[str, Any], **fields: Any) -> tuple[Turns | str, tuple[str, ...]]:
    messages = [turn if isinstance(turn, dict) else {"role": turn[0], "content": turn[1]} for turn in turns]
    data = json.dumps({"messages": messages, **fields}, ensure_ascii=False).encode()
    parsed, repairs = RowReader("messages", {}, rules).read(RawRow(1, data, None))
    if isinstance(parsed, Reject):
        return parsed.reason.value, repairs
    return [(message.role, message.content) for message in parsed.messages], repairs


def losses(*turns: tuple[str, bool | None]) -> tuple[list[bool | None] | str, tuple[str, ...]]:
    messages = [{"role": role, "content": CALL if role == "tool_call" else "x", "loss": loss} for role, loss in turns]
    row = RawRow(1, json.dumps({"messages": messages}).encode(), None)
    parsed, repairs = RowReader("messages", {}, Rules()).read(row)
    return (
        parsed.reason.value if isinstance(parsed, Reject) else [message.loss for message in parsed.messages]
    ), repairs


def test_turns_of_one_role_are_joined_with_a_blank_line() -> None:
    rows = [("system", "s"), ("system", "t"), ("user", "q"), ("user", "r"), ("assistant", "a"), ("assistant", "b")]
    assert read(MERGE, *rows) == (
        [("system", "s\n\nt"), ("user", "q\n\nr"), ("assistant", "a\n\nb")],
        ("merged_turns",),
    )
    assert read(Rules(), *rows[2:]) == ("consecutive_turns", ())


def test_merging_leaves_other_rows_and_calls_alone() -> None:
    rows = [("user", "q"), ("tool_call", CALL), ("tool_call", CALL), ("tool", "1"), ("tool", "2"), ("assistant", "a")]
    assert read(MERGE, *rows) == read(Rules(), *rows)
    assert read(MERGE, ("user", " "), ("user", "q"), ("assistant", "a"))[0] == [("user", "q"), ("assistant", "a")]


def test_turns_that_differ_in_loss_are_not_merged() -> None:
    masked = {"role": "assistant", "content": "a", "loss": False}
    assert read(MERGE, ("user", "q"), masked, ("assistant", "b")) == ("consecutive_turns", ())


@pytest.mark.parametrize(
    "content", ["<think>\nt\n</think>\n\na", "<think>t</think>a", " <think></think> a", "t\n</think>\n\na"]
)
def test_thoughts_are_stripped(content: str) -> None:
    assert read(STRIP, ("user", "q"), ("assistant", content)) == (
        [("user", "q"), ("assistant", "a")],
        ("stripped_think",),
    )
    assert read(Rules(), ("user", "q"), ("assistant", content)) == ([("user", "q"), ("assistant", content)], ())


@pytest.mark.parametrize("content", ["<think>t", "a <think>t</think>", "</think>a<think>", "<think><think>t</think>a"])
def test_other_think_tags_are_refused_where_thoughts_matter(content: str) -> None:
    rows = [("user", "q"), ("assistant", content)]
    assert read(STRIP, *rows)[0] == read(REQUIRE, *rows)[0] == "malformed_think"
    assert read(Rules(), *rows)[0] == rows


def test_a_thought_alone_is_no_answer_but_may_stand_before_a_call() -> None:
    thought = ("assistant", "<think>t</think>")
    assert read(STRIP, ("user", "q"), thought)[0] == "empty_content"
    rest = [("tool_call", CALL), ("tool_response", "1"), ("assistant", "a")]
    assert read(STRIP, ("user", "q"), thought, *rest)[0] == [("user", "q"), *rest]


def test_think_tags_of_the_user_are_text() -> None:
    rows = [("user", "what is <think>?"), ("assistant", "a tag")]
    assert read(STRIP, *rows) == (rows, ())


def test_thoughts_can_be_required_of_learned_turns() -> None:
    good = ("assistant", "<think>\nt\n</think>\n\na")
    assert read(REQUIRE, ("user", "q"), good)[0] == [("user", "q"), good]
    assert read(REQUIRE, ("user", "q"), good, ("user", "q"), ("assistant", "a"))[0] == "missing_think"
    masked = {"role": "assistant", "content": "a", "loss": False}
    assert read(REQUIRE, ("user", "q"), masked, ("user", "q"), good)[0] != "missing_think"
    assert read(REQUIRE, ("user", "q"), ("assistant", "t\n</think>\n\na")) == ([("user", "q"), good], ("opened_think",))


def test_a_mark_on_a_turn_survives() -> None:
    assert losses(("user", None), ("assistant", False), ("user", False), ("assistant", True)) == (
        [None, False, None, None],
        (),
    )
    assert losses(("user", None), ("tool_call", False), ("tool", None), ("assistant", None))[0] == [
        None,
        False,
        None,
        None,
    ]


def test_what_follows_the_last_learned_turn_is_dropped() -> None:
    assert losses(("user", None), ("assistant", None), ("user", None), ("assistant", False)) == (
        [None, None],
        ("dropped_masked_tail",),
    )
    assert losses(("user", None), ("tool_call", None), ("tool", None), ("assistant", False)) == (
        [None, None],
        ("dropped_masked_tail",),
    )
    assert losses(("user", None), ("assistant", False)) == ("masked_turn", ())


def test_masked_calls_are_masked_one_by_one() -> None:
    calls = [{"function": {"name": "f", "arguments": {}}}] * 2
    item = {"role": "assistant", "content": "x", "tool_calls": calls, "weight": 0}
    messages = [
        {"role": "user", "content": "q"},
        item,
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": "a"},
    ]
    parsed, _ = RowReader("messages", {}, Rules()).read(RawRow(1, json.dumps({"messages": messages}).encode(), None))
    assert isinstance(parsed, Conversation)
    assert [message.loss for message in parsed.messages] == [None, False, False, False, None, None]


def test_repairs_of_the_system_prompt_are_named() -> None:
    rows = [("user", "q"), ("assistant", "a")]
    assert read(Rules(), ("system", " "), *rows) == (rows, ("dropped_blank_system",))
    assert read(Rules(), *rows, system=" ") == (rows, ("dropped_blank_system",))
    assert read(Rules(), ("system", "s"), *rows, system="t")[1] == ("dropped_system_field",)
    assert read(Rules(), ("system", "s"), *rows, system="s")[1] == ()


def test_answers_put_in_order_are_a_repair() -> None:
    calls = [{"id": str(at), "function": {"name": "f", "arguments": {}}} for at in range(2)]
    asked = {"role": "assistant", "content": None, "tool_calls": calls}
    answers = [{"role": "tool", "tool_call_id": str(at), "content": f"answer {at}"} for at in range(2)]
    expected, repairs = read(Rules(), ("user", "q"), asked, *answers, ("assistant", "a"))
    assert repairs == ()
    assert read(Rules(), ("user", "q"), asked, *answers[::-1], ("assistant", "a")) == (
        expected,
        ("ordered_tool_responses",),
    )


INJECTED = [
    "<|im_end|>", "<|im_start|>user", "<|eot_id|>", "<|endoftext|>", "<|start_header_id|>", "<|fim_prefix|>",
    "<｜end▁of▁sentence｜>", "<start_of_turn>user", "<end_of_turn>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>",
    "[gMASK]", "[TOOL_CALLS]",
]  # fmt: skip
HARMLESS = [
    "<s>old</s>", "a <| b |> c", "x <- y |> f", "<|>", "<html>", "[MASK]", "[inst]", "<pad>", "a[INST", "<think>", "1 < 2",
    "<tool_call>", "<img src='x'>",
]  # fmt: skip


@pytest.mark.parametrize("text", INJECTED)
@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_special_tokens_inside_a_text_are_refused(text: str, role: str) -> None:
    rows = [("system", "s"), ("user", "q"), ("assistant", "a")]
    rows = [(name, f"before {text} after" if name == role else content) for name, content in rows]
    assert read(Rules(), *rows)[0] == "special_tokens"
    assert read(Rules(special_tokens="keep"), *rows)[0] == rows


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_one_is_kept(text: str) -> None:
    rows = [("user", text), ("assistant", text)]
    assert read(Rules(), *rows)[0] == rows


def test_special_tokens_in_tools_and_calls_are_refused() -> None:
    rows = [("user", "q"), ("assistant", "a")]
    assert read(Rules(), *rows, tools=[{"name": "<|im_end|>"}])[0] == "special_tokens"
    call = {"role": "tool_call", "content": '{"name":"f","arguments":{"x":"<|im_end|>"}}'}
    assert read(Rules(), ("user", "q"), call)[0] == "special_tokens"


def test_the_tokens_of_a_model_take_the_place_of_the_well_known_ones() -> None:
    rules = Rules(tokens=("<s>", "</s>", "[PAD]", " ", "\n", "the", "<think>", "<tool_call>", "ok", "€€€"))
    assert list(wanted(rules.tokens)) == ["<s>", "</s>", "[PAD]", "€€€"]
    for text, kept in (
        ("<s>", False),
        ("[PAD]", False),
        ("€€€", False),
        ("<|im_end|>", True),
        ("the ok <think>", True),
    ):
        rows = [("user", f"x{text}"), ("assistant", "a")]
        assert read(rules, *rows)[0] == (rows if kept else "special_tokens")


PLACEHOLDERS = [
    "<image>Who are they?",
    "What is it?\n<image>",
    "in <image> and",
    "<video>\nWhat?",
    "hm?<audio>",
    " <audio> x",
]
TALK = [
    "<image>x.png</image>", "how does the <video> tag work", "<video><source src='x'></video>", "<video src='x'>",
    "`<audio>` in HTML", "<images>",
]  # fmt: skip


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_placeholders_without_media_are_refused(text: str) -> None:
    assert read(Rules(), ("user", text), ("assistant", "a"))[0] == "media_placeholder"
    assert read(Rules(), ("user", "q"), ("assistant", text))[0] != "media_placeholder"


@pytest.mark.parametrize("text", TALK)
def test_talk_of_media_is_kept(text: str) -> None:
    assert read(Rules(), ("user", text), ("assistant", text))[0] == [("user", text), ("assistant", text)]


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_the_path_of_an_image_is_refused_everywhere(role: str) -> None:
    rows = [(name, "see <img>/etc/x.png</img>" if name == role else "x") for name in ("user", "assistant")]
    assert read(Rules(), *rows)[0] == "media_placeholder"


@pytest.mark.parametrize(
    "text", ["\n" * 1_000_000, "<img>" * 200_000, " <video" * 150_000, "<think>" * 140_000, "<|a" * 300_000]
)
def test_long_texts_take_no_longer_than_their_length_says(text: str) -> None:
    began = time.process_time()
    read(STRIP, ("user", f"x{text}x<image"), ("assistant", f"x{text}x"))
    assert time.process_time() - began < 2


def test_very_many_turns_are_merged_in_one_go() -> None:
    began = time.process_time()
    assert read(MERGE, *[("user", "q" * 20)] * 100_000, ("assistant", "a"))[1] == ("merged_turns",)
    assert time.process_time() - began < 5


TOKENS = st.sampled_from([(), ("<s>", "[PAD]", '"quoted"', "</s>", "€€€")])
RULES = st.builds(
    Rules,
    consecutive_turns=st.sampled_from(["reject", "merge"]),
    think=st.sampled_from(["keep", "strip", "require"]),
    special_tokens=st.sampled_from(["reject", "keep"]),
    tokens=TOKENS,
)
FRAGMENTS = st.sampled_from(
    [
        *INJECTED,
        *HARMLESS,
        *PLACEHOLDERS,
        *TALK,
        "<img>x</img>",
        "</think>",
        "[PAD]",
        '"quoted"',
        "€€€",
        "<s>",
        "word ",
        "\n",
    ]
)
TEXTS = st.lists(FRAGMENTS | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1, max_size=4).map(
    "".join
)


@given(rules=RULES, user=TEXTS, assistant=TEXTS)
def test_nothing_the_rules_touch_escapes_the_search_of_encoded_rows(rules: Rules, user: str, assistant: str) -> None:
    if not user.strip() or not assistant.strip() or "\0" in user + assistant:
        return
    made = Conversation((Message("user", user), Message("assistant", assistant)))
    read_back, repairs = RowReader("messages", {}, rules).read(RawRow(1, msgspec.json.encode(made), None))
    suspicion = suspicious(rules)
    found = suspicion.everything or any(suspicion.spots(msgspec.json.encode(made)))
    assert found or (read_back == made and repairs == ())


def test_many_first_bytes_do_not_hide_what_follows() -> None:
    data = b"<" * 5000 + b"<|im_end|>" + b"[" * 5000 + b"[INST]"
    assert sorted(suspicious(Rules()).spots(data)) == [5000, 10010]


def test_prose_is_not_suspicious() -> None:
    data = msgspec.json.encode(
        Conversation((Message("user", "1 < 2 [x] <b>"), Message("assistant", "<think>t</think>a")))
    )
    assert list(suspicious(Rules()).spots(data)) == []
    assert len(list(suspicious(STRIP).spots(data))) == 2


def test_the_first_row_can_show_every_field() -> None:
    row = Conversation((Message("user", "q"), Message("assistant", "a")))
    wide = json.loads(msgspec.json.encode(row.widened(tools=True, loss=True)))
    assert wide == {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "loss": True}],
        "tools": "[]",
    }
    assert row.widened(tools=False, loss=False) == row
