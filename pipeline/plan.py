"""plan(recipe): the whole pipeline on one page. Pure; the recipe is resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.endpoint import Endpoint
from pipeline.harnesses.base import benchmarks
from pipeline.machine import Machine
from pipeline.recipe import Recipe
from pipeline.stage import Source, Stage
from pipeline.stages import (
    bank,
    check_contamination,
    check_export,
    count_tokens,
    dialogues,
    evaluate,
    export,
    fetch,
    forecast,
    prepare,
    train,
)
from pipeline.suites import EvalScopeSpec, LmEvalSpec

TARGETS = ("data", "plan", "train", "export", "eval", "dialogues", "submission", "report")

SMOKE_LIMIT = 5
"""Samples of a smoke run, per task or subset."""


@dataclass(frozen=True)
class Plan:
    stages: dict[str, Stage]
    """label -> stage, in an order in which every stage comes after those it depends on."""

    def select(self, targets: tuple[str, ...]) -> list[str]:
        """Labels to make sure of for these targets; none = everything nothing else depends on."""
        if targets:
            wanted = {"eval" if target == "submission" else target for target in targets if target != "report"}
            wanted |= {"check"} if "export" in wanted else set()  # an export that was not looked at is worth little
            found = [label for label in self.stages if label.split(".")[0] in wanted or label in wanted]
            return [label for label in found if not self._fetches_for(label, found)]
        # A smoke run, and a plan, are for what comes after them, and of no more use once that is there.
        leaves = {label: stage for label, stage in self.stages.items() if stage.name not in ("smoke", "plan")}
        needed = {id(dep) for stage in leaves.values() for dep in stage.deps.values()}
        return [label for label, stage in leaves.items() if id(stage) not in needed]

    def _fetches_for(self, label: str, others: Sequence[str]) -> bool:
        """Whether this label alone would have a model fetched: token lengths in a report are not worth 65 GB."""
        needed = [other for other in others if self._needs_fetching(other)]
        return label == "data.tokens" and needed == [label]

    def _needs_fetching(self, label: str) -> bool:
        return any(dep.name == "model" for dep in self.stages[label].deps.values() if isinstance(dep, Stage))


def plan(recipe: Recipe, machine: Machine | None = None) -> Plan:
    """The stages of a resolved recipe: model, data and its checks, train, export, and each suite on each model.

    `machine` is what the stage `plan` holds the training's memory against, no part of any other stage.
    """
    stages: dict[str, Stage] = {}

    def add(label: str, stage: Stage | Source | Endpoint) -> Stage | Source | Endpoint:
        if isinstance(stage, Stage):
            stages[label] = stage
        return stage

    single = len(recipe.models) == 1
    bases = {
        "base" if single else model.label: add(
            "model" if single else f"model.{model.label}",
            fetch.stage(model, trust_remote_code=recipe.trust_remote_code),
        )
        for model in recipe.models
    }
    models = dict(bases)
    model, base = recipe.models[0], next(iter(bases.values()))
    files = None if isinstance(base, Endpoint) else base
    banks = {}
    for name in dict.fromkeys(entry.name for suite in recipe.eval for entry in benchmarks(suite)):
        if name in recipe.benchmarks:
            stages[f"bank.{name}"] = made = bank.stage(name, recipe.benchmarks[name])
            banks[name] = (recipe.benchmarks[name], made)

    def asked(suite: LmEvalSpec | EvalScopeSpec, of: Stage | Source | Endpoint) -> Stage:
        offline, template = recipe.runtime.offline, recipe.chat_template
        return evaluate.stage(suite, model=of, banks=banks, chat_template=template, offline=offline)

    if recipe.runtime.smoke:
        for suite in recipe.eval:
            few = suite.model_copy(update={"limit": min(suite.limit or SMOKE_LIMIT, SMOKE_LIMIT)})
            for name, of in bases.items():
                stages[f"smoke.{suite.entry}.{name}"] = replace(asked(few, of), name="smoke")
    smokes = tuple(stage for stage in stages.values() if stage.name == "smoke")
    checks, checked = list(smokes), tuple[Stage, ...]()
    if recipe.data:
        stages["data"] = data = replace(prepare.stage(recipe.data, model=files), after=smokes)
        if recipe.data.contamination.action != "drop" and prepare.benchmarks(recipe.data):
            stages["data.contamination"] = check = check_contamination.stage(recipe.data, data=data)
            checks += [check] if recipe.data.contamination.action == "fail" else []
    if recipe.data and recipe.train and files:  # the recipe refuses to train a model behind a URL
        counted = None
        if recipe.data.tokens != "off":
            stages["data.tokens"] = counted = count_tokens.stage(
                recipe.data, recipe.train, model, base=files, data=data, chat_template=recipe.chat_template
            )
        stages["plan"] = planned = forecast.stage(recipe.train, machine, base=files, data=data, tokens=counted)
        steps = recipe.export.checkpoints
        assert isinstance(steps, tuple), "resolve() names the steps"
        chosen = None if recipe.export.checkpoint == "last" else recipe.export.checkpoint
        wanted = (*steps, chosen) if isinstance(chosen, int) else steps
        trained = train.stage(
            recipe.train, model, base=files, data=data, chat_template=recipe.chat_template, wanted=wanted
        )
        stages["train"] = trained = replace(trained, after=(*checks, planned))
        stages["export"] = export.stage(recipe.export, model, base=files, trained=trained, checkpoint=chosen)
        models["tuned"] = stages["export"]
        if recipe.export.check != "off":
            stages["check.export"] = check = check_export.stage(
                recipe, base=files, data=data, trained=trained, exported=stages["export"]
            )
            checked = (check,) if recipe.export.check == "fail" else ()
        for step in steps:
            stages[f"export.{step}"] = export.stage(recipe.export, model, base=files, trained=trained, checkpoint=step)
            models[f"tuned-{step}"] = stages[f"export.{step}"]
    for suite in recipe.eval:
        for name, model_stage in models.items():
            after = (*smokes, *checked) if name == "tuned" else smokes
            stages[f"eval.{suite.entry}.{name}"] = replace(asked(suite, model_stage), after=after)
    if recipe.dialogues:
        stages["dialogues"] = prompts = dialogues.asked(recipe.dialogues, data=stages.get("data"))
        specs = dict(zip(bases, recipe.models, strict=True))
        for name in [*bases, *(["tuned"] if "tuned" in models else [])]:  # not every checkpoint
            told = dialogues.stage(
                recipe.dialogues,
                specs.get(name, model),
                model=models[name],
                asked=prompts,
                chat_template=recipe.chat_template,
            )
            stages[f"dialogues.{name}"] = replace(told, after=checked if name == "tuned" else ())
    return Plan(stages)
