"""Rows with ``messages`` in OpenAI's shape, and the reading of turns that ShareGPT rows share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_prep.calls import align_responses, tool_calls
from data_prep.conversation import Loss, Message, Reason, Repair, Repairs, json_text
from data_prep.thinking import CLOSE, OPEN, with_thought

ROLES: dict[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool_call": "tool_call",
    "function_call": "tool_call",
    "tool": "tool_response",
    "tool_response": "tool_response",
    "function": "tool_response",
    "function_response": "tool_response",
    "observation": "tool_response",
    "observations": "tool_response",
}
"""Every spelling of a role that is understood here, in lower case with underscores."""
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
LOSS_KEYS = ("loss", "loss_weight", "loss_scale", "weight", "train")
"""Fields that say whether, or how much, a turn is to be learned."""
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_MEDIA_PARTS = ("image", "video", "audio", "input_audio", "input_image", "input_video")


def parse(record: Mapping[str, object], repairs: Repairs) -> list[Message] | Reason:
    """The turns of one decoded row with ``messages``."""
    if "messages" not in record:
        return Reason.MISSING_FIELD
    return read_turns(record["messages"], ROLES, ("role",), ("content",), repairs)


def read_turns(
    value: object, roles: Mapping[str, str], role_keys: Sequence[str], content_keys: Sequence[str], repairs: Repairs
) -> list[Message] | Reason:
    """Read a list of turns; the first of ``role_keys`` and of ``content_keys`` that a turn has is taken."""
    if not isinstance(value, list):
        return Reason.WRONG_TYPE
    turns: list[Message] = []
    role_key, content_key = role_keys[0], content_keys[0]
    for item in align_responses(value, repairs):
        if not isinstance(item, dict):
            return Reason.WRONG_TYPE
        if len(item) == 2:  # nearly every turn, in a third of the time
            name, text = item.get(role_key), item.get(content_key)
            if isinstance(name, str) and isinstance(text, str) and roles.get(name, "tool_call") != "tool_call":
                turns.append(Message(roles[name], text))
                continue
        read = read_turn(item, roles, role_keys, content_keys, repairs)
        if isinstance(read, Reason):
            return read
        turns += read
    return turns


def read_turn(
    item: Mapping[str, object],
    roles: Mapping[str, str],
    role_keys: Sequence[str],
    content_keys: Sequence[str],
    repairs: Repairs,
) -> list[Message] | Reason:
    """Read one turn, which gives several when it holds tool calls."""
    name = next((item[key] for key in role_keys if key in item), None)
    key = next((key for key in content_keys if key in item), None)
    content = None if key is None else item[key]
    if not isinstance(name, str):
        return Reason.MISSING_FIELD if name is None else Reason.WRONG_TYPE
    role = roles.get(name) or roles.get(name.strip().lower().replace("-", "_"))
    if role is None:
        return Reason.UNKNOWN_ROLE
    if key is None and not item.get("tool_calls"):
        return Reason.MISSING_FIELD
    if item.get("function_call"):
        return Reason.UNSUPPORTED_CONTENT
    loss = turn_loss(item) if role in ("assistant", "tool_call") else None
    if isinstance(loss, Reason):
        return loss
    if role == "tool_call":
        return Reason.UNSUPPORTED_CONTENT if flagged_thought(item) else tool_calls(content, loss)
    given = item.get("tool_calls")
    read = Content("", "", []) if content is None and given else read_content(content, role, loss)
    if isinstance(read, Reason):
        return read
    text = thoughtful(item, read, role, repairs)
    if isinstance(text, Reason):
        return text
    calls = tool_calls(given, loss) if given else read.calls
    if isinstance(calls, Reason) or (calls and role != "assistant") or (given and read.calls):
        return Reason.BAD_TOOL_CALL
    return [Message(role, text, loss), *calls] if text.strip() or not calls else calls


def turn_loss(item: Mapping[str, object]) -> Loss | Reason:
    """False when the turn is marked as not to be learned, None when it is to be learned as usual."""
    loss: Loss = None
    for key in LOSS_KEYS:
        value = item.get(key)
        if value is None:
            continue
        if not isinstance(value, (bool, int, float)):
            return Reason.WRONG_TYPE
        if value not in (0, 1):
            return Reason.WEIGHTED_TURN
        if not value:
            loss = False
    return loss


def flagged_thought(item: Mapping[str, object]) -> object:
    """What the first filled reasoning field of a turn holds, None when there is none."""
    return next((item[key] for key in REASONING_KEYS if item.get(key)), None)


def thoughtful(item: Mapping[str, object], content: Content, role: str, repairs: Repairs) -> str | Reason:
    """The text of a turn with its reasoning, from a field or from a content part, as a ``<think>`` block before it."""
    thought = flagged_thought(item)
    if thought is None:
        thought = content.thought
    elif content.thought and content.thought != thought:
        return Reason.MALFORMED_THINK
    if not thought or (isinstance(thought, str) and not thought.strip()):
        return content.text
    if role != "assistant" or not isinstance(thought, str):
        return Reason.UNSUPPORTED_CONTENT
    if OPEN in content.text or CLOSE in content.text or OPEN in thought or CLOSE in thought:
        # The same thought written twice is common; of two that differ, which is meant would be a guess.
        return content.text if thought.strip() in content.text else Reason.MALFORMED_THINK
    repairs.add(Repair.REASONING_TO_THINK)
    return with_thought(thought, content.text)


def read_content(content: object, role: str, loss: Loss) -> Content | Reason:
    """What a turn holds: a string, or a list of parts whose texts are joined without anything between them."""
    if isinstance(content, str):
        return Content(content, "", [])
    if content is None:
        return Reason.EMPTY_CONTENT
    if isinstance(content, list) and all(isinstance(part, (str, dict)) for part in content):
        return read_parts(content, loss)
    if isinstance(content, (dict, list)) and role == "tool_response":
        text = json_text(content)
        return Reason.WRONG_TYPE if text is None else Content(text, "", [])
    return Reason.WRONG_TYPE


def read_parts(parts: Sequence[str | dict[str, object]], loss: Loss) -> Content | Reason:
    """Join the parts of one turn: at most one thought, which is first, then texts, then tool calls."""
    texts: list[str] = []
    calls: list[Message] = []
    thought = ""
    for index, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else "text"
        if isinstance(kind, str) and kind.startswith(_MEDIA_PARTS):
            return Reason.UNSUPPORTED_MEDIA
        if kind == "tool_call" and isinstance(part, dict):
            called = tool_calls(part.get("value", part), loss)
            if isinstance(called, Reason):
                return called
            calls += called
            continue
        thinks = kind in REASONING_KEYS
        if (kind not in _TEXT_PARTS and not thinks) or calls or (thinks and index):
            return Reason.UNSUPPORTED_CONTENT
        text: object = part
        if isinstance(part, dict):
            text = next((part[key] for key in ("text", "value", str(kind)) if key in part), None)
        if not isinstance(text, str):
            return Reason.WRONG_TYPE
        if thinks:
            thought = text
        else:
            texts.append(text)
    return Content("".join(texts), thought, calls)


class Content(NamedTuple):
    """What the content of one turn holds: its text, its thought ("" when there is none) and its tool calls."""

    text: str
    thought: str
    calls: list[Message]
