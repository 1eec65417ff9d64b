"""Checkpoints as swift leaves them, with tiny files: LoRA or all weights, one process or several, ZeRO2 or ZeRO3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.bin import fake_tools

PREFIX = "base_model.model.layers.0.q_proj"
ADAPTER = {f"{PREFIX}.lora_A.weight": [0.1, 0.2], f"{PREFIX}.lora_B.weight": [0.3, 0.0]}


def checkpoint(attempt: Path, step: int, total: int = 100, **settings: Any) -> Path:
    """`settings`: zero (2 or 3), processes, full, args (what args.json holds besides), losses (step -> eval_loss)."""
    folder = attempt / f"checkpoint-{step}"
    processes, zero = settings.get("processes", 1), settings.get("zero", 0)
    args = {"global_world_size": processes, "learning_rate": 0.001, **settings.get("args", {})}
    if settings.get("full"):
        args["tuner_type"] = "full"
        whole(folder)
    else:
        args["tuner_type"] = "lora"
        fake_tools.safetensors(folder / "adapter_model.safetensors", ADAPTER)
        fake_tools.save_json(folder / "adapter_config.json", {"peft_type": "LORA"})
    for name in ("scheduler.pt", "training_args.bin"):
        fake_tools.archive(folder / name)
    for name in ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]:
        fake_tools.archive(folder / name)
    if zero:
        shards(folder, step, processes, zero)
    else:
        fake_tools.archive(folder / "optimizer.pt")
    fake_tools.save_json(folder / "args.json", args)
    history = [{"step": at, "eval_loss": loss} for at, loss in settings.get("losses", {}).items()]
    state = {"global_step": step, "max_steps": total, "log_history": [{"step": 1, "loss": 2.0}, *history]}
    fake_tools.save_json(folder / "trainer_state.json", state)
    return folder


def whole(folder: Path) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    tensors = ["model.embed.weight", "model.norm.weight"]
    for name, tensor in zip(names, tensors, strict=True):
        fake_tools.safetensors(folder / name, {tensor: [0.5, -0.25]})
    fake_tools.save_json(folder / "config.json", {"model_type": "llama", "dtype": "float32"})
    index = {"metadata": {}, "weight_map": dict(zip(tensors, names, strict=True))}
    fake_tools.save_json(folder / "model.safetensors.index.json", index)


def shards(folder: Path, step: int, processes: int, zero: int) -> None:
    fake_tools.save(folder / "latest", f"global_step{step}")
    inner = folder / f"global_step{step}"
    for rank in range(processes):
        fake_tools.archive(inner / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
        if zero == 3:
            fake_tools.archive(inner / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
    if zero != 3:
        fake_tools.archive(inner / "mp_rank_00_model_states.pt")


def log(attempt: Path, *points: tuple[int, float]) -> None:
    """(step, gradient norm) of every logged step."""
    lines = [
        json.dumps({"loss": 1.0, "grad_norm": norm, "global_step/max_steps": f"{step}/100"}) for step, norm in points
    ]
    fake_tools.save(attempt / "logging.jsonl", "".join(line + "\n" for line in lines))


def files(folder: Path) -> list[str]:
    """Every file of a checkpoint, by its path inside."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def spoil(path: Path, way: str, place: float) -> bool:
    """Do to a file what crashes and disks do; False if it is as it was. `place` from 0 to 1 says where."""
    data = path.read_bytes()
    if way == "delete":
        path.unlink()
        return True
    if way == "cut":
        new = data[: int(place * len(data.rstrip()))]
    elif way == "zero":
        new = bytes(len(data))
    elif way == "tail":  # written, and not yet on the disk when the power went
        start = int(place * len(data))
        new = data[:start] + bytes(len(data) - start)
    else:  # one bit of the head, which for safetensors and archives says what the file is
        at = int(place * 4)
        new = data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]
    path.write_bytes(new)
    return new != data
