"""Words of texts as 64-bit hashes: the one tokenisation that near-duplicates and contamination are measured by.

A word is what ``\\w+`` finds in the lower-cased text, except that every CJK ideograph, kana and Hangul syllable is a
word of its own (those scripts put no spaces between words) and that combining marks stay in their word (``\\w`` would
cut Hindi at every vowel sign). Everything works on the UTF-8 bytes of a whole block of texts at once: numpy operations
over a few hundred kilobytes, which stay in the processor's cache, in place of Python objects per word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_prep import characters

# The factors of splitmix64. They are part of the meaning of every stored hash: an index built by one version must be
# readable by the next.
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)

_BETWEEN = b"\x1e"  # between texts: no word character, so that no word crosses
_PADDING = b"\x1e" * 16  # room for an 8-byte load at the last word
_LONG = 64  # bytes; words above are hashed one by one, so that one endless "word" costs no loop over the block


TURN_SEPARATOR = "\x1f"
"""Between the turns of a row that is taken as one text: no word character."""


class Words(NamedTuple):
    """The words of some texts, one text after the other."""

    hashes: NDArray[np.uint64]
    """One per word. A word's hash depends on the word alone, and is the same in every version and on every machine."""
    starts: NDArray[np.int64]
    """Texts + 1 offsets into ``hashes``: those of text i are ``hashes[starts[i] : starts[i + 1]]``."""


def words(texts: Sequence[str]) -> Words:
    """The hashed words of every text; a text's words depend on that text alone.

    Fastest for about 250 KB of text at a time, of which it needs some twenty times as much memory.
    """
    is_ascii = list(map(str.isascii, texts))
    if all(is_ascii):
        return _words_of_ascii(texts)
    other = _words_beyond_ascii([text for text, plain in zip(texts, is_ascii, strict=True) if not plain])
    if not any(is_ascii):
        return other
    # Texts beyond ASCII take twice the work, so it is worth the while not to do it on their neighbours.
    return _interleaved(_words_of_ascii(list(compress(texts, is_ascii))), other, np.array(is_ascii))


