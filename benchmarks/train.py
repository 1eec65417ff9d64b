"""What training costs, by this pipeline and by hand, with its settings and with others.

    python benchmarks/train.py [--shape tiny|0.6b|7b | --model DIR] [--rounds 3] [--steps 40] [--only PART ...]

The model has random weights in the real shape, made on the spot; the rows are made up, their lengths log-normal. Needs
no network; a GPU where there is one, else the CPU with `--shape tiny`. The last line printed is one JSON object:

overhead   the stage `train` against its own command line typed into a shell, in alternating order: `ratio` of tokens/s
           (1 = no overhead; goal 0.99), `whole` the same of the trainer's whole time. Where others use the machine, two
           more figures say more: `quiet`, the ratio with each step's fastest round on either side (the steps are the
           same, and a neighbour only makes them slower), its range from two halves of the rounds; `own`, the share of
           all cores that the pipeline's process takes while steps are made
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
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks._training import SHAPES, prepared  # noqa: E402
from pipeline.machine import Machine, probe  # noqa: E402
from pipeline.training import curve, pace  # noqa: E402

PARTS = ("overhead", "settings", "variants")
TUTORIAL = {
    "micro_batch_size": 1, "gradient_checkpointing": True, "attention": "sdpa", "packing": False, "padding_free": False,
    "liger": False, "deepspeed": "none",
}  # fmt: skip
FIGURES = (
    "tokens_per_second", "padded_tokens_per_second", "mfu", "seconds_per_step", "seconds_per_step_p95", "peak_memory",
    "peak_rss", "tokens_per_step", "basis",
)  # fmt: skip
Figures = dict[str, Any]
Record = dict[str, Any]


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
    own: list[float] = []
    logs: list[tuple[list[Record], list[Record]]] = []
    for number in range(rounds):
        label = f"round{number}"
        hand = by_hand(world, number) if number % 2 else None
        own.append(trained(world, label, {})["own"])
        logs.append((log(world / "runs" / label), hand or by_hand(world, number)))
    steps = [(seconds_per_step(ours), seconds_per_step(hand)) for ours, hand in logs]
    return {
        "ratio": middle([hand / ours for ours, hand in steps]),
        "whole": middle([runtime(hand) / runtime(ours) for ours, hand in logs]),
        "quiet": quiet([(each(ours), each(hand)) for ours, hand in logs]),
        "own": middle(own),
        "pipeline": middle([ours for ours, _ in steps]),
        "by_hand": middle([hand for _, hand in steps]),
    }


def quiet(rounds: Sequence[tuple[Mapping[int, float], Mapping[int, float]]]) -> dict[str, float]:
    """Ratio of the times of all steps, each taken from its fastest round; low and high from every second round."""
    ratios = [least([hand for _, hand in part]) / least([ours for ours, _ in part])
              for part in (rounds, rounds[::2], rounds[1::2] or rounds)]  # fmt: skip
    return {"median": ratios[0], "low": min(ratios), "high": max(ratios)}


def least(rounds: Sequence[Mapping[int, float]]) -> float:
    """Seconds of all steps that every round measured, each in its fastest round."""
    return sum(min(each[step] for each in rounds) for step in set(rounds[0]).intersection(*rounds))


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
    status, text, own = watched(command, world, runs)
    if status:
        print(f"{label}: {text[-3000:]}", file=sys.stderr)
        return {"failed": text.strip().splitlines()[-1]}
    report = json.loads((runs / "bench" / "report.json").read_text(encoding="utf-8"))
    found = report["throughput"]
    planned = {entry["what"]: entry for entry in found["planned"]}
    figures = {key: found[key] for key in FIGURES}
    figures |= {"planned_memory": planned.get("memory", {}).get("low"), "auto": decided(report)}
    figures |= {"train_seconds": runtime(log(runs)), "own": own}
    print(f"{label}: {told(figures)}", file=sys.stderr)
    return figures


def watched(command: Sequence[str], world: Path, runs: Path) -> tuple[int, str, float | None]:
    """(exit status, what it printed, share of all cores that the process itself took while steps were made)."""
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(command, cwd=world, env=environment(), stdout=output, stderr=subprocess.STDOUT)
        spent: list[tuple[float, float]] = []
        while process.poll() is None:
            if any(runs.glob(f"stages/train-*/attempts/*/{curve.LOG}")):
                times = process.cpu_times()  # without its children
                spent.append((time.monotonic(), times.user + times.system))
            time.sleep(0.2)
        output.seek(0)
        text = output.read()
    (start, before), (end, after) = (spent[0], spent[-1]) if spent else ((0.0, 0.0), (0.0, 0.0))
    share = (after - before) / (end - start) / (os.cpu_count() or 1) if end > start else None
    return int(process.returncode), text, share


def by_hand(world: Path, number: int) -> list[Record]:
    """The log of the stage's command line, pasted into a shell."""
    runs = world / "runs" / "warm"
    command = str(json.loads(next(runs.glob("stages/train-*/stage.json")).read_text(encoding="utf-8"))["command"])
    before = command.split("--output_dir ", 1)[1].split(" ", 1)[0]
    out = world / "hand" / str(number)
    out.mkdir(parents=True)
    for settings_file in runs.glob("stages/train-*/output/deepspeed.json"):
        shutil.copy(settings_file, out)
    subprocess.run(
        ["bash", "-c", command.replace(before, str(out))], cwd=world, env=environment(), check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    records = list(curve.records(out / curve.LOG))
    print(f"by hand {number}: {seconds_per_step(records):.4g} s a step", file=sys.stderr)
    return records


def log(runs: Path) -> list[Record]:
    return list(curve.records(next(runs.glob("stages/train-*/output")) / curve.LOG))


def seconds_per_step(records: Sequence[Record]) -> float:
    found = pace.pace([records])
    assert found is not None
    return found.seconds


def each(records: Sequence[Record]) -> dict[int, float]:
    """Seconds between two records of the log, by the step at their end."""
    return {interval.step: interval.seconds for interval in pace.intervals(records)}


def runtime(records: Sequence[Record]) -> float:
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


if __name__ == "__main__":
    main()
