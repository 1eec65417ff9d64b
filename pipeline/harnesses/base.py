"""What a harness module has to give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pipeline.command import Command
from pipeline.endpoint import Endpoint
from pipeline.results import Sample, Score
from pipeline.stage import Paths, Stage
from pipeline.suites import Benchmark, EvalScopeSpec, LmEvalSpec

PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""What `chat_template: false` means where a harness always applies a template: the text as it is."""


FILES = (".json", ".jsonl")
"""Endings of a single data file; any other path is a folder."""


class Harness(Protocol):
    DISTRIBUTION: str
    """Name on PyPI; its installed version is part of every score's identity."""
    PROGRAM: tuple[str, ...]

    def args(self, spec: Any, *, chat_template: bool, endpoint: Endpoint | None = None) -> dict[str, Any]:
        """Settings that bear identity; `endpoint` for a model behind a URL."""

    def plumbing(self, spec: Any, endpoint: Endpoint | None = None) -> dict[str, Any]:
        """Settings that do not."""

    def problems(self, spec: Any, *, chat_template: bool, endpoint: Endpoint | None = None) -> list[str]:
        """Settings this harness cannot honour, each with the remedy; `spec` is resolved."""

    def inputs(self, spec: Any) -> dict[str, Path]:
        """Local files and folders the suite reads, by role."""

    def needs_hub(self, spec: Any) -> bool:
        """Whether some data set would have to be downloaded."""

    def command(self, stage: Stage, out: Path, deps: Paths) -> Command:
        """The command line; deps hold `model` (not behind a URL) and the roles of `inputs`."""

    def read(self, out: Path, stage: Stage) -> tuple[list[Score], list[Sample], list[str]]:
        """Scores, samples and remarks out of the harness's output; OutputError if they are not there."""


FIRST_BATCH = 16
"""What `batch_size: auto` starts with; after each out-of-memory it is half as much."""


def first_batch(spec: LmEvalSpec | EvalScopeSpec) -> dict[str, int]:
    """As plumbing, which is halved when memory runs out; a size that the recipe names is kept as it is."""
    if spec.batch_size == "auto":
        return {"batch_size": FIRST_BATCH}
    return {} if "batch_size" in spec.model_fields_set else {"batch_size": spec.batch_size}


def benchmarks(spec: LmEvalSpec | EvalScopeSpec) -> list[Benchmark]:
    """The suite's tasks, bare names turned into entries."""
    entries: Sequence[str | Benchmark] = spec.tasks if isinstance(spec, LmEvalSpec) else spec.datasets
    return [Benchmark(name=entry) if isinstance(entry, str) else entry for entry in entries]


def local_data(spec: LmEvalSpec | EvalScopeSpec) -> dict[str, Path]:
    """Local data by role: the task's position and name."""
    return {f"data{i}.{b.name}": b.path for i, b in enumerate(benchmarks(spec)) if b.path}


def twice(section: str, given: Mapping[str, object], **fields: tuple[object, Sequence[str]]) -> list[str]:
    """Settings that stand both in a field of their own and, under one of the names there, in a section of flags."""
    return [
        f"{field} and {section}.{name} say the same thing: drop one of them"
        for field, (value, names) in fields.items()
        if value is not None
        for name in names
        if name in given
    ]
