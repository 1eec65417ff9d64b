#!/usr/bin/env python
"""The memory estimate (pipeline/training/memory.py) against training steps really gone through, without a GPU.

    .venv/bin/python benchmarks/memory.py                  # the table of docs/training.md; minutes
    .venv/bin/python benchmarks/memory.py qwen2.5-7b ...   # only settings whose label holds one of the words
    .venv/bin/python benchmarks/memory.py --write          # and record the peaks for tests/training/test_memory.py
    .venv/bin/python benchmarks/memory.py --check LABEL    # whether the recorded peaks are still the tools'
    .venv/bin/python benchmarks/memory.py --rss            # the CPU settings with real numbers, by the growth of RSS

A step is the model of transformers with peft's LoRA, loss, backward pass and AdamW's states, on fake tensors (torch's
FakeTensorMode): shapes and life times are real, no number is computed, so 32B parameters need no memory. What lives is
counted after each operation; the highest sum is compared. What an operation needs inside itself, the allocator's
fragmentation and the CUDA context are not in it, and `workspace` is left out of the estimate here, too.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.training import families, known_shapes, memory, shape
from pipeline.training.spec import TrainSpec


def simulate(
    config: dict[str, Any], train: TrainSpec, *, masked: bool = False, detail: dict[str, int] | None = None
) -> dict[str, Any]:
    """Bytes of one whole training step: its peak, and what of it is there for how long."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    computed = getattr(torch, train.precision)
    live = _Live()
    ways = _gpu_ways(torch) if train.gpus else contextlib.nullcontext()
    with FakeTensorMode(allow_non_fake_inputs=True), ways, live.mode(torch):
        model = _model(config, train, getattr(torch, train.held_in))
        result: dict[str, Any] = {"weights": live.now}
        model = _adapted(model, train)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, foreach=False)
        result |= {"adapter": live.now - result["weights"], "trainable": sum(p.numel() for p in trained)}
        model.train()
        rows, length = _layout(train)
        ids = torch.zeros((rows, length), dtype=torch.long)
        inputs: dict[str, Any] = {"input_ids": ids, "labels": ids}
        if masked:
            inputs["attention_mask"] = torch.ones((rows, 1, length, length), dtype=torch.bool)
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # AdamW's states appear in the first
        optimizer.zero_grad()
        result["static"] = live.start()
        loss = _forward(torch, model, inputs, computed)
        result |= {"saved": live.now, "peak_forward": live.peak, "at_forward": live.top}
        if detail is not None:
            detail.update(live.by_operation())
        live.start()
        loss.backward()
        del loss
        result |= {"peak_backward": live.peak, "at_backward": live.top, "gradients": live.now - result["static"]}
        # The trainer's optimizer is the fused one (adamw_torch_fused), which needs nothing besides its states.
        result["peak"] = max(result["peak_forward"], result["peak_backward"])
    return result


def _layout(train: TrainSpec) -> tuple[int, int]:
    assert isinstance(train.micro_batch_size, int)
    rows = train.micro_batch_size
    return (
        (1, rows * train.max_length)
        if train.packing is True or train.padding_free is True
        else (rows, train.max_length)
    )


class _Live:
    """Bytes of all storages that are alive, and their highest sum."""

    def __init__(self) -> None:
        self.now = self.peak = 0
        self.top = ""
        self.sizes: dict[int, tuple[int, str]] = {}

    def start(self) -> int:
        self.peak, self.top = self.now, ""
        return self.now

    def see(self, storage: Any, what: str) -> None:
        key = storage._cdata  # noqa: SLF001 - the same for all tensors that share it
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes(), what
        self.now += storage.nbytes()
        weakref.finalize(storage, self.forget, key)
        if self.now > self.peak:
            self.peak, self.top = self.now, what

    def forget(self, key: int) -> None:
        self.now -= self.sizes.pop(key)[0]

    def by_operation(self) -> dict[str, int]:
        """Bytes of what lives now, by the operation that made it."""
        total: dict[str, int] = {}
        for size, what in self.sizes.values():
            total[what] = total.get(what, 0) + size
        return total

    def mode(self, torch: Any) -> Any:
        from torch.utils import _pytree
        from torch.utils._python_dispatch import TorchDispatchMode

        live = self

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
                out = func(*args, **(kwargs or {}))
                for tensor in _pytree.tree_leaves(out):
                    if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                        live.see(tensor.untyped_storage(), str(func))
                return out

        return Mode()


