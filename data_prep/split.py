"""Which side of the split a conversation falls on: a matter of its content and the seed, never of its position."""

from __future__ import annotations

from collections.abc import Sequence

from xxhash import xxh3_64_intdigest

_SPAN = 1 << 64


def line_hashes(lines: Sequence[bytes], seed: int) -> list[int]:
    """64-bit hashes of encoded conversations; another ``seed``, other hashes."""
    seed %= _SPAN
    return [xxh3_64_intdigest(line, seed) for line in lines]


def validation_rows(lines: Sequence[bytes], val_fraction: float, seed: int) -> list[int]:
    """The positions of the encoded conversations that belong to the validation set.

    Equal conversations always fall on the same side, and adding rows or raising ``val_fraction`` takes no row out of
    the validation set.
    """
    seed %= _SPAN
    limit = int(val_fraction * _SPAN)
    return [at for at, line in enumerate(lines) if xxh3_64_intdigest(line, seed) < limit]
