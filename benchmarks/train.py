"""What training costs, by this pipeline and by hand, with its settings and with others.

    python benchmarks/train.py [--shape tiny|0.6b|7b | --model DIR] [--rounds 3] [--steps 40] [--only PART ...]

The model has random weights in the real shape, made on the spot; the rows are made up, their lengths log-normal. Needs
no network; a GPU where there is one, else the CPU with `--shape tiny`. The last line printed is one JSON object:

overhead   the stage `train` against its own command line typed into a shell, in alternating order: `ratio` of tokens/s
           (1 = no overhead; goal 0.99), `whole` the same of the trainer's whole time
settings   what `auto` becomes here against the settings of the EvalScope tutorial (micro batch 1, accumulation 16,
           gradient checkpointing on, sdpa, no packing): `ratio` of tokens/s, goal 1.3 on a big GPU
variants   each way that this machine can train: tokens/s, MFU, peak memory, seconds a step, the plan's memory

Tokens are real ones, steps steady ones (pipeline/training/pace.py). Ratios are medians of the rounds, with their range.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.machine import Machine, probe  # noqa: E402
from pipeline.training import curve, known_shapes, pace  # noqa: E402

PARTS = ("overhead", "settings", "variants")
SHAPES = {"tiny": "", "0.6b": "Qwen/Qwen3-0.6B", "7b": "Qwen/Qwen2.5-7B"}
TYPES = {"tiny": "llama", "0.6b": "qwen3", "7b": "qwen2_5"}
TUTORIAL = {
    "micro_batch_size": 1, "gradient_checkpointing": True, "attention": "sdpa", "packing": False, "padding_free": False,
    "liger": False, "deepspeed": "none",
}  # fmt: skip
WORDS = "the quick brown fox asks a question and gives an answer".split()
"""One token each for the tokenizer of tests/tiny_model.py."""
SPREAD = 0.9
"""Of the logarithm of the lengths; instruction data have 0.7 to 1.1."""

FIGURES = (
    "tokens_per_second", "padded_tokens_per_second", "mfu", "seconds_per_step", "seconds_per_step_p95", "peak_memory",
    "peak_rss", "tokens_per_step", "basis",
)  # fmt: skip
Figures = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--layers", type=int, help="fewer layers than the real shape has, for a try")
    parser.add_argument("--model", type=Path, help="a folder instead of a made-up model (ChatML, llama)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--max-length", type=int, help="tokens (default: 2048, tiny 256)")
    parser.add_argument("--batch", type=int, default=16, help="conversations per optimizer step")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    options = parser.parse_args()
    options.max_length = options.max_length or (256 if options.shape == "tiny" else 2048)
    machine = probe()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        world = prepared(folder, options)
        found: Figures = {
            "model": options.model.name if options.model else options.shape,
            "device": machine.gpus[0].name if machine.gpus else f"CPU, {machine.cpus} cores",
            "max_length": options.max_length, "batch": options.batch, "steps": options.steps,
        }  # fmt: skip
        if "overhead" in options.only:
            found["overhead"] = overhead(world, options.rounds)
        if "settings" in options.only:
            found["settings"] = settings(world, options.rounds)
        if "variants" in options.only:
            found["variants"] = {label: trained(world, label, asked) for label, asked in variants(machine)}
    print(json.dumps(found))


def overhead(world: Path, rounds: int) -> Figures:
    """The stage against its own command line; which goes first changes from round to round."""
    trained(world, "warm", {})  # files and caches are read once
    told: list[tuple[Figures, Figures]] = []
    for number in range(rounds):
        label = f"round{number}"
        if number % 2:
            hand = by_hand(world, "round0", f"hand{number}")
            told.append((trained(world, label, {}), hand))
        else:
            ours = trained(world, label, {})
            told.append((ours, by_hand(world, label, f"hand{number}")))
    return {
        "ratio": middle([hand["seconds_per_step"] / ours["seconds_per_step"] for ours, hand in told]),
        "whole": middle([hand["train_seconds"] / ours["train_seconds"] for ours, hand in told]),
        "pipeline": middle([ours["seconds_per_step"] for ours, _ in told]),
        "by_hand": middle([hand["seconds_per_step"] for _, hand in told]),
    }


def settings(world: Path, rounds: int) -> Figures:
    told = [(trained(world, f"auto{n}", {}), trained(world, f"tutorial{n}", TUTORIAL)) for n in range(rounds)]
    return {
        "ratio": middle([ours["tokens_per_second"] / theirs["tokens_per_second"] for ours, theirs in told]),
        "auto": told[-1][0],
        "tutorial": told[-1][1],
    }


def variants(machine: Machine) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, settings) of what can be tried here."""
    plain = {**TUTORIAL, "micro_batch_size": "auto"}
    yield "sdpa, checkpointing", plain
    yield "sdpa", {**plain, "gradient_checkpointing": False}
    yield "eager", {**plain, "gradient_checkpointing": False, "attention": "eager"}
    for flash in machine.flash_attention:
        own = {**plain, "gradient_checkpointing": False, "attention": flash}
        yield flash, own
        yield f"{flash}, padding-free", {**own, "padding_free": True}
        yield f"{flash}, packing", {**own, "packing": True, "padding_free": True, "micro_batch_size": 1}
        if machine.liger:
            yield f"{flash}, packing, liger", {
                **own, "packing": True, "padding_free": True, "liger": True, "micro_batch_size": 1,
            }  # fmt: skip
    if machine.liger:
        yield "sdpa, liger", {**plain, "gradient_checkpointing": False, "liger": True}


