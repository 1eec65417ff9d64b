"""What stages produce, as typed values: scores and samples of every harness in one vocabulary."""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

ROUNDED = 1.6e-4
"""How far a harness's figure may be from the mean of its items and still be that mean.

EvalScope 1.14.1 rounds to four digits three times: a subset's score, a category's mean of those, the mean of these.
"""
_MARK = re.compile(r"\[[a-z]+\]")
_NO_LETTER = re.compile(r"[\s,，、;/]+")


class Implementation(BaseModel):
    """What a score is of. Scores with different implementations are never subtracted from each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    harness: str
    version: str
    task_version: str = ""
    n_shot: int | None = None
    chat_template: str = ""
    """sha256 (12 digits) of the template text, "off", or "" where the harness does not tell."""
    scoring: str = ""
    """Output type and filter: loglikelihood of choices, generate_until/strict-match, ..."""
    precision: str = ""
    normalisation: str = ""
    """Of likelihoods: none, characters, bytes or tokens; of written answers: the harness's filter."""
    prompt: str = ""
    """12 hex digits over the templates of instruction, question, choices and target, and the examples' order."""
    shot_seed: int | None = None
    """Seed of the choice and order of the examples; None where their order is the file's."""
    backend: str = ""
    """hf, vllm or api."""
    data: str = ""
    """12 hex digits over the contents (doc_key) of the items asked, in no order."""


class Score(BaseModel):
    """One number of one model; `value` is a fraction (0..1) for accuracies, in the metric's own unit otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    harness: str
    metric: str
    value: float
    stderr: float | None = None
    n: int
    higher_is_better: bool = True
    tasks: tuple[str, ...] = ()
    """Tasks whose samples make up this score; empty: those of `task` itself."""
    mean: Literal["items", "tasks", "none"] = "items"
    """Of what it is the mean: of all items, of its tasks' means, or of nothing (a corpus-level BLEU)."""
    implementation: Implementation


class Sample(BaseModel):
    """One item as one model answered it, with all its metrics. Base and tuned are paired by (task, doc_key)."""

    # A choice can have the likelihood 0, so its logarithm is -inf; pydantic would write null and refuse to read it.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    task: str
    """The smallest task it belongs to (mmlu_anatomy, mmlu/anatomy), whose name a `Score` may have or sum up."""
    doc_key: str
    scores: dict[str, float]
    """metric, called as in `Score.metric` -> value."""
    question: str = ""
    """The item's own text, without instruction and examples."""
    question_sha256: str = ""
    """As in contamination.json of data_prep, to tell contaminated items."""
    prompt: str = ""
    """As it was sent, examples and all; chat turns as JSON."""
    choices: tuple[str, ...] = ()
    loglikelihoods: tuple[float, ...] = ()
    """Of each choice given the prompt: natural log, summed over its tokens. Empty where answers are written."""
    greedy: tuple[bool, ...] = ()
    """Whether greedy decoding would write the choice."""
    target: str = ""
    """The right answer as shown: its text, or its letters."""
    answer: str = ""
    """What counted as the model's answer, by the first rule of several; empty where nothing could be made out."""
    answers: dict[str, str] = {}
    """Where several rules read the same output (strict-match, flexible-extract): rule -> what it made out."""
    output: str = ""
    """What the model wrote, whole."""
    facts: dict[str, str] = {}
    """What tables group by: subject, type, ..."""


def doc_key(question: str, choices: Iterable[str], target: str) -> str:
    """16 hex digits of the content: question, sorted choices and target text, folded.

    Position in the file and order of the choices do not enter, so runs with other limits or shuffles still pair, and
    an item has one key in both harnesses.
    """
    parts = [fold(question), sorted(fold(choice) for choice in choices), fold(target)]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def fold(text: str) -> str:
    """A text without what harnesses change in it before they ask: case, white space, marks such as [header].

    The marks are WikiHow's, in HellaSwag; both harnesses drop them and put a full stop for [title].
    """
    return " ".join(_MARK.sub(" ", str(text).replace(" [title]", ". ")).split()).casefold()


def fingerprint(samples: Iterable[Sample]) -> str:
    """12 hex digits over the contents of the items, in no order; empty without items."""
    keys = sorted(sample.doc_key for sample in samples)
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:12] if keys else ""


def digest(value: Any) -> str:
    """12 hex digits of a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def picked(answer: str, choices: Sequence[str]) -> frozenset[int] | None:
    """Which choices an answer means, from 0: letters (`B`, `B,C`, `BC`), or the text of one; None for neither.

    >>> picked("B,C", ["red", "green", "blue"])
    frozenset({1, 2})
    """
    letters = _NO_LETTER.sub("", answer)
    if letters.isascii() and letters.isalpha() and letters.isupper() and len(set(letters)) == len(letters):
        found = frozenset(ord(letter) - ord("A") for letter in letters)
        if max(found) < len(choices):
            return found
    return frozenset({list(choices).index(answer)}) if answer in choices else None


def number_repeats(samples: Iterable[Sample]) -> list[Sample]:
    """Items with equal content get a running number in the key, so that each is paired with one of the other run."""
    seen: Counter[tuple[str, str]] = Counter()
    result = []
    for sample in samples:
        key = (sample.task, sample.doc_key)
        seen[key] += 1
        if seen[key] > 1:
            sample = sample.model_copy(update={"doc_key": f"{sample.doc_key}.{seen[key]}"})  # noqa: PLW2901
        result.append(sample)
    return result


def item_values(samples: Iterable[Sample]) -> dict[tuple[str, str], list[float]]:
    """(task, metric) -> the values of its items."""
    values: dict[tuple[str, str], list[float]] = {}
    for sample in samples:
        for metric, value in sample.scores.items():
            values.setdefault((sample.task, metric), []).append(value)
    return values


def score_groups(score: Score, values: Mapping[tuple[str, str], list[float]]) -> list[list[float]]:
    """The items' values that make up a score: a group per task whose mean counts, else one of all."""
    found = [values.get((task, score.metric), []) for task in score.tasks or (score.task,)]
    return found if score.mean == "tasks" else [[value for group in found for value in group]]


def with_stderr(scores: Iterable[Score], samples: Iterable[Sample]) -> list[Score]:
    """Scores without a standard error get that of their samples' mean: s / sqrt(n), s with n - 1.

    A mean of k tasks' means has sqrt(sum of the squared errors of the tasks) / k. Only where the samples give that
    very score (but for rounding), else it stays unknown.
    """
    values = item_values(samples)
    result = []
    for score in scores:
        groups = score_groups(score, values)
        if score.stderr is None and score.mean != "none" and min(map(len, groups)) > 1:
            mean = statistics.fmean(map(statistics.fmean, groups))
            if abs(mean - score.value) < ROUNDED:
                error = math.sqrt(sum(statistics.variance(group) / len(group) for group in groups)) / len(groups)
                score = score.model_copy(update={"stderr": error})  # noqa: PLW2901
        result.append(score)
    return result


def finite(value: Any) -> float | None:
    """A number as a finite float, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
