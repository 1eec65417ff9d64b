"""Words: equal to the naive definition, a matter of each text alone, and hashed by their bytes alone."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.words import Words, words

# Every kind of character that words treats in its own way, and the borders of the ranges it knows by their bytes.
SAMPLE = (
    "aZ09_ .-\n\x00\x1e\x7f\x80ßÉéİΣς'’“”—…\u00a0\u00ad\u200b\u200d\ufe0f\u20e3\ud800"
    "हिन्दी।\u0964ก็กขكتابИи\u3000、。々〆〇〡ぁんゔ゛ゝァヴー・ㄅ㌀㐀䶿䷀䷿一丁以俿倀忿怀翿耀迿退釿鿯鿿ꀀ"
    "가힣ᄀ豈ＡＺａｚ０，｡ｱﾟ𛀀𐐀𐐨😀👩🏽𠀀𪜀𰀀\U000e0100\U0010ffff"
)
PINNED = ["e13388fafce4f272", "6da567dfbcac8c3f", "e83ba560d1a9e662", "a33baca0864b9bd7", "21427b9c881eb89a"]
TEXTS = st.text(st.sampled_from(SAMPLE) | st.characters(), max_size=60)
ASCII = st.text(st.characters(max_codepoint=127), max_size=200)


def is_alone(character: str) -> bool:
    """Ideographs, kana, Hangul syllables (and bopomofo), by their Unicode names."""
    name = unicodedata.name(character, "")
    starts = (
        "CJK UNIFIED",
        "CJK COMPATIBILITY IDEOGRAPH",
        "HANGUL SYLLABLE",
        "HIRAGANA ",
        "KATAKANA",
        "BOPOMOFO",
        "HENTAIGANA",
    )
    others = ("HALFWIDTH KATAKANA", "IDEOGRAPHIC ITERATION", "IDEOGRAPHIC CLOSING", "IDEOGRAPHIC NUMBER ZERO")
    return character.isalnum() and name.startswith(starts + others)


def naive(text: str) -> list[str]:
    found = [""]
    for character in text.lower():
        mark = unicodedata.category(character).startswith("M") and not re.match(
            "[\u20d0-\u20ff\ufe00-\ufe0f\U000e0100-\U000e01ef]", character
        )
        if is_alone(character):
            found += [character, ""]
        elif character == "_" or character.isalnum() or mark:
            found[-1] += character
        else:
            found.append("")
    return [word for word in found if word]


def split(found: Words) -> list[list[int]]:
    return [found.hashes[a:b].tolist() for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)]


def one_by_one(tokens: list[str]) -> list[int]:
    hashes = [split(words([token]))[0] for token in tokens]
    assert all(len(each) == 1 for each in hashes)
    return [each[0] for each in hashes]


@given(ASCII)
def test_ascii_words_are_those_of_a_regular_expression(text: str) -> None:
    assert split(words([text])) == [one_by_one(re.findall(r"\w+", text.lower()))]


@given(TEXTS)
def test_words_of_any_text_are_those_of_the_naive_definition(text: str) -> None:
    assert split(words([text])) == [one_by_one(naive(text))]


@pytest.mark.parametrize("first", range(0, 0x110000, 0x8000))
def test_every_character_is_classed_as_the_naive_definition_has_it(first: int) -> None:
    characters = [chr(point) for point in range(first, first + 0x8000)]
    if not any(is_alone(each) for each in characters):
        characters = characters[::16]  # the scripts without words of one character are left to a sample
    counts = np.diff(words([f"a{each}b" for each in characters]).starts).tolist()
    wrong = [
        f"{ord(each):x}: {count}"
        for each, count in zip(characters, counts, strict=True)
        if count != len(naive(f"a{each}b")) and not 0x3100 <= ord(each) < 0x3200  # names in there are of many kinds
    ]
    assert not wrong


@given(st.lists(TEXTS | ASCII, max_size=8), st.lists(TEXTS | ASCII, max_size=8))
def test_a_texts_words_do_not_depend_on_its_neighbours(left: list[str], right: list[str]) -> None:
    assert split(words(left + right)) == split(words(left)) + split(words(right))
    assert split(words(left)) == [split(words([text]))[0] for text in left]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("  \t\n", []),
        ("I'm 2nd_best, OK?", ["i", "m", "2nd_best", "ok"]),
        ("我爱Python编程，你呢？", ["我", "爱", "python", "编", "程", "你", "呢"]),
        ("カタカナとひらがな", list("カタカナとひらがな")),
        ("한국어 text", ["한", "국", "어", "text"]),
        ("हिन्दी में पढ़ें।", ["हिन्दी", "में", "पढ़ें"]),
        ("ÉCOLE Straße ΟΔΟΣ", ["école", "straße", "οδος"]),
        ("don’t—stop “now”… ❤️ 😀a😀", ["don", "t", "stop", "now", "a"]),
        ("ＡＢＣ，ａｂｃ", ["ａｂｃ", "ａｂｃ"]),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert split(words([text, text + " 我", text.upper() if text.isascii() else text]))[0] == one_by_one(tokens)


def test_a_word_is_hashed_alike_in_every_script_and_at_every_place() -> None:
    alone, mixed, last = split(words(["Hello", "我说hello，Hello", "x " * 50 + "HELLO"]))
    assert alone[0] == mixed[2] == mixed[3] == last[-1]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 72, 73, 1000])
def test_every_byte_of_a_long_word_counts(length: int) -> None:
    word = "a" * length
    others = [word[:at] + "b" + word[at + 1 :] for at in range(length)] + [word + "a", word[:-1] + "ba"]
    found = words([word, *others, f"é {word} é"])
    hashes = split(found)
    assert len(set(found.hashes.tolist())) == length + 4  # the é is the one more
    assert hashes[0][0] == hashes[-1][1]


def test_hashes_are_the_same_in_every_version() -> None:
    found = words(["a word", "internationalization", "我", "x" * 100])
    assert [f"{each:016x}" for each in found.hashes.tolist()] == PINNED


def test_different_words_have_different_hashes_whose_bits_are_even() -> None:
    found = words([" ".join(f"{number:x}" for number in range(100_000))])
    assert len(set(found.hashes.tolist())) == 100_000
    ones = [int((found.hashes >> np.uint64(bit) & np.uint64(1)).sum()) for bit in range(64)]
    assert min(ones) > 49_000 and max(ones) < 51_000


def test_no_texts() -> None:
    found = words([])
    assert found.hashes.tolist() == [] and found.starts.tolist() == [0]
