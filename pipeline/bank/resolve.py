"""The `auto` settings of question banks, decided by the banks themselves, and what would not work with them.

Reads the banks' files: a bank with a bad row is refused here, before anything is started.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.bank.items import Item, examples, load
from pipeline.bank.prompts import DATASETS
from pipeline.bank.spec import BankSpec
from pipeline.errors import PreflightError
from pipeline.harnesses.base import benchmarks
from pipeline.recipe import Recipe
from pipeline.suites import EvalSpec, LmEvalSpec

_CHINESE = re.compile(r"[\u4e00-\u9fff]")


@dataclass
class Settled:
    banks: dict[str, BankSpec] = field(default_factory=dict)
    choices: list[tuple[str, str, str]] = field(default_factory=list)
    """(where, value, reason) of each setting that was `auto`."""
    problems: list[str] = field(default_factory=list)


def settle(recipe: Recipe) -> Settled:
    """Every bank without `auto`; those that no suite asks are left as they are, their files unread."""
    found = Settled(dict(recipe.benchmarks))
    suites = {
        name: [suite for suite in recipe.eval if any(entry.name == name for entry in benchmarks(suite))]
        for name in recipe.benchmarks
    }
    served = any(model.url for model in recipe.models)
    for name, spec in recipe.benchmarks.items():
        if suites[name]:
            by_lm_eval = any(isinstance(suite, LmEvalSpec) for suite in suites[name])
            try:
                found.banks[name] = _settled(name, spec, found, by_lm_eval=by_lm_eval, served=served)
            except PreflightError as error:
                found.problems += error.problems
    for index, suite in enumerate(recipe.eval):
        found.problems += _suite(f"eval[{index}]", suite, recipe.benchmarks)
    return found


def _settled(name: str, spec: BankSpec, found: Settled, *, by_lm_eval: bool, served: bool) -> BankSpec:
    items = load(spec.path, spec.kind)
    if spec.few_shot_path:
        examples(spec.few_shot_path, spec.kind, spec.few_shot, items, spec.path)
    where, new = f"benchmarks.{name}", {}
    if spec.language == "auto":
        chinese = sum(bool(_CHINESE.search(item.question)) for item in items)
        new["language"] = "zh" if 2 * chinese > len(items) else "en"
        found.choices.append((f"{where}.language", new["language"], f"{chinese} of {len(items)} questions in Chinese"))
    several = [item for item in items if item.choices and len(item.answer) > 1]
    if spec.style == "auto":
        new["style"], why = _style(spec, items, several, served=served)
        if by_lm_eval and spec.kind == "mcq":
            found.choices.append((f"{where}.style", new["style"], why))
    elif spec.style == "likelihood" and by_lm_eval:
        found.problems += _unlikely(where, spec, several, served=served)
    return spec.model_copy(update=new)


def _style(spec: BankSpec, items: Sequence[Item], several: Sequence[Item], *, served: bool) -> tuple[str, str]:
    if spec.kind == "open_qa":
        return "generate", "open questions are answered in writing"
    if several:
        return "generate", f"{len(several)} of {len(items)} questions have several right answers"
    if served:
        return "generate", "a model behind a URL gives no likelihoods"
    return "likelihood", "every question has one right answer"


def _unlikely(where: str, spec: BankSpec, several: Sequence[Item], *, served: bool) -> Iterator[str]:
    if several:
        lines = ", ".join(str(item.line) for item in several[:5])
        yield (
            f"{where}.style: likelihood picks one letter, but {len(several)} questions have several right answers "
            f"({spec.path}, lines {lines}{', ...' if len(several) > 5 else ''}); use generate"
        )
    if served:
        yield f"{where}.style: likelihoods are not to be had from a model behind a URL; use generate"


def _suite(where: str, suite: EvalSpec, banks: dict[str, BankSpec]) -> Iterator[str]:
    """What a suite cannot do with its banks."""
    entries = benchmarks(suite)
    taken = {entry.name: entry.name for entry in entries if entry.name not in banks}
    for entry in entries:
        if entry.name not in banks:
            continue
        if entry.path or entry.args:
            yield f"{where}: {entry.name} is a bank of this recipe; its settings belong under benchmarks.{entry.name}"
        dataset = DATASETS[banks[entry.name].kind]
        if not isinstance(suite, LmEvalSpec) and taken.setdefault(dataset, entry.name) != entry.name:
            yield (
                f"{where}: {taken[dataset]} and {entry.name} would both be EvalScope's {dataset}, which reads one "
                "folder per run; put one of them into a second suite with its own `name`"
            )
