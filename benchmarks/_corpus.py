"""Made-up fine-tuning rows with the shape of real ones: lengths, scripts, duplicates and leaks of benchmark items.

The text is spliced from invented words, so what a count of duplicates says about it means nothing; costs do.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

EXACT_SHARE, NEAR_SHARE, EMPTY_SHARE = 0.08, 0.08, 0.0015
LEAKS = 2_000
"""Rows with a benchmark item in their answer, in 520,000."""


def vocabulary(rng: random.Random) -> tuple[list[str], list[str]]:
    """English-like words with the usual short ones on top, and Chinese characters."""
    onsets, vowels, codas = (
        "b c d f g h l m n p r s t v w br st th pr".split(),
        "a e i o u ea ou".split(),
        "n r s t l nd".split(),
    )
    made = {
        "".join(rng.choice(onsets) + rng.choice(vowels) for _ in range(rng.choice((1, 2, 2, 3)))) + rng.choice(codas)
        for _ in range(9_000)
    }
    short = "the of and to a in is that for it with as was on be by at this are or from an which you not have".split()
    return short * 40 + sorted(made), [chr(code) for code in range(0x4E00, 0x4E00 + 3_000)]


def sentence(rng: random.Random, pool: list[str], words: int) -> str:
    """``words`` words with a comma here and there and a full stop."""
    chosen = rng.choices(pool, k=words)
    for at in range(7, words, 11):
        chosen[at] += ","
    return " ".join(chosen).capitalize() + "."


def text(rng: random.Random, pools: tuple[list[str], list[str]], words: int, *, chinese: bool) -> str:
    """About ``words`` words in sentences of 4 to 24."""
    if chinese:
        return "".join(rng.choices(pools[1], k=words)) + "。"
    parts: list[str] = []
    while words > 0:
        length = min(words, rng.randint(4, 24))
        parts.append(sentence(rng, pools[0], length))
        words -= length
    return " ".join(parts)


def changed(rng: random.Random, original: str, share: float) -> str:
    """``original`` with about ``share`` of its words replaced."""
    words = original.split(" ")
    for _ in range(max(1, int(len(words) * share))):
        words[rng.randrange(len(words))] = rng.choice(("changed", "other", "new", "another"))
    return " ".join(words)


def eval_items(count: int, seed: int = 7) -> list[str]:
    """Texts of a made-up benchmark, 13 to 60 words each."""
    rng = random.Random(seed)
    pools = vocabulary(random.Random(1))
    return [text(rng, pools, rng.randint(13, 60), chinese=False) for _ in range(count)]


def alpaca_rows(count: int, items: list[str], seed: int = 3) -> list[dict[str, object]]:
    """``count`` Alpaca rows of about 720 bytes; the same arguments give the same rows."""
    rng = random.Random(seed)
    pools = vocabulary(random.Random(1))
    rows: list[dict[str, object]] = []
    for _ in range(count):
        draw = rng.random()
        if rows and draw < EXACT_SHARE:
            rows.append(rng.choice(rows[-20_000:]))
            continue
        if rows and draw < EXACT_SHARE + NEAR_SHARE:
            near = dict(rng.choice(rows[-20_000:]))
            near["output"] = changed(rng, str(near["output"]), rng.choice((0.01, 0.02, 0.04)))
            rows.append(near)
            continue
        chinese = rng.random() < 0.1
        row: dict[str, object] = {
            "instruction": text(rng, pools, rng.randint(5, 25), chinese=chinese),
            "input": text(rng, pools, rng.randint(5, 60), chinese=chinese) if rng.random() < 0.41 else "",
            "output": ""
            if rng.random() < EMPTY_SHARE
            else text(rng, pools, 8 + int(rng.expovariate(1 / 62)), chinese=chinese),
        }
        if rng.random() < LEAKS / 520_000:
            row["output"] = f"{row['output']} {rng.choice(items)}"
        if rng.random() < 0.05:
            row["system"] = sentence(rng, pools[0], 9)
        if rng.random() < 0.03:
            row["history"] = [[sentence(rng, pools[0], 8), sentence(rng, pools[0], 15)]]
        rows.append(row)
    return rows


def write_lines(rows: list[dict[str, object]], path: Path) -> None:
    """JSON Lines."""
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_array(rows: list[dict[str, object]], path: Path) -> None:
    """One JSON array, one field a line."""
    with path.open("w", encoding="utf-8") as stream:
        json.dump(rows, stream, ensure_ascii=False, indent=2)