def offsets(sizes: NDArray[np.int64] | NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where each of some consecutive runs begins, and where the last one ends."""
    found = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=found[1:])
    return found


def _interleaved(first: Words, second: Words, from_first: NDArray[np.bool_]) -> Words:
    """The texts of two groups in their common order."""
    sizes = np.empty(len(from_first), np.int64)
    sizes[from_first] = np.diff(first.starts)
    sizes[~from_first] = np.diff(second.starts)
    starts = offsets(sizes)
    source = np.empty(len(from_first), np.int64)  # where each text's words are in the one group after the other
    source[from_first] = first.starts[:-1]
    source[~from_first] = second.starts[:-1] + len(first.hashes)
    source -= starts[:-1]
    places = np.repeat(source, sizes)
    places += np.arange(len(places))
    return Words(np.concatenate([first.hashes, second.hashes]).take(places), starts)


def _words_of_ascii(texts: Sequence[str]) -> Words:
    data, inside, ends = _block([text.encode() for text in texts])
    # The block begins and ends with separators, so that edges alternate between a word's begin and its end.
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    edges += 1
    begins = edges[0::2].copy()
    return _collected(data, begins, edges[1::2] - begins, ends)


def _words_beyond_ascii(texts: list[str]) -> Words:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    data, inside, ends = _block(encoded)
    begin, end, capital = _edges_beyond_ascii(data, inside)
    if len(capital):
        # str.lower is slow beyond ASCII, and most such texts (Chinese, say) have nothing there to be lowered.
        for text in set(np.searchsorted(ends, capital).tolist()):
            encoded[text] = texts[text].lower().encode("utf-8", "surrogatepass")
        data, inside, ends = _block(encoded)
        begin, end, _ = _edges_beyond_ascii(data, inside)
    begins = np.flatnonzero(begin)
    lengths = np.flatnonzero(end)
    lengths -= begins
    begins += 1
    return _collected(data, begins, lengths, ends)


def _block(encoded: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64]]:
    """All texts as one array of bytes, ASCII lowered; which of them are in words; where each text ends, exclusive."""
    joined = _BETWEEN.join((b"", *encoded, _PADDING))
    data, inside = _classified(np.frombuffer(joined, np.uint8))
    return data, inside, np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)) + 1)


def _collected(
    data: NDArray[np.uint8], begins: NDArray[np.int64], lengths: NDArray[np.int64], ends: NDArray[np.int64]
) -> Words:
    starts = np.zeros(len(ends) + 1, np.int64)
    starts[1:] = np.searchsorted(begins, ends)
    return Words(_hash(data, begins, lengths), starts)


def _classified(raw: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """UTF-8 with its ASCII letters lowered, and per byte whether it is an ASCII word character or beyond ASCII."""
    scratch = raw | np.uint8(0x20)
    scratch -= np.uint8(ord("a"))
    inside = scratch < 26
    np.negative(inside.view(np.uint8), out=scratch)
    scratch &= np.uint8(0x20)
    data = raw | scratch
    np.subtract(raw, np.uint8(ord("0")), out=scratch)
    inside |= scratch < 10
    inside |= raw == ord("_")
    inside |= raw >= 0x80
    return data, inside


def _edges_beyond_ascii(
    data: NDArray[np.uint8], inside: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
    """Whether a word begins, and whether one ends, at each byte but the first; and where there are capital letters.

    ``inside`` is corrected in place for the separators beyond ASCII.
    """
    common = characters.common_ideographs(data)
    at = np.flatnonzero((data >= 0xC0) & ~common)
    kind, size = characters.kinds(data, at)
    between = np.flatnonzero(kind == characters.SEPARATOR)
    at_between, size_between = at[between], size[between]
    inside[at_between] = inside[at_between + 1] = False
    inside[(at_between + 2)[size_between > 2]] = False
    inside[(at_between + 3)[size_between > 3]] = False
    begin, end = inside[1:] > inside[:-1], inside[1:] < inside[:-1]
    begin |= common[1:]
    end |= common[1:] & inside[:-1]
    end[2:] |= common[:-3]
    begin[2:] |= common[:-3] & inside[3:]
    own = np.flatnonzero(kind == characters.OWN)
    before = at[own] - 1
    last = before + size[own]
    begin[before] = end[last] = True
    begin[last] = inside[last + 1]
    end[before] = inside[before]
    return begin, end, at[kind == characters.CAPITAL]


def _hash(data: NDArray[np.uint8], begins: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash the bytes of each word, eight at a time, read little-endian and padded with zeros (no word holds a NUL)."""
    eights = np.ndarray((len(data) - 7,), np.dtype("<u8"), data, strides=(1,))
    # take() copies the whole of such an overlapping view first, which for all words is cheaper than unaligned loads.
    hashes = _mixed(_cut(eights.take(begins), lengths))
    longer = np.flatnonzero(lengths > 8)
    for offset in range(8, _LONG, 8):
        if not len(longer):
            break
        piece = _cut(eights[begins[longer] + offset], lengths[longer] - offset)
        hashes[longer] = _mixed(hashes[longer] ^ piece)
        longer = longer[lengths[longer] > offset + 8]
    for word in longer.tolist():
        begin = int(begins[word])
        digest = hashlib.blake2b(data[begin : begin + int(lengths[word])].tobytes(), digest_size=8).digest()
        hashes[word] = int.from_bytes(digest, "little")
    return hashes


def _cut(eight: NDArray[np.uint64], left: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Eight bytes each, of which only ``left`` (at least one) belong to the word: the others are shifted out."""
    shift = np.minimum(left, 8)
    np.subtract(8, shift, out=shift)
    shift <<= 3
    return eight.astype(np.uint64, copy=False) << shift.view(np.uint64)


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 on ``value``, in place: every bit of the input bears on every bit of the result."""
    value ^= value >> np.uint64(30)
    value *= _MULTIPLY_1
    value ^= value >> np.uint64(27)
    value *= _MULTIPLY_2
    value ^= value >> np.uint64(31)
    return value
