"""Stage `bank`: a question bank of the user's own as both harnesses read it, by `python -m pipeline.bank.files`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import jsonl
from pipeline.bank.files import COUNTS_FILE
from pipeline.bank.spec import BankSpec
from pipeline.command import Command, flags
from pipeline.stage import Paths, Source, Stage


def stage(name: str, spec: BankSpec) -> Stage:
    """`spec` is resolved: no `auto` left. `args` are also what the evaluations that ask the bank go by."""
    sources = {"bank": Source(spec.path)}
    if spec.few_shot_path:
        sources["few_shot"] = Source(spec.few_shot_path)
    return Stage(
        name="bank",
        program=("python", "-m", "pipeline.bank.files"),
        args={"name": name, "kind": spec.kind, "language": spec.language, "few_shot": spec.few_shot,
              "prompt": spec.prompt},
        deps=sources,
        command=_command,
        collect=_collect,
    )  # fmt: skip


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    args = stage.args
    words: dict[str, Any] = {"kind": args["kind"], "language": args["language"]}
    if "few_shot" in deps:
        words |= {"few-shot": args["few_shot"], "few-shot-path": str(deps["few_shot"])}
    prompt = [] if args["prompt"] is None else [f"--prompt={args['prompt']}"]
    return Command((*stage.program, args["name"], str(deps["bank"]), str(out), *flags(words), *prompt))


def _collect(out: Path, _stage: Stage, _deps: Paths) -> dict[str, Any]:
    return jsonl.record(out / COUNTS_FILE)
