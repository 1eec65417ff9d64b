"""Every flag, task name and settings key this project hands to a tool exists in the installed version of that tool.

The tools accept much in silence (an unknown dataset-args key is ignored, an abbreviated flag is completed), so their
own parsers and tables are asked. In child processes: importing them takes up to 15 s each, and torch stays out of here.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PreflightError
from pipeline.machine import read_machine
from pipeline.plan import plan
from pipeline.recipe import Recipe
from pipeline.recipe_file import load_recipe
from pipeline.resolve import resolve
from pipeline.stage import Stage
from tests.golden import MACHINES, RECIPES, ROOT, before_the_model

pytestmark = pytest.mark.slow

# Every key of the schema that ends in a flag, with what no recipe of ours uses.
RICH: dict[str, Any] = {
    "name": "rich",
    "model": {"path": "m", "model_type": "qwen3", "template": "qwen3"},
    "data": {"sources": [{"path": "d"}]},
    "train": {"max_steps": 3, "target_modules": ["q_proj", "v_proj"], "deepspeed": "zero2", "truncation": "delete"},
    "export": {"precision": "bfloat16"},
    "eval": [
        {
            "harness": "lm_eval", "limit": 2, "num_fewshot": 1, "include_path": "tasks", "gen_kwargs": {"temperature": 0.5},
            "tasks": ["x", {"name": "y", "path": "data"}], "model_args": {"max_length": 8},
            "system_prompt": "s", "enable_thinking": True, "max_tokens": 9, "attention": "sdpa", "unsafe_code": True,
        },
        {
            "harness": "evalscope", "limit": 2, "datasets": [{"name": "general_mcq", "path": "bank"}],
            "system_prompt": "s", "enable_thinking": True, "max_tokens": 9, "attention": "sdpa",
            "judge": {"url": "http://judge/v1", "model": "j"},
        },
    ],
    "dialogues": {"prompts": ["p"], "system": "s"},
}  # fmt: skip
SERVED: dict[str, Any] = {
    "name": "served",
    "model": {"url": "http://h/v1", "served_as": "m", "tokenizer": "t"},
    "eval": [{key: value for key, value in suite.items() if key != "attention"} for suite in RICH["eval"]],
}


TRAININGS: list[dict[str, Any]] = [
    {"tuner": "full", "epochs": 1},
    {"tuner": "full", "deepspeed": "zero3_offload", "overlap_comm": False},
    {"dora": True, "rslora": True, "liger": True},
    {"quantization": "4bit", "packing": False, "padding_free": True},
    {"quantization": "8bit", "gradient_checkpointing": False},
    {"deepspeed": "none", "attention": "sdpa"},
    *(
        {"gpus": 0, "cpu_processes": 2, "deepspeed": zero}
        for zero in ("none", "zero1", "zero2", "zero3", "zero2_offload")
    ),
]
"""What no recipe trains with; those that a machine cannot are passed over there."""


def trainings() -> Iterator[Stage]:
    for machine, train in itertools.product(MACHINES, TRAININGS):
        recipe = Recipe.model_validate_json(json.dumps(RICH | {"train": train, "export": {}, "eval": []}))
        with suppress(PreflightError):
            yield from plan(resolve(recipe, read_machine(machine))[0]).stages.values()


def stages() -> Iterator[Stage]:
    yield from trainings()
    for recipe, machine in itertools.product(RECIPES, MACHINES):
        loaded, facts = load_recipe(recipe, env={}), read_machine(machine)
        with suppress(PreflightError):
            yield from plan(resolve(loaded, facts, *before_the_model(loaded, facts))[0]).stages.values()
    for machine in MACHINES:
        for plain in (True, False):
            rich = Recipe.model_validate_json(json.dumps(RICH | {"chat_template": plain}))
            if machine.stem != "mac":  # DeepSpeed needs Linux
                yield from plan(resolve(rich, read_machine(machine))[0]).stages.values()
            served = Recipe.model_validate_json(json.dumps(SERVED | {"chat_template": plain}))
            yield from plan(resolve(served, read_machine(machine))[0]).stages.values()


def commands(program: str) -> list[list[str]]:
    """All different argument lists for a tool and its subcommand, once each."""
    found = {}
    for stage in stages():
        if " ".join(stage.program) == program:
            places = {role: Path("place") / role for role in stage.deps}
            argv = stage.command(stage, Path("out"), places).argv[len(stage.program) :]
            found[tuple(argv)] = list(argv)
    assert found
    return list(found.values())


def ask(code: str, value: object) -> Any:
    """JSON that the code leaves in `answer`, given `value`; in its own process and a scratch working directory."""
    script = f"import json, sys\nvalue = json.load(sys.stdin)\n{code}\nprint('ANSWER' + json.dumps(answer))"
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(value), capture_output=True, text=True, check=False, timeout=300,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rsplit("ANSWER", 1)[1])


def test_every_training_is_planned_somewhere():
    found = list(trainings())
    seen = {json.dumps(stage.args, sort_keys=True) for stage in found if stage.name == "train"}
    assert len(seen) >= len(TRAININGS)
    told = {flag for stage in found if stage.name == "train" for flag in stage.args}
    assert told >= {
        "use_dora",
        "use_rslora",
        "use_liger_kernel",
        "padding_free",
        "quant_bits",
        "bnb_4bit_quant_type",
        "deepspeed",
    }


@pytest.mark.parametrize(
    ("program", "module", "name"),
    [
        ("swift sft", "swift.arguments.sft_args", "SftArguments"),
        ("swift export", "swift.arguments.export_args", "ExportArguments"),
        ("swift infer", "swift.arguments.infer_args", "InferArguments"),
    ],
)
def test_swift(program, module, name):
    argvs = commands(program)
    flags = sorted({word[2:].split("=")[0] for argv in argvs for word in argv if word.startswith("--")})
    code = f"""
