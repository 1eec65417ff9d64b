"""The `gate` section of a recipe, and its verdict over the rows of a comparison. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.compare import Row
from pipeline.fields import Section

Bound = Annotated[float, Field(ge=0)]
Word = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class GateSpec(Section):
    """What must hold of the tuned model. Keys are `task`, `task/metric` or `suite/task/metric`; a task alone stands for
    its first metric, in every suite that has it. Bounds are in the metric's unit: 0.02 = two points of accuracy.
    """

    max_drop: dict[str, Bound] = Field(default_factory=dict)
    """FAIL where the whole interval lies below this drop, INCONCLUSIVE where the interval does not decide."""
    min_gain: dict[str, Bound] = Field(default_factory=dict)
    """PASS where the whole interval lies at or above this gain, FAIL where it lies below."""
    inconclusive: Literal["fail", "pass"] = "fail"
    """Exit status of a run that neither passed nor failed: 6, or 0."""

    @model_validator(mode="after")
    def _something(self) -> GateSpec:
        if not (self.max_drop or self.min_gain):
            raise ValueError("give `max_drop` or `min_gain`")
        return self


class GateLine(BaseModel):
    """One bound held against one comparison. `gain` counts improvement, also where lower is better."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    kind: Literal["max_drop", "min_gain"]
    bound: float
    suite: str = ""
    task: str = ""
    metric: str = ""
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: Word
    why: str = ""
    """Why it could not be decided."""


def gate_lines(spec: GateSpec, rows: Sequence[Row]) -> list[GateLine]:
    """Every bound of the gate against every row it speaks of."""
    return [*_lines("max_drop", spec.max_drop, rows), *_lines("min_gain", spec.min_gain, rows)]


def verdict(lines: Iterable[GateLine]) -> Word:
    """FAIL if any line fails, else INCONCLUSIVE if any is, else PASS."""
    words = {line.verdict for line in lines}
    return "FAIL" if "FAIL" in words else "INCONCLUSIVE" if "INCONCLUSIVE" in words else "PASS"


def refusal(spec: GateSpec, lines: Sequence[GateLine]) -> str | None:
    """Why the run does not pass, a line per bound that is not kept; None when it does."""
    word = verdict(lines)
    if word == "PASS" or (word == "INCONCLUSIVE" and spec.inconclusive == "pass"):
        return None
    said = [f"  {line.verdict:<12}  {_said(line)}" for line in lines if line.verdict != "PASS"]
    return "\n".join([f"gate: {word}", *said])


def _said(line: GateLine) -> str:
    where = "/".join(part for part in (line.suite, line.task, line.metric) if part) or line.key
    bound = f"{line.kind} {line.bound:g}"
    if line.gain is None or line.low is None or line.high is None:
        return f"{where}: {bound}: {line.why}"
    change = f"{line.gain:+.4f} [{line.low:+.4f}, {line.high:+.4f}]"
    return f"{where}: {bound}, found {change}" + (f": {line.why}" if line.why else "")


def _lines(kind: Literal["max_drop", "min_gain"], bounds: dict[str, float], rows: Sequence[Row]) -> Iterator[GateLine]:
    for key, bound in bounds.items():
        found = list(_meant(key, rows))
        if not found:
            known = ", ".join(dict.fromkeys(row.task for row in rows if not row.part_of)) or "none"
            why = f"no such score of base and tuned; compared tasks: {known}"
            yield GateLine(key=key, kind=kind, bound=bound, verdict="INCONCLUSIVE", why=why)
        for row in found:
            yield _held(key, kind, bound, row)


def _meant(key: str, rows: Sequence[Row]) -> Iterator[Row]:
    first: set[tuple[str, str]] = set()
    for row in rows:
        names = {f"{row.task}/{row.metric}", f"{row.suite}/{row.task}/{row.metric}"}
        if (row.suite, row.task) not in first:
            names |= {row.task, f"{row.suite}/{row.task}"}
            first.add((row.suite, row.task))
        if key in names:
            yield row


def _held(key: str, kind: Literal["max_drop", "min_gain"], bound: float, row: Row) -> GateLine:
    line = GateLine(
        key=key, kind=kind, bound=bound, suite=row.suite, task=row.task, metric=row.metric, verdict="INCONCLUSIVE"
    )
    if row.delta is None or row.ci_low is None or row.ci_high is None:
        return line.model_copy(update={"why": row.remark or "no interval: the items could not be paired"})
    ends = (row.ci_low, row.ci_high) if row.higher_is_better else (-row.ci_high, -row.ci_low)
    limit = -bound if kind == "max_drop" else bound
    word: Word = "PASS" if ends[0] >= limit else "FAIL" if ends[1] < limit else "INCONCLUSIVE"
    gain = row.delta if row.higher_is_better else -row.delta
    why = "the interval holds the bound: more items would decide" if word == "INCONCLUSIVE" else ""
    return line.model_copy(update={"gain": gain, "low": ends[0], "high": ends[1], "verdict": word, "why": why})
