"""What characters beyond ASCII are to words: separators, parts or words of their own; for whole arrays of UTF-8."""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

SEPARATOR = 1
PART = 2  # of a word
OWN = 3  # a word of its own
CAPITAL = 4  # part of a word, once it is lowered
_PAGE = 256
_OWN_RANGES = (
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3041, 0x31FF),  # kana, bopomofo; its Hangul jamo are not alone in real text
    (0x3400, 0x9FFF),  # ideographs
    (0xAC00, 0xD7A3),  # Hangul syllables
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0xFF66, 0xFF9F),  # halfwidth kana
    (0x1AFF0, 0x1B16F),  # kana extended and supplement
    (0x20000, 0x3FFFF),  # ideographs of the planes 2 and 3
)
_MARKS_OF_SYMBOLS = ((0x20D0, 0x20FF), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))  # they dress emoji and glyphs, not words

# One byte per code point; 0: its page is not filled yet. Pages are filled as texts need them; only those take memory.
_classes: NDArray[np.uint8] = np.zeros(0x110000, np.uint8)


def kinds(data: NDArray[np.uint8], at: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """``SEPARATOR``, ``PART``, ``OWN`` or ``CAPITAL``, and the size in bytes, of each character that begins ``at``."""
    point, size = _code_points(data, at)
    kind = _classes.take(point)
    if not kind.all():
        _fill(point[kind == 0])
        kind = _classes.take(point)
    return kind, size


def common_ideographs(data: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether an ideograph from U+4E00 to U+9FBF begins at each byte: most of Chinese, told without code points."""
    following = np.append(data[1:], np.uint8(0))
    common = data - np.uint8(0xE5) < 4
    common |= (data == 0xE4) & (following >= 0xB8)
    common |= (data == 0xE9) & (following < 0xBF)
    return common


def _code_points(data: NDArray[np.uint8], at: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Code points, and sizes in bytes, of the UTF-8 sequences of two to four bytes that begin ``at``."""
    four = np.ndarray((len(data) - 3,), np.dtype("<u4"), data, strides=(1,)).take(at)
    low = four >> 8 & 0x3F
    point = ((four & 0x0F) << 12 | low << 6 | four >> 16 & 0x3F).astype(np.uint32)  # right for three bytes
    size = np.full(len(at), 3, np.int64)
    two = np.flatnonzero(four & 0xE0 == 0xC0)
    if len(two):
        point[two] = (four[two] & 0x1F) << 6 | low[two]
        size[two] = 2
    longest = np.flatnonzero(four & 0xF0 == 0xF0)
    if len(longest):
        point[longest] = (four[longest] & 0x07) << 18 | (point[longest] & 0xFFF) << 6 | four[longest] >> 24 & 0x3F
        size[longest] = 4
    return point, size


def _fill(points: NDArray[np.uint32]) -> None:
    """Classify the pages that ``points`` lie on."""
    for page in set((points // _PAGE).tolist()):
        first = page * _PAGE
        _classes[first : first + _PAGE] = [_kind(point) for point in range(first, first + _PAGE)]


def _kind(point: int) -> int:
    character = chr(point)
    if character.isalnum():
        if any(low <= point <= high for low, high in _OWN_RANGES):
            return OWN
        return PART if character.lower() == character else CAPITAL
    if unicodedata.category(character).startswith("M") and not any(
        low <= point <= high for low, high in _MARKS_OF_SYMBOLS
    ):
        return PART
    return SEPARATOR
