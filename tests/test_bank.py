"""Own question banks: files in all their forms, refusals, prompts for both harnesses, and scores out of answers."""

from __future__ import annotations

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.eval_items import eval_items, question_sha256
from pipeline.bank import files, resolve
from pipeline.bank import prompts as bank_prompts
from pipeline.bank import scores as bank_scores
from pipeline.bank import suite as bank_suite
from pipeline.bank.items import examples, load
from pipeline.bank.prompts import Prompts
from pipeline.errors import OutputError, PreflightError, RecipeError
from pipeline.evaluation_sets import local_sets
from pipeline.recipe import Recipe
from pipeline.recipe_file import load_recipe
from pipeline.results import Implementation, Sample, Score
from pipeline.stage import Source
from pipeline.stages import bank as bank_stage
from pipeline.stages import evaluate

QUESTION = {"id": "q1", "question": "Which?", "choices": ["red", "green", "blue"], "answer": "B"}
SETTINGS = {
    "name": "own", "version": 1, "kind": "mcq", "style": "generate", "language": "en", "few_shot": 0, "prompt": None,
    "elastic": True, "max_tokens": 16,
}  # fmt: skip


def write(folder: Path, *rows: object, name: str = "bank.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def only(folder: Path, **changes: object):
    row = {key: value for key, value in {**QUESTION, **changes}.items() if value != "-"}
    [item] = load(write(folder, row), "mcq")
    return item


def problems(path: Path, kind: str = "mcq") -> list[str]:
    with pytest.raises(PreflightError) as caught:
        load(path, kind)
    return [text.removeprefix(f"{path}:") for text in caught.value.problems]


# The file's forms.


@pytest.mark.parametrize(
    ("choices", "answer", "texts", "right"),
    [
        (["red", "green", "blue"], "B", ("red", "green", "blue"), "B"),
        (["A. red", "B. green", "C. blue"], "B,C", ("red", "green", "blue"), "BC"),
        (["C、blue", "A、red", "B、green"], "c", ("red", "green", "blue"), "C"),
        (["(b) green", "(a) red", "(c) blue"], ["a", "b"], ("red", "green", "blue"), "AB"),
        (["Ａ．red", "Ｂ．green"], "Ｂ", ("red", "green"), "B"),
        (["red", "", "blue", None, "white"], "E", ("red", "blue", "white"), "C"),
        (["A. red", "B. ", "C. blue"], "AC", ("red", "blue"), "AB"),
        ({"b": "green", "A": "red", "C": ""}, "b", ("red", "green"), "B"),
        ("A. red\nB. green\n", "A", ("red", "green"), "A"),
        ('["red", "green"]', "B", ("red", "green"), "B"),
        ([1, 2.5, True], "A", ("1", "2.5", "True"), "A"),
        (["J. Smith", "K. Miller"], "B", ("J. Smith", "K. Miller"), "B"),
        (["A.M.", "P.M."], "B", ("A.M.", "P.M."), "B"),
        (["C. elegans", "fruit fly"], "A", ("C. elegans", "fruit fly"), "A"),
    ],
)
def test_choices_in_all_their_forms(tmp_path, choices, answer, texts, right):
    item = only(tmp_path, choices=choices, answer=answer)
    assert (item.choices, item.answer) == (texts, right)


def test_columns_and_csv_and_tsv_and_array_give_the_same_items(tmp_path):
    rows = [
        {
            "id": "1",
            "question": 'A "quoted", long\nquestion',
            "A": "red",
            "B": "",
            "C": "blue",
            "D": "white",
            "answer": "C,D",
            "type": "t",
        },
        {"id": "2", "question": "另一题", "A": "None", "B": "null", "C": "", "D": "", "answer": "b", "type": ""},
    ]
    lines = load(write(tmp_path, *rows), "mcq")
    array = tmp_path / "bank.json"
    array.write_text("\ufeff" + json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    found = [load(array, "mcq")]
    import csv

    for name, delimiter in (("bank.csv", ","), ("bank.tsv", "\t")):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
            table.writeheader()
            table.writerows(rows)
        found.append(load(tmp_path / name, "mcq"))
    plain = [dataclasses.replace(item, line=0) for item in lines]
    assert plain[0].choices == ("red", "blue", "white") and plain[0].answer == "BC" and plain[0].facts == {"type": "t"}
    assert plain[1].choices == ("None", "null") and plain[1].answer == "B"
    assert all([dataclasses.replace(item, line=0) for item in items] == plain for items in found)
    assert [item.line for item in load(tmp_path / "bank.csv", "mcq")] == [2, 4], "the quoted cell has two lines"


texts = st.lists(
    st.text("abcxyz 中文", min_size=1, max_size=6).map(lambda t: "w" + " ".join(t.split())),
    min_size=2,
    max_size=6,
    unique=True,
)


@given(texts, st.data())
def test_the_right_choices_stay_right_whatever_the_order_and_the_gaps(tmp_path_factory, options, data):
    """Letters in front, shuffled, with empty options between: the answer follows its text."""
    right = data.draw(st.sets(st.integers(0, len(options) - 1), min_size=1))
    gaps = data.draw(st.sets(st.integers(0, 9), max_size=3))
    letters = [letter for place, letter in enumerate("ABCDEFGHIJ") if place not in gaps][: len(options)]
    lettered = [f"{letter}. {text}" for letter, text in zip(letters, options, strict=True)]
    answer = ",".join(letters[place] for place in sorted(right))
    item = only(tmp_path_factory.mktemp("bank"), choices=data.draw(st.permutations(lettered)), answer=answer)
    assert item.choices == tuple(options)
    assert {item.choices["ABCDEFGHIJ".index(letter)] for letter in item.answer} == {options[place] for place in right}


def test_open_questions(tmp_path):
    path = write(
        tmp_path,
        {"query": "Q1", "response": "R", "key_points": ["one", "two", "one", ""]},
        {"question": "Q2", "key_points": "a; b；c", "subject": "s"},
    )
    first, second = load(path, "open_qa")
    assert (first.question, first.answer, first.key_points, first.choices) == ("Q1", "R", ("one", "two"), ())
    assert (second.answer, second.key_points, second.facts) == ("", ("a", "b", "c"), {"subject": "s"})


# Refusals.


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": ""}, "no question"),
        ({"answer": "D"}, "'D' is not among the choices A, B, C"),
        ({"answer": "-"}, "no letter"),
        ({"answer": ""}, "answer is empty"),
        ({"answer": 1}, "no letter"),
        ({"answer": "green"}, "is not among the choices"),
        ({"choices": ["red", ""], "answer": "A"}, "1 choices that are not empty; wanted 2 to 10"),
        ({"choices": ["red", "", "blue"], "answer": "B"}, "the right choice B is empty"),
        ({"choices": ["red", "blue ", "blue"]}, "two choices are 'blue'"),
        ({"choices": "-"}, "no choices"),
        ({"choices": [f"c{i}" for i in range(11)]}, "11 choices"),
        ({"choices": {"A": "x", "a": "y"}}, "each once"),
        ({"choices": ["A. red", "B. green", "blue"]}, "some choices have a letter in front"),
        ({"choices": ["A. red", "A. green"]}, "some choices have a letter in front"),
        ({"question": {"text": "x"}}, "stands where a text is wanted"),
        ({"question": "\ud800"}, "not Unicode"),
    ],
)  # fmt: skip
def test_a_bad_row_is_refused_with_line_and_reason(tmp_path, changes, reason):
    row = {key: value for key, value in {**QUESTION, **changes}.items() if value != "-"}
    path = tmp_path / "bank.jsonl"
    path.write_text(f"{json.dumps(QUESTION | {'id': 'ok', 'question': 'ok'})}\n\n{json.dumps(row)}\n", encoding="utf-8")
    [problem] = problems(path)
    assert problem.startswith("3: ") and reason in problem


