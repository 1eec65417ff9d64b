"""Every `auto` of the `train` section, decided from the machine and the model's shape, with its reason. Pure.

What does not depend on memory comes first: GPUs, precision, attention, packing, fused kernels. The rest: placement.py.
"""

from __future__ import annotations

from pipeline.machine import Machine
from pipeline.training import deepspeed
from pipeline.training.abilities import EAGER, FLASH, end_to_end, precision, runs, weakest
from pipeline.training.limits import expertless, impossible, indivisible, scored
from pipeline.training.placement import LATER, UNKNOWN, Settle, ShapeSource, by, place
from pipeline.training.shape import ModelShape
from pipeline.training.spec import TrainSpec


def resolve_train(
    train: TrainSpec,
    machine: Machine,
    shape: ModelShape | None,
    choose: Settle,
    problems: list[str],
    source: ShapeSource = "files",
) -> TrainSpec:
    """The section without `auto`; what cannot be honoured on this machine is added to `problems`."""

    def settle(field: str, value: object, reason: str) -> None:
        nonlocal train
        train = train.model_copy(update={field: value})
        choose(field, value, reason)

    by_hand = train.micro_batch_size != "auto"
    problems.extend(impossible(train, machine))
    if train.gpus == "auto":
        count = len(machine.gpus)
        settle("gpus", count, f"{count} visible" if count else "none visible: CPU")
    assert isinstance(train.gpus, int)
    if train.gpus > len(machine.gpus):
        problems.append(f"train.gpus: {train.gpus} asked for, {len(machine.gpus)} visible on this machine")
    if train.precision == "auto":
        settle("precision", *precision(machine if train.gpus else machine.model_copy(update={"gpus": ()})))
    if train.attention == "auto":
        settle("attention", *_attention(train, machine, shape))
    flash = train.attention in FLASH
    laid = flash and end_to_end(shape)
    unlaid = f"ms-swift does not lay rows of {shape.model_type} end to end" if shape and flash and not laid else None
    if train.packing == "auto":
        why = "fewer padded tokens" if flash else "packing needs flash-attention (rows would see each other)"
        settle("packing", laid, unlaid or f"{train.attention}: {why}")
    if train.padding_free == "auto":
        why = "no padded tokens" if flash else "rows laid end to end need flash-attention"
        of_packing = "part of packing" if train.packing else unlaid
        settle("padding_free", laid or train.packing is True, of_packing or f"{train.attention}: {why}")
    if train.liger == "auto":
        settle("liger", *_liger(train, machine, shape, source))
    elif train.liger and shape and machine.liger and shape.model_type not in machine.liger:
        problems.append(f"train.liger: liger-kernel has nothing for {shape.model_type} and would do nothing; use auto")
    if train.liger is True and (flag := scored(train)):
        problems.append(
            f"train.extra_args.{flag}: needs scores that liger's fused loss does not make; set liger: false"
        )
    place(train, machine, shape, settle, source)
    if train.overlap_comm == "auto":
        none = (False, "without DeepSpeed it has no meaning")
        settle("overlap_comm", *(none if train.deepspeed == "none" else deepspeed.overlap(train)))
    problems.extend(expertless(train, shape))
    problems.extend(indivisible(train, by_hand=by_hand))
    return train


def needs_shape(train: TrainSpec, machine: Machine) -> bool:
    """Whether some `auto` of this section depends on the model. On a CPU none does."""
    if train.gpus == 0 or not machine.gpus:
        return False
    asked: list[object] = [train.micro_batch_size, train.gradient_checkpointing]
    asked += [train.deepspeed] if machine.system == "Linux" else []
    asked += [train.liger] if machine.liger else []
    asked += [train.attention, train.packing, train.padding_free] if machine.flash_attention else []
    return "auto" in asked


def accumulation(train: TrainSpec) -> int:
    """Forward passes per optimizer step and process: global_batch_size / (micro_batch_size x processes)."""
    assert isinstance(train.micro_batch_size, int)
    return train.global_batch_size // (train.micro_batch_size * train.processes)


def _attention(train: TrainSpec, machine: Machine, shape: ModelShape | None) -> tuple[str, str]:
    if not train.gpus:
        return "sdpa", "flash-attention needs a GPU"
    if shape and shape.model_type in EAGER:
        return "eager", f"transformers has no other attention for {shape.model_type} that works offline"
    if train.precision == "float32":
        return "sdpa", "flash-attention computes in 16 bit only"
    flash = next((name for name in FLASH if runs(name, machine)), None)
    if flash:
        return flash, f"{flash} imports"
    if machine.flash_attention:
        return "sdpa", f"{machine.flash_attention[0]} does not run on {weakest(machine)}"
    return "sdpa", "flash-attention does not import here"


def _liger(train: TrainSpec, machine: Machine, shape: ModelShape | None, source: ShapeSource) -> tuple[bool, str]:
    if not train.gpus:
        return False, "its kernels need a GPU"
    if not machine.liger:
        return False, "liger-kernel does not import here"
    if shape is None:
        return False, LATER if source == "absent" else UNKNOWN
    if flag := scored(train):
        return False, f"extra_args.{flag} needs scores that its fused loss does not make"
    if shape.model_type not in machine.liger:
        return False, f"liger-kernel has nothing for {shape.model_type or 'this model type'}"
    return True, f"liger-kernel has fused kernels for {shape.model_type}{by(source)}"
