"""EvalScope by its command line and output files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.bank import prompts as bank_prompts
from pipeline.command import Command, flags
from pipeline.endpoint import Endpoint
from pipeline.harnesses.base import PLAIN_TEMPLATE, benchmarks, first_batch, local_data, twice
from pipeline.harnesses.evalscope_read import MODEL_ID, read
from pipeline.stage import Paths, Stage
from pipeline.suites import EvalScopeSpec

__all__ = ["DISTRIBUTION", "PROGRAM", "args", "command", "inputs", "needs_hub", "plumbing", "problems", "read"]

DISTRIBUTION = "evalscope"
PROGRAM: tuple[str, ...] = ("evalscope", "eval")

_DTYPES = {"float32": "torch.float32", "bfloat16": "torch.bfloat16", "float16": "torch.float16"}

MAX_TOKENS = 2048
"""Of an answer, where nothing is said: EvalScope's own limit for local models. Over an API it would give none."""


def args(spec: EvalScopeSpec, *, chat_template: bool, endpoint: Endpoint | None = None) -> dict[str, Any]:
    return {
        "datasets": [{"name": b.name, "local": bool(b.path), "args": b.args} for b in benchmarks(spec)],
        "limit": spec.limit,
        "backend": "api" if endpoint else spec.backend,
        **({"endpoint": endpoint.identity} if endpoint else {"batch_size": spec.batch_size}),
        "model_args": ({} if endpoint else _model_args(spec, chat_template=chat_template)) | spec.model_args,
        "generation": _generation(spec, endpoint) | spec.generation,
        "system_prompt": spec.system_prompt,
        "judge": {"model_id": spec.judge.model, "api_url": spec.judge.url} if spec.judge else None,
        "seed": spec.seed,
        "extra": dict(spec.extra_args),
    }


def _model_args(spec: EvalScopeSpec, *, chat_template: bool) -> dict[str, Any]:
    # Without a precision EvalScope loads local checkpoints in float16, on a CPU too.
    found: dict[str, Any] = {"precision": _DTYPES.get(spec.precision, spec.precision)}
    if not chat_template:
        found["chat_template"] = PLAIN_TEMPLATE
    if spec.attention != "auto":
        found["attn_implementation"] = spec.attention
    if spec.enable_thinking is not None:
        found["enable_thinking"] = spec.enable_thinking
    return found


def _generation(spec: EvalScopeSpec, endpoint: Endpoint | None) -> dict[str, Any]:
    if not endpoint:
        return {"do_sample": False, **({"max_tokens": spec.max_tokens} if spec.max_tokens else {})}
    thinks = {"chat_template_kwargs": {"enable_thinking": spec.enable_thinking}}
    return {
        "temperature": 0.0,
        "max_tokens": spec.max_tokens or MAX_TOKENS,
        **({} if spec.enable_thinking is None else {"extra_body": thinks}),
    }


def plumbing(spec: EvalScopeSpec, endpoint: Endpoint | None = None) -> dict[str, Any]:
    judge = {"judge_key_env": spec.judge.key_env} if spec.judge else {}
    if endpoint:
        return {"concurrency": spec.concurrency, "key_env": endpoint.key_env, **judge}
    # `auto` would put what does not fit into main memory without a word, and be slower by a factor of 10 to 100.
    device = "cpu" if spec.device == "cpu" else "auto" if spec.gpus > 1 else "cuda:0"
    return {"device_map": device, **first_batch(spec), **judge}


def problems(spec: EvalScopeSpec, *, chat_template: bool, endpoint: Endpoint | None = None) -> list[str]:
    serve = "serve the model (`vllm serve DIR --served-model-name NAME`) and give it by `url`"
    given = {
        f"backend: EvalScope runs local models by transformers alone; {serve}, or use backend: hf": (
            spec.backend == "vllm" and not endpoint
        ),
        "attention: the server decides on it; leave it at auto": endpoint and spec.attention != "auto",
        "chat_template: false is impossible over a chat endpoint, which applies the model's template; use lm_eval": (
            endpoint and not chat_template
        ),
        "enable_thinking: speaks to the chat template, which chat_template: false leaves out; drop one of them": (
            spec.enable_thinking is not None and not chat_template
        ),
        "system_prompt: would be glued to the question under chat_template: false; put it into prompt_template": (
            spec.system_prompt is not None and not chat_template
        ),
    }
    thinking = ["enable_thinking", *(["extra_body"] if endpoint else [])]
    return [
        *(text for text, holds in given.items() if holds),
        *twice(
            "generation",
            spec.generation,
            max_tokens=(spec.max_tokens, ["max_tokens"]),
            enable_thinking=(spec.enable_thinking, thinking),
        ),
        *twice(
            "model_args",
            spec.model_args,
            precision=(spec.precision, ["precision"]),
            enable_thinking=(spec.enable_thinking, ["enable_thinking"]),
        ),
    ]


def inputs(spec: EvalScopeSpec) -> dict[str, Path]:
    return local_data(spec)


def needs_hub(spec: EvalScopeSpec) -> bool:
    return any(b.path is None for b in benchmarks(spec))


def command(stage: Stage, out: Path, deps: Paths) -> Command:
    args, plumbing = stage.args, stage.plumbing
    system = {} if args["system_prompt"] is None else {"system_prompt": args["system_prompt"]}
    overrides = {}
    for index, entry in enumerate(args["datasets"]):
        local = {"local_path": str(deps[f"data{index}.{entry['name']}"])} if entry["local"] else {}
        if local or system or entry["args"]:
            overrides[entry["name"]] = {**local, **system, **entry["args"]}
    words, keys = _model(stage, deps)
    names = [entry["name"] for entry in args["datasets"]]
    for bank in args.get("banks", ()):
        name = bank_prompts.DATASETS[bank["kind"]]
        names.append(name)
        overrides[name] = {**system, **bank_prompts.evalscope_args(bank, deps[f"bank.{bank['name']}"])}
    words["datasets"] = names
    if overrides:
        words["dataset-args"] = overrides
    if args["limit"] is not None:
        words["limit"] = args["limit"]
    words |= {
        "generation-config": args["generation"],
        # Over an API it is the number of requests at a time.
        "eval-batch-size": plumbing.get("concurrency") or plumbing.get("batch_size") or args["batch_size"],
        "seed": args["seed"],
        "work-dir": str(out),
        "no-timestamp": None,
    }
    if args["judge"]:
        words["judge"] = {"models": [args["judge"]]}
        # The one variable llm_judge.py reads a key from; argv would show it to everybody on the machine.
        keys |= {"MODELSCOPE_SDK_TOKEN": plumbing["judge_key_env"]}
    words |= {k: None if v is True else v for k, v in args["extra"].items()}
    return Command((*stage.program, *flags(words)), env=dict(stage.env), keys=keys)


def _model(stage: Stage, deps: Paths) -> tuple[dict[str, Any], dict[str, str]]:
    """Flags that name the model, and which variable its key is read from."""
    args, plumbing = stage.args, stage.plumbing
    if "endpoint" not in args:
        given = {"device_map": plumbing["device_map"], **args["model_args"]}
        return {"model": str(deps["model"]), "model-id": MODEL_ID, "model-args": given}, {}
    words = {"model": args["endpoint"]["model"], "model-id": MODEL_ID, "eval-type": "openai_api"}
    # With the default, the word EMPTY, EvalScope 1.14.1 would not look into the environment.
    words |= {"api-url": args["endpoint"]["url"], "api-key": ""}
    return words | ({"model-args": args["model_args"]} if args["model_args"] else {}), {
        "EVALSCOPE_API_KEY": plumbing["key_env"]
    }