def test_all_bad_rows_at_once_and_duplicates_named(tmp_path):
    path = write(tmp_path, QUESTION, {"question": "x"}, {**QUESTION, "id": "q2"}, {**QUESTION, "question": "y"})
    with path.open("a") as stream:
        stream.write("{cut")
    found = problems(path)
    assert len(found) == 4
    assert found[0].startswith("2: no choices")
    assert found[1].startswith("5: no JSON")
    assert found[2] == "4: the same id 'q1' as in line 1; take one of them out"
    assert found[3] == "3: the same question with the same choices as in line 1; take one of them out"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("bank.jsonl", "", "holds no question"),
        ("bank.json", '[{"question": "x", "A": "1", "B": "2", "answer": "A"}', "cut off"),
        ("bank.json", '[{"question": "x", "A": "1", "B": "2", "answer": "A"}] x', "the file goes on"),
        ("bank.json", "[1]", "no JSON object"),
        ("bank.csv", "question,A,B,answer\nx,1,2,3,A\n", "5 cells under 4 columns"),
        ("bank.csv", "question,A,A,answer\nx,1,2,A\n", "two columns are called 'a'"),
        ("bank.csv", 'question,A,B,answer\nx,"1,2,A\n', "no CSV"),
        ("bank.jsonl", '{"question": "x", "Question": "y"}\n', "two columns are called 'question'"),
        ("bank.jsonl", "version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
    ],
)
def test_files_that_are_none(tmp_path, name, text, reason):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert reason in problems(path)[0]


