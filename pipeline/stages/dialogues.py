"""Stages `asked` and `dialogues`: conversations out of the recipe and val.jsonl, and one model's greedy answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline import dialogues, jsonl
from pipeline.command import Command, flags
from pipeline.endpoint import Endpoint
from pipeline.errors import OutputError
from pipeline.recipe import DialogueSpec, ModelSpec
from pipeline.stage import CPU_ENV, Paths, Source, Stage
from pipeline.stages import prepare


def asked(spec: DialogueSpec, *, data: Stage | None) -> Stage:
    """What is asked, the same for all models. Without `data` there is no validation to take any from."""
    some = data if spec.from_validation and data and data.args["val_fraction"] else None
    return Stage(
        name="asked",
        program=("python", "-m", "pipeline.dialogues"),
        args={
            "prompts": list(spec.prompts),
            "from_validation": spec.from_validation if some else 0,
            "system": spec.system,
        },
        deps={**({"path": Source(spec.path)} if spec.path else {}), **({"data": some} if some else {})},
        command=_choose,
        collect=_asked,
    )


def stage(
    spec: DialogueSpec, model_spec: ModelSpec, *, model: Stage | Source | Endpoint, asked: Stage, chat_template: bool
) -> Stage:
    """`spec` is resolved: no `auto` left."""
    if isinstance(model, Endpoint):
        return Stage(
            name="dialogues",
            program=("python", "-m", "pipeline.endpoint"),
            args={"endpoint": model.identity, "max_tokens": spec.max_tokens},
            plumbing={"key_env": model.key_env},
            deps={"asked": asked},
            command=_ask_server,
            collect=_answers,
        )
    cpu = spec.device == "cpu"
    return Stage(
        name="dialogues",
        program=("swift", "infer"),
        args={
            "infer_backend": "transformers",
            "torch_dtype": spec.precision,
            "use_chat_template": chat_template,
            "temperature": 0,
            "max_new_tokens": spec.max_tokens,
            # A merged model's args.json may name plugins, which swift would import and run.
            "load_args": False,
            **model_spec.swift_args,
        },
        plumbing={"stream": False},
        deps={"model": model, "asked": asked},
        command=_infer,
        collect=_answers,
        env={"HF_HUB_OFFLINE": "1", **(CPU_ENV if cpu else {})},
        gpus=0 if cpu else 1,
    )


def _choose(stage: Stage, out: Path, deps: Paths) -> Command:
    args = stage.args
    turns = [{"messages": [{"role": "user", "content": text}]} for text in args["prompts"]]
    prompts = out / "prompts.jsonl"
    files = {prompts: "".join(json.dumps(turn, ensure_ascii=False) + "\n" for turn in turns)} if turns else {}
    words: dict[str, Any] = {"given": [str(path) for path in (*files, *([deps["path"]] if "path" in deps else []))]}
    if "data" in deps:
        words |= {"validation": str(prepare.val_file(deps["data"])), "count": args["from_validation"]}
    system = () if args["system"] is None else (f"--system={args['system']}",)
    return Command((*stage.program, str(out), *flags(words), *system), files=files)


def _asked(out: Path, _stage: Stage, _deps: Paths) -> dict[str, Any]:
    count = sum(1 for _ in jsonl.lines(out / dialogues.ASKED))
    if not count:
        raise OutputError(f"{out}: nothing to ask: give dialogues.prompts or dialogues.path, or drop `dialogues`")
    return {"asked": count}


def _infer(stage: Stage, out: Path, deps: Paths) -> Command:
    places = {
        "model": str(deps["model"]),
        "val_dataset": str(deps["asked"] / dialogues.ASKED),
        "result_path": str(_written(out)),
    }
    return Command((*stage.program, *flags({**places, **stage.args, **stage.plumbing})), env=dict(stage.env))


def _ask_server(stage: Stage, out: Path, deps: Paths) -> Command:
    args = stage.args
    words = {"asked": str(deps["asked"] / dialogues.ASKED), "out": str(_written(out)), "max-tokens": args["max_tokens"]}
    place = (args["endpoint"]["url"], args["endpoint"]["model"])
    return Command((*stage.program, *place, *flags(words)), keys={"OPENAI_API_KEY": stage.plumbing["key_env"]})


def _written(out: Path) -> Path:
    return out / "answers.jsonl"


def _answers(out: Path, _stage: Stage, deps: Paths) -> dict[str, Any]:
    """Answers in the order asked; OutputError if any is missing: swift drops rows that it cannot encode."""
    rows = [row["messages"] for row in jsonl.records(deps["asked"] / dialogues.ASKED)]
    references = json.loads((deps["asked"] / dialogues.REFERENCES).read_text(encoding="utf-8"))
    texts = [row.get("response") for row in jsonl.records(_written(out))]
    if len(texts) != len(rows) or not all(isinstance(text, str) for text in texts):
        raise OutputError(f"{_written(out)}: {len(texts)} answers to {len(rows)} conversations, or one without a text")
    return {
        "dialogues": [
            {"messages": messages, "reference": reference, "answer": text}
            for messages, reference, text in zip(rows, references, texts, strict=True)
        ]
    }
