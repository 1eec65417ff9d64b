"""A suite's question banks, apart from its other tasks. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pipeline.bank.scores import VERSION
from pipeline.bank.spec import BankSpec
from pipeline.harnesses.base import benchmarks
from pipeline.suites import EvalScopeSpec, LmEvalSpec


def split(
    spec: LmEvalSpec | EvalScopeSpec, banks: Mapping[str, tuple[BankSpec, object]]
) -> tuple[LmEvalSpec | EvalScopeSpec, list[str]]:
    """The suite without its banks, whose list of tasks may be empty then, and the banks' names."""
    asked = [entry.name for entry in benchmarks(spec) if entry.name in banks]
    if not asked:
        return spec, []
    rest = tuple(entry for entry in benchmarks(spec) if entry.name not in banks)
    update: dict[str, Any] = {"tasks" if isinstance(spec, LmEvalSpec) else "datasets": rest}
    if isinstance(spec, EvalScopeSpec) and not rest and _unlimited(spec):
        # It takes one number per run.
        update["max_tokens"] = max(banks[name][0].max_tokens for name in asked)
    return spec.model_copy(update=update), asked


def settings(name: str, spec: BankSpec, harness: str) -> dict[str, Any]:
    """What an evaluation has to know of a bank, beside its files: part of the evaluation's identity."""
    kept: Collection[str] = {"kind", "language", "few_shot", "prompt", "elastic"}
    if harness == "lm_eval":
        kept = {*kept, "style", "max_tokens"}
    return {"name": name, "version": VERSION, **spec.model_dump(mode="json", include=set(kept))}


def _unlimited(spec: EvalScopeSpec) -> bool:
    return spec.max_tokens is None and "max_tokens" not in spec.generation