def test_encoding_is_named(tmp_path):
    path = tmp_path / "bank.jsonl"
    path.write_bytes(json.dumps(QUESTION).encode() + b"\n" + '{"question": "哪些"}'.encode("gb18030"))
    assert problems(path)[0].startswith("2: not UTF-8")


def test_examples_are_never_asked(tmp_path):
    path = write(tmp_path, QUESTION, {**QUESTION, "id": "q2", "question": "Other?"})
    bank = load(path, "mcq")
    shots = write(
        tmp_path,
        {**QUESTION, "question": "Third?"},
        {**QUESTION, "id": "q3", "choices": ["blue", "red", "green"]},
        name="shots.jsonl",
    )
    assert [item.question for item in examples(shots, "mcq", 1, bank, path)] == ["Third?"]
    with pytest.raises(PreflightError, match=r"shots\.jsonl:2: this example is asked in the bank \(.*bank\.jsonl:1\)"):
        examples(shots, "mcq", 2, bank, path)
    with pytest.raises(PreflightError, match="holds 2 examples, but few_shot asks for 3"):
        examples(shots, "mcq", 3, bank, path)


# What the harnesses get.


def test_both_harnesses_ask_the_same_prompt(tmp_path):
    """EvalScope's own code renders its half; braces in questions and prompts are no fields."""
    from string import Formatter

    rows = [
        {**QUESTION, "question": "Is {x} in {choices}?", "choices": ["{a}", "b"], "answer": "A"},
        {**QUESTION, "id": "2", "answer": "A,C"},
    ]
    shots = write(tmp_path, {**QUESTION, "question": "Example {y}"}, name="shots.jsonl")
    spec = {**SETTINGS, "few_shot": 1, "prompt": "{json}: {question}\n--{0}\n{choices}\nSay {letter}:"}
    out = tmp_path / "out"
    found = files.write("own", write(tmp_path, *rows), out, spec, shots)
    assert (found["items"], found["several_right"]) == (2, 1)
    args = bank_prompts.evalscope_args(spec, out)
    asked = [json.loads(line) for line in (out / "evalscope" / "own_val.jsonl").read_text().splitlines()]
    ours = [json.loads(line) for line in (out / "lm_eval.jsonl").read_text().splitlines()]
    for theirs, mine in zip(asked, ours, strict=True):
        options = [theirs[letter] for letter in "ABCDEFGHIJ" if letter in theirs]
        choices = "\n".join(f"{letter}) {text}" for letter, text in zip("ABCDEFGHIJ", options, strict=False))
        text = args["prompt_template"].format(question=theirs["question"], choices=choices, letters="A,B")
        assert text == mine["written"]
    assert {field for _, field, _, _ in Formatter().parse(args["prompt_template"])} - {None} == {"question", "choices"}
    assert ours[0]["written"] == (
        "{json}: Example {y}\n--{0}\nA) red\nB) green\nC) blue\nSay {letter}: B\n\n"
        "{json}: Is {x} in {choices}?\n--{0}\nA) {a}\nB) b\nSay {letter}:"
    )
    assert asked[1]["answer"] == ["A", "C"] and args["extra_params"] == {"multiple_correct": True}


