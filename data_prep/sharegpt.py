"""ShareGPT rows: ``conversations`` or ``conversation``, turns of ``from``/``value`` or ``role``/``content``."""

from __future__ import annotations

from data_prep.conversation import Conversation, Reason, Reject, build, unwanted
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


def parse(record: object) -> Conversation | Reject:
    """Turn one decoded ShareGPT row into a conversation."""
    if not isinstance(record, dict):
        return Reject(Reason.NOT_AN_OBJECT)
    key = next((key for key in ("conversations", "conversation") if key in record), None)
    if key is None:
        return Reject(unwanted(record) or Reason.MISSING_FIELD)
    turns = read_turns(record[key], ROLES, ("from", "role"), ("value", "content"))
    return Reject(turns) if isinstance(turns, Reason) else build(record, turns)
