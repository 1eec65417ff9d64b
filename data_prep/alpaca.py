"""Alpaca rows: ``instruction``, ``input``, ``output``, and optionally ``system`` and ``history``."""

from __future__ import annotations

from collections.abc import Mapping

from data_prep.conversation import Message, Reason, Repairs


def parse(record: Mapping[str, object], _repairs: Repairs) -> list[Message] | Reason:
    """The turns of one decoded row.

    The user turn is the instruction, a line break and the input where both have text, as ms-swift joins them.
    ``history`` is a list of ``[user, assistant]`` pairs that come before.
    """
    if "output" not in record or ("instruction" not in record and "input" not in record):
        return Reason.MISSING_FIELD
    query = user_text(record.get("instruction"), record.get("input"))
    answer = answer_text(record["output"])
    turns = history_turns(record.get("history"))
    if isinstance(answer, Reason):
        return answer
    if query is None or turns is None:
        return Reason.WRONG_TYPE
    return [*turns, Message("user", query), Message("assistant", answer)]


def answer_text(output: object) -> str | Reason:
    """The answer, "" when it is null; a list is refused, for to take one of its elements would be a guess."""
    if isinstance(output, str):
        return output
    if output is None:
        return ""
    return Reason.LIST_OUTPUT if isinstance(output, list) else Reason.WRONG_TYPE


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