def trained(world: Path, label: str, asked: Mapping[str, Any]) -> Figures:
    """The stage `train` in a runs folder of its own; figures of its report, or the reason why there are none."""
    runs = world / "runs" / label.replace(", ", "-").replace(" ", "-")
    texts = {key: json.dumps(value).strip('"') for key, value in asked.items()}
    given = [word for key, text in texts.items() for word in ("--set", f"train.{key}={text}")]
    command = [sys.executable, "-m", "pipeline.run", "recipe.yaml", "train", "--runs-dir", str(runs), *given]
    done = subprocess.run(command, cwd=world, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{label}: {done.stdout[-1500:]}{done.stderr[-1500:]}", file=sys.stderr)
        return {"failed": (done.stdout + done.stderr).strip().splitlines()[-1]}
    report = json.loads((runs / "bench" / "report.json").read_text(encoding="utf-8"))
    found = report["throughput"]
    planned = {entry["what"]: entry for entry in found["planned"]}
    figures = {key: found[key] for key in FIGURES}
    figures |= {"planned_memory": planned.get("memory", {}).get("low"), "auto": decided(report)}
    figures |= {"train_seconds": runtime(log(runs))}
    print(f"{label}: {told(figures)}", file=sys.stderr)
    return figures


def by_hand(world: Path, label: str, name: str) -> Figures:
    """The command line that the stage of ``label`` was started with, as one would paste it into a shell."""
    runs = world / "runs" / label
    command = str(json.loads(next(runs.glob("stages/train-*/stage.json")).read_text(encoding="utf-8"))["command"])
    before = command.split("--output_dir ", 1)[1].split(" ", 1)[0]
    out = world / "hand" / name
    out.mkdir(parents=True)
    for settings_file in runs.glob("stages/train-*/output/deepspeed.json"):
        shutil.copy(settings_file, out)
    subprocess.run(
        ["bash", "-c", command.replace(before, str(out))], cwd=world, env=environment(), check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    records = list(curve.records(out / curve.LOG))
    found = pace.pace([records])
    assert found is not None
    print(f"{name}: {found.seconds:.4g} s a step", file=sys.stderr)
    return {"seconds_per_step": found.seconds, "train_seconds": runtime(records)}


def log(runs: Path) -> list[dict[str, Any]]:
    return list(curve.records(next(runs.glob("stages/train-*/output")) / curve.LOG))


def runtime(records: Sequence[Mapping[str, Any]]) -> float:
    """Seconds from the trainer's start to its end."""
    return float(next(record["train_runtime"] for record in reversed(records) if "train_runtime" in record))


def decided(report: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(choice["where"]).removeprefix("train."): choice["value"]
        for choice in report["choices"]
        if str(choice["where"]).startswith("train.")
    }


def told(figures: Mapping[str, Any]) -> str:
    peak = figures["peak_memory"] or figures["peak_rss"] or 0
    mfu = f", MFU {figures['mfu']:.1%}" if figures["mfu"] else ""
    rate = figures["tokens_per_second"] or math.nan
    return f"{rate:,.0f} tokens/s, {figures['seconds_per_step']:.4g} s a step{mfu}, {peak / 2**30:.2f} GiB"


def middle(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"  # a shell finds `swift` there
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


def prepared(folder: Path, options: argparse.Namespace) -> Path:
    """A folder with model, rows and recipe."""
    model = options.model.resolve() if options.model else folder / "model"
    if not options.model:
        words = [str(model), SHAPES[options.shape], *([str(options.layers)] if options.layers else [])]
        subprocess.run(
            [sys.executable, "-c", "import sys; from benchmarks.train import made_up; made_up(*sys.argv[1:])", *words],
            cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    rng = random.Random(0)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as stream:
        for _ in range(options.rows):
            length = min(int(rng.lognormvariate(math.log(0.3 * options.max_length), SPREAD)), 2 * options.max_length)
            asked, said = (" ".join(rng.choices(WORDS, k=max(4, part))) for part in (length // 4, length - length // 4))
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
            stream.write(json.dumps({"messages": turns}) + "\n")
    kind = "llama" if options.model else TYPES[options.shape]
    recipe = {
        "name": "bench",
        "model": {"path": str(model), "model_type": kind, "template": "chatml"},
        "data": {"sources": [{"path": "rows.jsonl"}], "val_fraction": 0.0, "dedup": "none"},
        "train": {
            "rank": 8, "alpha": 32.0, "max_length": options.max_length, "global_batch_size": options.batch,
            "max_steps": options.steps, "logging_steps": 2, "save_steps": 100_000, "misfit": "warn",
        },
        "tracking": {"mode": "disabled"},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
    return folder


def made_up(folder: str, hub_id: str, layers: str = "") -> None:
    """A model of that shape with random weights in bf16 and a tokenizer of 512 tokens; without an id the tiny one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests import tiny_model

    tiny_model.make(Path(folder))
    if not hub_id:
        return
    known = dict(known_shapes.config(hub_id) or {})
    known |= {"num_hidden_layers": int(layers)} if layers else {}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "max_position_embeddings": 32768}
    config = AutoConfig.for_model(**{**known, **ends})
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    model = model.to_empty(device="cuda" if torch.cuda.is_available() else "cpu")
    model.tie_weights()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0) if "norm" in name else weight.normal_(0.0, 0.02)
    model.save_pretrained(folder)


if __name__ == "__main__":
    main()
