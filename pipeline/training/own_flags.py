"""Flags of `swift sft` that a recipe has settings for: in `extra_args` one would silently overrule the other."""

from __future__ import annotations

from collections.abc import Mapping

FIELDS: Mapping[str, str] = {
    "tuner_type": "train.tuner",
    "train_type": "train.tuner",
    "quant_method": "train.quantization",
    "quant_bits": "train.quantization",
    "lora_rank": "train.rank",
    "lora_alpha": "train.alpha",
    "lora_dropout": "train.dropout",
    "target_modules": "train.target_modules",
    "target_regex": "train.target_modules",
    "use_dora": "train.dora",
    "use_rslora": "train.rslora",
    "learning_rate": "train.learning_rate",
    "lr_scheduler_type": "train.lr_scheduler",
    "warmup_ratio": "train.warmup_ratio",
    "weight_decay": "train.weight_decay",
    "num_train_epochs": "train.epochs",
    "max_steps": "train.max_steps",
    "max_length": "train.max_length",
    "truncation_strategy": "train.truncation",
    "per_device_train_batch_size": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.global_batch_size",
    "torch_dtype": "train.precision",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "attn_impl": "train.attention",
    "packing": "train.packing",
    "padding_free": "train.padding_free",
    "use_liger_kernel": "train.liger",
    "deepspeed": "train.deepspeed",
    "gradient_checkpointing": "train.gradient_checkpointing",
    "eval_steps": "train.eval_steps",
    "eval_strategy": "data.val_fraction",
    "split_dataset_ratio": "data.val_fraction",
    "seed": "train.seed",
    "data_seed": "train.data_seed",
    "use_chat_template": "chat_template",
    "model_type": "model.model_type",
    "template": "model.template",
}
"""Flag -> key of the recipe. Not here, and free to set: what only follows from a setting, such as the batch size of the
validation (per_device_eval_batch_size) or the kind of 4-bit numbers (bnb_4bit_quant_type)."""
