"""How the items of a bank are asked: prompts with their examples, and the settings of both harnesses. Pure.

Both harnesses get the same prompt, letter for letter: it is rendered here, examples and all. Choices stand as EvalScope
writes them ("A) ..."), since its general_mcq can be told the words around them, but not their form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.bank.items import Item
from pipeline.results import digest

LM_EVAL_FILE = "lm_eval.jsonl"
ITEMS_FILE = "items.jsonl"
EVALSCOPE_FOLDER = "evalscope"
DATASETS = {"mcq": "general_mcq", "open_qa": "general_qa"}
"""EvalScope's data sets for files of the user's own."""

_LIKELIHOOD = {"en": "{question}\n{choices}\nAnswer:", "zh": "{question}\n{choices}\n答案："}
_WRITTEN = {
    "en": (
        "Answer the multiple-choice question below. {number} right. The last line of your answer must have the form "
        "'ANSWER: {form}'.\n\n{{question}}\n{{choices}}"
    ),
    "zh": "请回答下面的选择题，{number}。回答的最后一行应写成“答案：{form}”的格式。\n\n{{question}}\n{{choices}}",
}
_NUMBER = {
    ("en", False): {"number": "Exactly one choice is", "form": "LETTER"},
    ("en", True): {"number": "One or more choices are", "form": "LETTERS"},
    ("zh", False): {"number": "只有一个选项正确", "form": "字母"},
    ("zh", True): {"number": "正确选项可能不止一个", "form": "所有正确选项的字母"},
}
_MARKER = {"en": "ANSWER: ", "zh": "答案："}


@dataclass(frozen=True)
class Prompts:
    """The words around question and choices, before and after each."""

    head: str
    middle: str
    tail: str

    def render(self, item: Item) -> str:
        choices = "\n".join(f"{letter}) {text}" for letter, text in zip(item.letters, item.choices, strict=True))
        return f"{self.head}{item.question}{self.middle}{choices}{self.tail}"

    def answered(self, item: Item, language: str) -> str:
        """An example: the prompt and its answer, as a model would go on."""
        prompt, answer = self.render(item), ",".join(item.answer) if item.choices else item.answer
        if self.tail.rstrip().endswith((":", "：")):
            return f"{prompt}{delimiter(prompt)}{answer}"
        return f"{prompt}\n{_MARKER[language] if item.choices else ''}{answer}"


def template(spec: Mapping[str, Any], *, written: bool, several: bool) -> Prompts:
    """The prompt of a bank: its own, or the plain one of its language for the way it is asked.

    `spec` holds the resolved settings (kind, language, prompt); `several`: some questions have several right answers.
    """
    language = spec["language"]
    if spec["prompt"] is not None:
        text = spec["prompt"]
    elif spec["kind"] == "open_qa":
        text = "{question}"
    elif written:
        text = _WRITTEN[language].format(**_NUMBER[language, several])
    else:
        text = _LIKELIHOOD[language]
    head, _, rest = text.partition("{question}")
    middle, _, tail = rest.partition("{choices}")
    return Prompts(head, middle, tail)


def delimiter(prompt: str) -> str:
    """What stands between a prompt and its answer; no blank behind Chinese punctuation."""
    return " " if prompt[-1:].isascii() and not prompt[-1:].isspace() else ""


def rows(
    spec: Mapping[str, Any], items: Sequence[Item], shots: Sequence[Item]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows for lm-eval and rows for EvalScope, in the order of the items."""
    written, likely = (_way(spec, way, items, shots) for way in ("written", "likelihood"))
    before = {way: _examples(spec, way, shots) for way in (written, likely)}
    for_lm_eval, for_evalscope = [], []
    for item in items:
        prompt = before[written] + written.render(item)
        row: dict[str, Any] = {"id": item.id, "written": prompt}
        if spec["kind"] == "mcq":
            row["likelihood"] = before[likely] + likely.render(item)
            row["letters"] = list(item.letters)
            row["gold"] = item.letters.index(item.answer[0])
            # EvalScope puts the choices into the prompt itself; what stands before them goes with the question.
            question = f"{before[written]}{written.head}{item.question}"
            choices = dict(zip(item.letters, item.choices, strict=True))
            for_evalscope.append({"id": item.id, "question": question, **choices, "answer": list(item.answer)})
        else:
            for_evalscope.append({"id": item.id, "query": prompt, "response": item.answer})
        for_lm_eval.append(row)
    return for_lm_eval, for_evalscope


