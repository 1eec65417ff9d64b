"""ShareGPT rows: ``conversations`` or ``conversation``, turns of ``from``/``value`` or ``role``/``content``."""

from __future__ import annotations

from collections.abc import Mapping

from data_prep.conversation import Message, Reason, Repairs
from data_prep.messages import ROLES as MESSAGE_ROLES
from data_prep.messages import read_turns

ROLES: dict[str, str] = {
    **MESSAGE_ROLES,
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
"""Every spelling of a role that ShareGPT rows use, in lower case with underscores."""


def parse(record: Mapping[str, object], repairs: Repairs) -> list[Message] | Reason:
    """The turns of one decoded ShareGPT row."""
    key = next((key for key in ("conversations", "conversation") if key in record), None)
    if key is None:
        return Reason.MISSING_FIELD
    return read_turns(record[key], ROLES, ("from", "role"), ("value", "content", "text"), repairs)
