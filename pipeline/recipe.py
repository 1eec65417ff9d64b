"""The recipe: what a user decides, as frozen models. Loading and error messages live in recipe_file.py.

`auto` stands for a choice that resolve.py makes from the machine and prints with its reason.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.bank.spec import Banks
from pipeline.dataset import DataSpec
from pipeline.fields import NAME, Auto, BaseUrl, ExtraArgs, FilePath, KeyName, Origin, Precision, Section
from pipeline.gate import GateSpec
from pipeline.suites import EvalSpec
from pipeline.training.spec import TrainSpec


class ModelSpec(Origin):
    """A model: a folder with config.json, tokenizer and safetensors, a hub id such as Qwen/Qwen3-0.6B, or a URL."""

    url: BaseUrl | None = None
    """OpenAI-compatible base URL, ending in /v1, of a server that runs the model; it can be evaluated, not trained."""
    served_as: str | None = None
    """The model's name on that server."""
    key_env: KeyName = "OPENAI_API_KEY"
    """Environment variable with the server's key."""
    tokenizer: FilePath | None = None
    """Folder with the served model's tokenizer, for likelihoods over a server that gives them (docs/recipes.md)."""
    name: str | None = None
    """Label in tables; the default is the last part of id, path or `served_as`, with the revision if there is one."""
    model_type: str | None = None
    """ms-swift's model_type, where it cannot be told from config.json."""
    template: str | None = None
    """ms-swift's template name; the default is the one of the model's type."""
    checkpoints: Literal["all"] | None = None
    """`all`: `path` holds folders checkpoint-<step> or step-<step>, each a whole model; all are evaluated."""

    @property
    def swift_args(self) -> dict[str, str]:
        """Flags by which every swift command takes the model for what it is."""
        given = {"model_type": self.model_type, "template": self.template}
        return {flag: value for flag, value in given.items() if value}

    @property
    def label(self) -> str:
        """Name in tables and stage labels: letters, digits, '.', '_' and '-'."""
        tail = self.name or (self.id or self.served_as or (self.path.name if self.path else "")).split("/")[-1]
        if self.revision and not self.name:
            tail = f"{tail}-{self.revision}"
        return re.sub(r"[^A-Za-z0-9._-]+", "-", tail)

    @property
    def origins(self) -> dict[str, object]:
        return super().origins | {"`url` (a server)": self.url}

    @model_validator(mode="after")
    def _a_server(self) -> ModelSpec:
        if self.checkpoints and self.path is None:
            raise ValueError("`checkpoints` is for a local `path`; of a hub repository list the revisions as models")
        if self.url is None:
            given = [name for name in ("served_as", "tokenizer") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"`{given[0]}` is for a model given by `url`")
            return self
        if not self.served_as:
            raise ValueError("`url` needs `served_as`, the model's name on that server (its /v1/models lists them)")
        return self


class ExportSpec(Section):
    """Merge of adapter and base by `swift export --merge_lora`."""

    precision: Literal["model"] | Precision = "model"
    """Data type of the merged weights; `model` keeps the one in the base model's config.json."""
    max_shard_size: str = Field(default="5GB", pattern=r"^[0-9]+(\.[0-9]+)?(KB|MB|GB)$")
    checkpoint: Literal["last", "best"] | Annotated[int, Field(ge=1)] = "last"
    """Which checkpoint is `tuned`: the last, the one with the lowest eval_loss, or the one of a step."""
    checkpoints: Literal["last", "all"] | tuple[int, ...] = "last"
    """Which checkpoints are merged and evaluated besides `tuned`: all saved ones, or these steps."""
    check: Literal["fail", "warn", "off"] = "fail"
    """When the merged model's logits differ from those of base and adapter by more than rounding."""
    extra_args: ExtraArgs = Field(default_factory=dict)


