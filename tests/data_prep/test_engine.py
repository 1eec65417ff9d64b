"""The engine: the same bytes for any number of processes and any size of block, and nothing left behind by a fault."""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.conversation import Conversation, Message
from data_prep.convert import convert
from data_prep.errors import InputError, RejectedError
from data_prep.options import Options
from data_prep.sources import Source
from data_prep.stats import Stats
from data_prep.token_count import TokenCounter
from tests.data_prep.test_tokens import tokenizer

ROOT = Path(__file__).resolve().parents[2]
WORDS = "the quick brown fox jumps over lazy dog while seven wizards boil green tea near old harbour walls".split()


def quiet(_line: str) -> None:
    pass


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words)) + rng.choice(["", "。你好", ' "quoted": },{ "x"', "\n- item", " é"])


def messy_rows(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Rows of many kinds: usual, repeated, nearly repeated, odd, broken."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        kind = rng.random()
        row: dict[str, Any] = {"instruction": sentence(rng, 9), "input": "", "output": sentence(rng, 30)}
        if kind < 0.1 and rows:
            row = dict(rng.choice(rows))
        elif kind < 0.2 and rows:
            row = dict(rng.choice(rows))
            row["output"] = f"{row.get('output')} indeed"
        elif kind < 0.25:
            row["output"] = ""
        elif kind < 0.3:
            row["history"] = [["earlier " + sentence(rng, 3), "answer"]]
        elif kind < 0.35:
            row["system"] = "be brief"
        elif kind < 0.38:
            row = {"id": number}
        elif kind < 0.41:
            row["output"] += "<|im_end|>"
        elif kind < 0.44:
            row["extra"] = {"note": "kept out"}
        rows.append(row)
    return rows


def dump(rows: list[Any], path: Path, shape: str) -> Path:
    if shape == "lines":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif shape == "ascii":
        text = "\r\n".join(json.dumps(row) for row in rows)  # and no end of the last line
    elif shape == "compact":
        text = "\n\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n"
    elif shape == "array":
        text = json.dumps(rows, ensure_ascii=False)
    else:
        text = json.dumps(rows, ensure_ascii=False, indent=2)
    path.write_text(text, "utf-8", newline="")
    return path


def outputs(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def run(source: Path, out: Path, **options: Any) -> Stats:
    sources = [Source("alpaca", str(source))]
    return convert(sources, out, Options(**{"max_reject_fraction": 1.0, "val_fraction": 0.1, **options}), quiet)


@pytest.mark.parametrize("shape", ["lines", "ascii", "compact", "array", "indented"])
def test_blocks_of_any_size_give_the_same_bytes(shape: str, tmp_path: Path) -> None:
    source = dump(messy_rows(200), tmp_path / "in", shape)
    run(source, tmp_path / "whole", dedup="none")
    whole = outputs(tmp_path / "whole")
    assert len(whole["train.jsonl"].splitlines()) > 100
    assert len(whole["rejects.jsonl"].splitlines()) > 10
    for step in (64, 333, 1000, 4096, 50_000):
        run(source, tmp_path / str(step), dedup="none", step=step)
        assert outputs(tmp_path / str(step)) == whole, step


@pytest.mark.parametrize("shape", ["lines", "indented"])
@pytest.mark.parametrize("dedup", ["none", "near"])
def test_any_number_of_processes_gives_the_same_bytes(shape: str, dedup: str, tmp_path: Path) -> None:
    source = dump(messy_rows(300), tmp_path / "in", shape)
    bank = tmp_path / "bank.jsonl"
    leak = json.loads(source.read_text().split("\n")[3])["output"] if shape == "lines" else "x " * 20
    bank.write_text(json.dumps({"question": leak}) + "\n")
    found = []
    for processes, step in ((1, 1 << 18), (2, 2048), (3, 700)):
        out = tmp_path / f"{processes}"
        run(source, out, dedup=dedup, processes=processes, step=step, decontaminate=(("bank", bank),))
        found.append(outputs(out))
    assert found[0] == found[1] == found[2]
    if dedup == "near":
        assert b'"kind":"near"' in found[0]["duplicates.jsonl"]
    assert not [name for name in found[0] if name.endswith(".tmp")]


def test_the_shape_of_the_file_does_not_matter(tmp_path: Path) -> None:
    rows = messy_rows(150)
    trains = []
    for shape in ("lines", "ascii", "compact", "array", "indented"):
        run(dump(rows, tmp_path / shape, shape), tmp_path / f"{shape}.out", step=512)
        trains.append(outputs(tmp_path / f"{shape}.out")["train.jsonl"])
    zipped = tmp_path / "rows.jsonl.gz"
    zipped.write_bytes(gzip.compress((tmp_path / "lines").read_bytes()))
    run(zipped, tmp_path / "gz.out")
    trains.append(outputs(tmp_path / "gz.out")["train.jsonl"])
    assert len(set(trains)) == 1


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(
        st.text(st.sampled_from('ab{}[],:"\\ \nu0你'), max_size=30) | st.just('}, {"instruction": "'), max_size=8
    ),
    step=st.integers(16, 400),
    indent=st.sampled_from([None, 1, 2]),
)
def test_cuts_of_arrays_are_never_believed_unproved(
    texts: list[str], step: int, indent: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    rows: list[Any] = [
        {"instruction": f"i{text}", "output": f"o{text}", "meta": [{"instruction": text}]} for text in texts
    ]
    path = folder / "in.json"
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=indent), "utf-8")
    try:
        run(path, folder / "o", dedup="none", val_fraction=0.0, step=step)
    except RejectedError:
        assert not rows
    kept = (folder / "o" / "train.jsonl").read_text("utf-8").split("\n")[:-1]
    assert [json.loads(line)["messages"][1]["content"] for line in kept] == [f"o{text}" for text in texts]


