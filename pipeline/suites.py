"""The `eval` section of a recipe: suites of benchmarks, one model per harness."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from pipeline.fields import NAME, Auto, BaseUrl, ExtraArgs, ExtraValue, FilePath, KeyName, Precision, Section


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


class JudgeSpec(Section):
    """A judge model behind an OpenAI-compatible endpoint, for data sets that are graded by a model."""

    url: BaseUrl
    model: str
    key_env: KeyName = "OPENAI_API_KEY"


class EvalBase(Section):
    name: str | None = None
    """Label of this suite; the default is the harness's name, so a second suite of one harness needs one."""
    limit: int | None = Field(default=None, ge=1)
    """Samples per task (lm-eval) or per subset (EvalScope); all when absent."""
    data_root: FilePath | None = None
    """Folder of local benchmarks, a folder each (an unpacked data.zip): a benchmark found there is read from there."""
    backend: Literal["hf", "vllm"] = "hf"
    """What runs a local model. A model given by `url` is asked over its API whatever stands here."""
    batch_size: Auto | Annotated[int, Field(ge=1)] = 8
    """Half of it again after each out-of-memory, but for a number that stands in the recipe; `auto` starts with 16."""
    attention: Auto | Literal["sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention implementation of a local model; `auto` leaves it to the harness."""
    chat_template: bool | None = None
    """Overrides the recipe's `chat_template` for this suite."""
    system_prompt: str | None = None
    """System message before every prompt."""
    enable_thinking: bool | None = None
    """Given to the model's chat template; the template's own default when absent."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Most tokens of a generated answer; the task's own number when absent."""
    concurrency: int = Field(default=4, ge=1)
    """Requests at a time to a model given by `url`."""
    unsafe_code: bool = False
    """Tasks that run code written by the model (humaneval, mbpp) are refused unless this is true."""
    precision: Auto | Precision = "auto"
    device: Auto | Literal["cpu", "cuda"] = "auto"
    """Not part of the identity: a score is looked for under the same settings wherever it was made."""
    gpus: int = Field(default=1, ge=1)
    """GPUs a model is spread over, for one that is too large for a single GPU. Not part of the identity."""
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
    judge: JudgeSpec | None = None
    """Who grades data sets such as chinese_simpleqa."""


EvalSpec = Annotated[LmEvalSpec | EvalScopeSpec, Field(discriminator="harness")]
