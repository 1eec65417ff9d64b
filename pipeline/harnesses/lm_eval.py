"""lm-evaluation-harness by its command line and output files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline import mmlu
from pipeline.bank import prompts as bank_prompts
from pipeline.catalog.lookup import is_group
from pipeline.command import Command, flags
from pipeline.endpoint import ANSWER_S, Endpoint
from pipeline.harnesses.base import FILES, benchmarks, first_batch, local_data, twice
from pipeline.harnesses.lm_eval_read import SUITE, read
from pipeline.provenance import version
from pipeline.stage import Paths, Stage
from pipeline.suites import LmEvalSpec

__all__ = ["DISTRIBUTION", "PROGRAM", "args", "command", "inputs", "needs_hub", "plumbing", "problems", "read"]

DISTRIBUTION = "lm-eval"
PROGRAM: tuple[str, ...] = ("lm_eval", "run")

THINK_END = "</think>"
"""What ends the thoughts; lm-eval 0.4.13 wants to be told when enable_thinking is true."""
_MAX_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


def args(spec: LmEvalSpec, *, chat_template: bool, endpoint: Endpoint | None = None) -> dict[str, Any]:
    return {
        # Paths are not here: the content of local data enters through the stage's dependencies.
        "tasks": [
            {"name": b.name, "local": "file" if b.path and b.path.suffix in FILES else bool(b.path), "args": b.args}
            for b in benchmarks(spec)
        ],
        "num_fewshot": spec.num_fewshot,
        "limit": spec.limit,
        "backend": "api" if endpoint else spec.backend,
        **({"endpoint": endpoint.identity} if endpoint else {"batch_size": spec.batch_size}),
        "model_args": _model_args(spec, endpoint) | spec.model_args,
        "gen_kwargs": _gen_kwargs(spec, endpoint) | spec.gen_kwargs,
        "apply_chat_template": chat_template,
        "system_prompt": spec.system_prompt,
        "seed": spec.seed,
        "extra": dict(spec.extra_args),
    }


def _model_args(spec: LmEvalSpec, endpoint: Endpoint | None) -> dict[str, Any]:
    found: dict[str, Any] = {} if endpoint else {"dtype": spec.precision}
    if not endpoint and spec.backend == "hf" and spec.precision in ("bfloat16", "float16"):
        # Else log-probabilities and their sums are rounded to 8 or 11 bits: between 64 and 128 to halves under bf16, so
        # that answers tie and the first one is chosen (lm-eval 0.4.13, models/huggingface.py).
        found["softmax_dtype"] = "float32"
    if not endpoint and spec.backend == "vllm":
        found["seed"] = spec.seed  # its own, for answers that are sampled; --seed does not reach it
    if spec.attention != "auto":
        found["attn_implementation"] = spec.attention
    if spec.enable_thinking is not None and not endpoint:
        found["enable_thinking"] = spec.enable_thinking
    if spec.enable_thinking:
        found["think_end_token"] = THINK_END
    return found


def _gen_kwargs(spec: LmEvalSpec, endpoint: Endpoint | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if spec.max_tokens is not None:
        found["max_gen_toks"] = spec.max_tokens
    if endpoint and spec.enable_thinking is not None:
        # Whatever lm-eval does not know goes into the request as it is; vLLM, SGLang and ms-swift read this field.
        found["chat_template_kwargs"] = {"enable_thinking": spec.enable_thinking}
    return found


def plumbing(spec: LmEvalSpec, endpoint: Endpoint | None = None) -> dict[str, Any]:
    unsafe: dict[str, Any] = {"unsafe_code": True} if spec.unsafe_code else {}
    if endpoint:
        return {"concurrency": spec.concurrency, "key_env": endpoint.key_env, **unsafe}
    if spec.gpus > 1 and spec.device != "cpu":
        unsafe |= {"gpus": spec.gpus}
    if spec.backend == "vllm":
        # A number is how many requests vLLM gets at a time, and waits for: only one that the recipe names is kept.
        named = spec.batch_size != "auto" and "batch_size" in spec.model_fields_set
        return {**({} if named else {"batch_size": "auto"}), **unsafe}
    device = {"device": "cpu" if spec.device == "cpu" else "cuda:0"}
    return {**device, **first_batch(spec), **unsafe}


def problems(spec: LmEvalSpec, *, chat_template: bool, endpoint: Endpoint | None = None) -> list[str]:
    vllm = spec.backend == "vllm" and not endpoint
    given = {
        "attention: the server decides on it; leave it at auto": endpoint and spec.attention != "auto",
        "model.url: lm-eval's client for APIs is not installed; run `make setup` (pip install 'lm-eval[api]')": (
            endpoint and version("tenacity") is None
        ),
        "attention: vLLM chooses its own; leave it at auto, or use backend: hf": vllm and spec.attention != "auto",
        "backend: vllm needs a GPU; use backend: hf": vllm and spec.device == "cpu",
        "backend: vllm is not installed in this environment (pip install vllm), or use backend: hf": (
            vllm and version("vllm") is None
        ),
        "enable_thinking: speaks to the chat template, which chat_template: false leaves out; drop one of them": (
            spec.enable_thinking is not None and not chat_template
        ),
    }
    return [
        *(text for text, holds in given.items() if holds),
        *mmlu.problems(benchmarks(spec)),
        *twice("gen_kwargs", spec.gen_kwargs, max_tokens=(spec.max_tokens, _MAX_TOKENS)),
        *twice(
            "model_args",
            spec.model_args,
            precision=(spec.precision, ["dtype"]),
            enable_thinking=(spec.enable_thinking, ["enable_thinking"]),
        ),
        *twice("extra_args", spec.extra_args, system_prompt=(spec.system_prompt, ["system_instruction"])),
    ]


def inputs(spec: LmEvalSpec) -> dict[str, Path]:
    own = {"include_path": spec.include_path} if spec.include_path else {}
    ways = {mmlu.ROLE: mmlu.FOLDER} if any(mmlu.is_way(b.name) for b in benchmarks(spec)) else {}
    return {**local_data(spec), **own, **ways}


def needs_hub(spec: LmEvalSpec) -> bool:
    """A task without local data may be the user's own, but what its YAML names is lm-eval's business to find."""
    return any(b.path is None for b in benchmarks(spec))


def command(stage: Stage, out: Path, deps: Paths) -> Command:
    args, plumbing = stage.args, stage.plumbing
    words: dict[str, Any] = (
        _served(stage, deps)
        if "endpoint" in args
        else {
            "model": args["backend"],
            "model_args": {"pretrained": str(deps["model"]), **_spread(stage), **args["model_args"]},
        }
    )
    names = [task["name"] for task in args["tasks"] if not (task["local"] or task["args"])]
    folders = [str(deps[role]) for role in ("include_path", mmlu.ROLE) if role in deps]
    files = {}
    if len(names) < len(args["tasks"]):
        suite = out / "suite.yaml"
        files[suite] = _suite(args["tasks"], deps)
        names.append(str(suite))
        if "\n- group:" in files[suite]:
            # Asked for by its path, a suite hands its list of tasks down to the groups in it, which then fail (0.4.13).
            names[-1] = SUITE
            folders.append(str(out))
    for bank in args.get("banks", ()):
        task = out / f"{bank_prompts.task_name(bank['name'])}.yaml"
        files[task] = _yaml(bank_prompts.lm_eval_task(bank, deps[f"bank.{bank['name']}"]))
        names.append(str(task))
    words["tasks"] = names
    if len(folders) == 1:
        words["include_path"] = folders[0]
    elif folders:  # the flag takes one, the configuration file several
        words["config"] = str(out / "include.yaml")
        files[out / "include.yaml"] = _yaml({"include_path": folders})
    for key in ("num_fewshot", "limit"):
        if args[key] is not None:
            words[key] = args[key]
    words["batch_size"] = plumbing.get("batch_size") or args.get("batch_size", 1)
    if args["gen_kwargs"]:
        words["gen_kwargs"] = args["gen_kwargs"]
    if args["system_prompt"] is not None:
        words["system_instruction"] = args["system_prompt"]
    if args["apply_chat_template"]:
        words["apply_chat_template"] = None
    words["seed"] = args["seed"]
    if "device" in plumbing:  # vLLM and an API take none
        words["device"] = plumbing["device"]
    words |= {"output_path": str(out), "log_samples": None}
    words |= {k: None if v is True else v for k, v in args["extra"].items()}
    env = dict(stage.env)
    if plumbing.get("unsafe_code"):  # the harness's own switch, and that of the metric which runs the code
        words["confirm_run_unsafe_code"] = None
        env["HF_ALLOW_CODE_EVAL"] = "1"
    keys = {"OPENAI_API_KEY": plumbing["key_env"]} if "endpoint" in args else {}
    return Command((*stage.program, *flags(words)), env=env, files=files, keys=keys)


def _spread(stage: Stage) -> dict[str, Any]:
    """Over several GPUs: each backend's own way to split a model."""
    if "gpus" not in stage.plumbing:
        return {}
    vllm = stage.args["backend"] == "vllm"
    return {"tensor_parallel_size": stage.plumbing["gpus"]} if vllm else {"parallelize": True}


