"""Alpaca rows: ``instruction``, ``input``, ``output``, and optionally ``system`` and ``history``."""

from __future__ import annotations

from data_prep.conversation import Conversation, Message, Reason, Reject, build, unwanted


def parse(record: object) -> Conversation | Reject:
    """Turn one decoded row into a conversation.

    The user turn is the instruction, a line break and the input where both have text, as ms-swift joins them.
    ``history`` is a list of ``[user, assistant]`` pairs that come before.
    """
    if not isinstance(record, dict):
        return Reject(Reason.NOT_AN_OBJECT)
    if "output" not in record or ("instruction" not in record and "input" not in record):
        return Reject(unwanted(record) or Reason.MISSING_FIELD)
    output = record["output"]
    if output is None:
        output = ""
    query = user_text(record.get("instruction"), record.get("input"))
    if query is None or not isinstance(output, str):
        return Reject(Reason.WRONG_TYPE)
    turns = history_turns(record.get("history"))
    if turns is None:
        return Reject(Reason.WRONG_TYPE)
    return build(record, [*turns, Message("user", query), Message("assistant", output)])


def user_text(instruction: object, extra: object) -> str | None:
    """Instruction and input as one text, "" when both are blank, None when either is not text or null."""
    if instruction is None:
        instruction = ""
    if extra is None:
        extra = ""
    if not isinstance(instruction, str) or not isinstance(extra, str):
        return None
    if not extra.strip():
        return instruction
    return f"{instruction}\n{extra}" if instruction.strip() else extra


def history_turns(history: object) -> list[Message] | None:
    """The turns of ``history``, None when it is not a list of pairs of texts."""
    if history is None:
        return []
    if not isinstance(history, list):
        return None
    turns: list[Message] = []
    for pair in history:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            return None
        turns += (Message("user", pair[0]), Message("assistant", pair[1]))
    return turns