@pytest.mark.parametrize("step", [100, 1 << 18])
def test_an_array_that_is_cut_off_says_so_for_any_block(step: int, tmp_path: Path) -> None:
    path = dump(messy_rows(60), tmp_path / "in.json", "array")
    text = path.read_text("utf-8")
    path.write_text(text[: len(text) // 2], "utf-8")
    with pytest.raises(RejectedError, match="ends inside element"):
        run(path, tmp_path / "o", step=step, dedup="none")
    assert (tmp_path / "o" / "train.jsonl").read_bytes()
    assert not (tmp_path / "o" / "stats.json").exists()
    path.write_text(text + " [1]", "utf-8")
    with pytest.raises(RejectedError, match="the file goes on"):
        run(path, tmp_path / "p", step=step, dedup="none")


def test_a_row_larger_than_a_block_and_one_too_large(tmp_path: Path) -> None:
    rows = [{"instruction": "i", "output": "x" * size} for size in (10, 3_000_000, 20, 17 << 20, 30)]
    for shape in ("lines", "array"):
        stats = run(dump(rows, tmp_path / shape, shape), tmp_path / f"{shape}.out", dedup="none", val_fraction=0.0)
        assert (stats.rows_train, stats.rejected) == (4, {"too_large": 1})
        reject = json.loads((tmp_path / f"{shape}.out" / "rejects.jsonl").read_text())
        assert reject["line"] == 4
        assert len(reject["raw"]) < 100_000


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    row = json.dumps({"instruction": "i" * 300, "input": "", "output": "o" * 700}) + "\n"
    program = (
        "import sys; from data_prep.__main__ import main;"
        "code = main(['alpaca', sys.argv[1], sys.argv[2], '--dedup', 'none', '--processes', '1']);"
        # Not getrusage: its peak is inherited from the process that starts this one.
        "print(code, *[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    peaks = []
    for count in (20_000, 80_000):
        (tmp_path / "in.jsonl").write_text(row * count)
        words = [sys.executable, "-c", program, str(tmp_path / "in.jsonl"), str(tmp_path / "o")]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        code, peak = done.stdout.split()
        assert code == "0"
        peaks.append(int(peak))
    assert peaks[1] < peaks[0] + 8_000  # KiB, for 62 MB more


@pytest.mark.parametrize("dedup", ["none", "near"])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_leaves_nothing_new(dedup: str, processes: int, tmp_path: Path) -> None:
    """Writing fails in whatever process and file; the outputs of before stay, no draft does."""
    source = dump(messy_rows(400), tmp_path / "in", "lines")
    run(source, tmp_path / "o", dedup=dedup)
    before = outputs(tmp_path / "o")
    program = (
        "import resource, signal, sys; from data_prep.__main__ import main;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["alpaca", str(source), str(tmp_path / "o"), "--dedup", dedup, "--processes", str(processes)]
    words += ["--max-reject-fraction", "1", "--seed", "7"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert f"{tmp_path / 'o'}: {os.strerror(errno.EFBIG)}: make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert outputs(tmp_path / "o") == before


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_run_leaves_nothing_new(processes: int, tmp_path: Path) -> None:
    source = dump(messy_rows(40_000), tmp_path / "in", "lines")
    # With its own handler: a shell that starts the tests in the background has the signal ignored.
    program = (
        "import signal, sys; from data_prep.__main__ import main;"
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", program, "alpaca", str(source), str(tmp_path / "o"), "--dedup", "near"]
    with subprocess.Popen(
        [*words, "--processes", str(processes), "--max-reject-fraction", "1"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "o" / "rows.spool.tmp").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert "Traceback" not in said
    assert not (tmp_path / "o").exists()


def test_a_process_that_dies_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dump(messy_rows(50), tmp_path / "in", "lines")

    def die(*_: object) -> None:
        os._exit(9)

    monkeypatch.setattr("data_prep.relay.process_context", lambda: __import__("multiprocessing").get_context("fork"))
    monkeypatch.setattr("data_prep.cook.Cook.block", die)
    with pytest.raises(RuntimeError, match="ended without a word"):
        run(source, tmp_path / "o", processes=2)
    assert not (tmp_path / "o").exists()


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.jsonl").symlink_to("/proc/self/mem")
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be read"):
        run(tmp_path / "folder", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_the_first_line_shows_every_field(tmp_path: Path) -> None:
    """The trainer's loader takes a file's columns from its beginning, and fails on a field that comes later."""
    plain = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    tools = {**plain, "tools": '[{"name":"f"}]'}
    masked = {"messages": [*plain["messages"], *plain["messages"][:1], {"role": "assistant", "content": "b"}]}
    masked["messages"][1] = {"role": "assistant", "content": "no", "loss": False}  # type: ignore[dict-item]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (plain, tools, masked)))
    for dedup in ("none", "exact"):
        out = tmp_path / dedup
        convert([Source("messages", str(path))], out, Options(dedup=dedup, val_fraction=0), quiet)
        first, *rest = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
        assert first["tools"] == "[]"
        assert first["messages"][-1]["loss"] is True
        assert len(rest) == 2
        assert rest[1]["messages"][1]["loss"] is False


@pytest.mark.parametrize("dedup", ["none", "exact"])
def test_rows_over_a_number_of_tokens_are_refused(dedup: str, tmp_path: Path) -> None:
    model = tokenizer(tmp_path / "model")
    rows = [{"instruction": "count", "output": "word " * number} for number in range(1, 120)]
    rows.append({"instruction": "count", "output": "<|im_start|>"})
    counter = TokenCounter(model)
    lengths = [
        counter.count(Conversation((Message("user", "count"), Message("assistant", str(row["output"])))))
        for row in rows[:-1]
    ]
    limit = sorted(lengths)[60]
    source = dump(rows, tmp_path / "in", "lines")
    stats = run(source, tmp_path / "o", dedup=dedup, tokenizer=model, max_tokens=limit)
    assert stats.rejected == {"over_length": sum(length > limit for length in lengths), "special_tokens": 1}
    refused = [json.loads(line) for line in (tmp_path / "o" / "rejects.jsonl").read_text().splitlines()]
    assert [line["line"] for line in refused] == [
        *(at + 1 for at, length in enumerate(lengths) if length > limit),
        len(rows),
    ]
    assert all(str(rows[line["line"] - 1]["output"]) in line["raw"] for line in refused)


def test_two_conversions_do_not_write_into_one_folder(tmp_path: Path) -> None:
    source = dump(messy_rows(20), tmp_path / "in", "lines")
    run(source, tmp_path / "o")
    before = outputs(tmp_path / "o")
    other = os.open(tmp_path / "o", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another conversion is writing there"):
        run(source, tmp_path / "o", seed=1)
    os.close(other)
    assert outputs(tmp_path / "o") == before
    run(source, tmp_path / "o", seed=1)


def test_a_killed_run_is_made_good_by_the_next(tmp_path: Path) -> None:
    source = dump(messy_rows(30_000), tmp_path / "in", "lines")
    words = [sys.executable, "-m", "data_prep", "alpaca", str(source), str(tmp_path / "o"), "--processes", "2"]
    words += ["--max-reject-fraction", "1", "--val-fraction", "0.1"]
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        deadline = time.monotonic() + 30
        spool = tmp_path / "o" / "rows.spool.tmp"
        while not (spool.exists() and spool.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()  # this process alone; those it started see for themselves that it is gone
    assert not (tmp_path / "o" / "train.jsonl").exists()
    while time.monotonic() < deadline:
        with suppress(InputError):  # another conversion is writing there, until the last process of it has noticed
            run(source, tmp_path / "o")
            break
        time.sleep(0.1)
    run(source, tmp_path / "whole")
    assert outputs(tmp_path / "o") == outputs(tmp_path / "whole")


@pytest.mark.parametrize(
    "text",
    [
        '{"instruction":"q0","output":"a0"}\n{"instruction":"q1","output":"a1"} {"instruction":"q2","output":"a2"}\n{}\n',
        '{"instruction":"q0","output":"a0"}{"instruction":"q1","output":"a1"}\n\n{"instruction":"q2","output":"a2"}\n[]\n',
        '{"instruction": "q0", "output": "a0"}\n{"instruction":\n"q1", "output": "a1"}\n\n{"instruction": "q2"}\n',
        '{"instruction": "q0", "output": "a0"}\n\n\n\n{"instruction":"q1","output":"a1"}\n{"instruction": "q2", "output": ""}\n',
        '{"instruction": "q0", "output": "a0"}\n{"instruction":"q1","output":"b","output":"c"}\n[1]\n',
    ],
)
def test_what_is_not_one_object_a_line_is_told_alike_by_any_block(text: str, tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_text(text)
    found = []
    for step in (16, 60, 1 << 18):
        run(path, tmp_path / str(step), dedup="none", val_fraction=0.0, step=step)
        found.append(outputs(tmp_path / str(step)))
    assert found[0] == found[1] == found[2]
    lines = text.split("\n")
    for reject in map(json.loads, found[0]["rejects.jsonl"].splitlines()):
        assert lines[reject["line"] - 1].strip() == reject["raw"]


def test_elements_are_not_mistaken_for_their_neighbours(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 0, "instruction": "q0", "output": "a0", "x": [{"id": 1}, {"id": 2}]},
        {"id": 1, "instruction": "q1", "output": "a1"},
        {"id": 2, "instruction": "q2 <|im_end|>", "output": "a2"},
        {"instruction": "q3", "output": "a3", "id": 3},
    ]
    for compact in (True, False):
        path = tmp_path / "in.json"
        path.write_text(json.dumps(rows, separators=(",", ":") if compact else None))
        for step in (20, 1 << 18):
            out = tmp_path / f"{compact}{step}"
            stats = run(path, out, dedup="none", val_fraction=0.0, step=step)
            assert stats.rejected == {"special_tokens": 1}
            assert json.loads((out / "rejects.jsonl").read_text())["line"] == 3
            kept = [
                json.loads(line)["messages"][0]["content"] for line in (out / "train.jsonl").read_text().splitlines()
            ]
            assert kept == ["q0", "q1", "q3"]


def test_an_array_that_begins_with_something_else_is_cut_too(tmp_path: Path) -> None:
    rows: list[Any] = [{}, *messy_rows(100)]
    whole, small = (
        run(dump(rows, tmp_path / "in", "array"), tmp_path / str(step), dedup="none", step=step)
        for step in (1 << 18, 300)
    )
    assert whole == small
    assert outputs(tmp_path / str(1 << 18)) == outputs(tmp_path / "300")


def test_a_folder_that_holds_the_output_is_read_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.csv").write_text("instruction,output\nq,a\n")
    dump([{"instruction": "r", "output": "b"}], tmp_path / "data" / "y.jsonl", "lines")
    sources = [
        Source("alpaca", str(tmp_path / "data" / "x.csv")),
        Source("alpaca", str(tmp_path / "data"), file="*.jsonl"),
    ]
    stats = convert(sources, tmp_path / "data" / "out", Options(dedup="none", val_fraction=0.0), quiet)
    assert (stats.rows_in, stats.rows_train) == (2, 2)