class CompareSpec(Section):
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals."""


class DialogueSpec(Section):
    """Prompts answered by base and tuned model, greedily, side by side in the report."""

    prompts: tuple[str, ...] = ()
    path: FilePath | None = None
    """JSONL of conversations in messages form; the last answer, if there is one, is shown beside the models'."""
    from_validation: int = Field(default=3, ge=0)
    """How many conversations of val.jsonl are asked as well, the first by hash."""
    system: str | None = None
    """System message of the prompts, and of conversations that have none."""
    max_tokens: int = Field(default=256, ge=1)
    precision: Auto | Precision = "auto"
    device: Auto | Literal["cpu", "cuda"] = "auto"
    """Not part of the identity."""


class RuntimeSpec(Section):
    workers: Auto | Annotated[int, Field(ge=1)] = "auto"
    """Stages on the CPU at a time; `auto`: one per 8 cores. Those on GPUs start whenever enough of them are free."""
    smoke: bool = False
    """Run every suite on 5 samples first, before anything long starts."""
    offline: bool = False
    """Tell every tool not to ask any hub; what is missing then fails at once, not after retries."""
    min_free_gb: float = Field(default=1.0, ge=0)
    """Refuse to start with less free disk than this under the runs folder."""
    gpu_hour_price: float | None = Field(default=None, ge=0)
    """What an hour of one GPU costs, for the cost of the training in the report."""
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    log_level: Literal["progress", "full"] = "progress"
    """`full` also prints the tools' own output; their whole log is always on disk."""


class TrackingSpec(Section):
    """The SwanLab experiment. What is absent comes from .env (SWANLAB_MODE, SWANLAB_PROJECT, ...)."""

    mode: Auto | Literal["online", "local", "offline", "disabled"] = "auto"
    """`auto`: SWANLAB_MODE, else online with a key and local without one."""
    project: str | None = None
    workspace: str | None = None
    experiment: str | None = None
    """Experiment name; the default is the recipe's name."""
    description: str | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None


class Recipe(Section):
    name: str
    """Folder of the report under the runs folder."""
    description: str = ""
    model: ModelSpec | Annotated[tuple[ModelSpec, ...], Field(min_length=1)]
    """The base model. Without `train`: one or several models to evaluate."""
    chat_template: bool = True
    """One setting for training, base and tuned alike: the model's chat template, or plain text."""
    trust_remote_code: bool = False
    """Model folders with *.py files or auto_map are refused unless this is true: the tools would run that code."""
    data: DataSpec | None = None
    train: TrainSpec | None = None
    export: ExportSpec = Field(default_factory=ExportSpec)
    benchmarks: Banks = Field(default_factory=dict)
    """Own question banks by name; suites list the names among their tasks or data sets."""
    eval: tuple[EvalSpec, ...] = ()
    dialogues: DialogueSpec | None = None
    gate: GateSpec | None = None
    compare: CompareSpec = Field(default_factory=CompareSpec)
    runtime: RuntimeSpec = Field(default_factory=RuntimeSpec)
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not NAME.fullmatch(value) or value == "stages":
            raise ValueError("should be letters, digits, '.', '_', '-' (at most 64), and not `stages`")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.train and not self.data:
            raise ValueError("`train` needs a `data` section")
        several = len(self.models) != 1 or self.models[0].checkpoints is not None
        if self.train and several:
            raise ValueError("`train` needs exactly one model")
        if self.train and self.models[0].url:
            raise ValueError("`train` needs the model's files: give `path` or `id` instead of `url`")
        if self.data and self.data.max_tokens is not None and self.models[0].url:
            raise ValueError("`data.max_tokens` counts with the model's tokenizer, which a `url` does not give")
        if self.data and self.data.max_tokens is not None and several:
            raise ValueError("`data.max_tokens` counts with the model's tokenizer, so it needs exactly one model")
        if not (self.train or self.data or self.eval):
            raise ValueError("nothing to do: give `data`, `train` or `eval`")
        for kind, labels in (
            ("eval", [spec.entry for spec in self.eval]),
            ("model", [model.label for model in self.models]),
        ):
            twice = sorted({label for label in labels if labels.count(label) > 1})
            if twice:
                raise ValueError(f"two `{kind}` entries are called {twice[0]!r}: give each its own `name`")
        return self

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        return self.model if isinstance(self.model, tuple) else (self.model,)
