"""Rows of a question and an answer, as ms-swift's oldest format has them: ``query``, ``response``, ``history``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from data_prep.alpaca import answer_text, history_turns
from data_prep.conversation import Message, Reason, Repairs

QUERY_KEYS = ("query", "prompt", "question")
RESPONSE_KEYS = ("response", "completion", "answer")
"""The first name wins; of the others a row may have only one, else which is meant would be a guess."""


def parse(record: Mapping[str, object], _repairs: Repairs) -> list[Message] | Reason:
    """The turns of one decoded row; ``history`` is a list of ``[query, response]`` pairs, or JSON text of one."""
    query_key, response_key = field(record, QUERY_KEYS), field(record, RESPONSE_KEYS)
    if isinstance(query_key, Reason):
        return query_key
    if isinstance(response_key, Reason):
        return response_key
    query = record[query_key]
    answer = answer_text(record[response_key])
    history = record.get("history")
    if isinstance(history, str):
        try:
            history = msgspec.json.decode(history) if history.strip() else None
        except (msgspec.MsgspecError, RecursionError):
            return Reason.WRONG_TYPE
    turns = history_turns(history)
    if isinstance(answer, Reason):
        return answer
    if not isinstance(query, str | None) or turns is None:
        return Reason.WRONG_TYPE
    return [*turns, Message("user", query or ""), Message("assistant", answer)]


def field(record: Mapping[str, object], names: Sequence[str]) -> str | Reason:
    """Which of ``names`` the row has: the first one, or the only one of the others."""
    if names[0] in record:
        return names[0]
    found = [name for name in names if name in record]
    if not found:
        return Reason.MISSING_FIELD
    return found[0] if len(found) == 1 else Reason.AMBIGUOUS_FIELD