import dataclasses
from transformers import HfArgumentParser
from {module} import {name} as Arguments
known = {{field.name for field in dataclasses.fields(Arguments)}}
parser = HfArgumentParser(Arguments)
parser.exit_on_error = False
for argv in value["argvs"]:
    parser.parse_args(argv)
answer = [flag for flag in value["flags"] if flag not in known]
"""
    assert ask(code, {"flags": flags, "argvs": argvs}) == []
    assert len(flags) >= 5


def test_lm_eval():
    code = """
import argparse
from lm_eval._cli.run import Run
answer = []
parser = argparse.ArgumentParser(allow_abbrev=False)
subparsers = parser.add_subparsers()
Run.create(subparsers)
run = subparsers.choices["run"]
run.allow_abbrev = False
for argv in value:
    parsed = vars(run.parse_args(argv))
    answer.append([parsed["tasks"], parsed["model"], parsed["model_args"]])
"""
    argvs = commands("lm_eval run")
    parsed = ask(code, argvs)
    assert len(parsed) == len(argvs)
    local = [args for _, model, args in parsed if model == "hf"]
    assert all("pretrained" in args and "dtype" in args for args in local)
    served = {model: args for _, model, args in parsed if model != "hf"}
    assert set(served) == {"local-chat-completions", "local-completions"}
    code = """
import ast, inspect, pathlib
import lm_eval
from lm_eval.models.api_models import TemplateAPI
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalChatCompletion
known = {name: set(inspect.signature(cls.__init__).parameters) for name, cls in
         {"api": TemplateAPI, "chat": LocalChatCompletion, "hf": HFLM}.items()}
# vLLM is not installed where tests run: its module can be read, but not imported
tree = ast.parse((pathlib.Path(lm_eval.__file__).parent / "models" / "vllm_causallms.py").read_text())
[vllm] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "VLLM"]
[init] = [node for node in vllm.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
known["vllm"] = {argument.arg for argument in init.args.args}
answer = [key for key in value["api"] if key not in known["api"] | known["chat"]]
# transformers takes whatever lm-eval passes on
answer += [key for key in value["hf"] if key not in known["hf"] | {"attn_implementation"}]
answer += [key for key in ("enable_thinking", "think_end_token", "tensor_parallel_size") if key not in known["vllm"]]
"""
    assert (
        ask(code, {"api": sorted({k for a in served.values() for k in a}), "hf": sorted({k for a in local for k in a})})
        == []
    )


def test_evalscope():
    code = """
import argparse
from evalscope.arguments import add_argument
from evalscope.api.model import GenerateConfig
from evalscope.api.registry import BENCHMARK_REGISTRY
from evalscope.config import JudgeConfig
import evalscope.benchmarks
parser = argparse.ArgumentParser(allow_abbrev=False)
add_argument(parser)
answer = []
for argv in value:
    parsed = parser.parse_args(argv)
    answer += [key for key in parsed.generation_config if key not in GenerateConfig.model_fields]
    JudgeConfig.model_validate(parsed.judge or {})
    for name in parsed.datasets:
        if name not in BENCHMARK_REGISTRY:
            answer.append(name)
            continue
        arguments = (parsed.dataset_args or {}).get(name, {})
        known = {*dir(BENCHMARK_REGISTRY[name]), *vars(BENCHMARK_REGISTRY[name]), "local_path", "filters", "extra_params"}
        answer += [f"{name}.{key}" for key in arguments if key not in known]
"""
    assert ask(code, commands("evalscope eval")) == []


def test_the_variables_that_keys_are_read_from():
    code = """
import inspect
from evalscope.metrics.judge.llm_judge import LLMJudge
from evalscope.models.openai_compatible import OpenAICompatibleAPI
from lm_eval.models.openai_completions import LocalCompletionsAPI
places = {"EVALSCOPE_API_KEY": OpenAICompatibleAPI, "MODELSCOPE_SDK_TOKEN": LLMJudge, "OPENAI_API_KEY": LocalCompletionsAPI}
answer = [name for name, place in places.items() if name not in inspect.getsource(place)]
"""
    assert ask(code, None) == []


def test_model_settings_of_the_recipes_reach_the_models():
    found: dict[str, set[str]] = {"lm_eval": set(), "evalscope": set()}
    for recipe in RECIPES:
        for suite in load_recipe(recipe, env={}).eval:
            found[suite.harness] |= set(suite.model_args)
    code = """
import inspect, re
from lm_eval.models.huggingface import HFLM
from evalscope.models import modelscope
known = {"lm_eval": set(inspect.signature(HFLM.__init__).parameters)}
known["evalscope"] = set(re.findall(r"collect_model_arg\\('(\\w+)'\\)", inspect.getsource(modelscope)))
answer = [key for harness, keys in value.items() for key in keys if key not in known[harness]]
"""
    assert ask(code, {harness: sorted(keys) for harness, keys in found.items()}) == []
    assert "enable_thinking" in found["evalscope"]
