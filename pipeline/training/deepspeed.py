"""DeepSpeed's settings file (ZeRO 1 to 3) for `swift sft`, in place of the ones ms-swift packages. Pure.

Read off deepspeed 0.19.8, accelerate 1.15.0 and transformers 5.19.0. ZeRO: Rajbhandari et al. 2020, arXiv:1910.02054.
"""

from __future__ import annotations

from typing import Any

from pipeline.training.spec import TrainSpec

SMALL_BUCKET = 50_000_000
"""Elements (100 MB in bf16) of a communication buffer where only an adapter is trained.

The buffer is allocated whole, used or not: DeepSpeed's default of 5e8 takes 1 GB in bf16 and 2 GB in float32, for the
80 MB of gradients that rank 16 on all linear layers of a 7B model has. That adapter fits into one bucket.
"""

LARGE_BUCKET = 200_000_000
"""Elements where all weights are trained: ms-swift's value; fewer, larger messages."""

LIVE_PARAMETERS = 1_000_000_000
"""ZeRO 3: elements of gathered weights that a GPU may hold at a time (2 GB in bf16); DeepSpeed's default."""


def config(train: TrainSpec) -> dict[str, Any] | None:
    """Content of the file for `--deepspeed`, of a resolved section; None where DeepSpeed is not used.

    `"auto"` is filled in by transformers from swift's own flags, so that no value is said twice.
    """
    if train.deepspeed == "none":
        return None
    stage, offload = _parts(train.deepspeed)
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        # train_batch_size is left out, which ms-swift's files have as "auto": DeepSpeed then multiplies it out itself.
        # Where torch.distributed was set up without DeepSpeed (every run on CPUs), `from_pretrained` under ZeRO 3 reads
        # this file before deepspeed.comm knows the other processes, takes the world for 1 and fails on the filled-in
        # value: "Check batch related parameters ... 4 != 2 * 1 * 1".
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        # Dynamic loss scale: starts at 2^16, doubles after 1000 good steps, halves at an infinity (not the first).
        "fp16": {
            "enabled": "auto",
            "loss_scale": 0,
            "initial_scale_power": 16,
            "loss_scale_window": 1000,
            "hysteresis": 2,
            "min_loss_scale": 1,
        },
        "zero_optimization": _zero3(train, offload=offload) if stage == 3 else _zero12(train, stage, offload=offload),
        # accelerate would swap in DeepSpeedCPUAdam for offloaded states, which is compiled at the first start and needs
        # a compiler (and a CUDA toolkit of torch's own version). torch's fused AdamW runs on CPUs as it is.
        **({"zero_force_ds_cpu_optimizer": False} if offload else {}),
        # DeepSpeed's own progress lines; the step log has them all.
        "steps_per_print": 2000,
        "wall_clock_breakdown": False,
    }


def overlap(train: TrainSpec) -> tuple[bool, str]:
    """Whether communication runs beside the backward pass, and the reason where that was `auto`."""
    if train.overlap_comm != "auto":
        return train.overlap_comm, "as set"
    if train.deepspeed in ("zero3", "zero3_offload"):
        return True, "ZeRO 3 fetches every layer's weights from the other GPUs: without, each fetch is waited for"
    return False, "under ZeRO 1 and 2 it has given NaNs, and there is little to send"


def _parts(name: str) -> tuple[int, bool]:
    """ "zero2_offload" -> (2, True)."""
    return int(name.removeprefix("zero")[0]), name.endswith("_offload")


def _zero12(train: TrainSpec, stage: int, *, offload: bool) -> dict[str, Any]:
    """Optimizer states (1), and gradients too (2), cut into one part per process."""
    bucket = SMALL_BUCKET if train.tuner == "lora" else LARGE_BUCKET
    return {
        "stage": stage,
        # Off: the reduction of a bucket has read gradients that were not written yet, which shows as grad_norm NaN and
        # loss 0 (deepspeed issues 5347, 5545, 7188, and 8061 of 2026, mended since), with off as everyone's cure. What
        # it could win is the sending of one adapter's gradients a step. It also allocates every buffer twice.
        "overlap_comm": overlap(train)[0],
        # Gradients copied into one buffer as they come: no fragments left all over the memory.
        "contiguous_gradients": True,
        # Each process is sent its own part of the sum only, not all of it.
        "reduce_scatter": True,
        "reduce_bucket_size": bucket,
        # New weights fetched in one collective instead of a broadcast per process.
        "allgather_partitions": True,
        "allgather_bucket_size": bucket,
        **({"offload_optimizer": _HOST} if offload else {}),
    }


def _zero3(train: TrainSpec, *, offload: bool) -> dict[str, Any]:
    """The weights cut into parts as well; each layer's are gathered when it is computed."""
    return {
        "stage": 3,
        # On, as DeepSpeed has it by default for this stage: otherwise the gathering of the weights shares the stream of
        # the computation (parameter_offload.py), and prefetching them does nothing.
        "overlap_comm": overlap(train)[0],
        "contiguous_gradients": True,
        # hidden^2, 0.9 hidden^2 and 10 hidden, by transformers: about one matrix of a layer, whatever the model's size.
        "reduce_bucket_size": "auto",
        "stage3_prefetch_bucket_size": "auto",
        "stage3_param_persistence_threshold": "auto",
        "stage3_max_live_parameters": LIVE_PARAMETERS,
        "stage3_max_reuse_distance": LIVE_PARAMETERS,
        # Optimizer states are updated this many at a time.
        "sub_group_size": LIVE_PARAMETERS,
        # Otherwise a checkpoint of full training holds empty placeholders instead of weights.
        "stage3_gather_16bit_weights_on_model_save": True,
        **({"offload_optimizer": _HOST, "offload_param": _HOST} if offload else {}),
    }


# Page-locked: copies to and from the GPU run beside the computation. That memory cannot be swapped out.
_HOST = {"device": "cpu", "pin_memory": True}
