"""Stage `merge-check`: is the exported model what was trained, and is it asked as it was trained?

By `python -m pipeline.training.merge_logits`. Evaluations of the tuned model come after it when `export.check` is
`fail`; nothing reads its output, so it makes nothing again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.template import SETTINGS
from pipeline.causes import MEMORY
from pipeline.command import Command, flags
from pipeline.errors import OutputError
from pipeline.files import read_json
from pipeline.recipe import Recipe
from pipeline.stage import CPU_ENV, Args, Paths, Source, Stage
from pipeline.stages import prepare, train
from pipeline.stages.count_tokens import pair
from pipeline.stages.evaluate import applies_template
from pipeline.suites import EvalScopeSpec, LmEvalSpec
from pipeline.training import merge_check
from pipeline.training.merge_logits import RESULT


def stage(recipe: Recipe, *, base: Stage | Source, data: Stage, trained: Stage, exported: Stage) -> Stage:
    """`recipe` is resolved and has `train`. On a GPU where the training has one: large models take long on a CPU."""
    assert recipe.train is not None
    cuda = bool(recipe.train.gpus)
    template = {"use_chat_template": recipe.chat_template, **recipe.train.extra_args}
    return Stage(
        name="merge-check",
        program=("python", "-m", "pipeline.training.merge_logits"),
        args={
            **recipe.models[0].swift_args,
            "template_settings": {name: template[name] for name in SETTINGS if name in template},
            "system": data.args.get("system"),
            "readers": readers(recipe),
            "quantization": recipe.train.quantization,
        },
        plumbing={"cuda": cuda, "trust_remote_code": recipe.trust_remote_code},
        deps={"model": base, "data": data, "adapter": trained, "merged": exported},
        command=_command,
        collect=_collect,
        env={"HF_HUB_OFFLINE": "1", **({} if cuda else CPU_ENV)},
        gpus=1 if cuda else 0,
        retry=_retry,
        verdict=merge_check.problem if recipe.export.check == "fail" else Stage.verdict,
    )


def _retry(kind: str, plumbing: Args) -> Args | None:
    """On the CPU where the GPU had no room: somebody else may sit on it, whom our slots do not know."""
    return {**plumbing, "cuda": False} if kind == MEMORY and plumbing["cuda"] else None


def readers(recipe: Recipe) -> list[dict[str, Any]]:
    """How the suites render what they ask, each way once; the plain one of both harnesses where there are no suites."""
    found = [_reader(suite) for suite in recipe.eval if applies_template(suite, recipe=recipe.chat_template)]
    if not recipe.eval:
        found = [{"harness": "lm_eval"}, {"harness": "evalscope"}]
    return [reader for index, reader in enumerate(found) if reader not in found[:index]]


def _reader(suite: LmEvalSpec | EvalScopeSpec) -> dict[str, Any]:
    given = {"enable_thinking": suite.enable_thinking, "system": suite.system_prompt}
    wanted: Sequence[str] = ("enable_thinking", "tokenizer_call_args", "add_bos_token")
    return {
        "harness": suite.harness,
        **{key: value for key, value in given.items() if value is not None},
        **{key: suite.model_args[key] for key in wanted if key in suite.model_args},
    }


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    args, plumbing = stage.args, stage.plumbing
    words: dict[str, Any] = {
        "base": str(deps["model"]),
        "adapter": str(_adapter(stage, deps)),
        "merged": str(deps["merged"]),
        "rows": [str(prepare.val_file(deps["data"])), str(prepare.train_file(deps["data"]))],
    }
    words |= {key.replace("_", "-"): args[key] for key in ("model_type", "template") if key in args}
    settings = [word for name, value in args["template_settings"].items() for word in flags({"set": pair(name, value)})]
    switches = {key.replace("_", "-"): None for key, value in plumbing.items() if value}
    settings += [] if args["system"] is None else [f"--system={args['system']}"]
    readers = flags({"readers": json.dumps(args["readers"], ensure_ascii=False)})
    return Command(
        (*stage.program, str(out), *flags(words), *settings, *readers, *flags(switches)), env=dict(stage.env)
    )


def _adapter(stage: Stage, deps: Paths) -> Path:
    """The checkpoint that the export was given."""
    exported, trained = stage.deps["merged"], deps["adapter"]
    assert isinstance(exported, Stage)
    return train.checkpoint(trained.parent, exported.args["checkpoint"]) if "checkpoint" in exported.args else trained


def _collect(out: Path, stage: Stage, _deps: Paths) -> dict[str, Any]:
    """The numbers, the verdict, and both in words."""
    measured = read_json(out / RESULT)
    if not isinstance(measured, dict):
        raise OutputError(f"{out / RESULT}: missing or cut, though the check ended well")
    tensors = measured.get("tensors")
    verdict = merge_check.judge(measured["logits"]) if tensors is None else merge_check.judge_tensors(tensors)
    result: dict[str, Any] = {**measured, "verdict": verdict, "quantization": stage.args["quantization"]}
    return {**result, "remarks": list(merge_check.remarks(result))}
