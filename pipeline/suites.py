"""The `eval` section of a recipe: suites of benchmarks, one model per harness."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from pipeline.fields import NAME, Auto, ExtraArgs, ExtraValue, FilePath, Precision, Section


class Benchmark(Section):
    """One task of a suite: a built-in name, optionally read from local data."""

    name: str
    """The harness's own name of the task or data set (hellaswag, gsm8k, general_mcq, ...)."""
    path: FilePath | None = None
    """Folder or file the data are read from, instead of the hub."""
    args: dict[str, object] = Field(default_factory=dict)
    """Overrides: keys of lm-eval's task YAML, or of EvalScope's dataset-args entry."""


def _once(entries: tuple[str | Benchmark, ...]) -> tuple[str | Benchmark, ...]:
    names = [entry if isinstance(entry, str) else entry.name for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:  # the harnesses key settings and results by name: the second entry would replace the first
        raise ValueError(f"{twice!r} is listed twice; put one of them into a second suite with its own `name`")
    return entries


Benchmarks = Annotated[tuple[str | Benchmark, ...], Field(min_length=1), AfterValidator(_once)]


class EvalBase(Section):
    name: str | None = None
    """Label of this suite; the default is the harness's name, so a second suite of one harness needs one."""
    limit: int | None = Field(default=None, ge=1)
    """Samples per task (lm-eval) or per subset (EvalScope); all when absent."""
    batch_size: int = Field(default=8, ge=1)
    precision: Auto | Precision = "auto"
    device: Auto | Literal["cpu", "cuda"] = "auto"
    """Not part of the identity: a score is looked for under the same settings wherever it was made."""
    seed: int = 42
    extra_args: ExtraArgs = Field(default_factory=dict)
    """Any other flag of the harness, without the dashes."""

    @property
    def entry(self) -> str:
        return self.name or str(getattr(self, "harness"))  # noqa: B009 - declared by each harness

    @field_validator("name")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        if value is not None and ("." in value or not NAME.fullmatch(value)):
            raise ValueError("should be letters, digits, '_', '-' (at most 64)")
        return value


class LmEvalSpec(EvalBase):
    harness: Literal["lm_eval"]
    tasks: Benchmarks
    num_fewshot: int | None = Field(default=None, ge=0)
    """Examples in the prompt; the task's own number when absent."""
    include_path: FilePath | None = None
    """Folder with your own task YAML files (and, best, their data: all of it is part of the identity)."""
    model_args: dict[str, ExtraValue] = Field(default_factory=dict)
    gen_kwargs: dict[str, ExtraValue] = Field(default_factory=dict)


class EvalScopeSpec(EvalBase):
    harness: Literal["evalscope"]
    datasets: Benchmarks
    generation: dict[str, ExtraValue] = Field(default_factory=dict)
    """EvalScope's generation-config: max_tokens, temperature, do_sample, ..."""
    model_args: dict[str, ExtraValue] = Field(default_factory=dict)


EvalSpec = Annotated[LmEvalSpec | EvalScopeSpec, Field(discriminator="harness")]
