"""Wrapped files become plain rows; what is cut, broken or something else is refused with words."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep import containers, tables
from data_prep.containers import foreign, is_data_name, unpacked
from data_prep.conversation import Reason, Reject
from data_prep.decode import decode
from data_prep.errors import InputError, RejectedError
from data_prep.read import read_rows

ROWS = [{"instruction": "问", "output": "a\nb"}, {"instruction": "q", "output": "答"}]
SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def rows(path: Path, folder: Path, **options: Any) -> list[Any]:
    folder.mkdir(exist_ok=True)
    plain = unpacked(path, folder, **options)
    assert plain is not None and plain.parent == folder
    return [decode(row) for row in read_rows(plain)]


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", lines(*ROWS)),
        ("a.json", json.dumps(ROWS).encode()),
        ("a", b""),
        ("a.csv", b"\xef\xbb\xbf\n" + lines(*ROWS)),  # JSON under the name of a table
        ("a.parquet", lines(*ROWS)),
        ("a.json", b"plain words"),
    ],
)
def test_plain_text_is_read_in_place(tmp_path: Path, name: str, data: bytes) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    assert unpacked(put(tmp_path / name, data), folder) is None
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json", "anything"])
@pytest.mark.parametrize("data", [lines(*ROWS), json.dumps(ROWS).encode()], ids=["lines", "array"])
@pytest.mark.parametrize("members", [1, 3])
def test_gzip(tmp_path: Path, name: str, data: bytes, members: int) -> None:
    step = len(data) // members + 1
    packed = b"".join(gzip.compress(data[at : at + step]) for at in range(0, len(data), step))
    path = put(tmp_path / name, packed + b"\0" * 7)  # padded, as from a tape
    assert rows(path, tmp_path / "tmp") == ROWS
    assert path.read_bytes().startswith(packed)


def test_two_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in "ab")
    for number, folder in enumerate((first, second)):
        folder.mkdir()
        put(folder / "x.jsonl.gz", gzip.compress(lines({"n": number})))
    assert rows(first / "x.jsonl.gz", tmp_path / "tmp") == [{"n": 0}]
    assert rows(second / "x.jsonl.gz", tmp_path / "tmp") == [{"n": 1}]


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_cut_gzip(tmp_path: Path, kept: float) -> None:
    packed = gzip.compress(lines(*[{"n": n} for n in range(999)]))
    path = put(tmp_path / "a.jsonl.gz", packed[: int(len(packed) * kept)])
    with pytest.raises(RejectedError, match=r"a\.jsonl\.gz: this gzip file is truncated: fetch it again"):
        unpacked(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("damage", [lambda data: data[:-8] + b"12345678", lambda data: data + b"no gzip"])
def test_a_broken_gzip(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = put(tmp_path / "a.jsonl.gz", damage(gzip.compress(lines(*ROWS))))
    with pytest.raises(RejectedError, match="broken .*: fetch it again"):
        unpacked(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv.gz", b"a,b\n1,2\n", "gzip of a CSV file: unpack it first"),
        ("a.TSV.GZ", b"a\tb\n", "gzip of a TSV file"),
        ("a.gz", b"PAR1....", "gzip, and inside is Parquet"),
        ("a.gz", gzip.compress(b"{}", mtime=0), "gzip once more"),
        ("a.tar.gz", b"x" * 257 + b"ustar", "a tar archive"),
        ("a.gz", b"\xff\xfe{\0", "UTF-16"),
    ],
)
def test_a_gzip_of_something_else(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        unpacked(put(tmp_path / name, gzip.compress(data)), tmp_path)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"PK\x03\x04", "unzip"),
        (b"\x28\xb5\x2f\xfd", "unzstd"),
        (b"\xfd7zXZ\x00", "unxz"),
        (b"BZh9", "bunzip2"),
        ("[{".encode("utf-16"), "UTF-16"),
        ("[{".encode("utf-16-le"), "UTF-16"),
        ('{"a'.encode("utf-16-be"), "UTF-16"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\xef\xbb\xbf \n<!doctype HTML>", "web page"),
        (b"<HTML lang=en>", "web page"),
        (b"PARE", "encrypted"),
    ],
)
def test_foreign_files(tmp_path: Path, head: bytes, words: str) -> None:
    assert words in str(foreign(head))
    with pytest.raises(InputError, match=words):
        unpacked(put(tmp_path / "a.jsonl", head), tmp_path)


@pytest.mark.parametrize(
    "head", [b"", b"{", b"[", b"\n", b'{"a":1}', b"\xef\xbb\xbf{", "文字".encode(), b"\x1f\x8b", b"PAR1"]
)
def test_what_is_not_foreign(head: bytes) -> None:
    assert foreign(head) is None


def test_csv(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfinstruction, output,messages,other\r\n"a, ""b""\r\nc",2,"[{""role"": ""user""}]",[1]\r\n\r\n,,,\r\nx,NaN,[broken,"{}"'
    assert rows(put(tmp_path / "a.CSV", data), tmp_path / "tmp") == [
        {"instruction": 'a, "b"\r\nc', "output": "2", "messages": [{"role": "user"}], "other": "[1]"},
        {"instruction": "", "output": "", "messages": None, "other": ""},
        {"instruction": "x", "output": "NaN", "messages": "[broken", "other": "{}"},
    ]


def test_the_nested_columns_can_be_named(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", b"chat,tools\n[1],[2]\n")
    assert rows(path, tmp_path / "tmp", nested={"chat"}) == [{"chat": [1], "tools": "[2]"}]


def test_tsv(tmp_path: Path) -> None:
    path = put(tmp_path / "a.tsv", b'instruction\toutput\na,b\t"c\td"\n')
    assert rows(path, tmp_path / "tmp") == [{"instruction": "a,b", "output": "c\td"}]


def test_bad_rows_of_csv_are_refused_with_their_text(tmp_path: Path) -> None:
    data = b'a,b\n1,2\n1,2,3\n"x\ny"\n"quo"te,1\n\xb5\xc4,1\n3,4\n'
    said: list[str] = []
    path = put(tmp_path / "a.csv", data)
    assert rows(path, tmp_path / "tmp", say=said.append) == [
        {"a": "1", "b": "2"},
        "1,2,3",
        '"x\ny"',
        '"quo"te,1',
        Reject(Reason.INVALID_UTF8),
        {"a": "3", "b": "4"},
    ]
    assert said == [
        f"{path}: 4 rows are refused, because they do not have the 2 cells of the header, have a stray quote or are not "
        f"UTF-8; they begin at line 3, 4, 6, 7"
    ]


@pytest.mark.parametrize(
    ("name", "data", "error", "words"),
    [
        ("a.csv", b"", InputError, "the file is empty"),
        ("a.csv", b"\n\n", InputError, "the file is empty"),
        ("a.csv", b"a;b\n1;2\n", InputError, "between semicolons"),
        ("a.csv", b"a\tb\n1\t2\n", InputError, "between tabs"),
        ("a.tsv", b"a,b\n1,2\n", InputError, "between commas"),
        ("a.csv", b"a,b,a \n", InputError, "two columns are called 'a' in line 1"),
        ("a.csv", "指令,输出\n".encode("gbk"), InputError, "line 1 is not UTF-8"),
        ("a.csv", b"a,b\rc,d\r", InputError, "end lines with LF"),
        ("a.csv", b'"a,b\n', InputError, "line 1, the names"),
        ("a.csv", b'a,b\n1,2\n3,"4\n5,6\n', RejectedError, "begins at line 3: it is truncated, or a quote is missing"),
    ],
)
def test_a_csv_that_is_wrong_as_a_whole(
    tmp_path: Path, name: str, data: bytes, error: type[Exception], words: str
) -> None:
    path = put(tmp_path / name, data)
    with pytest.raises(error, match=words):
        unpacked(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_quote_that_swallows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_RECORD", 1000)
    for data in (b'a,b\n1,"2\n' + b"3,4\n" * 999, b"a,b\n" + b"x" * 2000):
        with pytest.raises(RejectedError, match="begins at line 2 goes on for more than"):
            unpacked(put(tmp_path / "a.csv", data), tmp_path)


@SETTINGS
@given(st.lists(st.tuples(CELLS, CELLS), max_size=6), st.sampled_from("\t,"), st.sampled_from(["\n", "\r\n"]))
def test_what_the_csv_module_writes_comes_back(
    tmp_path: Path, table: list[tuple[str, str]], separator: str, end: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *table])
    path = put(tmp_path / ("x.csv" if separator == "," else "x.tsv"), text.getvalue().encode())
    assert rows(path, tmp_path / "tmp") == [{"a": a, "b": b} for a, b in table]


@SETTINGS
@given(st.binary(max_size=60), st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.gz"]))
@pytest.mark.filterwarnings("error")
def test_no_bytes_crash_it(tmp_path: Path, data: bytes, name: str) -> None:
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    for head in (b"", b"a,b\n", b"\x1f\x8b\x08\x00", b"PAR1"):
        path = put(tmp_path / name, head + data)
        with suppress(InputError, RejectedError):
            plain = unpacked(path, work)
            if plain is not None:
                assert all(isinstance(decode(row), dict | str | Reject) for row in read_rows(plain))
                plain.unlink()
        assert list(work.iterdir()) == []


def test_parquet_whatever_its_name(tmp_path: Path) -> None:
    table = {
        "instruction": ["问", None, "x"],
        "turns": [[{"from": "human", "n": 1}], [], None],
        "score": [1.5, float("nan"), None],
        "day": [dt.date(2024, 1, 2)] * 3,
    }
    path = write_parquet(tmp_path / "a.jsonl", table, row_group_size=2)
    assert rows(path, tmp_path / "tmp") == [
        {"instruction": "问", "turns": [{"from": "human", "n": 1}], "score": 1.5, "day": "2024-01-02"},
        {"instruction": None, "turns": [], "score": None, "day": "2024-01-02"},
        {"instruction": "x", "turns": None, "score": None, "day": "2024-01-02"},
    ]


def test_parquet_of_many_batches_keeps_order_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_SAY_SECONDS", 0.0)
    said: list[str] = []
    path = write_parquet(tmp_path / "a.parquet", {"n": list(range(2000))})
    assert rows(path, tmp_path / "tmp", say=said.append) == [{"n": n} for n in range(2000)]
    assert said[-1] == "a.parquet: unpacking, 100%, about 0 s left"


@pytest.mark.parametrize("column", [[b"\x89PNG"], [{"bytes": b"\x89PNG", "path": "a"}], [[b"\x00"]]])
def test_pictures_in_parquet(tmp_path: Path, column: list[Any]) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["x"], "images": column})
    with pytest.raises(InputError, match=r"column 'images.*' holds binary data, such as pictures"):
        unpacked(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_cut_parquet(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"n": list(range(5000))})
    whole = path.read_bytes()
    for data in (whole[:9], whole[: len(whole) // 2], whole[:-1], whole[:1000] + b"\0" * 500 + whole[1500:]):
        with pytest.raises(
            RejectedError, match=r"a\.parquet: this Parquet file is truncated or broken .*: fetch it again"
        ):
            unpacked(put(path, data), tmp_path)


def test_names_of_data_files() -> None:
    for name in ("a.json", "A.JSONL", "a.json.gz", "a.b.jsonl.gz", "train-0.parquet", "a.csv", "a.tsv"):
        assert is_data_name(name)
    for name in ("a.csv.gz", "README.md", "a.gz", "json", "a.parquet.tmp", "a.txt"):
        assert not is_data_name(name)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.gz", gzip.compress(lines(*ROWS)))

    def full(*_args: Any) -> Any:
        yield b"x"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(containers, "gunzip", full)
    with pytest.raises(OSError, match="No space left"):
        unpacked(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    row = lines({"instruction": "x" * 500, "output": "y" * 500})
    put(tmp_path / "a.jsonl.gz", gzip.compress(row * 200_000, 1))
    with (tmp_path / "a.csv").open("wb") as out:
        out.write(b"instruction,output\n")
        for _ in range(100):
            out.write((b'"%s","%s"\n' % (b"x" * 500, b"y" * 500)) * 1000)
    program = (
        "import sys; from pathlib import Path; from data_prep.containers import unpacked\n"
        "unpacked(Path(sys.argv[1]), Path(sys.argv[2])); print(Path('/proc/self/status').read_text())"
    )
    for name in ("a.jsonl.gz", "a.csv"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / name), str(tmp_path)],
            cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=True,
        )  # fmt: skip
        peak = next(line for line in done.stdout.splitlines() if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 64 << 10, (name, peak)
