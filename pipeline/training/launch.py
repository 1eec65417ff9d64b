"""How `swift sft` is started as one or several processes: what does not change the result. Pure."""

from __future__ import annotations

from typing import Any

from pipeline.stage import CPU_ENV
from pipeline.training.plugins import NO_KERNELS
from pipeline.training.spec import TrainSpec

OFFLOAD_THREADS = "4"
"""For each GPU's process; machines with several GPUs have at least that many cores for each."""


def environment(train: TrainSpec) -> dict[str, str]:
    """Variables for swift and for the `torchrun` it starts where NPROC_PER_NODE is set. `train` is resolved."""
    cpu = train.gpus == 0
    env = dict(CPU_ENV) if cpu else {}
    if cpu and train.deepspeed != "none":
        env["DS_ACCELERATOR"] = "cpu"
    # Under DeepSpeed for one process, too: without torchrun it asks MPI who else is there.
    if train.processes == 1 and train.deepspeed == "none":
        return env
    if cpu and train.processes > 1:
        env["OMP_NUM_THREADS"] = "1"  # each process would take all cores
    elif train.processes > train.nodes and train.deepspeed.endswith("_offload"):
        # The optimizer steps are made by the cores, for which torchrun would allow one thread to each process.
        env["OMP_NUM_THREADS"] = OFFLOAD_THREADS
    env["NPROC_PER_NODE"] = str(train.processes // train.nodes)
    if train.nodes > 1:
        env["NNODES"] = str(train.nodes)  # NODE_RANK, MASTER_ADDR and MASTER_PORT are each node's own
    else:
        # torchrun's flags --standalone and --local_addr, which swift does not pass on. Its store then listens on a port
        # that the kernel has just given it, on this machine only: nothing can take the port between choosing and
        # binding it, no host name is looked up, and a MASTER_PORT that lies about in the environment is not heeded.
        env |= {"PET_STANDALONE": "1", "PET_LOCAL_ADDR": "127.0.0.1"}
    return env


def plumbing(train: TrainSpec) -> dict[str, Any]:
    """Flags of swift that do not change the result."""
    cpu = train.gpus == 0
    return {
        "use_cpu": cpu,
        # The default of 208 days lets a dead rank hang the others for ever. The watch is faster. Not less than this:
        # the others wait in a barrier while one rank tokenizes a million rows, or writes a large checkpoint to a slow
        # disk. (On CPUs transformers 5.19 does not pass it on: gloo's own half hour holds.)
        "ddp_timeout": 6 * 3600,
        **({"dataloader_num_workers": 0} if cpu and "dataloader_num_workers" not in train.extra_args else {}),
        **({"ddp_backend": "gloo"} if cpu and train.processes > 1 else {}),
        **({"external_plugins": [NO_KERNELS]} if cpu and train.deepspeed != "none" else {}),
    }
