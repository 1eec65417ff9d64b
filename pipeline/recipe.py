"""The recipe: what a user decides, as frozen models. Loading and error messages live in recipe_file.py.

`auto` stands for a choice that resolve.py makes from the machine and prints with its reason.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.dataset import DataSpec
from pipeline.fields import NAME, Auto, ExtraArgs, Origin, Precision, Section
from pipeline.suites import EvalSpec


class ModelSpec(Origin):
    """A model: a local folder with config.json, tokenizer and safetensors, or a hub id such as Qwen/Qwen3-0.6B."""

    name: str | None = None
    """Label in tables; the default is the last part of the id or path, with the revision if there is one."""
    model_type: str | None = None
    """ms-swift's model_type, where it cannot be told from config.json."""
    template: str | None = None
    """ms-swift's template name; the default is the one of the model's type."""

    @property
    def swift_args(self) -> dict[str, str]:
        """Flags by which every swift command takes the model for what it is."""
        given = {"model_type": self.model_type, "template": self.template}
        return {flag: value for flag, value in given.items() if value}

    @property
    def label(self) -> str:
        """Name in tables and stage labels: letters, digits, '.', '_' and '-'."""
        tail = self.name or (self.id.split("/")[-1] if self.id else self.path.name if self.path else "")
        if self.revision and not self.name:
            tail = f"{tail}-{self.revision}"
        return re.sub(r"[^A-Za-z0-9._-]+", "-", tail)


class TrainSpec(Section):
    """LoRA by `swift sft`. What is not here goes through extra_args."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    learning_rate: float = Field(default=1e-4, gt=0)
    lr_scheduler: str = "cosine"
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0)
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the training data (default 1); give either this or max_steps."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps."""
    max_length: int = Field(default=2048, ge=8)
    """Tokens; longer conversations are treated as `truncation` says."""
    truncation: Literal["right", "left", "delete"] = "right"
    """`delete` drops over-long conversations without a word, which is why it is not the default."""
    global_batch_size: int = Field(default=16, ge=1)
    """Conversations (packed rows, when packing) per optimizer step over all GPUs; accumulation follows from it."""
    micro_batch_size: Auto | Annotated[int, Field(ge=1)] = 1
    """Conversations per GPU and forward pass; `auto` = each GPU's share of the global batch, at most 8."""
    gpus: Auto | int = "auto"
    """GPUs per node; `auto` = all visible ones, 0 = CPU."""
    nodes: int = Field(default=1, ge=1)
    precision: Auto | Precision = "auto"
    attention: Auto | Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flash_attention_4"] = "auto"
    packing: Auto | bool = "auto"
    """Several conversations in one row of max_length; needs flash-attention."""
    deepspeed: Auto | Literal["none", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"] = "auto"
    gradient_checkpointing: Auto | bool = "auto"
    """Less memory, about a third more compute."""
    save_steps: int = Field(default=200, ge=1)
    save_total_limit: int = Field(default=2, ge=1)
    logging_steps: int = Field(default=5, ge=1)
    eval_steps: int = Field(default=200, ge=1)
    """Optimizer steps between two passes over val.jsonl. Part of the identity: it changes what the run computes."""
    seed: int = 42
    """Adapter initialisation and dropout."""
    data_seed: int = 42
    """Order of the training data."""
    extra_args: ExtraArgs = Field(default_factory=dict)
    """Any other flag of `swift sft`, without the dashes: {use_rslora: true}."""

    @model_validator(mode="after")
    def _length(self) -> TrainSpec:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("give either `epochs` or `max_steps`")
        return self

    @field_validator("gpus")
    @classmethod
    def _gpus(cls, value: Auto | int) -> Auto | int:
        if isinstance(value, int) and value < 0:
            raise ValueError("should be `auto`, 0 (CPU) or a number of GPUs")
        return value


class ExportSpec(Section):
    """Merge of adapter and base by `swift export --merge_lora`."""

    precision: Literal["model"] | Precision = "model"
    """Data type of the merged weights; `model` keeps the one in the base model's config.json."""
    max_shard_size: str = Field(default="5GB", pattern=r"^[0-9]+(\.[0-9]+)?(KB|MB|GB)$")
    extra_args: ExtraArgs = Field(default_factory=dict)


class CompareSpec(Section):
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals."""


class RuntimeSpec(Section):
    offline: bool = False
    """Tell every tool not to ask any hub; what is missing then fails at once, not after retries."""
    min_free_gb: float = Field(default=1.0, ge=0)
    """Refuse to start with less free disk than this under the runs folder."""
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
    eval: tuple[EvalSpec, ...] = ()
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
        if self.train and len(self.models) != 1:
            raise ValueError("`train` needs exactly one model")
        if self.data and self.data.max_tokens is not None and len(self.models) != 1:
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
