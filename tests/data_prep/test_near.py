"""Near-duplicates: shingles and Jaccard as in the naive definition, recall against an exhaustive search, keep-first."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_prep.near import candidates, jaccard, keep_first
from data_prep.sketch import BANDS, NOTHING, shingles, sketch
from data_prep.words import words

WORDS = st.sampled_from("a b c the of to and one two three".split())
TEXTS = st.lists(WORDS, max_size=25).map(" ".join)


def naive_shingles(text: str) -> set[tuple[str, ...]]:
    found = re.findall(r"\w+", text.lower())
    return {tuple(found[at : at + 5]) for at in range(max(1, len(found) - 4))} if found else set()


def naive_jaccard(left: str, right: str) -> float:
    a, b = naive_shingles(left), naive_shingles(right)
    return len(a & b) / len(a | b) if a and b else 0.0


def getter(texts: Sequence[str]) -> Callable[[NDArray[np.int64]], list[str]]:
    return lambda rows: [texts[row] for row in rows.tolist()]


def pairs_of(keys: NDArray[np.uint32], alive: Sequence[bool] | None = None) -> list[tuple[int, int]]:
    left, right = candidates(keys, np.ones(len(keys), bool) if alive is None else np.array(alive, bool))
    return list(zip(left.tolist(), right.tolist(), strict=True))


def edited(text: list[str], rate: float, rng: random.Random) -> list[str]:
    """Words replaced, dropped or added here and there, or a piece of the end or of the beginning cut off."""
    if rng.random() < 0.3:
        cut = int(len(text) * rate * 3)
        return text[cut:] if rng.random() < 0.5 else text[: len(text) - cut]
    result: list[str] = []
    for word in text:
        chance = rng.random() / rate
        if chance > 0.2:
            result.append(word)
        if (chance < 1 and chance > 0.2) or chance < 0.1:
            result[-1:] = [f"new{rng.randrange(1000)}"]
    return result


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    """3,000 rows: sentences drawn from a common pool, so that rows share passages; half are edits of earlier rows."""
    rng = random.Random(5)
    vocabulary = [f"w{int(rng.paretovariate(0.3)) % 5000}" for _ in range(20_000)]
    sentences = [rng.choices(vocabulary, k=rng.randint(3, 30)) for _ in range(4_000)]
    rows: list[list[str]] = []
    while len(rows) < 3_000:
        if len(rows) > 50 and rng.random() < 0.5:
            rows.append(edited(rng.choice(rows), rng.random() * 0.09 + 0.001, rng))
        else:
            rows.append([word for _ in range(int(rng.paretovariate(0.8)) % 40 + 1) for word in rng.choice(sentences)])
    return [" ".join(row) for row in rows]


@pytest.fixture(scope="module")
def similar(corpus: list[str]) -> dict[tuple[int, int], float]:
    """Every pair of Jaccard similarity 0.5 or more, by an inverted index."""
    sets = [naive_shingles(text) for text in corpus]
    holders: dict[tuple[str, ...], list[int]] = {}
    shared: dict[tuple[int, int], int] = {}
    for row, found in enumerate(sets):
        for shingle in found:
            for other in holders.setdefault(shingle, []):
                shared[other, row] = shared.get((other, row), 0) + 1
            holders[shingle].append(row)
    result = {pair: count / (len(sets[pair[0]]) + len(sets[pair[1]]) - count) for pair, count in shared.items()}
    return {pair: similarity for pair, similarity in result.items() if similarity >= 0.5}


@given(st.lists(TEXTS, max_size=6))
def test_shingles_are_the_runs_of_five_words(texts: list[str]) -> None:
    found = shingles(words(texts))
    for text, begin, end in zip(texts, found.starts[:-1], found.starts[1:], strict=True):
        count = len(text.split())
        assert end - begin == (max(1, count - 4) if count else 0)
        assert len(set(found.hashes[begin:end].tolist())) == len(naive_shingles(text))


@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_shingles_and_keys_do_not_depend_on_neighbours(texts: list[str]) -> None:
    together = shingles(words(texts))
    alone = [shingles(words([text])) for text in texts]
    assert together.hashes.tolist() == [each for one in alone for each in one.hashes.tolist()]
    assert together.starts.tolist() == np.cumsum([0] + [len(one.hashes) for one in alone]).tolist()
    assert sketch(words(texts)).tolist() == [sketch(words([text])).tolist()[0] for text in texts]


def test_short_texts_have_one_shingle_of_all_their_words() -> None:
    texts = ["a", "a a", "a a a", "a a a a", "a a a a a", "b", "a b", "b a", "a b c d", "b a c d"]
    found = shingles(words(texts))
    assert np.diff(found.starts).tolist() == [1] * len(texts)
    assert len(set(found.hashes.tolist())) == len(texts)


@given(st.lists(TEXTS, min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_jaccard_is_that_of_sets(texts: list[str], rng: random.Random) -> None:
    pairs = [(rng.randrange(len(texts)), rng.randrange(len(texts))) for _ in range(20)]
    left, right = (np.array(each, np.int64) for each in zip(*pairs, strict=True))
    expected = [naive_jaccard(texts[a], texts[b]) for a, b in pairs]
    assert jaccard(left, right, getter(texts)).tolist() == pytest.approx(expected)


def test_jaccard_in_many_batches_in_parts_and_of_no_pairs(
    corpus: list[str], similar: dict[tuple[int, int], float]
) -> None:
    pairs = sorted(similar)[:1500]
    left, right = (np.array(each, np.int64) for each in zip(*pairs, strict=True))
    asked: list[int] = []

    def texts(rows: NDArray[np.int64]) -> list[str]:
        asked.append(len(rows))
        assert (np.diff(rows) > 0).all()
        return getter(corpus)(rows)

    whole = jaccard(left, right, texts)
    assert whole.tolist() == pytest.approx([similar[pair] for pair in pairs])
    assert max(asked) <= 512
    parts = [jaccard(left[part], right[part], texts) for part in (slice(0, 7), slice(7, 800), slice(800, None))]
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert jaccard(left[:0], right[:0], texts).tolist() == []


def test_recall_against_exhaustive_search(corpus: list[str], similar: dict[tuple[int, int], float]) -> None:
    wanted = {pair for pair, similarity in similar.items() if similarity >= 0.7}
    borderline = {pair for pair in wanted if similar[pair] < 0.75}
    assert len(wanted) > 800 and len(borderline) > 80
    found = set(pairs_of(sketch(words(corpus))))
    assert len(wanted & found) >= 0.995 * len(wanted)
    assert len(borderline & found) >= 0.99 * len(borderline)
    assert len(found) < 3 * len(similar)  # not by taking everything


def test_chinese_near_duplicates_are_found() -> None:
    text = (
        "人工智能是计算机科学的一个分支，它企图了解智能的实质，并生产出一种新的能以人类智能相似的方式做出反应的机器。"
    )
    texts = [
        text,
        text.replace("，", " , "),
        text.replace("企图", "试图"),
        "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
    ]
    assert {(0, 1), (0, 2)} <= set(pairs_of(sketch(words(texts)))) <= {(0, 1), (0, 2), (1, 2)}
    assert jaccard(np.array([0]), np.array([1]), getter(texts)).tolist() == [1.0]


def test_texts_without_words_are_like_nothing() -> None:
    texts = ["", "...", "word", "?!", "word"]
    keys = sketch(words(texts))
    assert keys.shape == (5, BANDS)
    assert (keys[[0, 1, 3]] == NOTHING).all() and (keys[[2, 4]] != NOTHING).all()
    assert pairs_of(keys) == [(2, 4)]
    assert jaccard(np.array([0, 0, 2]), np.array([1, 2, 4]), getter(texts)).tolist() == [0, 0, 1]
    assert jaccard(np.array([0]), np.array([1]), getter(texts)).tolist() == [0]
    assert sketch(words([])).shape == (0, BANDS)
    assert pairs_of(sketch(words([]))) == []


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=6), st.data())
def test_candidates_are_all_pairs_with_a_key_in_common(rows: list[tuple[int, ...]], data: st.DataObject) -> None:
    keys = np.array(rows, np.uint32).reshape(-1, 3)
    alive = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    assert pairs_of(keys, alive) == [
        (a, b)
        for a in range(len(rows))
        for b in range(a + 1, len(rows))
        if alive[a] and alive[b] and any(x == y != NOTHING for x, y in zip(rows[a], rows[b], strict=True))
    ]


def test_a_huge_bucket_gives_few_pairs_and_still_joins_all_its_rows(tmp_path: Path) -> None:
    count = 50_000
    keys = np.memmap(tmp_path / "keys", np.uint32, "w+", shape=(count, BANDS))
    keys[:] = np.random.default_rng(1).integers(1, 1 << 32, (count, BANDS), np.uint32)
    keys[:, 3] = 7
    left, right = candidates(keys, np.ones(count, bool))
    assert len(left) < 9 * count + 1000
    assert set(right[left == 0].tolist()) == set(range(1, count))
    dropped, keeper = keep_first(left, right, count)
    assert dropped.tolist() == list(range(1, count)) and not keeper.any()


@given(
    st.integers(2, 12).flatmap(
        lambda rows: st.tuples(st.just(rows), st.sets(st.tuples(*[st.integers(0, rows - 1)] * 2)))
    )
)
def test_keep_first_is_greedy_in_row_order(case: tuple[int, set[tuple[int, int]]]) -> None:
    rows, drawn = case
    pairs = [(a, b) for a, b in drawn if a < b]
    kept: list[int] = []
    expected: dict[int, int] = {}
    for row in range(rows):
        like = [other for other in kept if (other, row) in pairs]
        if like:
            expected[row] = like[0]
        else:
            kept.append(row)
    left, right = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    dropped, keeper = keep_first(left, right, rows)
    assert dict(zip(dropped.tolist(), keeper.tolist(), strict=True)) == expected
    assert dropped.tolist() == sorted(expected)