def _served(stage: Stage, deps: Paths) -> dict[str, Any]:
    """The model behind a URL: chat completions, or, without the chat template, plain completions.

    Only plain completions can give likelihoods: of servers that echo the prompt's log-probabilities (vLLM does), and
    with a tokenizer, to tell the prompt's tokens from the answer's.
    """
    args, endpoint = stage.args, stage.args["endpoint"]
    tokenizer = {"tokenizer": str(deps["tokenizer"])} if "tokenizer" in deps else {}
    chat = args["apply_chat_template"]
    return {
        "model": "local-chat-completions" if chat else "local-completions",
        "model_args": {
            "model": endpoint["model"],
            "base_url": f"{endpoint['url']}/{'chat/completions' if chat else 'completions'}",
            # "auto" would ask the server for endpoints that only vLLM has, and then look for the model on the hub.
            **({} if chat else tokenizer | {"tokenizer_backend": "huggingface" if tokenizer else "none"}),
            "tokenized_requests": False,
            "num_concurrent": stage.plumbing["concurrency"],
            "timeout": int(ANSWER_S),
            **args["model_args"],
        },
    }


def _suite(tasks: list[dict[str, Any]], deps: Paths) -> str:
    """A group file that gives built-in (or the user's own) tasks local data and overrides.

    A group's entries inherit the named task; redefining the task itself would drop it out of its groups.
    """
    entries = []
    for index, task in enumerate(tasks):
        entry: dict[str, Any] = {"group" if is_group(task["name"]) else "task": task["name"]}
        if not (task["local"] or task["args"]):
            continue
        if task["local"]:
            path = str(deps[f"data{index}.{task['name']}"])
            if task["local"] == "file":
                split = task["args"].get("test_split") or "test"
                entry |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": {split: path}}}
            else:
                entry["dataset_path"] = path
        entries.append(entry | task["args"])
    return _yaml({"group": SUITE, "task": entries})


def _yaml(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
