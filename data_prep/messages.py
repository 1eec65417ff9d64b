"""Rows with ``messages`` in OpenAI's shape, and the reading of turns that ShareGPT rows share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from data_prep.conversation import Conversation, Message, Reason, Reject, build, json_text, unwanted

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


def parse(record: object) -> Conversation | Reject:
    """Turn one decoded row with ``messages`` into a conversation."""
    if not isinstance(record, dict):
        return Reject(Reason.NOT_AN_OBJECT)
    if "messages" not in record:
        return Reject(unwanted(record) or Reason.MISSING_FIELD)
    turns = read_turns(record["messages"], ROLES, ("role",), ("content",))
    return Reject(turns) if isinstance(turns, Reason) else build(record, turns)


def read_turns(
    value: object, roles: Mapping[str, str], role_keys: Sequence[str], content_keys: Sequence[str]
) -> list[Message] | Reason:
    """Read a list of turns; the first of ``role_keys`` and of ``content_keys`` that a turn has is taken."""
    if not isinstance(value, list):
        return Reason.WRONG_TYPE
    turns: list[Message] = []
    for item in align_responses(value):
        if not isinstance(item, dict):
            return Reason.WRONG_TYPE
        read = read_turn(item, roles, role_keys, content_keys)
        if isinstance(read, Reason):
            return read
        turns += read
    return turns


def read_turn(
    item: Mapping[str, object], roles: Mapping[str, str], role_keys: Sequence[str], content_keys: Sequence[str]
) -> list[Message] | Reason:
    """Read one turn, which gives several when it holds tool calls."""
    name = next((item[key] for key in role_keys if key in item), None)
    key = next((key for key in content_keys if key in item), None)
    calls = item.get("tool_calls")
    if name is None or (key is None and not calls):
        return Reason.MISSING_FIELD
    if not isinstance(name, str):
        return Reason.WRONG_TYPE
    role = roles.get(name.strip().lower().replace("-", "_"))
    if role is None:
        return Reason.UNKNOWN_ROLE
    if (reason := turn_fault(item, role)) is not None:
        return reason
    content = None if key is None else item[key]
    if role == "tool_call":
        return tool_calls(content)
    text = "" if content is None and calls else content_text(content, role)
    if isinstance(text, Reason):
        return text
    if not calls:
        return [Message(role, text)]
    called = tool_calls(calls)
    if isinstance(called, Reason) or role != "assistant":
        return Reason.BAD_TOOL_CALL
    return [Message(role, text), *called] if text.strip() else called


def turn_fault(item: Mapping[str, object], role: str) -> Reason | None:
    """What a turn carries beside its text that would be lost in silence, or None."""
    if item.get("reasoning_content") or item.get("function_call"):
        return Reason.UNSUPPORTED_CONTENT
    if role in ("assistant", "tool_call"):
        # 0 and False are the same here: both say that this turn is not to be learned.
        masked = any(
            item.get(key) in (0, 0.0)
            for key in ("loss", "loss_weight", "loss_scale", "weight", "train")
            if item.get(key) is not None
        )
        if masked:
            return Reason.MASKED_TURN
    return None


def content_text(content: object, role: str) -> str | Reason:
    """The text of a turn: a string, or a list of text parts joined without anything between them."""
    if isinstance(content, str):
        return content
    if content is None:
        return Reason.EMPTY_CONTENT
    if isinstance(content, list) and all(isinstance(part, (str, dict)) for part in content):
        return parts_text(content)
    if isinstance(content, (dict, list)) and role == "tool_response":
        text = json_text(content)
        return Reason.WRONG_TYPE if text is None else text
    return Reason.WRONG_TYPE


def parts_text(parts: Sequence[object]) -> str | Reason:
    """Join the text parts of one turn."""
    texts: list[str] = []
    for part in parts:
        text = part
        if isinstance(part, dict):
            kind = part.get("type")
            if isinstance(kind, str) and kind.startswith(("image", "video", "audio", "input_audio", "input_image")):
                return Reason.UNSUPPORTED_MEDIA
            if kind != "text":
                return Reason.UNSUPPORTED_CONTENT
            text = part.get("text", part.get("value"))
        if not isinstance(text, str):
            return Reason.WRONG_TYPE
        texts.append(text)
    return "".join(texts)


def tool_calls(value: object) -> list[Message] | Reason:
    """One ``tool_call`` turn per call in ``value``: an object or a list of them, as such or as JSON text."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.MsgspecError, RecursionError):
            return Reason.BAD_TOOL_CALL
    calls = value if isinstance(value, list) else [value]
    turns: list[Message] = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return Reason.BAD_TOOL_CALL
        arguments = function.get("arguments", function.get("parameters"))
        if isinstance(arguments, str):
            try:
                arguments = msgspec.json.decode(arguments)
            except (msgspec.MsgspecError, RecursionError):
                return Reason.BAD_TOOL_CALL
        if arguments is None:
            return Reason.BAD_TOOL_CALL
        text = json_text({"name": function["name"], "arguments": arguments})
        if text is None:
            return Reason.BAD_TOOL_CALL
        turns.append(Message("tool_call", text))
    return turns or Reason.BAD_TOOL_CALL


def align_responses(items: Sequence[object]) -> list[object]:
    """Put the responses to a batch of calls into the order of the calls, by id; ids are dropped after this.

    A batch whose ids are missing or do not match is left as it is, as ms-swift leaves it.
    """
    ordered = list(items)
    for index, item in enumerate(ordered):
        calls = item.get("tool_calls") if isinstance(item, dict) else None
        if not isinstance(calls, list) or len(calls) < 2:
            continue
        places = {
            call["id"]: place
            for place, call in enumerate(calls)
            if isinstance(call, dict) and isinstance(call.get("id"), str)
        }
        batch: dict[str, object] = {}
        for response in ordered[index + 1 : index + 1 + len(calls)]:
            if isinstance(response, dict) and isinstance(response.get("tool_call_id"), str):
                batch[response["tool_call_id"]] = response
        if len(places) == len(calls) == len(batch) and set(places) == set(batch):
            ordered[index + 1 : index + 1 + len(calls)] = [batch[key] for key in sorted(batch, key=places.__getitem__)]
    return ordered
