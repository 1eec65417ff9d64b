"""Stage `eval`: one suite of one harness on one model. Base and tuned are the same stage with another model."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline import mmlu, samples
from pipeline.bank import scores as bank_scores
from pipeline.bank import suite as bank_suite
from pipeline.bank.spec import BankSpec
from pipeline.causes import MEMORY
from pipeline.command import Command
from pipeline.endpoint import Endpoint
from pipeline.errors import OutputError
from pipeline.files import read_json
from pipeline.harnesses import HARNESSES
from pipeline.harnesses.base import FILES
from pipeline.provenance import version
from pipeline.results import with_stderr
from pipeline.stage import CPU_ENV, Args, Paths, Source, Stage
from pipeline.suites import EvalScopeSpec, LmEvalSpec

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

CACHE = "datasets"
"""Folder of an attempt, gone once its output is collected: tables that are made of local data."""
NO_BANKS: Mapping[str, tuple[BankSpec, Stage]] = MappingProxyType({})


def stage(
    spec: LmEvalSpec | EvalScopeSpec,
    *,
    model: Stage | Source | Endpoint,
    banks: Mapping[str, tuple[BankSpec, Stage]] = NO_BANKS,
    chat_template: bool,
    offline: bool,
) -> Stage:
    """`spec` is resolved: no `auto` left but those of batch size and attention, which are the harness's business.

    `banks`: the recipe's own question banks by name, settings and stage; the suite asks those it names.
    """
    harness = HARNESSES[spec.harness]
    spec, asked = bank_suite.split(spec, banks)
    endpoint = model if isinstance(model, Endpoint) else None
    chat_template = applies_template(spec, recipe=chat_template)
    cpu = spec.device == "cpu" or endpoint is not None
    return Stage(
        name="eval",
        program=harness.PROGRAM,
        args=harness.args(spec, chat_template=chat_template, endpoint=endpoint)
        | ({"banks": [bank_suite.settings(name, banks[name][0], spec.harness) for name in asked]} if asked else {}),
        plumbing=harness.plumbing(spec, endpoint) | _cache(spec, offline=offline),
        deps={
            **_model(model),
            **{role: Source(path) for role, path in harness.inputs(spec).items()},
            **{f"bank.{name}": banks[name][1] for name in asked},
        },
        command=_command,
        collect=_collect,
        # What is on disk needs no hub; asking anyway costs seconds of retries behind a firewall.
        env={
            **(OFFLINE if offline or not harness.needs_hub(spec) else {}),
            **(CPU_ENV if cpu else {}),
        },
        secrets=("HF_TOKEN", "MODELSCOPE_API_TOKEN") if harness.needs_hub(spec) and not offline else (),
        tool=(spec.harness, version(harness.DISTRIBUTION) or "not installed"),
        gpus=0 if cpu else spec.gpus,
        retry=_half,
        version=2,
    )


def _cache(spec: LmEvalSpec | EvalScopeSpec, *, offline: bool) -> dict[str, Any]:
    """Local data get a cache of their own; beside data that only the shared one holds, there is no choice."""
    harness = HARNESSES[spec.harness]
    folders = any(role.startswith("data") and path.suffix not in FILES for role, path in harness.inputs(spec).items())
    return {"own_cache": True} if folders and not (offline and harness.needs_hub(spec)) else {}


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    """The harness's command. datasets 4.8.4 finds a local folder in its cache by the folder's name and its README alone
    (load.LocalDatasetModuleFactory: the hash is of the configurations), so it answers with what an edited file held
    before, or with the files of another folder of that name.
    """
    assert stage.tool is not None
    command = HARNESSES[stage.tool[0]].command(stage, out, deps)
    if not stage.plumbing.get("own_cache"):
        return command
    return replace(command, env={**command.env, "HF_DATASETS_CACHE": str(out / CACHE)})


def _half(kind: str, plumbing: Args) -> Args | None:
    """Half the batch after out-of-memory; a size that the recipe names stands in `args` and is kept."""
    size = plumbing.get("batch_size")
    if kind != MEMORY or not isinstance(size, int) or size == 1:
        return None
    return {**plumbing, "batch_size": size // 2}


def applies_template(spec: LmEvalSpec | EvalScopeSpec, *, recipe: bool) -> bool:
    """The recipe's `chat_template`, unless the suite has its own."""
    return recipe if spec.chat_template is None else spec.chat_template


def _model(model: Stage | Source | Endpoint) -> dict[str, Stage | Source]:
    if not isinstance(model, Endpoint):
        return {"model": model}
    return {"tokenizer": Source(model.tokenizer)} if model.tokenizer else {}


def _collect(out: Path, stage: Stage, deps: Paths) -> dict[str, Any]:
    """Scores as the result, items as a file beside the harness's own: there are thousands of them."""
    assert stage.tool is not None
    scores, items, remarks = HARNESSES[stage.tool[0]].read(out, stage)
    if not scores:
        raise OutputError(f"{out}: the harness ended well but gave no score")
    if "banks" in stage.args:
        folders = {bank["name"]: deps[f"bank.{bank['name']}"] for bank in stage.args["banks"]}
        scores, items, more = bank_scores.replace(stage.args["banks"], folders, stage.tool[0], scores, items)
        remarks = [*remarks, *more]
    if mmlu.ROLE in deps and "model" in deps:
        scores, items, more = mmlu.finish(out, deps["model"], scores, items)
        remarks = [*remarks, *more]
    if "model" in deps and any(item.output for item in items):
        remarks = [*remarks, *_penalised(stage, deps["model"])]
    samples.write(out / samples.FILE, items)
    shutil.rmtree(out / CACHE, ignore_errors=True)
    return {
        "scores": [score.model_dump(mode="json") for score in with_stderr(scores, items)],
        "remarks": remarks,
        "samples": len(items),
    }


def _penalised(stage: Stage, model: Path) -> Iterator[str]:
    """What greedy decoding is not: transformers takes what a harness does not say from the model's own file."""
    told = read_json(model / "generation_config.json")
    penalty = told.get("repetition_penalty") if isinstance(told, dict) else None
    if stage.args["backend"] != "hf" or not isinstance(penalty, int | float) or penalty == 1:
        return
    # EvalScope 1.14.1 hands a local model only what it knows of its generation config, and all of `extra_body`.
    scope = "generation" in stage.args
    given = (stage.args["generation"].get("extra_body") or {}) if scope else stage.args["gen_kwargs"]
    if "repetition_penalty" not in given:
        off = (
            "generation: {extra_body: {repetition_penalty: 1.0}}" if scope else "gen_kwargs: {repetition_penalty: 1.0}"
        )
        yield (
            f"answers are written with the repetition penalty of the model's generation_config.json ({penalty:g}), "
            f"which counts the prompt's words, too; {off} turns it off"
        )
