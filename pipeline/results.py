"""What stages produce, as typed values: scores and samples of every harness in one vocabulary."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict


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
    implementation: Implementation


class Sample(BaseModel):
    """One graded item. Base and tuned are paired by (task, metric, doc_key)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    metric: str
    doc_key: str
    score: float
    subset: str = ""
    """Part of the task this item belongs to (MMLU's subjects)."""


def doc_key(question: str, choices: Iterable[str], target: str) -> str:
    """16 hex digits of the content: question, sorted choices and target text, whitespace folded.

    Position in the file and order of the choices do not enter, so runs with other limits or shuffles still pair.
    """
    parts = [_fold(question), sorted(_fold(choice) for choice in choices), _fold(target)]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]


def number_repeats(samples: Iterable[Sample]) -> list[Sample]:
    """Items with equal content get a running number in the key, so that each is paired with one of the other run."""
    seen: Counter[tuple[str, str, str]] = Counter()
    result = []
    for sample in samples:
        key = (sample.task, sample.metric, sample.doc_key)
        seen[key] += 1
        if seen[key] > 1:
            sample = sample.model_copy(update={"doc_key": f"{sample.doc_key}.{seen[key]}"})  # noqa: PLW2901
        result.append(sample)
    return result


def with_stderr(scores: Iterable[Score], samples: Iterable[Sample]) -> list[Score]:
    """Scores without a standard error get the one of their samples' mean: s / sqrt(n), s with n - 1.

    Only where the samples give that very score (rounded to four digits by some harnesses), else it stays unknown.
    """
    values: dict[tuple[str, str], list[float]] = {}
    for sample in samples:
        values.setdefault((sample.task, sample.metric), []).append(sample.score)
    result = []
    for score in scores:
        found = values.get((score.task, score.metric), [])
        if score.stderr is None and len(found) > 1 and abs(statistics.fmean(found) - score.value) < 6e-5:
            score = score.model_copy(  # noqa: PLW2901
                update={"stderr": statistics.stdev(found) / math.sqrt(len(found))}
            )
        result.append(score)
    return result


def finite(value: Any) -> float | None:
    """A number as a finite float, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _fold(text: str) -> str:
    return " ".join(str(text).split())
