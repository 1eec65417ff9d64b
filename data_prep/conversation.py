"""The one row that every format is parsed into, the reasons for refusing one, and the rules of a conversation.

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

    BAD_TOOL_CALL = "bad_tool_call"
    """A tool call that is no JSON object with ``name`` and ``arguments``: the trainer would stop on it."""
    BAD_TOOLS = "bad_tools"
    """``tools`` is neither a list nor JSON text of one."""
    CONSECUTIVE_TURNS = "consecutive_turns"
    """Two user or two assistant turns running."""
    EMPTY_CONTENT = "empty_content"
    """A user, assistant or tool-call turn without visible text, or a conversation without turns."""
    ENDS_WITH_TOOL = "ends_with_tool"
    ENDS_WITH_USER = "ends_with_user"
    EXTRA_DATA = "extra_data"
    """More than one JSON value on a line."""
    INVALID_UTF8 = "invalid_utf8"
    LONE_SURROGATE = "lone_surrogate"
    MASKED_TURN = "masked_turn"
    """An assistant turn marked as not to be learned; keeping it without the mark would train on it."""
    MISSING_FIELD = "missing_field"
    NO_ASSISTANT_TURN = "no_assistant_turn"
    NON_FINITE_NUMBER = "non_finite_number"
    NOT_AN_OBJECT = "not_an_object"
    NOT_JSON = "not_json"
    NUL_CHARACTER = "nul_character"
    PREFERENCE_DATA = "preference_data"
    """A row with a rejected answer, or itself labelled as a bad one: not for supervised fine-tuning."""
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
    WRONG_TYPE = "wrong_type"


def flag(record: Mapping[str, object], names: Sequence[str]) -> bool:
    """True when any of the fields ``names`` holds something (not null, empty or false)."""
    return any(record.get(name) for name in names)


def unwanted(record: Mapping[str, object]) -> Reason | None:
    """The reason why a well-formed row is not text for supervised fine-tuning, or None."""
    if flag(record, ("images", "image", "videos", "video", "audios", "audio")):
        return Reason.UNSUPPORTED_MEDIA
    preference = ("chosen", "rejected", "rejected_response", "rejected_messages", "chosen_messages")
    if record.get("label") is False or flag(record, preference):
        return Reason.PREFERENCE_DATA
    return None


def json_text(value: object) -> str | None:
    """``value`` as compact JSON, None when it nests too deep to be written."""
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError:
        return None


def tools_text(value: object) -> str | Reason | None:
    """``tools`` as JSON text, None when there are none.

    Text, because a column of nested objects gets one type for the whole file when it is loaded, and tools differ.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = msgspec.json.decode(value)
        except (msgspec.MsgspecError, RecursionError):
            return Reason.BAD_TOOLS
    if value is None or value == []:
        return None
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        return Reason.BAD_TOOLS
    return json_text(value) or Reason.BAD_TOOLS


def system_text(record: Mapping[str, object]) -> str | Reason | None:
    """The system prompt that stands beside the turns, None when absent or blank."""
    value = record.get("system") or record.get("system_prompt")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        return Reason.WRONG_TYPE
    return value if value.strip() else None


def order_fault(roles: Sequence[str]) -> Reason | None:
    """What is wrong with the order of the turns after the system prompt, or None; ``roles`` is not empty."""
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


def build(record: Mapping[str, object], turns: Sequence[Message]) -> Conversation | Reject:
    """Check the turns of ``record``, add its system prompt and tools, and return the finished conversation.

    A system turn wins over a ``system`` field, as it does in the trainer; a blank one counts as absent.
    """
    if (reason := unwanted(record)) is not None:
        return Reject(reason)
    system = system_text(record)
    if isinstance(system, Reason):
        return Reject(system)
    tools = tools_text(record.get("tools"))
    if isinstance(tools, Reason):
        return Reject(tools)
    if turns and turns[0].role == "system":
        system = turns[0].content if turns[0].content.strip() else system
        turns = turns[1:]
    if not turns:
        return Reject(Reason.EMPTY_CONTENT)
    if (fault := order_fault([turn.role for turn in turns])) is not None:
        return Reject(fault)
    if any(turn.role != "tool_response" and not turn.content.strip() for turn in turns):
        return Reject(Reason.EMPTY_CONTENT)
    head = () if system is None else (Message("system", system),)
    messages = (*head, *turns)
    if any("\0" in message.content for message in messages):
        return Reject(Reason.NUL_CHARACTER)
    return Conversation(messages, tools)


class Message(msgspec.Struct, frozen=True):
    """One turn: ``role`` is system, user, assistant, tool_call or tool_response."""

    role: str
    content: str


class Conversation(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of ``train.jsonl`` or ``val.jsonl``; encoding it gives exactly that row."""

    messages: tuple[Message, ...]
    tools: str | None = None

    def with_system(self, system: str | None) -> Conversation:
        """The same conversation with ``system`` in front, unless it has a system prompt of its own."""
        if system is None or self.messages[0].role == "system":
            return self
        return Conversation((Message("system", system), *self.messages), self.tools)


class Reject(msgspec.Struct, frozen=True):
    """A row that was refused, and why."""

    reason: Reason


Parse: TypeAlias = Callable[[object], Conversation | Reject]

_NEXT: dict[str, frozenset[str]] = {
    "user": frozenset({"assistant", "tool_call"}),
    # A response may follow an assistant turn that holds the call as text.
    "assistant": frozenset({"user", "tool_call", "tool_response"}),
    "tool_call": frozenset({"tool_call", "tool_response"}),
    "tool_response": frozenset({"tool_response", "tool_call", "assistant"}),
}