def test_evalscope_renders_choices_as_ours():
    """`A) ...`, in the installed source: the form is not to be configured there."""
    spec = find_spec("evalscope")
    assert spec is not None and spec.origin is not None
    found = Path(spec.origin).parent / "utils" / "multi_choices.py"
    assert "{answer_character(i)}) {choices[j].value}" in found.read_text(encoding="utf-8")


def test_lm_eval_task_by_likelihood_and_in_writing(tmp_path):
    likely = bank_prompts.lm_eval_task({**SETTINGS, "style": "likelihood", "language": "zh"}, tmp_path)
    assert likely["output_type"] == "multiple_choice" and likely["doc_to_text"] == "likelihood"
    assert likely["target_delimiter"] == "", "no blank behind Chinese punctuation"
    written = bank_prompts.lm_eval_task(SETTINGS, tmp_path)
    assert written["generation_kwargs"] == {"until": [], "do_sample": False, "max_gen_toks": 16}
    assert written["num_fewshot"] == likely["num_fewshot"] == 0


@pytest.mark.parametrize(
    ("tail", "expected"), [("", "Which?\nA) x\nB) y\nANSWER: B"), ("\nAnswer:", "Which?\nA) x\nB) y\nAnswer: B")]
)
def test_an_example_ends_in_its_answer(tmp_path, tail, expected):
    item = only(tmp_path, choices=["x", "y"])
    assert Prompts("", "\n", tail).answered(item, "en") == expected


# Settings: `auto`, and what does not work.

RECIPE = """\
name: banks
model: {{path: model}}
benchmarks:
  own: {bank}
  open: {{path: open.jsonl, kind: open_qa}}
  second: {{path: open.jsonl, kind: open_qa}}
eval:
  - {suite}
"""


def recipe(
    folder: Path,
    bank: str = "{path: bank.jsonl}",
    suite: str = "{harness: lm_eval, tasks: [own, open]}",
    rows=(QUESTION,),
) -> Recipe:
    write(folder, *rows)
    write(folder, {"query": "你好吗？", "response": "好"}, name="open.jsonl")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(bank=bank, suite=suite), encoding="utf-8")
    return load_recipe(path)


def test_auto_is_decided_by_the_questions(tmp_path):
    found = resolve.settle(recipe(tmp_path))
    assert not found.problems
    assert (found.banks["own"].style, found.banks["own"].language, found.banks["open"].language) == (
        "likelihood",
        "en",
        "zh",
    )
    assert found.banks["second"].language == "auto", "no suite asks it"
    found = resolve.settle(
        recipe(tmp_path, rows=(QUESTION, {**QUESTION, "id": "2", "question": "Two?", "answer": "AB"}))
    )
    assert found.banks["own"].style == "generate"
    assert ("benchmarks.own.style", "generate", "1 of 2 questions have several right answers") in found.choices


@pytest.mark.parametrize(
    ("bank", "suite", "text"),
    [
        ("{path: gone.jsonl}", "{harness: lm_eval, tasks: [own]}", "gone.jsonl: cannot be read"),
        ("{path: bank.jsonl, style: likelihood}", "{harness: lm_eval, tasks: [own]}", "several right answers"),
        ("{path: bank.jsonl, few_shot: 1, few_shot_path: bank.jsonl}", "{harness: lm_eval, tasks: [own]}", "is asked in the bank"),
        ("{path: bank.jsonl}", "{harness: lm_eval, tasks: [{name: own, args: {x: 1}}]}", "belong under benchmarks.own"),
        ("{path: bank.jsonl}", "{harness: evalscope, datasets: [open, second]}", "open and second would both be EvalScope's general_qa"),
        ("{path: bank.jsonl}", "{harness: evalscope, datasets: [general_mcq, own]}", "general_mcq and own would both be"),
    ],
)  # fmt: skip
def test_what_does_not_work_is_refused_before_anything_starts(tmp_path, bank, suite, text):
    rows = (QUESTION, {**QUESTION, "id": "2", "question": "Two?", "answer": "AB"})
    found = resolve.settle(recipe(tmp_path, bank, suite, rows))
    assert len([problem for problem in found.problems if text in problem]) >= 1, found.problems


