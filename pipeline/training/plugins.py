"""Our own plugins for `swift sft`: files that each of its processes imports before it loads the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.files import read_json, write_text
from pipeline.stage import Args

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


def with_plugins(out: Path, args: Args, plumbing: Args) -> tuple[dict[str, Any], dict[Path, str]]:
    """Both with our plugins as files in `out`, beside the recipe's own; and the texts of those files."""
    names = [*args.get("external_plugins", ()), *plumbing.get("external_plugins", ())]
    files = {out / name: PLUGINS[name] for name in names if name in PLUGINS}
    words = [str(out / name) if name in PLUGINS else name for name in names]
    return {**args, **plumbing, "external_plugins": words}, files


def forget(out: Path) -> None:
    """Take our plugins out of what ms-swift has noted of a training that is done.

    `swift infer` and `swift deploy` import what an adapter's args.json names: by a path that is gone once the attempt
    is published, or the adapter copied to another machine. They are of use in training alone.
    """
    for path in (out / "args.json", *out.glob("checkpoint-*/args.json")):
        told = read_json(path)
        names = told.get("external_plugins") if isinstance(told, dict) else None
        if names and isinstance(told, dict):
            told["external_plugins"] = [name for name in names if Path(name).name not in PLUGINS]
            write_text(path, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
