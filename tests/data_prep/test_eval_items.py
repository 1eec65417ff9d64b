"""The items that a benchmark scores, out of every layout that the harnesses load."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.eval_items import eval_items, filled, question, question_sha256, segments

ROW = {"question": "What is it?", "answer": "That is it."}


def place(root: Path, files: dict[str, object]) -> Path:
    """Write ``files``: a list as JSON Lines, anything else as text."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in content) if isinstance(content, list) else str(content)
        path.write_text(text, encoding="utf-8")
    return root


def labels(name: str, path: Path, split: str | None = None) -> list[str]:
    return [file.label for file in eval_items(name, path, split).files]


@pytest.mark.parametrize(
    ("name", "there", "taken"),
    [
        ("gsm8k", ["train.jsonl", "test.jsonl"], ["test.jsonl"]),
        ("openbookqa", ["train.jsonl", "validation.jsonl", "test.jsonl"], ["test.jsonl"]),
        ("hellaswag", ["train.jsonl", "validation.jsonl", "test.jsonl"], ["validation.jsonl"]),
        ("ceval-valid", ["val/law_val.csv", "test/law_test.csv", "dev/law_dev.csv"], ["val/law_val.csv"]),
        ("mmlu", ["a/dev.jsonl", "a/test.jsonl", "b/test.jsonl"], ["a/test.jsonl", "b/test.jsonl"]),
        ("mmlu", ["dev/a_dev.csv", "test/a_test.csv", "val/a_val.csv"], ["test/a_test.csv"]),
        ("cmmlu", ["dev/law.csv", "test/law.csv", "test/art.csv"], ["test/art.csv", "test/law.csv"]),
        ("general_mcq", ["bank_dev.jsonl", "bank_val.jsonl"], ["bank_val.jsonl"]),
        ("general_qa", ["open.jsonl", "more_test.jsonl"], ["more_test.jsonl", "open.jsonl"]),
        ("x", ["data/train-00000-of-00002.parquet", "data/dev-00000-of-00001.parquet"], ["data/dev-00000-of-00001.parquet"]),
        ("x", ["only_dev.json", "notes.txt", "dataset_info.json", ".cache/test.json"], ["only_dev.json"]),
        ("x", ["bank.jsonl"], ["bank.jsonl"]),
        ("x", ["latest.jsonl", "contest.jsonl"], ["contest.jsonl", "latest.jsonl"]),
        ("x", ["corpus.jsonl", "test.jsonl.gz"], ["test.jsonl.gz"]),
        ("ifeval", ["train.jsonl"], ["train.jsonl"]),
    ],
)  # fmt: skip
def test_the_scored_split_of_a_folder(tmp_path: Path, name: str, there: list[str], taken: list[str]) -> None:
    place(tmp_path, {file: [ROW] for file in there})
    assert labels(name, tmp_path) == taken


def test_a_split_can_be_asked_for(tmp_path: Path) -> None:
    place(tmp_path, {"test.jsonl": [ROW], "val.jsonl": [ROW], "train.jsonl": [ROW]})
    assert labels("x", tmp_path, "validation") == ["val.jsonl"]
    assert labels("x", tmp_path, "train") == ["train.jsonl"]


CONFIGS = """\
---
license: mit
configs:
- config_name: all
  data_files:
  - {split: dev, path: "*/dev.jsonl"}
  - {split: test, path: ["*/test.jsonl"]}
- config_name: high_school-law
  data_files:
  - {split: test, path: law/test.jsonl}
---
# Words
"""


@pytest.mark.parametrize(
    ("name", "taken"),
    [("mmlu", ["art/test.jsonl", "law/test.jsonl"]), ("mmlu_high_school_law", ["law/test.jsonl"])],
)
def test_configs_of_a_readme(tmp_path: Path, name: str, taken: list[str]) -> None:
    files = {f"{subject}/{split}.jsonl": [ROW] for subject in ("law", "art") for split in ("dev", "test", "train")}
    place(tmp_path, {"README.md": CONFIGS, **files})
    assert labels(name, tmp_path) == taken