@pytest.mark.parametrize(
    ("bank", "text"),
    [
        ("{path: b, few_shot: 2}", "`few_shot` and `few_shot_path` together"),
        ("{path: b, prompt: 'Q: {question}'}", "{question} and then {choices}"),
        ("{path: b, prompt: '{choices} {question}'}", "{question} and then {choices}"),
        ("{path: b, kind: open_qa, style: likelihood}", "answered in writing"),
        ("{path: b, stile: generate}", "did you mean 'style'"),
    ],
)
def test_mistakes_in_the_section_have_a_line(tmp_path, bank, text):
    with pytest.raises(RecipeError) as caught:
        recipe(tmp_path, bank)
    assert text in str(caught.value) and "recipe.yaml:4: benchmarks.own" in str(caught.value)


def suite_stage(folder: Path, suite: str):
    read = recipe(folder, suite=suite)
    found = resolve.settle(read)
    assert not found.problems
    banks = {
        name: (spec, bank_stage.stage(name, spec)) for name, spec in found.banks.items() if spec.language != "auto"
    }
    [spec] = read.eval
    spec = spec.model_copy(update={"precision": "float32", "device": "cpu"})
    return evaluate.stage(spec, model=Source(folder), banks=banks, chat_template=True, offline=False)


def test_an_lm_eval_suite_gets_a_task_file_per_bank(tmp_path):
    stage = suite_stage(tmp_path, "{harness: lm_eval, tasks: [own, hellaswag, open]}")
    assert [task["name"] for task in stage.args["tasks"]] == ["hellaswag"]
    assert {"bank.own", "bank.open"} <= stage.deps.keys()
    paths = {role: tmp_path / role for role in stage.deps}
    command = stage.command(stage, tmp_path / "out", paths)
    words = command.argv[command.argv.index("--tasks") + 1 :]
    assert words[:3] == ("hellaswag", str(tmp_path / "out" / "bank_own.yaml"), str(tmp_path / "out" / "bank_open.yaml"))
    assert str(tmp_path / "bank.own" / "lm_eval.jsonl") in command.files[tmp_path / "out" / "bank_own.yaml"]


def test_an_evalscope_suite_of_banks_alone_needs_no_hub_and_takes_their_limit(tmp_path):
    stage = suite_stage(tmp_path, "{harness: evalscope, datasets: [own, open]}")
    assert stage.env["HF_HUB_OFFLINE"] == "1" and stage.secrets == ()
    assert stage.args["generation"]["max_tokens"] == 256
    words = stage.command(stage, tmp_path / "out", {role: tmp_path / role for role in stage.deps}).argv
    at = words.index("--datasets")
    assert words[at : at + 3] == ("--datasets", "general_mcq", "general_qa")
    assert json.loads(words[words.index("--dataset-args") + 1])["general_mcq"]["local_path"] == str(
        tmp_path / "bank.own" / "evalscope"
    )


def test_how_lm_eval_asks_is_no_business_of_evalscope(tmp_path):
    spec = resolve.settle(recipe(tmp_path)).banks["own"]
    other = spec.model_copy(update={"style": "generate", "max_tokens": 3})
    assert bank_suite.settings("own", spec, "evalscope") == bank_suite.settings("own", other, "evalscope")
    assert bank_suite.settings("own", spec, "lm_eval") != bank_suite.settings("own", other, "lm_eval")


# Scores out of answers.

ROWS = [
    {"id": "1", "question": "One?", "choices": ["a1", "b1", "c1"], "answer": "A", "type": "easy", "subject": "x"},
    {"id": "2", "question": "Two?", "choices": ["a2", "b2", "c2"], "answer": "AC", "type": "easy", "subject": "y"},
    {"id": "3", "question": "Three?", "choices": ["a3", "b3", "c3"], "answer": "B", "type": "hard", "subject": "x"},
]


