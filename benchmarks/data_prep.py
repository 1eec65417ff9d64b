"""What preparing data costs, as ratios to an orjson loads+dumps round trip of the same file in the same run.

    python benchmarks/data_prep.py [--rows 520000] [--rounds 3] [--only CASE ...] [--no-swift]

Every case runs in a process of its own, the cases of a round one after the other; imports are not counted, starting
further processes is. The corpus is made up (see _corpus.py). The last line printed is one JSON object:

convert_1p, convert_2p  check, convert and write JSON Lines of Alpaca rows, by 1 and 2 processes
full_1p, full_2p        the same with exact and near deduplication and a check against 30,000 benchmark items
rss_mb, rss_array_mb    peak memory of convert_1p on the lines, and on one JSON array of the same rows
vs_swift_1p             seconds of ms-swift's own preprocessing of the same file over those of convert_1p
growth_4x               full_1p's seconds on all rows over those on a quarter of them

Further columns of the table: seconds, rows per second, peak memory, and the most anonymous memory of all its processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks._corpus import alpaca_rows, eval_items, write_array, write_lines  # noqa: E402

CHUNK = 256 * 1024
ITEMS = 30_000


def orjson_rt(path: Path, out: Path, _items: Path) -> None:
    """The unit: read, orjson.loads and orjson.dumps every line, write."""
    import orjson

    loads, dumps = orjson.loads, orjson.dumps
    rest = b""
    with path.open("rb", buffering=0) as stream, (out / "rt.jsonl").open("wb") as target:
        while chunk := stream.read(CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            target.write(b"\n".join([dumps(loads(line)) for line in lines]) + b"\n")


def prepare(*, full: bool, processes: int) -> Callable[[Path, Path, Path], None]:
    """The conversion, with nothing but checks or with everything."""

    def run(path: Path, out: Path, items: Path) -> None:
        from data_prep.convert import convert
        from data_prep.options import Options
        from data_prep.sources import Source

        options = Options(
            dedup="near" if full else "none",
            decontaminate=(("bank", items),) if full else (),
            processes=processes,
        )
        convert([Source("alpaca", str(path))], out, options, lambda _line: None)

    return run


def swift(path: Path, out: Path, _items: Path) -> None:
    """The same rows through ms-swift's loader and preprocessor, one process, written as JSON Lines."""
    from swift.dataset import load_dataset

    dataset, _ = load_dataset(str(path), num_proc=1, load_from_cache_file=False, split_dataset_ratio=0.0)
    dataset.to_json(str(out / "swift.jsonl"), force_ascii=False)


CASES: dict[str, Callable[[Path, Path, Path], None]] = {
    "orjson_rt": orjson_rt,
    "convert_1p": prepare(full=False, processes=1),
    "convert_2p": prepare(full=False, processes=2),
    "full_1p": prepare(full=True, processes=1),
    "full_2p": prepare(full=True, processes=2),
    "swift": swift,
}
IMPORTS = {
    "orjson_rt": ["orjson"],
    "swift": ["swift.dataset"],
    "full_1p": ["data_prep.convert", "data_prep.settle", "data_prep.contamination"],
    "full_2p": ["data_prep.convert", "data_prep.settle", "data_prep.contamination"],
}


def anonymous_mb(pid: int) -> float:
    """Anonymous memory of a process and its descendants; 0 once it has ended."""
    total = 0
    pids = [pid]
    for one in pids:
        try:
            text = Path(f"/proc/{one}/status").read_text()
            pids += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon"))
    return total / 1024


def child(name: str, path: Path, items: Path) -> None:
    """Run one case, here, and print what it took."""
    for module in IMPORTS.get(name, ["data_prep.convert"]):
        __import__(module)
    with tempfile.TemporaryDirectory(dir=path.parent) as out:
        begin = time.perf_counter()
        CASES[name](path, Path(out), items)
        seconds = time.perf_counter() - begin
    # Not getrusage: what it tells goes on from the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    print(json.dumps({"seconds": seconds, "rss_mb": peak}))