def test_a_config_without_its_file_is_an_error(tmp_path: Path) -> None:
    place(tmp_path, {"README.md": CONFIGS})
    with pytest.raises(InputError, match=r"README\.md: no file matches \*/test\.jsonl"):
        eval_items("mmlu", tmp_path)


TASK = """\
task: bank
dataset_path: json
dataset_kwargs:
  data_files: {files}
test_split: test
process_docs: !function utils.process
"""


@pytest.mark.parametrize(
    ("files", "start"),
    [
        ("{test: data/bank.jsonl, train: data/train.jsonl}", ""),
        ("{test: [data/bank.jsonl]}", ""),
        ("data/bank.jsonl", ""),
        ("{test: bank.jsonl}", "data"),
        ("{test: 'data/ba*.jsonl'}", ""),
    ],
)
def test_an_lm_eval_task_says_where_its_data_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: str, start: str
) -> None:
    place(
        tmp_path,
        {"data/bank.jsonl": [ROW], "data/train.jsonl": [ROW], "tasks/deep/bank.yaml": TASK.format(files=files)},
    )
    place(tmp_path, {"tasks/other.yaml": "task: other\ndataset_path: owner/name\n", "tasks/notes.yml": "- a list"})
    monkeypatch.chdir(tmp_path / start)
    items = eval_items("bank", tmp_path / "tasks")
    assert [file.path.resolve() for file in items.files] == [tmp_path / "data" / "bank.jsonl"]
    assert [item.segments for item in items] == [("What is it?", "That is it.")]
    with pytest.raises(InputError, match=r"other\.yaml: task other reads 'owner/name', which is no local data"):
        eval_items("other", tmp_path / "tasks")
    with pytest.raises(InputError, match="its task files define bank, other"):
        eval_items("third", tmp_path / "tasks")


def test_a_task_may_lie_beside_its_data_include_another_and_be_part_of_a_group(tmp_path: Path) -> None:
    place(
        tmp_path,
        {
            "base.yaml": TASK.replace("task: bank\n", "").format(files="{test: b.jsonl}"),
            "bank.yaml": "include: base.yaml\ntask: bank\n",
            "local.yaml": f"task: local\ndataset_path: {tmp_path / 'folder'}\nvalidation_split: validation\n",
            "group.yaml": "group: all\ntask: [bank, local]\n",
            "b.jsonl": [ROW],
            "folder/test.jsonl": [ROW],
            "folder/validation.jsonl": [ROW],
        },
    )
    assert labels("bank", tmp_path) == ["b.jsonl"]
    assert labels("bank", tmp_path / "bank.yaml") == ["b.jsonl"]
    assert labels("all", tmp_path) == ["b.jsonl", "validation.jsonl"]


