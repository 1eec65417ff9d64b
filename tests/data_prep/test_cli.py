"""The command line, its sources and its exit codes, and that the trainer reads what it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_prep.__main__ import main

ALPACA = {"instruction": "i", "output": "o"}
SHAREGPT = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
MESSAGES = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def write(path: Path, *rows: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def stats(outdir: Path) -> Any:
    return json.loads((outdir / "stats.json").read_bytes())


def test_as_a_program_from_anywhere(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", *({**ALPACA, "input": str(number)} for number in range(3)))
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "data_prep", "auto", source, "out", "--val-fraction", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "taken for alpaca: 3 of the first 3 rows" in done.stderr
    assert stats(tmp_path / "out")["rows_train"] == 3


def test_sources_are_taken_in_order(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", ALPACA), write(tmp_path / "b", SHAREGPT)
    third = write(tmp_path / "c", MESSAGES)
    code = main(
        [
            "alpaca",
            first,
            str(tmp_path / "o"),
            "--also",
            "auto",
            second,
            "--also",
            "messages",
            third,
            "--val-fraction",
            "0",
            "--system",
            "s",
            "--dedup",
            "none",
        ]
    )
    assert code == 0
    assert [(s["source"], s["format"], s["rows_kept"]) for s in stats(tmp_path / "o")["sources"]] == [
        (first, "alpaca", 1),
        (second, "sharegpt", 1),
        (third, "messages", 1),
    ]
    rows = [json.loads(line)["messages"] for line in (tmp_path / "o" / "train.jsonl").read_text().splitlines()]
    assert [row[0]["content"] for row in rows] == ["s", "s", "s"]
    assert [row[1]["content"] for row in rows] == ["i", "q", "q"]


def test_a_folder_is_read_whole_but_for_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write(folder / "z.json", ALPACA)
    write(folder / "a" / "b.jsonl", ALPACA, {})
    for other in ("dataset_infos.json", ".cache/x.json", "README.md"):
        write(folder / other, {})
    assert main(["auto", str(folder), str(tmp_path / "o"), "--val-fraction", "0", "--max-reject-fraction", "1"]) == 2
    assert main(["alpaca", str(folder), str(tmp_path / "o"), "--val-fraction", "0", "--max-reject-fraction", "1"]) == 0
    assert stats(tmp_path / "o")["sources"][0]["files"] == [f"{folder}/a/b.jsonl", f"{folder}/z.json"]
    reject = json.loads((tmp_path / "o" / "rejects.jsonl").read_text())
    assert (reject["source"], reject["line"]) == (f"{folder}/a/b.jsonl", 2)


def test_file_picks_from_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    write(folder / "x" / "a.json", ALPACA)
    write(folder / "b.json", MESSAGES)
    assert main(["auto", str(folder), str(tmp_path / "o"), "--file", "x/*.json", "--val-fraction", "0"]) == 0
    assert stats(tmp_path / "o")["sources"][0]["format"] == "alpaca"
    assert main(["auto", str(folder), str(tmp_path / "o"), "--file", "c.json"]) == 2
    assert "b.json, x/a.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([ALPACA, SHAREGPT], "1 alpaca, 1 sharegpt"),
        ([{"text": "t"}] * 3, "plain text"),
        ([{**SHAREGPT, "chosen": "x"}] * 3, "preference data"),
        ([{**ALPACA, **MESSAGES}] * 3, "not sure"),
    ],
)
def test_auto_refuses_to_guess(rows: list[Any], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["auto", write(tmp_path / "in", *rows), str(tmp_path / "o")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_auto_refuses_a_folder_of_two_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "d" / "a.json", ALPACA)
    write(tmp_path / "d" / "b.json", MESSAGES)
    assert main(["auto", str(tmp_path / "d"), str(tmp_path / "o")]) == 2
    assert "--also" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["alpaca", "absent.json", "o"], "absent.json"),
        (["alpaca", "modelscope:only-a-name", "o"], "owner/name"),
        (["alpaca", ".", "o", "--also", "csv", "x"], "'csv'"),
        (["alpaca", ".", "o"], "no data file in it"),
    ],
)
def test_wrong_input_is_exit_2(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_an_unknown_format_is_exit_2(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["csv", "x", str(tmp_path)])
    assert exit_.value.code == 2


def test_too_many_rejects_is_exit_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in", ALPACA, {}, {}, 5)
    assert main(["alpaca", source, str(tmp_path / "o"), "--val-fraction", "0"]) == 5
    said = capsys.readouterr().err
    assert "75.0%" in said
    assert "2  missing_field" in said
    assert "1  not_an_object" in said
    assert len((tmp_path / "o" / "rejects.jsonl").read_text().splitlines()) == 3
    assert not (tmp_path / "o" / "stats.json").exists()


@pytest.mark.parametrize("text", ["", "\n\n", "[]", "{}\n"])
def test_nothing_to_train_on_is_exit_5(text: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text(text)
    for name in ("alpaca", "auto"):
        code = main([name, str(tmp_path / "in"), str(tmp_path / "o"), "--max-reject-fraction", "1"])
        assert code == (2 if (name, text) == ("auto", "{}\n") else 5)
        assert not (tmp_path / "o" / "stats.json").exists()


def test_a_hub_id_is_fetched_by_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "snapshot" / "data" / "a.jsonl", ALPACA)
    asked: list[tuple[str, ...]] = []

    def download(hub: str, kind: str, repo_id: str, revision: str | None) -> Path:
        asked.append((hub, kind, repo_id, str(revision)))
        return tmp_path / "snapshot"

    monkeypatch.setattr("pipeline.hub.snapshots.download", download)
    assert main(["auto", "modelscope:me/d@v1", str(tmp_path / "o"), "--val-fraction", "0"]) == 0
    assert main(["auto", "huggingface:me/d", str(tmp_path / "p"), "--val-fraction", "0"]) == 0
    assert asked == [("modelscope", "dataset", "me/d", "v1"), ("huggingface", "dataset", "me/d", "None")]
    assert stats(tmp_path / "o")["sources"][0]["files"] == ["modelscope:me/d@v1/data/a.jsonl"]
    assert str(tmp_path) not in (tmp_path / "o" / "stats.json").read_text()


@pytest.mark.slow
def test_the_trainer_loads_every_row(tmp_path: Path) -> None:
    tool_rows = [
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "tool_call", "content": json.dumps({"name": "f", "arguments": {"x": value}})},
                {"role": "tool", "content": "r"},
                {"role": "assistant", "content": "a"},
            ],
            "tools": [{"name": "f", "parameters": {"properties": {"x": {"default": value}}}}],
        }
        for value in (1, "one", None, [1])  # types that would clash in one column
    ]
    source = write(tmp_path / "in.jsonl", MESSAGES, *tool_rows, MESSAGES)
    assert main(["messages", source, str(tmp_path / "o"), "--system", "s", "--val-fraction", "0"]) == 0
    code = (
        "import json, sys\n"
        "from swift.dataset import load_dataset\n"
        "rows, _ = load_dataset([sys.argv[1]], strict=True, load_from_cache_file=False)\n"
        "print('ROWS' + json.dumps([(r['messages'], r.get('tools')) for r in rows]))\n"
    )
    env = {**os.environ, "MODELSCOPE_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "o" / "train.jsonl")],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = json.loads(done.stdout.split("ROWS")[-1])
    wrote = [json.loads(line) for line in (tmp_path / "o" / "train.jsonl").read_text().splitlines()]
    assert [[(m["role"], m["content"]) for m in row[0]] for row in loaded] == [
        [(m["role"], m["content"]) for m in row["messages"]] for row in wrote
    ]
    assert [row[1] for row in loaded] == [json.loads(row["tools"]) if "tools" in row else None for row in wrote]


def test_options_of_a_source_come_once_and_columns_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "in.jsonl", {"q": "a", "r": "b"})
    words = ["alpaca", path, str(tmp_path / "o"), "--columns", "instruction=q", "--columns", "output=r"]
    assert main([*words, "--val-fraction", "0"]) == 0
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--limit", "1", "--limit", "2"])
    assert "--limit: comes twice for one INPUT" in capsys.readouterr().err
    assert main([*words, "--file", "*.gz"]) == 2
    assert "this is a file, and --file *.gz is for folders" in capsys.readouterr().err
    assert main(["alpaca", path, path]) == 2
    assert "this is a file; name a folder" in capsys.readouterr().err
    assert main(["sharegpt", path, str(tmp_path / "p")]) == 5
    assert "no row has the fields of sharegpt; name another format" in capsys.readouterr().err
