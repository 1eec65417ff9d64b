"""samples.jsonl, and what a cut or changed file leads to."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import samples
from pipeline.errors import OutputError
from pipeline.results import (
    Implementation,
    Sample,
    Score,
    doc_key,
    fingerprint,
    fold,
    number_repeats,
    picked,
    with_stderr,
)

SAMPLE = Sample(
    task="mmlu_anatomy",
    doc_key="0123456789abcdef",
    scores={"acc": 1.0, "acc_norm": 0.0},
    question="Which bone?\u2028The longest.",
    question_sha256="f" * 64,
    prompt="Q: Which bone?",
    choices=("femur", "tibia"),
    loglikelihoods=(-1.25, -math.inf),
    greedy=(True, False),
    target="femur",
    answer="femur",
    facts={"subject": "anatomy"},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / samples.FILE
    found = [SAMPLE, Sample(task="gsm8k", doc_key="b", scores={}, output="line\nline", answers={"strict": "1"})]
    samples.write(path, found)
    assert samples.read(path, 2) == found
    assert len(path.read_text().split("\n")) == 3  # one a line: a line end in a text is none of the file's


@given(st.text(max_size=40), st.lists(st.text(max_size=10), max_size=3), st.floats(allow_nan=False))
def test_any_text_and_any_number_survive(
    tmp_path_factory: pytest.TempPathFactory, text: str, choices: list[str], value: float
) -> None:
    path = tmp_path_factory.mktemp("any") / samples.FILE
    found = [Sample(task="t", doc_key="k", scores={"m": value}, question=text, choices=tuple(choices))]
    samples.write(path, found)
    assert samples.read(path) == found


@pytest.mark.parametrize("cut", [1, 5, 60])
def test_a_cut_line_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / samples.FILE
    samples.write(path, [SAMPLE, SAMPLE])
    path.write_bytes(path.read_bytes()[:-cut].rstrip())
    if cut == 1:
        assert len(samples.read(path, 2)) == 2
        return
    with pytest.raises(OutputError, match=r"samples\.jsonl, line 2: cut or no sample .* remove its stage folder"):
        samples.read(path)


def test_lost_lines_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / samples.FILE
    samples.write(path, [SAMPLE, SAMPLE])
    path.write_text(path.read_text().split("\n")[0] + "\n")
    with pytest.raises(OutputError, match=r"samples\.jsonl: holds 1 of 2 samples"):
        samples.read(path, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"acc":1.0', '"acc":"high"', "line 1: .*scores.acc"),
        ('"task"', '"tusk"', "line 1: .*task"),
        ("{", "[", "line 1"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / samples.FILE
    samples.write(path, [SAMPLE])
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(OutputError, match=message):
        samples.read(path)


def test_a_missing_file_and_other_bytes_are_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nothing here"):
        samples.read(tmp_path / "nothing here")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(OutputError, match="bytes: missing or not to be read"):
        samples.read(tmp_path / "bytes")


def test_a_key_is_the_content() -> None:
    key = doc_key("What  is\nit?", ["red", "blue"], "blue")
    assert key == doc_key("what is it?", ["blue ", " Red"], "blue")
    assert key != doc_key("What is it?", ["blue", "red"], "red")
    assert key != doc_key("What is it ?", ["blue", "red"], "blue")


def test_marks_of_wikihow_do_not_count_but_intervals_do() -> None:
    # The same item as HellaSwag's file has it, and as both harnesses ask it.
    raw = "[header] How to clean a fish [title] Lay it down. [step] Use a board."
    asked = " How to clean a fish. Lay it down.  Use a board."
    assert fold(raw) == fold(asked) == "how to clean a fish. lay it down. use a board."
    assert fold("x in [0, 1]") != fold("x in [0, 2]")
    assert fold("[0]") != fold("[1]")


@pytest.mark.parametrize(
    ("answer", "places"),
    [
        ("B", {1}), ("B,C", {1, 2}), ("C、B", {1, 2}), ("BC", {1, 2}), ("blue", {2}), ("E", None), ("BB", None),
        ("", None), ("b", None), ("purple", None), ("B or C", None), ("Β", None),  # the last is a Greek Beta
    ],
)  # fmt: skip
def test_letters_and_texts_of_choices(answer: str, places: set[int] | None) -> None:
    assert picked(answer, ["red", "green", "blue", "white"]) == places


def test_a_letter_is_a_letter_also_where_a_choice_reads_like_one() -> None:
    assert picked("C", ["A", "C", "D", "K"]) == {2}


def test_repeated_items_are_numbered_within_a_task() -> None:
    one = Sample(task="a", doc_key="k", scores={"acc": 1.0})
    other = one.model_copy(update={"task": "b"})
    assert [s.doc_key for s in number_repeats([one, other, one, one])] == ["k", "k", "k.2", "k.3"]


def test_a_fingerprint_knows_the_items_and_not_their_order() -> None:
    one, other = (Sample(task="t", doc_key=key, scores={}) for key in "ab")
    assert fingerprint([one, other]) == fingerprint([other, one]) != fingerprint([one])
    assert len(fingerprint([one])) == 12
    assert fingerprint([]) == ""


def score(value: float, **fields: object) -> Score:
    implementation = Implementation(harness="h", version="1")
    return Score.model_validate(
        {
            "task": "all",
            "harness": "h",
            "metric": "acc",
            "value": value,
            "n": 6,
            "implementation": implementation,
            **fields,
        }
    )


def test_standard_errors_of_groups() -> None:
    items = [
        Sample(task=task, doc_key=f"{task}{i}", scores={"acc": value})
        for task, values in (("x", [0.0, 1.0]), ("y", [1.0, 1.0, 1.0, 0.0]))
        for i, value in enumerate(values)
    ]
    [pooled] = with_stderr([score(4 / 6, tasks=("x", "y"))], items)
    assert pooled.stderr == pytest.approx(((4 / 6) * (2 / 6) / 5) ** 0.5)
    [macro] = with_stderr([score((0.5 + 0.75) / 2, tasks=("x", "y"), mean="tasks")], items)
    # var / n of each task: 0.5 / 2 and 0.25 / 4
    assert macro.stderr == pytest.approx((0.5 / 2 + 0.25 / 4) ** 0.5 / 2)
    for other in (score(0.5, tasks=("x", "y")), score(4 / 6, tasks=("x", "y"), mean="none"), score(0.5, task="z")):
        assert with_stderr([other], items)[0].stderr is None
    # Of three roundings one upon the other, as EvalScope makes them.
    assert with_stderr([score(4 / 6 + 1.4e-4, tasks=("x", "y"))], items)[0].stderr == pooled.stderr
    assert with_stderr([score(4 / 6 + 1.8e-4, tasks=("x", "y"))], items)[0].stderr is None
    given_ = score(4 / 6, tasks=("x", "y"), stderr=0.01)
    assert with_stderr([given_], items) == [given_]
