"""A fold over the results there are: what was asked, what came out, did it help. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.clean import CleanRow, clean_rows, contaminated
from pipeline.compare import Row, adjusted, compare
from pipeline.dialogues import Dialogue, side_by_side
from pipeline.evaluation_sets import unchecked
from pipeline.gate import GateLine, gate_lines, verdict
from pipeline.recipe import Recipe
from pipeline.recipe_file import dump_recipe
from pipeline.reconcile import Reconciled, reconcile
from pipeline.report.data_remarks import data_remarks
from pipeline.report.model_score import ModelScore
from pipeline.report.training_remarks import training_remarks
from pipeline.report.ways import ways
from pipeline.report.ways_page import WaysPage
from pipeline.resolve import Choice
from pipeline.results import Sample, Score
from pipeline.training.curve import Point
from pipeline.training.throughput import Throughput

Record = Mapping[str, Any]


class StageLine(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    done: bool
    needed: bool = True
    """Whether it would still run; a merged model that was removed after its evaluation is not needed."""
    seconds: float | None = None
    folder: str = ""
    """Relative to the runs folder."""
    fingerprint: str = ""
    """Of everything that bears its identity: 64 hex digits."""
    command: str = ""
    """What was started, as it can be pasted into a shell."""


class Report(BaseModel):
    """report.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    recipe: str
    description: str
    verdict: str | None = None
    """PASS, FAIL or INCONCLUSIVE; null without a gate in the recipe."""
    gate: list[GateLine] = []
    """The bounds of the gate against what was measured."""
    confidence: float
    rows: list[Row]
    scores: list[ModelScore]
    clean: list[CleanRow] = []
    """Rows of the parts of tasks with contaminated items: what is clean, and what is not."""
    reconciled: list[Reconciled] = []
    """The same items through two implementations, for each model."""
    ways: WaysPage | None = None
    """MMLU through several implementations, where it was asked in more than one way."""
    dialogues: list[Dialogue] = []
    """The recipe's own prompts, answered by each model."""
    data: dict[str, Any] | None
    contamination: dict[str, Any] | None = None
    """What of the evaluation sets the training rows hold: contamination.json of data_prep."""
    unchecked: list[str] = []
    """Benchmarks that no training row was compared with, because their data are not on this machine."""
    tokens: dict[str, Any] | None = None
    """Lengths of the training rows in the model's tokens: tokens.json of data_prep."""
    plan: dict[str, Any] | None = None
    """What the training was expected to take: plan.json."""
    train: dict[str, Any] | None
    throughput: Throughput | None = None
    """What it took: speed, memory, hours, cost, and how far off the plan was."""
    merge: dict[str, Any] | None = None
    """Whether the merged model is base and adapter, and the chat template the one of training."""
    curve: list[Point]
    stages: list[StageLine]
    choices: list[dict[str, str]]
    remarks: list[str]
    recipe_yaml: str = ""
    """The resolved recipe, to make all this again."""
    provenance: dict[str, Any]


def compile_report(
    recipe: Recipe,
    choices: Sequence[Choice],
    stages: Sequence[StageLine],
    records: Mapping[str, Record],
    samples: Mapping[str, Sequence[Sample]],
    curve: Sequence[Point],
    provenance: Mapping[str, Any],
    throughput: Throughput | None = None,
) -> Report:
    """`records`: label -> record of every finished stage; what is not finished is simply not in the report yet.

    `samples`: label -> items of every finished evaluation.
    """
    scores: list[ModelScore] = []
    rows: list[Row] = []
    clean: list[CleanRow] = []
    answered: dict[str, dict[str, tuple[list[Score], Sequence[Sample]]]] = {}
    remarks: list[str] = []
    contamination, tokens = _result(records, "data.contamination"), _result(records, "data.tokens")
    hit = contaminated(contamination)
    for suite in recipe.eval:
        prefix = f"eval.{suite.entry}."
        found = {label.removeprefix(prefix): r["result"] for label, r in records.items() if label.startswith(prefix)}
        for model, result in found.items():
            scores += [ModelScore(**score, model=model, suite=suite.entry) for score in result["scores"]]
            remarks += [f"{suite.entry}, {model}: {remark}" for remark in result["remarks"]]
            own = [Score(**score) for score in result["scores"]]
            answered.setdefault(model, {})[suite.entry] = own, samples[prefix + model]
        if {"base", "tuned"} <= found.keys():
            base, tuned = answered["base"][suite.entry], answered["tuned"][suite.entry]
            sides = (suite.entry, base[0], tuned[0], base[1], tuned[1], recipe.compare.confidence)
            rows += compare(*sides)
            clean += clean_rows(hit, *sides) if hit else []
    rows = adjusted(rows)
    bounds = gate_lines(recipe.gate, rows) if recipe.gate else []
    unread = unchecked(recipe) if recipe.data else []
    remarks += data_remarks(contamination, unread, tokens)
    planned, trained, merged = (_result(records, label) for label in ("plan", "train", "check.export"))
    remarks += training_remarks(planned, trained, merged)
    missing = [line.label for line in stages if line.needed and not line.done]
    if missing:
        remarks.append(f"not done yet: {', '.join(missing)}")
    return Report(
        recipe=recipe.name,
        description=recipe.description,
        verdict=verdict(bounds) if recipe.gate else None,
        gate=bounds,
        confidence=recipe.compare.confidence,
        rows=rows,
        scores=scores,
        clean=clean,
        reconciled=[pair for model, suites in answered.items() for pair in reconcile(model, suites)],
        ways=ways(scores, samples),
        dialogues=side_by_side(
            {
                label.removeprefix("dialogues."): record["result"]["dialogues"]
                for label, record in records.items()
                if label.startswith("dialogues.")
            }
        ),
        data=_result(records, "data"),
        contamination=contamination,
        unchecked=unread,
        tokens=tokens,
        plan=planned,
        train=trained,
        throughput=throughput,
        merge=merged,
        curve=list(curve),
        stages=list(stages),
        choices=[{"where": c.where, "value": c.value, "reason": c.reason} for c in choices],
        remarks=remarks,
        recipe_yaml=dump_recipe(recipe),
        provenance=dict(provenance),
    )


def _result(records: Mapping[str, Record], label: str) -> dict[str, Any] | None:
    record = records.get(label)
    return dict(record["result"]) if record else None
