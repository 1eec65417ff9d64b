"""Tools: their descriptions, the calls an assistant makes, and the order of the answers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from data_prep.conversation import Loss, Message, Reason, Repair, Repairs, json_text


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


def tool_calls(value: object, loss: Loss = None) -> list[Message] | Reason:
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
        turns.append(Message("tool_call", text, loss))
    return turns or Reason.BAD_TOOL_CALL


def align_responses(items: Sequence[object], repairs: Repairs) -> Sequence[object]:
    """Put the responses to a batch of calls into the order of the calls, by id; ids are dropped after this.

    A batch whose ids are missing or do not match is left as it is, as ms-swift leaves it.
    """
    moved: dict[int, object] = {}
    for index, item in enumerate(items):
        calls = item.get("tool_calls") if isinstance(item, dict) else None
        if not isinstance(calls, list) or len(calls) < 2:
            continue
        places = {
            call["id"]: place
            for place, call in enumerate(calls)
            if isinstance(call, dict) and isinstance(call.get("id"), str)
        }
        batch: dict[str, object] = {}
        for response in items[index + 1 : index + 1 + len(calls)]:
            if isinstance(response, dict) and isinstance(response.get("tool_call_id"), str):
                batch[response["tool_call_id"]] = response
        if len(places) == len(calls) == len(batch) and set(places) == set(batch):
            if list(batch) == list(places):
                continue
            repairs.add(Repair.ORDERED_TOOL_RESPONSES)
            in_order = sorted(batch, key=places.__getitem__)
            moved |= {index + 1 + place: batch[key] for place, key in enumerate(in_order)}
    return [moved.get(at, item) for at, item in enumerate(items)] if moved else items
