"""Settings of `train` that the tools would accept and then fail on, or silently ignore."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.machine import Machine
from pipeline.training.abilities import FLASH, runs, weakest
from pipeline.training.lora import targets
from pipeline.training.shape import ModelShape
from pipeline.training.spec import TrainSpec

_BINARY = frozenset(("default", "all", "last_round", "base", "ignore_empty_think", "ignore_think_prefix"))
"""Values of loss_scale that leave tokens out, and weigh none (swift/loss_scale/mapping.py)."""
_BLIND = {
    "streaming": "the rows are local files, and their number decides about steps, tokens and the plan",
    "disable_tqdm": "the progress bar is what shows that a long evaluation does not hang",
}
"""Flag -> why the pipeline could not tell what goes on with it."""


def impossible(train: TrainSpec, machine: Machine) -> Iterator[str]:
    """Of a section as it was written, `auto` and all."""
    gpus = len(machine.gpus) if train.gpus == "auto" else train.gpus
    attention, wheel = train.attention, "(see scripts/flash_attn_wheel.py)"
    flash = gpus and train.precision != "float32" and any(runs(name, machine) for name in FLASH)
    for field, text in (("packing", "packing"), ("padding_free", "laying rows end to end")):
        if getattr(train, field) is not True:
            continue
        if attention not in (*FLASH, "auto"):
            yield f"train.{field}: {text} needs flash-attention, but train.attention is {attention}"
        elif train.precision == "float32":
            yield f"train.{field}: {text} needs flash-attention, which computes in 16 bit; train.precision is float32"
        elif attention == "auto" and not flash:
            yield f"train.{field}: {text} needs flash-attention, which does not import or run here {wheel}"
    if train.packing is True and train.padding_free is False:
        yield "train.padding_free: packed rows are always laid end to end; leave it at auto, or turn packing off"
    if attention in FLASH and not (gpus and runs(attention, machine)):
        yield f"train.attention: {attention} does not import or run on this machine {wheel}"
    elif attention in FLASH and train.precision == "float32":
        yield f"train.attention: {attention} computes in 16 bit, but train.precision is float32; use sdpa or auto"
    if train.precision == "float16" and not gpus:
        yield "train.precision: float16 on a CPU makes every gradient infinite; use float32 or auto"
    if train.precision == "bfloat16" and gpus and not machine.bf16:
        yield f"train.precision: {weakest(machine)} has no bf16; use float16 or auto"
    if train.deepspeed not in ("auto", "none") and machine.system != "Linux":
        yield f"train.deepspeed: {train.deepspeed} needs Linux, this is {machine.system}"
    if train.quantization != "none" and not gpus:
        yield f"train.quantization: {train.quantization} saves GPU memory, and makes a CPU only slower; use none"
    if train.quantization != "none" and train.deepspeed.startswith("zero3"):
        yield f"train.quantization: {train.quantization} weights cannot be cut by {train.deepspeed}; use zero2 or none"
    for flag, why in _BLIND.items():
        if train.extra_args.get(flag):
            yield f"train.extra_args.{flag}: {why}; leave it out"
    if train.liger is True and not gpus:
        yield "train.liger: its kernels need a GPU; use auto"


def scored(train: TrainSpec) -> str | None:
    """Which of the extra_args takes the labels away from the model, so that it has to make all scores.

    liger's fused loss then does nothing, and the first evaluation ends in an error: transformers asks it for no scores,
    and without labels there is no loss, either (swift/trainers/seq2seq_trainer.py, compute_loss).
    """
    given = train.extra_args
    for flag in ("label_smoothing_factor", "enable_dft_loss", "enable_channel_loss", "loss_type"):
        if given.get(flag):
            return flag
    if str(given.get("sequence_parallel_size", 1)) != "1":
        return "sequence_parallel_size"
    if "is_binary_loss_scale" in given:
        return None if given["is_binary_loss_scale"] is True else "is_binary_loss_scale"
    weights = str(given.get("loss_scale", "default")).split("+")
    return None if _BINARY.issuperset(weights) else "loss_scale"


def expertless(train: TrainSpec, shape: ModelShape | None) -> Iterator[str]:
    """What peft refuses where LoRA is put on experts, once the model is loaded (tuners/lora/layer.py, ParamWrapper)."""
    if train.tuner == "full" or shape is None or all(part.ranks == 1 for part in targets(shape, train)):
        return
    for field, asked, off in (("dropout", train.dropout, 0), ("dora", train.dora, "false")):
        if asked:
            yield f"train.{field}: peft puts LoRA on experts without it; set it to {off}, or target_modules: all-linear"


def indivisible(train: TrainSpec, *, by_hand: bool) -> Iterator[str]:
    """Of a resolved section; `by_hand`: its micro batch was not `auto`, so the remedy has to keep it."""
    assert isinstance(train.gpus, int) and isinstance(train.micro_batch_size, int)
    micro, each = train.micro_batch_size, train.gpus or train.cpu_processes
    if train.global_batch_size % (micro * train.processes):
        step = train.processes * (micro if by_hand else 1)
        below = train.global_batch_size // step * step
        yield (
            f"train.global_batch_size: {train.global_batch_size} is not a multiple of micro_batch_size x "
            f"{'GPUs' if train.gpus else 'processes'} x nodes = {micro} x {each} x {train.nodes} = "
            f"{micro * train.processes}; set it to {f'{below} or ' if below else ''}{below + step}"
        )
