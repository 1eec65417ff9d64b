"""What the catalogue says of one benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

HarnessName: TypeAlias = Literal["lm_eval", "evalscope"]


@dataclass(frozen=True)
class LmEvalTask:
    """What lm-eval calls it, and how its task YAML names the data (checked against the installed one by a test)."""

    name: str
    group: bool = False
    """Several tasks: a suite file must then say `group:` to give all of them one folder."""
    subset: str | None = None
    """Name of the task of one subset, with `{}` for the subset: cmmlu_{}."""
    config: str | None = None
    """`dataset_name`: the configuration of the data set that is read; None for a group, whose tasks have one each."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """Splits as the task names them: {training_split: train, validation_split: validation}."""


@dataclass(frozen=True)
class EvalScopeSet:
    """What EvalScope calls it; `subsets` are those that stand for this benchmark, all when empty."""

    name: str
    subsets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    name: str
    title: str
    languages: tuple[str, ...]
    lm_eval: LmEvalTask | None
    evalscope: EvalScopeSet | None
    folder: str
    """Its folder under a `data_root`."""
    subsets: tuple[str, ...] = ()
    """Its parts, called the same by both harnesses: `<name>_<subset>` names one."""

    def own(self, harness: HarnessName) -> str | None:
        """The harness's name; None where it does not have the benchmark."""
        there = self.lm_eval if harness == "lm_eval" else self.evalscope
        return there.name if there else None
