"""The one row that every format is parsed into, the reasons for refusing one, and the names of the repairs.

Roles and their spelling are those of ``swift sft``: ``tool_call`` and ``tool_response`` besides the usual three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import TypeAlias

import msgspec


class Reason(StrEnum):
    """Why a row was refused; the values are keys of ``stats.json`` and of ``rejects.jsonl``."""

    AMBIGUOUS_FIELD = "ambiguous_field"
    """Several fields could be the question, or the answer."""
    BAD_TOOL_CALL = "bad_tool_call"
    """A tool call that is no JSON object with ``name`` and ``arguments``: the trainer would stop on it."""
    BAD_TOOLS = "bad_tools"
    """``tools`` is neither a list nor JSON text of one."""
    CONSECUTIVE_TURNS = "consecutive_turns"
    """Two user or two assistant turns running."""
    DUPLICATE_KEY = "duplicate_key"
    """A field that is read occurs twice in one object; which of the two is meant cannot be known."""
    EMPTY_CONTENT = "empty_content"
    """A user, assistant or tool-call turn without visible text, or a conversation without turns."""
    ENDS_WITH_TOOL = "ends_with_tool"
    ENDS_WITH_USER = "ends_with_user"
    EXTRA_DATA = "extra_data"
    """More than one JSON value on a line."""
    INVALID_UTF8 = "invalid_utf8"
    LIST_OUTPUT = "list_output"
    """The answer is a list: alternatives to choose from, or something else that is not one text."""
    LONE_SURROGATE = "lone_surrogate"
    MALFORMED_THINK = "malformed_think"
    """Think tags that are not one block before the answer, where blocks are to be made, stripped or required."""
    MASKED_TURN = "masked_turn"
    """Every assistant turn is marked as not to be learned, so nothing is left to learn."""
    MEDIA_PLACEHOLDER = "media_placeholder"
    """Text that stands for an image, a video or a sound which is not there."""
    MISSING_FIELD = "missing_field"
    MISSING_THINK = "missing_think"
    """An assistant turn without a ``<think>`` block, where one is required."""
    NO_ASSISTANT_TURN = "no_assistant_turn"
    NON_FINITE_NUMBER = "non_finite_number"
    NOT_AN_OBJECT = "not_an_object"
    NOT_JSON = "not_json"
    NUL_CHARACTER = "nul_character"
    OVER_LENGTH = "over_length"
    """More tokens than were asked for."""
    PREFERENCE_DATA = "preference_data"
    """A row with a rejected answer, or itself labelled as a bad one: not for supervised fine-tuning."""
    SPECIAL_TOKENS = "special_tokens"
    """A special token of the chat template inside a text: the tokenizer would take it for the real one."""
    STARTS_WITH_ASSISTANT = "starts_with_assistant"
    STARTS_WITH_TOOL = "starts_with_tool"
    SYSTEM_NOT_FIRST = "system_not_first"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    TOOL_ORDER = "tool_order"
    """A tool turn where none can be, such as a call followed by a user turn."""
    TRUNCATED = "truncated"
    """The file ends inside this row."""
    UNKNOWN_ROLE = "unknown_role"
    UNSUPPORTED_CONTENT = "unsupported_content"
    """A content part or a reasoning field that has no plain-text form."""
    UNSUPPORTED_MEDIA = "unsupported_media"
    WEIGHTED_TURN = "weighted_turn"
    """An assistant turn with a loss weight other than 0 and 1, which would be lost."""
    WRONG_TYPE = "wrong_type"


class Repair(StrEnum):
    """What was changed in a row that was kept; the values are keys of ``stats.json``."""

    DROPPED_BLANK_SYSTEM = "dropped_blank_system"
    """A system prompt without visible text counts as none."""
    DROPPED_MASKED_TAIL = "dropped_masked_tail"
    """The turns after the last one that is learned: without loss there, they change nothing.

    They have to go, because the trainer would still learn the end token of a masked last turn.
    """
    DROPPED_SYSTEM_FIELD = "dropped_system_field"
    """A system turn and another text in the ``system`` field: the turn wins, as it does in the trainer."""
    MERGED_TURNS = "merged_turns"
    """Turns of one role running were joined with a blank line."""
    OPENED_THINK = "opened_think"
    """A thought that ends with ``</think>`` got the ``<think>`` that its prompt had held."""
    ORDERED_TOOL_RESPONSES = "ordered_tool_responses"
    """The answers to several calls were put into the order of the calls, by id."""
    REASONING_TO_THINK = "reasoning_to_think"
    """A reasoning field or part became a ``<think>`` block before the answer."""
    STRIPPED_THINK = "stripped_think"


def flag(record: Mapping[str, object], names: Sequence[str]) -> bool:
    """True when any of the fields ``names`` holds something (not null, empty or false)."""
    return any(record.get(name) for name in names)


def json_text(value: object) -> str | None:
    """``value`` as compact JSON, None when it nests too deep to be written."""
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError:
        return None


def order_fault(roles: Sequence[str]) -> Reason | None:
    """What is wrong with the order of the turns after the system prompt, or None; ``roles`` is not empty."""
    if roles == _PLAIN:
        return None
    if "system" in roles:
        return Reason.SYSTEM_NOT_FIRST
    if "assistant" not in roles and "tool_call" not in roles:
        return Reason.NO_ASSISTANT_TURN
    if roles[0] != "user":
        return Reason.STARTS_WITH_ASSISTANT if roles[0] == "assistant" else Reason.STARTS_WITH_TOOL
    for before, after in pairwise(roles):
        if after not in _NEXT[before]:
            return Reason.CONSECUTIVE_TURNS if before == after else Reason.TOOL_ORDER
    if roles[-1] == "user":
        return Reason.ENDS_WITH_USER
    return Reason.ENDS_WITH_TOOL if roles[-1] == "tool_response" else None


class Message(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One turn: ``role`` is system, user, assistant, tool_call or tool_response.

    ``loss`` is False on an assistant or tool_call turn that is not to be learned, and absent everywhere else.
    """

    role: str
    content: str
    loss: bool | None = None


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One row of ``train.jsonl`` or ``val.jsonl``; encoding it gives exactly that row."""

    messages: tuple[Message, ...]
    tools: str | None = None

    def widened(self, *, tools: bool, loss: bool) -> Conversation:
        """The same conversation with the fields ``tools`` and ``loss`` spelled out where they change nothing.

        The trainer's loader takes the columns of a file from its first 10 MiB and fails on a later row that has more.
        So the first row of a file has to show every field that any row of it has.
        """
        messages = list(self.messages)
        if loss:
            # The last turn is learned whatever the loss strategy, so marking it as learned says nothing new.
            messages[-1] = msgspec.structs.replace(messages[-1], loss=True)
        return Conversation(tuple(messages), "[]" if tools and self.tools is None else self.tools)


class Reject(msgspec.Struct, frozen=True):
    """A row that was refused, and why."""

    reason: Reason


Loss: TypeAlias = bool | None
"""False for a turn that is not to be learned, None for any other."""
Repairs: TypeAlias = set[str]
"""Where the repairs made to one row are noted, as values of `Repair`."""
Parse: TypeAlias = Callable[[Mapping[str, object], Repairs], list[Message] | Reason]
"""A format: the turns of one decoded row, in order and not yet checked, or why it has none."""

_PLAIN = ["user", "assistant"]
_NEXT: dict[str, frozenset[str]] = {
    "user": frozenset({"assistant", "tool_call"}),
    # A response may follow an assistant turn that holds the call as text.
    "assistant": frozenset({"user", "tool_call", "tool_response"}),
    "tool_call": frozenset({"tool_call", "tool_response"}),
    "tool_response": frozenset({"tool_response", "tool_call", "assistant"}),
}
