"""Which side of the split a conversation falls on: a matter of its content and the seed, never of its position."""

from __future__ import annotations

import hashlib

import msgspec

from data_prep.conversation import Conversation

_SPAN = 1 << 64


def is_validation(conversation: Conversation, val_fraction: float, seed: int) -> bool:
    """True when ``conversation`` belongs to the validation set.

    Equal conversations always fall on the same side, and adding rows or raising ``val_fraction`` takes no row out of
    the validation set.
    """
    digest = hashlib.blake2b(b"%d\n" % seed + msgspec.json.encode(conversation), digest_size=8).digest()
    return int.from_bytes(digest, "big") < int(val_fraction * _SPAN)
