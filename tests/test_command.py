"""What a dry run prints is shell that gives the tools exactly the words the pipeline would have given them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.command import Command, flags, quote

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NASTY = st.sampled_from(
    ["", " ", "'", '"', "`id`", "$(id)", "${HOME}", "$HOME", "\\", "\\\\", "!!", "a\nb", "--x", "-1", "~", "*", "#", ";", "\n", "=", "EOF"]
)  # fmt: skip
WORD = st.one_of(TEXT, NASTY, st.builds("".join, st.lists(st.one_of(TEXT, NASTY), max_size=4)))
NAMES = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in {"RUNS", "_"})
PRINT = "import json, os, sys; print(json.dumps([sys.argv[1:], {k: os.environ.get(k) for k in sys.argv[1].split()}]))"


def bash(script: str, runs: str, cwd: Path | str = "/") -> str:
    """Output of the script under a bash of which only PATH and RUNS are given."""
    environment = {"PATH": "/usr/bin:/bin", "RUNS": runs, "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, check=True, cwd=cwd
    ).stdout.decode()


@given(st.lists(WORD.filter(lambda word: "$RUNS" not in word and "\\\n" not in word), min_size=1))
def test_shlex_reads_the_words_back(words):
    # shlex knows no line continuation, which the words themselves are kept free of here.
    assert shlex.split(str(Command(tuple(words))).replace(" \\\n  ", " ")) == words


@settings(max_examples=60)
@given(st.lists(WORD, max_size=6), st.dictionaries(NAMES, WORD, max_size=2), WORD.filter(lambda text: "/" not in text))
@example(
    ["$RUNS/x", "$RUNSX", "a$RUNS-$RUNS/b", '{"p": "$RUNS/m", "q": "$HOME `id` \\ \\\\ \\" !"}'],
    {"X": "$RUNS/y"},
    "a b'$x",
)
@example(["${RUNS}", "\\$RUNS", "$RUNS\n$RUNS", "$RUNSé"], {}, "r")
def test_bash_gives_the_words_to_the_program(words, environment, folder):
    runs = f"/tmp/{folder}"
    command = Command((sys.executable, "-c", PRINT, " ".join(environment), *words), env=environment)
    argv, seen = json.loads(bash(str(command), runs))

    def expanded(word: str) -> str:
        return re.sub(r"\$RUNS\b", lambda _: runs, word)

    assert argv[1:] == [expanded(word) for word in words]
    assert seen == {name: expanded(value) for name, value in environment.items()}


@settings(max_examples=40)
@given(
    st.lists(WORD.filter(lambda line: "\r" not in line), min_size=1).map("\n".join),
    st.sampled_from(["$RUNS/x", "$RUNS/a b"]),
)
@example("path: $RUNS/data\ncost: $5 `id` \\ $RUNSX $(id)\nEOF\nlast", "$RUNS/x")
def test_bash_writes_the_files(tmp_path_factory, text, folder):
    runs = tmp_path_factory.mktemp("runs")
    command = Command(("true",), files={Path(folder) / "suite.yaml": text})
    bash(str(command), str(runs))
    written = (Path(folder.replace("$RUNS", str(runs))) / "suite.yaml").read_bytes().decode()
    assert written.rstrip("\n") == re.sub(r"\$RUNS\b", lambda _: str(runs), text).rstrip("\n")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"a": 1}, ["--a", "1"]),
        ({"a": True, "b": False}, ["--a", "true", "--b", "false"]),
        ({"a": None}, ["--a"]),
        ({"a": [1, "x"]}, ["--a", "1", "x"]),
        ({"a": []}, ["--a"]),
        ({"a": {"k": "ü", "n": None}}, ["--a", '{"k": "ü", "n": null}']),
        ({"a": "-1"}, ["--a=-1"]),
        ({"a": -1}, ["--a=-1"]),
        ({"a": ["-x", "y"]}, ["--a=-x", "y"]),
        ({"a": 1e-05}, ["--a", "1e-05"]),
        ({"b": 1, "a": 2}, ["--b", "1", "--a", "2"]),
        ({"a": ""}, ["--a", ""]),
    ],
)
def test_flags(args, words):
    assert list(flags(args)) == words


def test_plain_words_stay_readable():
    assert quote("$RUNS/train/output") == '"$RUNS/train/output"'
    assert quote("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    command = Command(("swift", "sft", "--model", "$RUNS/m", "--rank", "8"), env={"A": "1"})
    assert str(command) == 'A=1 swift sft \\\n  --model "$RUNS/m" \\\n  --rank 8'
