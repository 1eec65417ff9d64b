"""XTuner rows: ``conversation``, a list of rounds of ``system`` (in the first), ``input`` and ``output``."""

from __future__ import annotations

from collections.abc import Mapping

from data_prep.alpaca import answer_text
from data_prep.conversation import Message, Reason, Repairs


def parse(record: Mapping[str, object], _repairs: Repairs) -> list[Message] | Reason:
    """The turns of one decoded row; a round with ``output_with_loss`` false is not learned."""
    if "conversation" not in record:
        return Reason.MISSING_FIELD
    rounds = record["conversation"]
    if not isinstance(rounds, list):
        return Reason.WRONG_TYPE
    turns: list[Message] = []
    for item in rounds:
        read = round_turns(item)
        if isinstance(read, Reason):
            return read
        turns += read
    return turns


def round_turns(item: object) -> list[Message] | Reason:
    """The two or three turns of one round."""
    if not isinstance(item, dict):
        return Reason.WRONG_TYPE
    if "input" not in item or "output" not in item:
        return Reason.MISSING_FIELD
    system, query, learned = item.get("system"), item["input"], item.get("output_with_loss")
    answer = answer_text(item["output"])
    if isinstance(answer, Reason):
        return answer
    if not isinstance(system, str | None) or not isinstance(query, str | None) or not isinstance(learned, bool | None):
        return Reason.WRONG_TYPE
    head = [Message("system", system)] if system and system.strip() else []
    return [*head, Message("user", query or ""), Message("assistant", answer, False if learned is False else None)]