def answered(folder: Path, outputs: list[str], harness: str = "lm_eval", **changes: object):
    bank = {**SETTINGS, **changes}
    kind = str(bank["kind"])
    out = folder / "out"
    files.write("own", write(folder, *(ROWS if kind == "mcq" else OPEN)), out, bank, None)
    prompts = [json.loads(line) for line in (out / "lm_eval.jsonl").read_text(encoding="utf-8").splitlines()]
    task = "bank_own" if harness == "lm_eval" else f"{bank_prompts.DATASETS[kind]}/own"
    told = Score(
        task=task,
        harness=harness,
        metric="acc",
        value=0.25,
        n=3,
        implementation=Implementation(harness=harness, version="1"),
    )
    samples = []
    repeats = -(-len(outputs) // len(prompts))
    for row, output in zip(prompts * repeats, outputs, strict=False):
        turns = json.dumps([{"role": "user", "content": row["written"]}], ensure_ascii=False)
        by_id = harness == "lm_eval"
        samples.append(
            Sample(
                task=task,
                doc_key="x",
                scores={"acc": 1.0},
                output=output,
                prompt=row["written"] if by_id else turns,
                facts={"id": row["id"]} if by_id else {},
            )
        )
    other = Score(task="hellaswag", harness=harness, metric="acc", value=0.5, n=2, implementation=told.implementation)
    return bank_scores.replace([bank], {"own": out}, harness, [other, told], samples)


@pytest.mark.parametrize("harness", ["lm_eval", "evalscope"])
def test_scores_of_a_bank_and_of_its_types_and_subjects(tmp_path, harness):
    scores, samples, remarks = answered(tmp_path, ["ANSWER: A", "ANSWER: A", "no idea"], harness)
    value = {(score.task, score.metric): score.value for score in scores}
    assert value["hellaswag", "acc"] == 0.5 and not any(task.startswith(("bank_", "general_")) for task, _ in value)
    assert value["own", "accuracy"] == pytest.approx(1 / 3)
    assert value["own", "elastic_accuracy"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert value["own", "macro_f1"] == pytest.approx((1 + 0 + 0) / 3)  # A: 2 TP; B and C: only missed
    assert value["own/type/easy", "elastic_accuracy"] == 0.75 and value["own/subject/x", "accuracy"] == 0.5
    assert [sample.answer for sample in samples] == ["A", "A", ""]
    assert samples[1].target == "A,C" and samples[1].task == "own/type/easy/subject/y"
    assert remarks[0] == "own: 1 of 3 answers name no letter of a choice; they count as wrong"
    assert "own acc is 0.2500, ours by the same rule 0.3333" in remarks[1]


def test_an_item_that_is_asked_twice_is_two_samples(tmp_path):
    scores, samples, _ = answered(tmp_path, ["A", "A", "no idea", "B", "A,C", "A"], "evalscope")
    assert len({sample.doc_key for sample in samples}) == 6
    whole = next(score for score in scores if (score.task, score.metric) == ("own", "accuracy"))
    assert (whole.n, whole.value) == (6, fmean(sample.scores["accuracy"] for sample in samples))


def test_every_score_is_that_of_its_samples(tmp_path):
    scores, samples, _ = answered(tmp_path, ["A", "C", "B"])
    for score in scores:
        if score.mean == "items" and score.harness == "lm_eval" and score.task != "hellaswag":
            values = [s.scores[score.metric] for s in samples if s.task in (score.tasks or (score.task,))]
            assert sum(values) / len(values) == pytest.approx(score.value) and len(values) == score.n


def test_both_harnesses_give_the_same_keys_and_implementations_name_the_rule(tmp_path):
    first, second = answered(tmp_path, ["A", "A", "B"]), answered(tmp_path, ["A", "A", "B"], "evalscope")
    assert [sample.doc_key for sample in first[1]] == [sample.doc_key for sample in second[1]]
    assert len({sample.doc_key for sample in first[1]}) == 3
    found = first[0][1].implementation
    assert (found.scoring, found.normalisation, found.n_shot, found.task_version) == (
        "generate/accuracy",
        "letters",
        0,
        "bank 2",
    )


def test_after_examples_the_first_answer_counts(tmp_path):
    runs_on = ["ANSWER: A\n\nNext question?\nANSWER: C"]
    assert [answered(tmp_path, runs_on, few_shot=shots)[1][0].answer for shots in (0, 1)] == ["C", "A"]


def test_likelihoods_choose_a_letter(tmp_path):
    bank = {**SETTINGS, "style": "likelihood"}
    out = tmp_path / "out"
    files.write("own", write(tmp_path, ROWS[0], ROWS[2]), out, bank, None)
    told = Score(
        task="bank_own",
        harness="lm_eval",
        metric="acc",
        value=0.5,
        n=2,
        implementation=Implementation(harness="lm_eval", version="1"),
    )
    samples = [
        Sample(task="bank_own", doc_key="x", scores={}, facts={"id": row["id"]}, prompt=f"{row['question']}\nAnswer:", loglikelihoods=(-1.0, -2.0, -3.0), choices=("A", "B", "C"))
        for row in (ROWS[0], ROWS[2])
    ]  # fmt: skip
    scores, mine, remarks = bank_scores.replace([bank], {"own": out}, "lm_eval", [told], samples)
    assert [sample.answer for sample in mine] == ["A", "A"] and not remarks
    assert scores[0].value == 0.5 and scores[0].implementation.scoring == "multiple_choice/accuracy"
    assert not any(score.metric == "elastic_accuracy" for score in scores), "the same as accuracy here"


OPEN = [
    {"query": "Q1?", "response": "the cat sat on the mat", "key_points": ["cat", "dog"]},
    {"query": "Q2?", "response": "all is well now here"},
    {"query": "Q3?", "key_points": ["sleep"]},
]


def test_open_questions_are_scored_where_there_is_something_to_compare_with(tmp_path):
    outputs = ["the cat sat on the mat", "nothing", "Go to sleep."]
    scores, samples, remarks = answered(tmp_path, outputs, "evalscope", kind="open_qa")
    value = {score.metric: (score.value, score.n, score.mean) for score in scores if score.task == "own"}
    assert value["rouge_1"] == (0.5, 2, "items") and value["rouge_l"] == (0.5, 2, "items")
    assert value["key_points"] == (0.75, 2, "items") and value["bleu"][0] == pytest.approx(0.5)
    assert value["corpus_bleu"][2] == "none" and not remarks
    assert set(samples[2].scores) == {"key_points"}


def test_training_rows_are_compared_with_the_banks_and_their_items_are_found_again(tmp_path):
    read = recipe(tmp_path, suite="{harness: evalscope, datasets: [own, open]}", rows=ROWS)
    sets = {entry.name: entry.path for entry in local_sets(read.eval, read.benchmarks)}
    assert sets == {"own": tmp_path / "bank.jsonl", "open": tmp_path / "open.jsonl"}
    _, samples, _ = answered(tmp_path, ["A", "B", "C"])
    contaminated = [question_sha256(item.question) for item in eval_items("own", sets["own"])]
    assert contaminated == [sample.question_sha256 for sample in samples]


def test_an_answer_to_nothing_in_the_bank_is_no_score(tmp_path):
    out = tmp_path / "out"
    files.write("own", write(tmp_path, *ROWS), out, SETTINGS, None)
    told = Score(
        task="bank_own",
        harness="lm_eval",
        metric="acc",
        value=0,
        n=1,
        implementation=Implementation(harness="lm_eval", version="1"),
    )
    stray = Sample(task="bank_own", doc_key="x", scores={}, prompt="Something else?", facts={"id": "1"})
    with pytest.raises(OutputError, match="none of the bank's questions"):
        bank_scores.replace([SETTINGS], {"own": out}, "lm_eval", [told], [stray])
    with pytest.raises(OutputError, match="left no answers to the bank own"):
        bank_scores.replace([SETTINGS], {"own": out}, "lm_eval", [told], [])


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    path = write(tmp_path, {**QUESTION, "answer": "Z"})
    assert files.main(["own", str(path), str(tmp_path / "out")]) == 3
    assert f"{path}:1: answer 'Z' is not among" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
