"""The recipe's `train` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.fields import Auto, ExtraArgs, Precision, Section
from pipeline.training.own_flags import FIELDS

DeepSpeed = Literal["none", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"]
Action = Literal["stop", "warn", "off"]


class HealthSpec(Section):
    """What is watched while a training runs. Not part of the identity."""

    stall_minutes: Auto | Annotated[float, Field(gt=0)] = "auto"
    """Minutes without a step after which a training counts as hung and is stopped; `auto` goes by its own step time."""
    diverged: Action = "stop"
    """Loss or gradient norm NaN or infinite, or a loss that stays 3 above its best."""
    flat: Action = "warn"
    """A loss that does not fall."""
    slow: Action = "warn"
    """Steps that take several times as long as before."""


class TrainSpec(Section):
    """Fine-tuning by `swift sft`. What is not here goes through extra_args."""

    tuner: Literal["lora", "full"] = "lora"
    """`full` trains all weights: several times the memory, and no adapter to merge."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    """Of the frozen base model while training (QLoRA: 4bit, NF4); needs bitsandbytes. The merge is on the whole one."""
    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target_modules: str | tuple[str, ...] = "all-linear"
    dora: bool = False
    """Magnitude and direction learned apart (Liu et al. 2024, arXiv:2402.09353): slower, can be better at low rank."""
    rslora: bool = False
    """alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023, arXiv:2312.03732): for high ranks."""
    learning_rate: float = Field(default=1e-4, gt=0)
    lr_scheduler: str = "cosine"
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
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
    micro_batch_size: Auto | Annotated[int, Field(ge=1)] = "auto"
    """Conversations per GPU and forward pass; `auto` = as many as memory holds, at most 8 and the GPU's share."""
    gpus: Auto | int = "auto"
    """GPUs per node; `auto` = all visible ones, 0 = CPU."""
    cpu_processes: int = Field(default=1, ge=1)
    """Processes where `gpus` is 0: to try a setting for several GPUs, DeepSpeed too, on a machine without one."""
    nodes: int = Field(default=1, ge=1)
    precision: Auto | Precision = "auto"
    attention: Auto | Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flash_attention_4"] = "auto"
    packing: Auto | bool = "auto"
    """Several conversations in one row of max_length; needs flash-attention."""
    padding_free: Auto | bool = "auto"
    """Conversations of a micro batch laid end to end instead of padded; needs flash-attention, part of packing."""
    liger: Auto | bool = "auto"
    """Fused kernels (liger-kernel): less memory for logits and activations, some speed."""
    deepspeed: Auto | DeepSpeed = "auto"
    overlap_comm: Auto | bool = "auto"
    """ZeRO: send gradients while the backward pass goes on; has given NaNs under ZeRO2, so `auto` = false there."""
    gradient_checkpointing: Auto | bool = "auto"
    """Less memory, about a third more compute; `auto` = only where the training would not fit without."""
    save_steps: int = Field(default=200, ge=1)
    save_total_limit: int = Field(default=2, ge=1)
    """Newest checkpoints that are kept; where there is a validation one more, for the best."""
    logging_steps: int = Field(default=5, ge=1)
    eval_steps: int = Field(default=200, ge=1)
    """Optimizer steps between two passes over val.jsonl. Part of the identity: it changes what the run computes."""
    seed: int = 42
    """Adapter initialisation and dropout."""
    data_seed: int = 42
    """Order of the training data."""
    misfit: Literal["refuse", "warn"] = "refuse"
    """When the plan says: too large for memory, or most rows would be dropped, or the whole training is a few steps."""
    health: HealthSpec = Field(default_factory=HealthSpec)
    extra_args: ExtraArgs = Field(default_factory=dict)
    """Any other flag of `swift sft`, without the dashes: {neftune_noise_alpha: 5}."""

    @property
    def processes(self) -> int:
        """Over all nodes; of a resolved section."""
        assert isinstance(self.gpus, int)
        return (self.gpus or self.cpu_processes) * self.nodes

    @property
    def held_in(self) -> str:
        """Data type the weights are loaded in; of a resolved section.

        Full training in 16 bit without DeepSpeed holds them in float32 and computes under autocast: swift would train
        them in 16 bit, where bf16 rounds away updates below 0.4 % of a weight, and fp16 ends in "Attempting to unscale
        FP16 gradients". DeepSpeed keeps a float32 copy of its own.
        """
        return "float32" if self.tuner == "full" and self.deepspeed == "none" else self.precision

    @model_validator(mode="after")
    def _fits_together(self) -> TrainSpec:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("give either `epochs` or `max_steps`")
        twice = [f"`{flag}` is `{FIELDS[flag]}`" for flag in self.extra_args if flag in FIELDS]
        if twice:
            raise ValueError(f"extra_args: {', '.join(twice)} here; set that instead")
        if self.tuner == "full":
            given = [name for name in ("dora", "rslora") if getattr(self, name)]
            given += ["quantization"] if self.quantization != "none" else []
            if given:
                raise ValueError(f"`{given[0]}` is for `tuner: lora`")
        return self

    @field_validator("gpus")
    @classmethod
    def _gpus(cls, value: Auto | int) -> Auto | int:
        if isinstance(value, int) and value < 0:
            raise ValueError("should be `auto`, 0 (CPU) or a number of GPUs")
        return value