def test_data_of_a_task_that_are_missing(tmp_path: Path) -> None:
    place(tmp_path, {"bank.yaml": TASK.format(files="{test: gone.jsonl}")})
    with pytest.raises(InputError, match=r"gone\.jsonl was found neither in the working directory .* nor beside"):
        eval_items("bank", tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("x.jsonl", '{"question": "What is it?"}\n\n{"question": "Is it 2?"}\n'),
        ("x.json", '[{"question": "What is it?"}, {"question": "Is it 2?"}]'),
        ("x.json", '{\n"version": 1, "data": [{"question": "What is it?"}, {"question": "Is it 2?"}]}'),
        ("x.jsonl", '\ufeff{"question": "What is it?"}\r\n{"question": "Is it 2?"}'),
        ("x.csv", 'id,question,A\n0,What is it?,x\n1,"Is it 2?",y\n'),
        ("x.tsv", "question\tA\nWhat is it?\tx\nIs it 2?\ty\n"),
        ("x.csv", "What is it?,a,b,c,d,A\nIs it 2?,a,b,c,d,B\n"),
        ("x.csv", "Question,A\r\nWhat is it?,x\r\nIs it 2?,y\r\n"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_of_text_file(tmp_path: Path, file: str, content: str, packed: bool) -> None:
    path = tmp_path / (f"{file}.gz" if packed else file)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    items = list(eval_items("x", path))
    assert [(item.benchmark, item.file, item.row, item.question) for item in items] == [
        ("x", path.name, 1, "What is it?"),
        ("x", path.name, 2, "Is it 2?"),
    ]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"question": "What is it?", "choices": ["a b", "c d"], "image": {"bytes": b"\xff", "path": "x"}}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    [item] = eval_items("x", tmp_path)
    assert item.segments == ("What is it?", "a b", "c d")
    assert json.loads(item.raw) == {"question": "What is it?", "choices": ["a b", "c d"], "image": {"path": "x"}}
    (tmp_path / "test.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(InputError, match=r"test\.parquet: Parquet that cannot be read"):
        list(eval_items("x", tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"question": "x"}\n{"question": ', r"row 2 is no JSON"),
        (b"[1, 2]", r"row 1 is no JSON object"),
        (b'{"question": "x"}\n[1]\n', r"row 2 is no JSON object"),
        (b'{"question": "\xff"}\n', r"not UTF-8 text"),
        (b"", r"x has no items in x\.jsonl"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"git-lfs pointer"),
        (b"\x1f\x8bbroken", r"broken gzip file"),
        (b'{\n"a": [{}], "b": [{}]\n}', r"2 lists of objects"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        list(eval_items("x", path))
    assert str(path) in str(caught.value)


def test_a_csv_without_a_known_column_is_refused(tmp_path: Path) -> None:
    place(tmp_path, {"x.csv": "one,two\n1,2\n"})
    with pytest.raises(InputError, match="names no column that holds a question"):
        list(eval_items("x", tmp_path / "x.csv"))


@pytest.mark.parametrize("there", [{}, {"train.jsonl": [ROW]}, {"notes.txt": "x"}])
def test_a_folder_without_items(tmp_path: Path, there: dict[str, object]) -> None:
    place(tmp_path, there)
    with pytest.raises(InputError, match=r"found no items of x .*Name the data file itself: x=PATH/FILE"):
        eval_items("x", tmp_path)


def test_segments_are_texts_not_identifiers() -> None:
    row = {
        "id": "Mercury 7 in words", "qID": "3F CO", "question": "What is it?", "label": 3, "word": "single",
        "choices": {"text": ["a b", "c d", "a b"], "label": ["A B", "C"]}, "answerKey": "C D",
        "messages": [{"role": "user", "content": "你好"}], "source_url": None, "url": "see here",
    }  # fmt: skip
    assert segments(row) == ("What is it?", "a b", "c d", "你好")


def test_question_and_its_hash() -> None:
    assert question({"Question": "What?", "ctx": "other"}) == "What?"
    assert question({"ctx": "A man is", "query": "Sport: A man is", "endings": ["x y"]}) == "A man is"
    assert question({"stem": "the longest text", "other": "short one"}) == "the longest text"
    assert question({"n": 1}) == ""
    assert question_sha256(" a\n b ") == hashlib.sha256(b"a b").hexdigest()


def test_blanks_are_filled_with_every_option() -> None:
    row = {"sentence": "so _ won", "option1": "Al", "option_b": "Bo", "C": "\\1", "answer": "x", "snake_case": "a_b is"}
    assert filled(row, segments(row)) == ("so Al won", "so Bo won", "so \\1 won")
    nested = {"question": "__ is it", "choices": {"text": ["A b", "C"], "label": ["A"]}}
    assert filled(nested, ["__ is it"]) == ("A b is it", "C is it")
    assert filled({"question": "no blank_here", "A": "x"}, ["no blank_here"]) == ()
    assert len(filled({"question": "__ is it", "choices": ["x"] * 99}, ["__ is it"])) == 32
