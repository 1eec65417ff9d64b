"""What is found of what there is to find: near-duplicates against exhaustive search, overlap against a Python set.

    python benchmarks/data_quality.py [ROWS]

Prints a table and, as its last line, one JSON object:

near_recall         pairs of Jaccard similarity 0.7 and more that become candidates, over all there are
near_precision      of the candidates, those of 0.7 and more (what is dropped is always verified)
near_left           such pairs of which both rows are kept in the end
overlap_differences rows on which the check for 13-grams and a set of joined words disagree (ASCII rows)
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks._corpus import alpaca_rows, changed, eval_items, write_lines  # noqa: E402
from data_prep.contamination import load_index  # noqa: E402
from data_prep.near import candidates, jaccard, keep_first  # noqa: E402
from data_prep.sketch import shingles, sketch  # noqa: E402
from data_prep.words import words  # noqa: E402

THRESHOLD = 0.7
BLOCK = 300


def texts(count: int, items: list[str]) -> list[str]:
    """Rows, a third of them edited copies with similarities spread over 0.3 to 1."""
    rng = random.Random(5)
    made = [f"{row['instruction']} {row['input']} {row['output']}" for row in alpaca_rows(count, items, seed=9)]
    for at in range(count // 3, count, 3):
        made[at] = changed(rng, made[rng.randrange(at)], rng.uniform(0.0, 0.12))
    for at in range(0, count, 50):  # and some with a piece of an item
        item = rng.choice(items).split()
        made[at] += " " + " ".join(item[: rng.randint(10, len(item))])
    return made


def exhaustive(rows: list[str]) -> dict[tuple[int, int], float]:
    """Every pair that shares at least `THRESHOLD` of its shingles, by multiplying the matrix of all rows by itself."""
    found = shingles(words(rows))
    sizes = np.diff(found.starts)
    owners = np.repeat(np.arange(len(rows)), sizes)
    _, columns = np.unique(found.hashes, return_inverse=True)
    ones = np.ones(len(owners), np.int32)
    matrix = csr_array((ones, (owners, columns)), shape=(len(rows), int(columns.max()) + 1))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    distinct = matrix.sum(axis=1)
    pairs: dict[tuple[int, int], float] = {}
    for begin in range(0, len(rows), 1000):
        common = (matrix[begin : begin + 1000] @ matrix.T).tocoo()
        left, right = common.row + begin, common.col
        union = distinct[left] + distinct[right] - common.data
        close = (left < right) & (common.data >= THRESHOLD * union)
        similar = common.data[close] / union[close]
        pairs.update(zip(zip(left[close].tolist(), right[close].tolist(), strict=True), similar.tolist(), strict=True))
    return pairs


def naive(row: str, grams: set[str]) -> bool:
    """Whether 13 words running of ``row`` are among ``grams``."""
    found = re.findall(r"\w+", row.lower())
    return any(" ".join(found[at : at + 13]) in grams for at in range(len(found) - 12))


def main(count: int) -> None:
    items = eval_items(5_000)
    rows = texts(count, items)
    truth = exhaustive(rows)
    keys = np.concatenate([sketch(words(rows[at : at + BLOCK])) for at in range(0, count, BLOCK)])
    left, right = candidates(keys, np.ones(count, np.bool_))
    similarity = jaccard(left, right, lambda at: [rows[row] for row in at.tolist()])
    alike = similarity >= THRESHOLD
    found = set(zip(left.tolist(), right.tolist(), strict=True))
    dropped, _ = keep_first(left[alike], right[alike], count)
    gone = set(dropped.tolist())
    print(f"{count} rows, {len(truth)} pairs of similarity {THRESHOLD} and more, {len(found)} candidate pairs")
    for low in (0.7, 0.75, 0.8, 0.85, 0.9, 0.95):
        within = [pair for pair, value in truth.items() if low <= value < low + 0.05 or (low == 0.95 and value >= 1)]
        seen = sum(pair in found for pair in within)
        print(f"  {low:.2f}: {seen:>6} of {len(within):>6} pairs, recall {seen / max(len(within), 1):.4f}")
    grams = {
        " ".join(item[at : at + 13])
        for item in (re.findall(r"\w+", text.lower()) for text in items)
        for at in range(len(item) - 12)
    }
    plain = [row for row in rows if row.isascii()]
    with tempfile.TemporaryDirectory() as folder:
        bank = Path(folder) / "bank.jsonl"
        write_lines([{"question": item} for item in items], bank)
        index = load_index([("bank", bank)])
        hits = np.concatenate([index.probe(words(plain[at : at + BLOCK])) for at in range(0, len(plain), BLOCK)])
    expected = [naive(row, grams) for row in plain]
    print(f"{len(plain)} ASCII rows, {sum(expected)} that overlap by a set of all 13-grams, {int(hits.sum())} found")
    result = {
        "near_recall": round(sum(pair in found for pair in truth) / len(truth), 4),
        "near_precision": round(float(alike.mean()), 4),
        "near_left": sum(not gone & set(pair) for pair in truth),
        "overlap_differences": int((hits != np.array(expected)).sum()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
