"""What one call costs before any tool starts, as ratios to `python -c pass` and to importing torch, in one run.

    python benchmarks/startup.py [ROUNDS]

`dry_run` and `help` must stay far below `torch`: nothing heavy is imported for them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CASES = {
    "python": ["-c", "pass"],
    "help": ["-m", "pipeline.run", "--help"],
    "data_prep_help": ["-m", "data_prep", "--help"],
    "dry_run": ["-m", "pipeline.run", "recipes/demo.yaml", "--dry-run"],
    "torch": ["-c", "import torch"],
}


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - start


def main(rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds + 1):  # the first round warms the page cache and is dropped
        for name, words in CASES.items():
            times[name].append(seconds(words))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(f"{'call':<16}{'seconds':>9}{'x python':>10}{'x torch':>9}")
    for name, value in medians.items():
        print(f"{name:<16}{value:>9.3f}{value / medians['python']:>10.1f}{value / medians['torch']:>9.2f}")
    print(json.dumps({f"{name}_per_torch": round(value / medians["torch"], 3) for name, value in medians.items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