@contextlib.contextmanager
def _gpu_ways(torch: Any) -> Iterator[None]:
    """Dropout and attention as a GPU does them, on a CPU's fake tensors: torch without CUDA cannot fake CUDA's."""
    functional = torch.nn.functional
    kept = functional.dropout, functional.scaled_dot_product_attention

    def dropout(tensor: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: ARG001, FBT001, FBT002
        return torch.ops.aten.native_dropout(tensor, p, True)[0] if training and p else tensor

    def attention(query: Any, key: Any, value: Any, attn_mask: Any = None, **kwargs: Any) -> Any:
        how = (kwargs.get("dropout_p", 0.0), kwargs.get("is_causal", False))
        if torch.is_autocast_enabled("cpu"):
            query, key, value = (part.to(torch.get_autocast_dtype("cpu")) for part in (query, key, value))
        if attn_mask is None and query.dtype != torch.float32:
            flash = torch.ops.aten._scaled_dot_product_flash_attention  # noqa: SLF001
            return flash(query, key, value, *how, scale=kwargs.get("scale"))[0]
        if attn_mask is not None:  # aten/src/ATen/native/transformers/attention.cpp, convert_boolean_attn_mask
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype)
            attn_mask = attn_mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
        elif key.shape[1] != query.shape[1]:
            key, value = (part.repeat_interleave(query.shape[1] // key.shape[1], 1) for part in (key, value))
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention  # noqa: SLF001
        return efficient(query, key, value, attn_mask, True, *how, scale=kwargs.get("scale"))[0]

    functional.dropout, functional.scaled_dot_product_attention = dropout, attention
    try:
        yield
    finally:
        functional.dropout, functional.scaled_dot_product_attention = kept


def _model(config: dict[str, Any], train: TrainSpec, dtype: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, masking_utils

    # Rows that are not packed are found out by their positions' numbers, which fake tensors have not; without this
    # every row would get a mask.
    masking_utils.find_packed_sequence_indices = lambda _positions: None
    made = AutoConfig.for_model(**{"max_position_embeddings": 32768, **config})
    attention = train.attention if train.attention in ("sdpa", "eager") else "sdpa"
    model = AutoModelForCausalLM.from_config(made, dtype=dtype, attn_implementation=attention)
    model.config.use_cache = False
    if train.gradient_checkpointing is True:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def _adapted(model: Any, train: TrainSpec) -> Any:
    if train.tuner == "full":
        return model
    import torch
    from peft import LoraConfig, get_peft_model

    target = train.target_modules if isinstance(train.target_modules, str) else list(train.target_modules)
    config = LoraConfig(
        r=train.rank, lora_alpha=train.alpha, lora_dropout=train.dropout, target_modules=target, use_dora=train.dora,
        use_rslora=train.rslora, task_type="CAUSAL_LM",
    )  # fmt: skip
    # Fake tensors cannot be swapped in place, which Module.to does. All are where they belong; peft makes adapters in
    # float32, and leaves them so at the end (autocast_adapter_dtype).
    kept, torch.nn.Module.to = torch.nn.Module.to, lambda self, *_args, **_more: self  # type: ignore[method-assign]
    try:
        return get_peft_model(model, config)
    finally:
        torch.nn.Module.to = kept  # type: ignore[method-assign]


def _forward(torch: Any, model: Any, inputs: dict[str, Any], computed: Any) -> Any:
    """As the trainer does it: accelerate's autocast, and its float32 copy of what comes out."""
    if computed == torch.float32:
        outputs = model(**inputs)
    else:
        from accelerate.utils.operations import convert_outputs_to_fp32

        with torch.autocast("cpu", dtype=computed):
            outputs = model(**inputs)
        outputs = convert_outputs_to_fp32(lambda: outputs)()
    outputs.logits.argmax(-1)  # ms-swift's accuracy
    return outputs.loss


GPU: dict[str, Any] = {
    "gpus": 1, "precision": "bfloat16", "attention": "sdpa", "packing": False, "padding_free": False, "liger": False,
    "deepspeed": "none", "gradient_checkpointing": False,
}  # fmt: skip
CPU = {**GPU, "gpus": 0, "precision": "float32"}
SHORT = {"micro_batch_size": "rows", "max_length": "length", "gradient_checkpointing": "checkpointing"}
RECORD = Path(__file__).resolve().parent.parent / "tests" / "training" / "memory_simulated.json"


class Setting(NamedTuple):
    model: str
    label: str
    settings: dict[str, Any]


def _one(model: str, rows: int, length: int, base: dict[str, Any] = GPU, **rest: Any) -> Setting:
    own = {"micro_batch_size": rows, "max_length": length, **rest}
    words = [f"{SHORT.get(key, key)}={value}" for key, value in own.items()]
    label = " ".join([model.split("/")[1].lower(), *words, *["cpu"][: base is CPU]])
    return Setting(model, label, {**base, "global_batch_size": rows, **own})


FLAGS = ("--write", "--check", "--rss", "--rss-of")
SETTINGS = (
    _one("Qwen/Qwen3-0.6B", 2, 1024),
    _one("HuggingFaceTB/SmolLM2-135M", 8, 256, CPU),
    _one("HuggingFaceTB/SmolLM2-135M", 4, 512, CPU, gradient_checkpointing=True),
    _one("HuggingFaceTB/SmolLM2-135M", 2, 512, CPU, tuner="full"),
    _one("Qwen/Qwen3-0.6B", 8, 2048, gradient_checkpointing=True),
    _one("Qwen/Qwen3-0.6B", 4, 2048, rank=64, dropout=0.0),
    _one("Qwen/Qwen3-0.6B", 4, 1024, tuner="full"),
    _one("Qwen/Qwen3-0.6B", 4, 1024, attention="eager"),
    _one("Qwen/Qwen2.5-7B", 1, 2048),
    _one("Qwen/Qwen2.5-7B", 8, 3072, gradient_checkpointing=True),
    _one("Qwen/Qwen2.5-7B", 4, 2048, padding_free=True, attention="flash_attention_2"),
    _one("Qwen/Qwen2.5-7B", 1, 2048, tuner="full", gradient_checkpointing=True),
    _one("Qwen/Qwen2.5-7B", 1, 2048, dora=True),
    _one("Qwen/Qwen2.5-32B", 1, 2048),
    _one("Qwen/Qwen2.5-32B", 2, 4096, gradient_checkpointing=True),
    _one("meta-llama/Llama-3.1-8B", 1, 8192, gradient_checkpointing=True),
)


def spec_of(setting: Setting) -> TrainSpec:
    return TrainSpec(**setting.settings)


def padded(train: TrainSpec) -> bool:
    """Rows of different lengths beside each other: the model gets a mask."""
    assert isinstance(train.micro_batch_size, int)
    return train.micro_batch_size > 1 and not (train.padding_free or train.packing)


def run(setting: Setting) -> dict[str, Any]:
    config = known_shapes.config(setting.model)
    assert config
    train = spec_of(setting)
    start = time.perf_counter()
    found = simulate(config, train, masked=padded(train))
    model = shape.shape(config, families.tensors(config))
    assert model
    plan = memory.estimate(model, train, processes=1)
    took = time.perf_counter() - start
    print(f"{setting.label:62} | {_compared(found['peak'], plan.total - plan.workspace)} | {took:.0f} s", flush=True)
    return {"model": setting.model, "label": setting.label, "settings": setting.settings, **found}


def _compared(found: int, planned: int) -> str:
    return f"{found / 2**30:7.2f} | {planned / 2**30:7.2f} | {planned / found - 1:+6.1%}"


def rss(setting: Setting) -> None:
    """In this process: the growth of its memory over one step with real numbers."""
    import torch

    config = known_shapes.config(setting.model)
    assert config
    train = spec_of(setting)
    torch.set_num_threads(2)
    torch.ones(64, 64) @ torch.ones(64, 64)  # what the first product starts up is not the step's
    before = _resident()
    model = _adapted(_model(config, train, torch.float32), train)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    for _ in range(2):
        ids = torch.randint(0, config["vocab_size"], _layout(train))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    found = shape.shape(config, families.tensors(config))
    assert found
    plan = memory.estimate(found, train, processes=1)
    print(f"{setting.label:62} | {_compared(grown, plan.total)} | RSS", flush=True)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def check(labels: list[str]) -> None:
    recorded = {case["label"]: case for case in json.loads(RECORD.read_text(encoding="utf-8"))}
    for setting in SETTINGS:
        if setting.label in labels:
            found = run(setting)
            assert abs(found["peak"] / recorded[setting.label]["peak"] - 1) < 0.01, (found, recorded[setting.label])
            labels = [label for label in labels if label != setting.label]
    assert not labels, f"no such setting: {labels}"


def main(words: list[str]) -> None:
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return
    unknown = [word for word in words if word.startswith("-") and word not in FLAGS]
    if unknown:
        raise SystemExit(f"no such flag: {unknown[0]}; there are {', '.join(FLAGS)}")
    if words[:1] == ["--check"]:
        check(words[1:])
        return
    if words[:1] == ["--rss"]:
        for setting in SETTINGS:
            if setting.label.endswith("cpu"):
                subprocess.run([sys.executable, __file__, "--rss-of", setting.label], check=True)
        return
    if words[:1] == ["--rss-of"]:
        rss(next(setting for setting in SETTINGS if setting.label == words[1]))
        return
    asked = [word for word in words if not word.startswith("--")]
    print(f"{'setting':62} | gone through, GiB | estimate, GiB | error")
    for setting in SETTINGS:
        if not asked or any(word in setting.label for word in asked):
            found = run(setting)
            if "--write" in words:
                record(found)


def record(found: dict[str, Any]) -> None:
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else []
    cases = {case["label"]: case for case in [*known, found]}
    rows = [cases[setting.label] for setting in SETTINGS if setting.label in cases]
    RECORD.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