def fingerprints(spec: Mapping[str, Any], items: Sequence[Item], shots: Sequence[Item]) -> dict[str, str]:
    """Of all that is in a prompt but the item itself, for each way to ask."""
    ways = {name: _way(spec, name, items, shots) for name in ("written", "likelihood")}
    return {name: digest([way.head, way.middle, way.tail, _examples(spec, way, shots)]) for name, way in ways.items()}


def _way(spec: Mapping[str, Any], way: str, items: Sequence[Item], shots: Sequence[Item]) -> Prompts:
    several = spec["kind"] == "mcq" and any(len(item.answer) > 1 for item in (*items, *shots))
    return template(spec, written=way == "written", several=several)


def _examples(spec: Mapping[str, Any], way: Prompts, shots: Sequence[Item]) -> str:
    return "".join(f"{way.answered(shot, spec['language'])}\n\n" for shot in shots)


def lm_eval_task(bank: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The bank as a task of lm-eval 0.4.13; `folder` is the output of the bank's stage.

    Answers are scored by `scores.py`: `bypass` leaves written ones as they are. `num_fewshot: 0` keeps a suite's
    number of examples away, for they stand in the prompt already.
    """
    task: dict[str, Any] = {
        "task": task_name(bank["name"]),
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / LM_EVAL_FILE)}},
        "test_split": "test",
        "num_fewshot": 0,
        "metadata": {"version": bank["version"]},
    }
    if likelihood(bank):
        prompt = template(bank, written=False, several=False)
        return task | {
            "output_type": "multiple_choice",
            "doc_to_text": "likelihood",
            "doc_to_choice": "letters",
            "doc_to_target": "gold",
            "target_delimiter": delimiter(prompt.tail or "x"),
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    return task | {
        "output_type": "generate_until",
        "doc_to_text": "written",
        "doc_to_target": "id",
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": bank["max_tokens"]},
        "metric_list": [{"metric": "bypass", "aggregation": "bypass", "higher_is_better": True}],
    }


def evalscope_args(bank: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The bank's dataset-args of EvalScope 1.14.1."""
    args: dict[str, Any] = {"local_path": str(folder / EVALSCOPE_FOLDER), "subset_list": [bank["name"]]}
    if bank["kind"] == "open_qa":
        # Its BLEU wants NLTK data from the network; ours are computed by scores.py.
        return args | {"metric_list": ["Rouge"]}
    prompt = template(bank, written=True, several=True)
    middle, tail = (text.replace("{", "{{").replace("}", "}}") for text in (prompt.middle, prompt.tail))
    return args | {
        "prompt_template": f"{{question}}{middle}{{choices}}{tail}",
        # With it, answers are lists and compared as sets, which is right for one right answer as well.
        "extra_params": {"multiple_correct": True},
    }


def evalscope_file(kind: str, name: str) -> str:
    """Name of the file EvalScope looks for: general_mcq's split is `val`."""
    return f"{name}_val.jsonl" if kind == "mcq" else f"{name}.jsonl"


def likelihood(bank: Mapping[str, Any]) -> bool:
    return bool(bank["kind"] == "mcq" and bank["style"] == "likelihood")


def task_name(bank: str) -> str:
    """lm-eval's name of a bank's task, which no task of its own has."""
    return f"bank_{bank}"
