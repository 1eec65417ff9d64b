"""What a training took, and how far off its plan was. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipeline.console import duration
from pipeline.report.compile import Report
from pipeline.report.phrases import Phrase, joined, say
from pipeline.report.table import Table, mapping
from pipeline.report.wording import NONE, clean, plain
from pipeline.training.throughput import GIB, Planned, Throughput

PADDED = 1.002
"""Times the real tokens from which on padding is worth a line: packed rows have next to none."""
_BASIS = {
    "steady": say("without start-up, evaluation and saving"),
    "paused": say("without start-up; saving is in it"),
    "whole": say("with start-up: too few steps to leave it out"),
}


def speed(report: Report) -> str:
    """Tokens per second of the whole training; "" where that is not known."""
    found = report.throughput
    return plain(found.tokens_per_second * found.processes) if found and found.tokens_per_second else ""


def speed_facts(report: Report) -> Table:
    """Tokens per second, use of the hardware, memory, hours and cost."""
    found = report.throughput
    return Table((say("what"), say("value")), tuple(_facts(found) if found else ()), numeric=(1,))


def _facts(found: Throughput) -> Iterator[tuple[str, str]]:
    each = say("tokens/s per GPU") if found.gpus else say("tokens/s per process")
    if found.tokens_per_second:
        yield each, plain(found.tokens_per_second)
    if found.tokens and (found.padded_tokens or 0) > PADDED * found.tokens:
        yield say("with padding"), plain(found.padded_tokens_per_second)
        yield say("share of padding"), _percent(1 - found.tokens / (found.padded_tokens or 1))
    if found.processes > 1:
        yield say("GPUs") if found.gpus else say("processes"), plain(found.processes)
    if found.samples_per_second:
        yield say("conversations/s"), plain(found.samples_per_second)
    if found.tokens_per_step:
        yield say("tokens per step"), plain(round(found.tokens_per_step))
    if found.seconds_per_step and found.seconds_per_step_median and found.seconds_per_step_p95:
        yield say("seconds per step"), _seconds(found.seconds_per_step)
        if found.basis != "whole":
            spread = (_seconds(found.seconds_per_step_median), _seconds(found.seconds_per_step_p95))
            yield say("median, 95% below"), ", ".join(spread)
    if found.mfu:
        yield "MFU", _percent(found.mfu)
    if found.peak_memory:
        yield say("peak memory of a GPU"), _gib(found.peak_memory)
    if found.peak_rss:
        yield say("peak main memory"), _gib(found.peak_rss)
    if found.attempts > 1:
        yield say("attempts"), plain(found.attempts)
    if found.gpu_hours is not None:
        yield say("GPU hours"), plain(found.gpu_hours)
    if found.cost is not None:
        yield say("cost"), f"{found.cost:,.2f} {clean(found.currency)}"


def speed_note(report: Report) -> Phrase | str:
    """How the speed was measured, and the MFU with its formula; "" without a speed."""
    found = report.throughput
    if found is None or found.basis is None:
        return ""
    steps = {"measured": plain(found.measured_steps), "how": _BASIS[found.basis]}
    parts = [
        say("Real tokens, padding not counted, over {measured} optimizer steps, {how}.", **steps)
        if found.tokens_per_second
        else say("Measured over {measured} optimizer steps, {how}.", **steps)
    ]
    if found.mfu and found.flops_per_token and found.peak_flops:
        figures = {
            "speed": plain(found.tokens_per_second),
            "flops": f"{found.flops_per_token / 1e9:.4g}",
            "peak": f"{found.peak_flops / 1e12:.4g}",
            "device": clean(found.device),
            "mfu": _percent(found.mfu),
        }
        parts.append(
            say(
                "MFU = tokens/s × FLOPs per token / peak = {speed} × {flops}e9 / {peak}e12 ({device}) = {mfu}. A token "
                "costs 6 FLOPs per trained weight, 4 per frozen one, and attention; what gradient checkpointing does "
                "twice is not counted.",
                **figures,
            )
        )
    elif found.gpus and found.tokens_per_second:
        parts.append(say("No MFU: the peak of {device} is not known.", device=clean(found.device) or say("these GPUs")))
    return joined(parts, " ")


def _gib(size: float) -> str:
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.3g} MiB"


_PLANNED: dict[str, tuple[Phrase, Callable[[float], str]]] = {
    "steps": (say("optimizer steps"), lambda value: plain(round(value))),
    "tokens_per_epoch": (say("tokens in one epoch"), lambda value: plain(round(value))),
    "trainable": (say("weights that are trained"), lambda value: plain(round(value))),
    "memory": (say("memory, at its peak"), _gib),
    "seconds": (say("time"), duration),
}


def planned(report: Report) -> Table:
    """The plan beside what was measured, or alone while nothing is."""
    measured = {entry.what: entry for entry in report.throughput.planned} if report.throughput else {}
    header = (say("what"), say("planned"), say("actual"), say("off by"))
    rows = []
    for what, (name, text) in _PLANNED.items():
        entry = measured.get(what)  # type: ignore[call-overload]
        low, high = (entry.low, entry.high) if entry else _plan(report.plan, what)
        if low and high:
            told = text(low) if text(low) == text(high) else f"{text(low)}{NONE}{text(high)}"
            rows.append((name, told, text(entry.actual) if entry else NONE, _off(entry) if entry else NONE))
    return Table(header, tuple(rows), numeric=(1, 2, 3))


def _plan(plan: Mapping[str, Any] | None, what: str) -> tuple[float | None, float | None]:
    found = plan or {}
    if what == "memory":
        need = sum(mapping(found.get("memory")).values())
        return need, need
    if what == "seconds":
        time = mapping(found.get("seconds_expected"))
        return time.get("low"), time.get("high")
    return found.get(what), found.get(what)


def _off(entry: Planned) -> str:
    if entry.low != entry.high and entry.low <= entry.actual <= entry.high:
        return say("within")
    return f"{entry.off:+.1%}".replace("-", "\N{MINUS SIGN}") if round(entry.off, 3) else "0%"


def memory_parts(report: Report) -> Table:
    """What the plan expected to need memory, largest first."""
    parts = {name: size for name, size in mapping(mapping(report.plan).get("memory")).items() if size}
    names = {
        "weights": say("weights of the model"), "adapter": say("adapter"), "gradients": say("gradients"),
        "optimizer": say("optimizer"), "activations": say("activations"), "logits": say("logits"),
        "workspace": say("context, buffers, fragmentation"),
    }  # fmt: skip
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    rows = [(names.get(name, clean(name)), _gib(size)) for name, size in ordered]
    gpu = mapping(report.plan).get("gpus")
    each = say("per GPU") if gpu else say("per process")
    return Table((each, ""), tuple(rows), numeric=(1,))


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _seconds(value: float) -> str:
    return f"{value:.3g} s"
