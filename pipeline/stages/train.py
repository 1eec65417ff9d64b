"""Stage `train`: LoRA or full training by `swift sft`, and the proof that something was trained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from signal import SIGUSR1
from typing import Any, Literal

from pipeline.causes import HANG, KILLED
from pipeline.command import Command, flags
from pipeline.recipe import ModelSpec
from pipeline.stage import Args, Paths, Resumption, Source, Stage
from pipeline.stages import prepare
from pipeline.training import curve, deepspeed, health, keep, launch, plugins, resume
from pipeline.training import lora as lora_targets
from pipeline.training.proof import proof
from pipeline.training.settings import accumulation
from pipeline.training.spec import HealthSpec, TrainSpec
from pipeline.training.watch import TrainingWatch, earlier

DEEPSPEED = "deepspeed.json"
GRACEFUL = "graceful_exit"
"""ms-swift's callback; transformers' `enable_jit_checkpoint` deadlocks with several processes."""
ASK = SIGUSR1
"""That callback listens to it in every process that trains. SIGTERM would reach others, too: torchrun, which then gives
its processes no more than 30 s, and the processes that load the data, of whose death the trainer dies (torch 2.13,
torch/utils/data/_utils/signal_handling.py) before it has saved."""
GRACE_S = 180.0
"""To end the optimizer step and save: a large model takes a minute for one alone. Two signals do not wait."""
STOP_FILE = Path("/tmp/stop")  # noqa: S108  its place is ms-swift's
"""At this file's sight that callback ends a training, too, whoever made it."""


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
    validates = data.args["val_fraction"] > 0
    args: dict[str, Any] = {
        **_tuner(spec),
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
        # Both are always said: swift turns fp16 on by itself where the weights are float32.
        "torch_dtype": spec.held_in,
        "bf16": spec.precision == "bfloat16",
        "fp16": spec.precision == "float16",
        "attn_impl": spec.attention,
        "packing": spec.packing,
        "padding_free": spec.padding_free,
        "use_liger_kernel": spec.liger,
        "gradient_checkpointing": spec.gradient_checkpointing,
        "use_chat_template": chat_template,
        "eval_strategy": "steps" if validates else "no",
        **({"eval_steps": spec.eval_steps} if validates else {}),
        "seed": spec.seed,
        "data_seed": spec.data_seed,
        # Off, because it logs a NaN loss as 0: a run that learned nothing would look perfect.
        "logging_nan_inf_filter": False,
    }
    settings = deepspeed.config(spec)
    if settings:
        args["deepspeed"] = settings
    elif spec.processes > 1:
        # transformers would look for unused weights after every forward pass; all that LoRA trains are used. A mixture
        # of experts trained whole needs it: extra_args {ddp_find_unused_parameters: true}.
        args["ddp_find_unused_parameters"] = False
    args |= model.swift_args
    args |= {**spec.extra_args, "processes": spec.processes}
    args["external_plugins"] = [*_listed(args.get("external_plugins")), plugins.LEARNABLE]
    # The trainer counts the best one, which it never removes, among them: it would push out one that is wanted.
    # (And at a limit of 1 it keeps the best one instead of the last.)
    limit = spec.save_total_limit + validates
    # While it trains, one from before the step at which it may turn out to have gone bad; the rest goes at the end.
    lag = health.lag(spec.logging_steps) if spec.health.diverged == "stop" else 0
    # (Where saves are frequent, one more may be made while it is being ended.)
    held = max(limit, -(-lag // spec.save_steps) + 1 + (spec.save_steps < lag))
    return Stage(
        name="train",
        program=("swift", "sft"),
        args=args,
        plumbing={
            **launch.plumbing(spec),
            "save_steps": spec.save_steps,
            "save_total_limit": held,
            # When asked, all processes end the step, save and stop, at the same step.
            "callbacks": [*_listed(args.get("callbacks")), GRACEFUL],
            "logging_steps": spec.logging_steps,
            "save_only_model": False,
            "add_version": False,
            "check_model": False,
            "report_to": "none",
        },
        deps={"model": base, "data": data},
        command=_command,
        collect=partial(_collect, spec.health),
        output=checkpoint,
        env={"HF_HUB_OFFLINE": "1", **launch.environment(spec)},
        gpus=spec.gpus,
        progress=_progress,
        resume=partial(_resume, args, spec),
        finish=partial(keep.gather, tuple(wanted), limit),
        verdict=partial(_kept, tuple(wanted)),
        watch=partial(TrainingWatch, spec=spec.health),
        grace_s=GRACE_S,
        ask=ASK,
        # A second try after what may have been bad luck: a process killed from outside, one that hung, a lost network.
        retries={KILLED: 1, HANG: 1, "nccl": 1},
    )


def checkpoint(out: Path, which: int | Literal["best"] | None = None) -> Path:
    """The adapter (or model) of a step, the best, or the last: these two are relative links, which survive a move."""
    if isinstance(which, int):
        return out / f"checkpoint-{which}"
    return out / ("last-checkpoint" if which is None else "best-checkpoint")


def stop_file(stages: Iterable[Stage]) -> Iterator[str]:
    """What is wrong if ms-swift's callback for a graceful end would find the file that it looks for after each step."""
    if any(stage.name == "train" for stage in stages) and STOP_FILE.exists():
        yield f"{STOP_FILE}: as long as it is there ms-swift ends every training after one step; remove it"


def log_file(out: Path) -> Path:
    return out / resume.LOG


def _tuner(spec: TrainSpec) -> dict[str, Any]:
    """What is trained, and of what."""
    if spec.tuner == "full":
        return {"tuner_type": "full"}
    targets = spec.target_modules if isinstance(spec.target_modules, str) else list(spec.target_modules)
    # --target_modules takes names only: a regex given there is one name that no layer has.
    flag = "target_regex" if lora_targets.by_regex(spec) else "target_modules"
    lora = {
        "tuner_type": "lora",
        "lora_rank": spec.rank,
        "lora_alpha": spec.alpha,
        "lora_dropout": spec.dropout,
        flag: targets,
        "use_dora": spec.dora,
        "use_rslora": spec.rslora,
    }
    if spec.quantization == "none":
        return lora
    lora |= {"quant_method": "bnb", "quant_bits": int(spec.quantization.removesuffix("bit"))}
    if spec.quantization == "8bit":
        return lora
    # QLoRA's own settings. In float16 swift would compute in float32, at a fraction of the speed.
    kind = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": spec.precision}
    return lora | kind


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    args = {key: value for key, value in stage.args.items() if key != "processes"}
    paths: dict[str, Any] = {"model": str(deps["model"]), "dataset": str(prepare.train_file(deps["data"]))}
    if args["eval_strategy"] != "no":
        paths["val_dataset"] = str(prepare.val_file(deps["data"]))
    told, files = plugins.with_plugins(out, args, stage.plumbing)
    if "deepspeed" in args:
        files[out / DEEPSPEED] = json.dumps(args["deepspeed"], indent=2) + "\n"
        told["deepspeed"] = str(out / DEEPSPEED)
    words = flags({**paths, "output_dir": str(out), **told})
    return Command((*stage.program, *words), env=dict(stage.env), files=files)


def _resume(args: Args, spec: TrainSpec, attempts: Sequence[Path]) -> Resumption:
    """From the newest checkpoint that is whole, over all earlier attempts."""
    way = resume.newest_checkpoint(attempts, args, diverged=spec.health.diverged)
    if way.checkpoint:
        resume.set_rhythm(way.checkpoint, {"save_steps": spec.save_steps, "logging_steps": spec.logging_steps})
    remarks = tuple(f"passed over {reason}" for reason in way.passed_over)
    if way.checkpoint is None:
        return Resumption({}, (*remarks, "no checkpoint to go on from: from the beginning") if remarks else ())
    return Resumption({"resume_from_checkpoint": str(way.checkpoint)}, remarks)


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _progress(out: Path) -> str | None:
    record = curve.last_record(log_file(out))
    if record is None:
        return None
    parts = [f"step {record.get('global_step/max_steps', '?')}"]
    parts += [f"{key} {record[key]:.4g}" for key in ("loss", "eval_loss") if isinstance(record.get(key), int | float)]
    if record.get("remaining_time"):
        parts.append(f"ETA {record['remaining_time']}")
    return "  ".join(parts)


def _collect(watched: HealthSpec, out: Path, _stage: Stage, deps: Paths) -> dict[str, Any]:
    """See `proof`: a tool that ended well proves nothing."""
    steps = sorted(step for path in out.glob("checkpoint-*") if (step := resume.step(path)) > 0)
    found = proof(checkpoint(out), [*earlier(out), out], deps["model"], diverged=watched.diverged)
    return {**found, "checkpoints": steps}


def _kept(wanted: Sequence[int], result: Mapping[str, Any]) -> str | None:
    """Why what is wanted of it cannot be exported: with `epochs`, how many steps there are is known only now."""
    lost = [str(step) for step in wanted if step not in result.get("checkpoints", wanted)]
    there = ", ".join(map(str, result.get("checkpoints", ())))
    return f"export wants the checkpoint of step {', '.join(lost)}; there are {there}" if lost else None
