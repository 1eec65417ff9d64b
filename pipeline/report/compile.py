"""A fold over the results there are: what was asked, what came out, did it help. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.compare import Row, compare
from pipeline.curve import Point
from pipeline.evaluation_sets import unchecked
from pipeline.recipe import Recipe
from pipeline.report.data_remarks import data_remarks
from pipeline.resolve import Choice
from pipeline.results import Sample, Score

Record = Mapping[str, Any]


class ModelScore(Score):
    """A score with the model and the suite it belongs to."""

    model: str
    suite: str


class StageLine(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    done: bool
    needed: bool = True
    """Whether it would still run; a merged model that was removed after its evaluation is not needed."""
    seconds: float | None = None
    folder: str = ""
    """Relative to the runs folder."""


class Report(BaseModel):
    """report.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    recipe: str
    description: str
    verdict: str | None = None
    """PASS, FAIL or INCONCLUSIVE; null without a gate in the recipe."""
    confidence: float
    rows: list[Row]
    scores: list[ModelScore]
    data: dict[str, Any] | None
    contamination: dict[str, Any] | None = None
    """What of the evaluation sets the training rows hold: contamination.json of data_prep."""
    unchecked: list[str] = []
    """Benchmarks that no training row was compared with, because their data are not on this machine."""
    tokens: dict[str, Any] | None = None
    """Lengths of the training rows in the model's tokens: tokens.json of data_prep."""
    train: dict[str, Any] | None
    curve: list[Point]
    stages: list[StageLine]
    choices: list[dict[str, str]]
    remarks: list[str]
    provenance: dict[str, Any]


def compile_report(
    recipe: Recipe,
    choices: Sequence[Choice],
    stages: Sequence[StageLine],
    records: Mapping[str, Record],
    curve: Sequence[Point],
    provenance: Mapping[str, Any],
) -> Report:
    """`records`: label -> record of every finished stage; what is not finished is simply not in the report yet."""
    scores: list[ModelScore] = []
    rows: list[Row] = []
    remarks: list[str] = []
    for suite in recipe.eval:
        prefix = f"eval.{suite.entry}."
        found = {label.removeprefix(prefix): r["result"] for label, r in records.items() if label.startswith(prefix)}
        for model, result in found.items():
            scores += [ModelScore(**score, model=model, suite=suite.entry) for score in result["scores"]]
            remarks += [f"{suite.entry}, {model}: {remark}" for remark in result["remarks"]]
        if {"base", "tuned"} <= found.keys():
            base, tuned = found["base"], found["tuned"]
            rows += compare(
                suite.entry,
                [Score(**score) for score in base["scores"]],
                [Score(**score) for score in tuned["scores"]],
                [Sample(**sample) for sample in base["samples"]],
                [Sample(**sample) for sample in tuned["samples"]],
                recipe.compare.confidence,
            )
    contamination, tokens = _result(records, "data.contamination"), _result(records, "data.tokens")
    unread = unchecked(recipe) if recipe.data else []
    remarks += data_remarks(contamination, unread, tokens)
    missing = [line.label for line in stages if line.needed and not line.done]
    if missing:
        remarks.append(f"not done yet: {', '.join(missing)}")
    return Report(
        recipe=recipe.name,
        description=recipe.description,
        confidence=recipe.compare.confidence,
        rows=rows,
        scores=scores,
        data=_result(records, "data"),
        contamination=contamination,
        unchecked=unread,
        tokens=tokens,
        train=_result(records, "train"),
        curve=list(curve),
        stages=list(stages),
        choices=[{"where": c.where, "value": c.value, "reason": c.reason} for c in choices],
        remarks=remarks,
        provenance=dict(provenance),
    )


def _result(records: Mapping[str, Record], label: str) -> dict[str, Any] | None:
    record = records.get(label)
    return dict(record["result"]) if record else None
