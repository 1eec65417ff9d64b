"""The plan of a training in words: a few lines for the terminal and the dry run, a page for plan.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.console import duration

GIB = 2**30


def lines(plan: Mapping[str, Any]) -> list[str]:
    """What one wants to know before a training starts."""
    found = [
        ", ".join(part for part in (_size(plan), _data(plan)) if part),
        ", ".join(part for part in (_steps(plan), _time(plan)) if part),
        _memory(plan),
        *(f"remark: {text}" for text in plan.get("remarks", ())),
        *(f"problem: {text}" for text in plan.get("problems", ())),
    ]
    return [line for line in found if line]


def page(plan: Mapping[str, Any]) -> str:
    """plan.md."""
    rows = [*_table(plan)]
    text = ["# Plan of the training", "", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    if plan.get("memory"):
        text += ["", f"## Memory per {_place(plan)}", "", "| part | GiB |", "|---|---|"]
        text += [f"| {name} | {size / GIB:.2f} |" for name, size in plan["memory"].items()]
        text += [f"| there is | {plan['gpu_memory'] / GIB:.2f} |"] if plan.get("gpu_memory") else []
    for head, key in (("Problems", "problems"), ("Remarks", "remarks")):
        if plan.get(key):
            text += ["", f"## {head}", "", *(f"- {one}" for one in plan[key])]
    return "\n".join(text) + "\n"


def _table(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    values = [
        ("parameters", _count(plan.get("parameters"))),
        ("trained", _trained(plan)),
        ("training rows", _count(plan.get("rows"))),
        ("left out", _count(plan.get("rows_dropped"))),
        ("cut at max_length", _count(plan.get("rows_cut"))),
        ("packed rows", _count(plan.get("packed_rows"))),
        ("tokens an epoch", _count(plan.get("tokens_per_epoch"))),
        ("tokens an optimizer step", _count(plan.get("tokens_per_step"))),
        ("optimizer steps an epoch", _count(plan.get("steps_per_epoch"))),
        ("optimizer steps", _count(plan.get("steps"))),
        ("time", _time(plan)),
    ]
    return [(name, value) for name, value in values if value]


def _size(plan: Mapping[str, Any]) -> str:
    if plan.get("parameters") is None:
        return ""
    return (
        f"{_short(plan['parameters'])} parameters, {_short(plan['trainable'])} trained ({plan['trainable_share']:.2%})"
    )


def _trained(plan: Mapping[str, Any]) -> str:
    if plan.get("trainable") is None:
        return ""
    return f"{plan['trainable']:,} ({plan['trainable_share']:.4%})"


def _data(plan: Mapping[str, Any]) -> str:
    packed = f" packed into {plan['packed_rows']:,}" if plan.get("packed_rows") is not None else ""
    dropped = f", {plan['rows_dropped']:,} left out" if plan.get("rows_dropped") else ""
    return f"{plan['rows']:,} rows{packed}{dropped}"


def _steps(plan: Mapping[str, Any]) -> str:
    if plan.get("steps") is None:
        return "optimizer steps not known"
    each = f" of {plan['tokens_per_step']:,} tokens" if plan.get("tokens_per_step") else ""
    epoch = f" ({plan['steps_per_epoch']:,} an epoch)" if plan.get("steps_per_epoch") else ""
    about = "" if plan.get("exact") else "about "
    return f"{about}{plan['steps']:,} optimizer steps{each}{epoch}"


def _time(plan: Mapping[str, Any]) -> str:
    expected = plan.get("seconds_expected")
    if not expected:
        return ""
    low, high = duration(expected["low"]), duration(expected["high"])
    return f"{low} to {high} ({expected['source']})"


def _memory(plan: Mapping[str, Any]) -> str:
    if not plan.get("memory"):
        return ""
    total = sum(plan["memory"].values())
    parts = sorted(((size, name) for name, size in plan["memory"].items() if size > total / 50), reverse=True)
    said = ", ".join(f"{name} {_gib(size)}" for size, name in parts)
    there = f" of {_gib(plan['gpu_memory'])}" if plan.get("gpu_memory") else ""
    return f"memory per {_place(plan)}: about {_gib(total)}{there} GiB ({said})"


def _gib(size: float) -> str:
    """One decimal, or two digits of what would be shown as nothing."""
    return f"{size / GIB:.1f}" if size >= GIB / 10 else f"{size / GIB:.2g}"


def _place(plan: Mapping[str, Any]) -> str:
    return "GPU" if plan.get("gpus") else "process"


def _count(value: Any) -> str:
    return "" if value is None else f"{value:,}"


def _short(number: int) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)