def measured(name: str, path: Path, items: Path) -> dict[str, float]:
    """One case in a process of its own; ``seconds``, ``rss_mb`` and, while it ran, the most ``anon_mb``."""
    words = [sys.executable, __file__, "--child", name, str(path), str(items)]
    anonymous = 0.0
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            anonymous = max(anonymous, anonymous_mb(process.pid))
            time.sleep(0.1)
        printed = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"{name} failed with status {process.returncode}")
    return {**json.loads(printed.splitlines()[-1]), "anon_mb": anonymous}


def corpus(folder: Path, rows: int) -> dict[str, tuple[Path, int]]:
    """The files to work on and their rows: all rows, a quarter, an array."""
    items = eval_items(ITEMS)
    made = alpaca_rows(rows, items)
    files = {"all": rows, "quarter": rows // 4}
    for name, count in files.items():
        write_lines(made[:count], folder / f"{name}.jsonl")
    write_array(made, folder / "array.json")
    write_lines([{"question": item} for item in items], folder / "items.jsonl")
    found = {name: (folder / f"{name}.jsonl", count) for name, count in files.items()}
    return {**found, "array": (folder / "array.json", rows), "items": (folder / "items.jsonl", ITEMS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=520_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], metavar="CASE")
    parser.add_argument("--no-swift", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, path, items = options.child
        child(name, Path(path), Path(items))
        return
    cases = [
        ("orjson_rt", "orjson_rt", "all"),
        ("convert_1p", "convert_1p", "all"),
        ("convert_2p", "convert_2p", "all"),
        ("array_1p", "convert_1p", "array"),
        ("full_1p", "full_1p", "all"),
        ("full_2p", "full_2p", "all"),
        ("full_quarter", "full_1p", "quarter"),
        *([] if options.no_swift else [("swift", "swift", "all")]),
    ]
    cases = [case for case in cases if not options.only or case[0] in (*options.only, "orjson_rt")]
    found: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in cases}
    with tempfile.TemporaryDirectory() as folder:
        files = corpus(Path(folder), options.rows)
        size = files["all"][0].stat().st_size
        print(f"{options.rows} rows, {size / 1e6:.0f} MB, {size / options.rows:.0f} bytes a row", flush=True)
        for _ in range(options.rounds):
            for name, case, file in cases:
                found[name].append(measured(case, files[file][0], files["items"][0]))
    rows = {name: files[file][1] for name, _, file in cases}
    units = [run["seconds"] for run in found["orjson_rt"]]
    print(
        f"{'case':<14}{'x orjson_rt':>12}{'min':>7}{'max':>7}{'seconds':>9}{'rows/s':>11}{'peak MB':>9}{'anon MB':>9}"
    )
    for name, runs in found.items():
        # Against the unit of the same round, which ran at the same time of a noisy machine; per row.
        ratios = sorted(
            run["seconds"] / rows[name] / (unit / options.rows) for run, unit in zip(runs, units, strict=True)
        )
        seconds = statistics.median(run["seconds"] for run in runs)
        peak, anonymous = (max(run[key] for run in runs) for key in ("rss_mb", "anon_mb"))
        print(
            f"{name:<14}{statistics.median(ratios):>12.2f}{ratios[0]:>7.2f}{ratios[-1]:>7.2f}{seconds:>9.2f}"
            f"{rows[name] / seconds:>11.0f}{peak:>9.0f}{anonymous:>9.0f}"
        )

    def ratio(name: str, unit: str) -> float | None:
        if name not in found or unit not in found:
            return None
        pairs = zip(found[name], found[unit], strict=True)
        return round(statistics.median(run["seconds"] / other["seconds"] for run, other in pairs), 3)

    def most(name: str) -> float | None:
        return round(max(run["rss_mb"] for run in found[name]), 1) if name in found else None

    result = {name: ratio(name, "orjson_rt") for name in ("convert_1p", "convert_2p", "full_1p", "full_2p")}
    result |= {"rss_mb": most("convert_1p"), "rss_array_mb": most("array_1p")}
    result |= {"vs_swift_1p": ratio("swift", "convert_1p"), "growth_4x": ratio("full_1p", "full_quarter")}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
