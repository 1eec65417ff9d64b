"""Whether the model that was evaluated is the trained one, asked as it was trained: the merge check in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.report.compile import Report
from pipeline.report.phrases import Phrase, say
from pipeline.report.table import Table, mapping
from pipeline.report.wording import NONE, clean, plain

VERDICTS: dict[str, tuple[Phrase, str]] = {
    "agree": (say("the merged model is base and adapter"), "better"),
    "differ": (say("the merged model is not what was trained"), "worse"),
    "no effect": (say("the training changed nothing"), "worse"),
    "lost in rounding": (say("what the adapter changes is less than rounding"), "worse"),
    "unchecked": (say("the weights were not compared"), "unclear"),
}
"""verdict of `merge_check.judge` -> words, colour."""


def merge_verdict(report: Report) -> tuple[Phrase | str, str]:
    """(words, colour); ("", ...) where nothing was checked."""
    verdict = str(mapping(report.merge).get("verdict") or "")
    if "tensors" in mapping(report.merge) and verdict == "agree":
        return say("the exported weights are those of the checkpoint"), "better"
    return VERDICTS.get(verdict, (clean(verdict), "unclear"))


def merge_facts(report: Report) -> Table:
    """Distances of log-probabilities (or of tensors), and the prompts that both sides render alike."""
    found = mapping(report.merge)
    rows = [*_logits(mapping(found.get("logits"))), *_tensors(mapping(found.get("tensors")))]
    compared = _templates(found)
    if compared:
        equal = sum(1 for entry in compared if entry.get("equal"))
        rows.append((
            say("prompts rendered as in training"), say("{n} of {total}", n=plain(equal), total=plain(len(compared))),
        ))  # fmt: skip
    return Table((say("what"), say("value")), tuple(rows), numeric=(1,))


def _logits(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "mean_abs" not in found:
        return
    yield say("distance from base and adapter, nats"), _small(found["mean_abs"])
    yield say("may be rounding up to"), _small(found.get("tolerance"))
    yield say("largest difference"), _small(found.get("max_abs"))
    yield say("the same likeliest token"), _percent(found.get("top1_agreement"))
    yield say("what the adapter changes, nats"), _small(found.get("base_distance"))
    yield (
        say("asked"),
        say("{n} prompts, {tokens} tokens", n=plain(found.get("prompts")), tokens=plain(found.get("tokens"))),
    )


def _tensors(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if found:
        yield say("tensors compared"), plain(found.get("compared"))
        yield say("different"), plain(len(found.get("different") or ()))
        yield say("missing"), plain(len(found.get("missing") or ()))
        yield say("changed by the training"), plain(found.get("changed"))


def template_differences(report: Report) -> Table:
    """Prompts that a suite renders in another way than the training did."""
    rows = tuple(
        (clean(entry.get("reader")), clean(entry.get("case")), clean(entry.get("diff")), clean(entry.get("advice")))
        for entry in _templates(mapping(report.merge))
        if not entry.get("equal")
    )
    return Table((say("harness"), say("prompt"), say("difference"), say("remedy")), rows)


def _templates(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    entries = found.get("templates")
    return [mapping(entry) for entry in entries] if isinstance(entries, list) else []


def _small(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, int | float) else NONE


def _percent(share: Any) -> str:
    return f"{share:.1%}" if isinstance(share, int | float) else NONE
