"""Stage `train`: LoRA by `swift sft`, and the proof that the adapter was trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.command import Command, flags
from pipeline.recipe import ModelSpec
from pipeline.resolve import accumulation
from pipeline.stage import CPU_ENV, Args, Paths, Source, Stage
from pipeline.stages import prepare
from pipeline.training import adapter, curve, resume
from pipeline.training.proof import proof
from pipeline.training.spec import TrainSpec

_DTYPES = {
    "float32": {"torch_dtype": "float32", "bf16": False, "fp16": False},
    "bfloat16": {"torch_dtype": "bfloat16", "bf16": True, "fp16": False},
    "float16": {"torch_dtype": "float16", "bf16": False, "fp16": True},
}


def stage(
    spec: TrainSpec,
    model: ModelSpec,
    *,
    base: Stage | Source,
    data: Stage,
    chat_template: bool,
    wanted: Sequence[int] = (),
) -> Stage:
    """`spec` is resolved: no `auto` left. `wanted` are steps whose checkpoints are read besides the last."""
    assert isinstance(spec.gpus, int)
    cpu = spec.gpus == 0
    validates = data.args["val_fraction"] > 0
    args: dict[str, Any] = {
        "tuner_type": "lora",
        "lora_rank": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": spec.dropout,
        "target_modules": spec.target_modules if isinstance(spec.target_modules, str) else list(spec.target_modules),
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": spec.lr_scheduler,
        "warmup_ratio": spec.warmup_ratio,
        "weight_decay": spec.weight_decay,
        **({"max_steps": spec.max_steps} if spec.max_steps else {"num_train_epochs": spec.epochs or 1.0}),
        "max_length": spec.max_length,
        "truncation_strategy": spec.truncation,
        "per_device_train_batch_size": spec.micro_batch_size,
        "per_device_eval_batch_size": spec.micro_batch_size,
        "gradient_accumulation_steps": accumulation(spec),
        **_DTYPES[spec.precision],
        "attn_impl": spec.attention,
        "packing": spec.packing,
        "gradient_checkpointing": spec.gradient_checkpointing,
        "use_chat_template": chat_template,
        "eval_strategy": "steps" if validates else "no",
        **({"eval_steps": spec.eval_steps} if validates else {}),
        "seed": spec.seed,
        "data_seed": spec.data_seed,
        # Off, because it logs a NaN loss as 0: a run that learned nothing would look perfect.
        "logging_nan_inf_filter": False,
    }
    if spec.deepspeed != "none":
        args["deepspeed"] = spec.deepspeed
    args |= model.swift_args
    processes = max(spec.gpus, 1)
    return Stage(
        name="train",
        program=("swift", "sft"),
        args={**args, **spec.extra_args, "processes": processes * spec.nodes},
        plumbing={
            "use_cpu": cpu,
            "save_steps": spec.save_steps,
            "save_total_limit": spec.save_total_limit,
            "logging_steps": spec.logging_steps,
            "save_only_model": False,
            "add_version": False,
            "check_model": False,
            "report_to": "none",
            # The default of 208 days lets a dead rank hang the others for ever.
            "ddp_timeout": 1800,
            **({"dataloader_num_workers": 0} if cpu else {}),
        },
        deps={"model": base, "data": data},
        command=_command,
        collect=_collect,
        output=checkpoint,
        env={
            "HF_HUB_OFFLINE": "1",
            **({"NPROC_PER_NODE": str(processes)} if processes > 1 else {}),
            **(CPU_ENV if cpu else {}),
        },
        gpus=spec.gpus,
        progress=_progress,
        resume=_resume,
        finish=partial(_gather, tuple(wanted)),
    )


def checkpoint(out: Path, step: int | None = None) -> Path:
    """The adapter of a step, or the last: a link that swift leaves (relative, so it survives the move)."""
    return out / ("last-checkpoint" if step is None else f"checkpoint-{step}")


def log_file(out: Path) -> Path:
    return out / resume.LOG


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    args = {key: value for key, value in stage.args.items() if key != "processes"}
    paths: dict[str, Any] = {"model": str(deps["model"]), "dataset": str(prepare.train_file(deps["data"]))}
    if args["eval_strategy"] != "no":
        paths["val_dataset"] = str(prepare.val_file(deps["data"]))
    words = flags({**paths, "output_dir": str(out), **args, **stage.plumbing})
    return Command((*stage.program, *words), env=dict(stage.env))


def _resume(attempts: Sequence[Path]) -> Args:
    """From the newest checkpoint that is whole, over all earlier attempts."""
    best = resume.newest_checkpoint(attempts)
    return {"resume_from_checkpoint": str(best)} if best else {}


def _gather(wanted: Sequence[int], out: Path, _deps: Paths) -> None:
    """Bring checkpoints that an earlier, interrupted attempt has made to those of the attempt that went on from it."""
    for step in wanted:
        place = checkpoint(out, step)
        found = [checkpoint(attempt, step) for attempt in out.parent.glob("*") if attempt != out]
        whole = [path for path in found if path.is_dir() and not adapter.checkpoint_problem(path)]
        if whole and not place.exists():
            whole[0].rename(place)


def _number(attempt: Path) -> int:
    return int(attempt.name) if attempt.name.isdigit() else -1


def _progress(out: Path) -> str | None:
    record = curve.last_record(log_file(out))
    if record is None:
        return None
    parts = [f"step {record.get('global_step/max_steps', '?')}"]
    parts += [f"{key} {record[key]:.4g}" for key in ("loss", "eval_loss") if isinstance(record.get(key), int | float)]
    if record.get("remaining_time"):
        parts.append(f"ETA {record['remaining_time']}")
    return "  ".join(parts)


def _collect(out: Path, _stage: Stage, _deps: Paths) -> dict[str, Any]:
    """See `proof`: a tool that ended well proves nothing."""
    attempts = sorted(out.parent.glob("*"), key=_number)
    return proof(checkpoint(out), [path for path in attempts if _number(path) <= _number(out)])
