"""plan(recipe): the whole pipeline on one page. Pure; the recipe is resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.recipe import Recipe
from pipeline.stage import Source, Stage
from pipeline.stages import check_contamination, count_tokens, evaluate, export, fetch, prepare, train

TARGETS = ("data", "train", "export", "eval", "report")


@dataclass(frozen=True)
class Plan:
    stages: dict[str, Stage]
    """label -> stage, in an order in which every stage comes after those it depends on."""

    def select(self, targets: tuple[str, ...]) -> list[str]:
        """Labels to make sure of for these targets; none = everything nothing else depends on."""
        if targets:
            wanted = {target for target in targets if target != "report"}
            found = [label for label in self.stages if label.split(".")[0] in wanted or label in wanted]
            return [label for label in found if not self._fetches_for(label, found)]
        needed = {id(dep) for stage in self.stages.values() for dep in stage.deps.values()}
        return [label for label, stage in self.stages.items() if id(stage) not in needed]

    def _fetches_for(self, label: str, others: Sequence[str]) -> bool:
        """Whether this label alone would have a model fetched: token lengths in a report are not worth 65 GB."""
        needed = [other for other in others if self._needs_fetching(other)]
        return label == "data.tokens" and needed == [label]

    def _needs_fetching(self, label: str) -> bool:
        return any(dep.name == "model" for dep in self.stages[label].deps.values() if isinstance(dep, Stage))


def plan(recipe: Recipe) -> Plan:
    """The stages of a resolved recipe: model, data and its checks, train, export, and each suite on each model."""
    stages: dict[str, Stage] = {}

    def add(label: str, stage: Stage | Source) -> Stage | Source:
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
    checks: list[Stage] = []
    if recipe.data:
        stages["data"] = data = prepare.stage(recipe.data, model=base)
        if recipe.data.contamination.action != "drop" and prepare.benchmarks(recipe.data):
            stages["data.contamination"] = check = check_contamination.stage(recipe.data, data=data)
            checks += [check] if recipe.data.contamination.action == "fail" else []
    if recipe.data and recipe.train:
        if recipe.data.tokens != "off":
            stages["data.tokens"] = count_tokens.stage(
                recipe.data, recipe.train, model, base=base, data=data, chat_template=recipe.chat_template
            )
        trained = train.stage(recipe.train, model, base=base, data=data, chat_template=recipe.chat_template)
        stages["train"] = trained = replace(trained, after=tuple(checks))
        stages["export"] = export.stage(recipe.export, model, base=base, train=trained)
        models["tuned"] = stages["export"]
    for suite in recipe.eval:
        for name, model_stage in models.items():
            stages[f"eval.{suite.entry}.{name}"] = evaluate.stage(
                suite,
                model=model_stage,
                chat_template=recipe.chat_template,
                offline=recipe.runtime.offline,
            )
    return Plan(stages)
