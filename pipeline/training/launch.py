"""How `swift sft` is started as one or several processes: what does not change the result. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.stage import CPU_ENV, Args
from pipeline.training.spec import TrainSpec

OFFLOAD_THREADS = "4"
"""For each GPU's process; machines with several GPUs have at least that many cores for each."""

NO_KERNELS = "no_kernels.py"
LEARNABLE = "learnable_rows.py"
PLUGINS = {
    NO_KERNELS: """\
# On CPUs DeepSpeed 0.19.8 compiles a kernel at its first start (an all-reduce for inference): a minute or more, and no
# start without a compiler. With this, deepspeed.comm finds no kernel that it could build, and does without.
import deepspeed.ops

deepspeed.ops.__compatible_ops__ = {}
""",
    LEARNABLE: """\
# ms-swift 4.6.0 keeps rows of which max_length leaves nothing to learn: their prompt alone is longer. Alone in a batch
# the loss of one is a mean over no token, NaN. Here they are left out, like rows that swift cannot encode.
from swift.template import MaxLengthError, Template

encode = Template._encode_truncated


def encode_learnable(self, inputs):
    encoded = encode(self, inputs)
    labels = encoded.get("labels") if self.is_training and isinstance(encoded, dict) else None
    if labels is not None:
        weights = encoded.get("loss_scale") or [1.0] * len(labels)
        if not any(label != -100 and weight for label, weight in list(zip(labels, weights))[1:]):
            raise MaxLengthError("no token of this row is learned")
    return encoded


Template._encode_truncated = encode_learnable
""",
}
"""Files that every process imports before it loads the model, by `external_plugins`."""


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


def with_plugins(out: Path, args: Args, plumbing: Args) -> tuple[dict[str, Any], dict[Path, str]]:
    """Both with our plugins as files in `out`, beside the recipe's own; and the texts of those files."""
    names = [*args.get("external_plugins", ()), *plumbing.get("external_plugins", ())]
    files = {out / name: PLUGINS[name] for name in names if name in PLUGINS}
    words = [str(out / name) if name in PLUGINS else name for name in names]
    return {**args, **plumbing, "external_plugins": words}, files
