"""Identity: whatever changes a result changes a stage's fingerprint, and nothing else does.

The property test goes through every leaf of resolved recipes, so a new setting that is forgotten in a stage's args
(or hashed although it is plumbing) fails here without anyone writing a test for it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipeline.machine import Gpu, Machine
from pipeline.plan import plan
from pipeline.recipe import Recipe
from pipeline.recipe_file import dump_recipe, load_recipe
from pipeline.resolve import resolve
from pipeline.sources import digest
from pipeline.stage import Source
from pipeline.stages import evaluate
from pipeline.store import Store
from pipeline.training.spec import HealthSpec

GPUS = Machine(
    system="Linux", cpus=8, memory_gb=32, flash_attention=("flash_attention_2",),
    gpus=(Gpu(name="A100", memory_gb=80, compute_capability=(8, 0)),),
)  # fmt: skip

BANKS = Path(__file__).parents[1] / "recipes" / "banks"

HUB: dict[str, Any] = {
    "name": "r",
    "description": "d",
    "model": {"id": "a/b", "hub": "modelscope", "revision": "v1", "name": "m", "model_type": "qwen3", "template": "qwen3"},
    "data": {
        "sources": [{
            "id": "c/d", "hub": "modelscope", "revision": "v1", "format": "alpaca",
            "columns": {"instruction": "question"}, "file": "*.jsonl", "limit": 100,
        }],
        "system": "s", "max_tokens": 512, "dedup": "near", "contamination": {"action": "drop"},
    },
    "train": {"epochs": 2, "target_modules": ["q", "v"], "extra_args": {"neftune_noise_alpha": 5, "lorap_lr_ratio": 16}},
    "export": {"precision": "bfloat16", "checkpoints": [200], "extra_args": {"quant_bits": 4}},
    "benchmarks": {
        "pceb": {"path": str(BANKS / "pceb_sample.jsonl"), "few_shot": 1, "few_shot_path": str(BANKS / "pceb_examples.jsonl")},
    },
    "eval": [
        {
            "harness": "lm_eval", "name": "one", "limit": 10, "num_fewshot": 5, "include_path": "tasks",
            "tasks": ["hellaswag", "pceb", {"name": "arc_easy", "path": "arc", "args": {"test_split": "test", "k": {"deep": 1}}}],
            "model_args": {"max_length": 512}, "gen_kwargs": {"temperature": 0.5}, "extra_args": {"fewshot_as_multiturn": True},
            "chat_template": True, "system_prompt": "s", "enable_thinking": False, "max_tokens": 64,
        },
        {
            "harness": "evalscope", "name": "two", "limit": 10,
            "datasets": ["gsm8k", {"name": "general_mcq", "path": "bank", "args": {"few_shot_num": 2}}],
            "generation": {"top_p": 0.5}, "model_args": {"tokenizer_path": "t"}, "extra_args": {"repeats": 2},
            "chat_template": True, "system_prompt": "s", "enable_thinking": False, "max_tokens": 64,
            "judge": {"url": "https://judge/v1", "model": "j", "key_env": "JUDGE_KEY"},
        },
    ],
    "dialogues": {"prompts": ["p"], "from_validation": 2, "system": "s", "max_tokens": 64},
    "gate": {"max_drop": {"hellaswag": 0.02}, "min_gain": {"arc_easy": 0.05}},
    "tracking": {"project": "p", "workspace": "w", "experiment": "e", "description": "d", "tags": ["t"], "group": "g"},
}  # fmt: skip
LOCAL = HUB | {
    "model": {"path": "model", "name": "m", "model_type": "qwen3", "template": "qwen3"},
    "data": {"sources": [{"path": "a.json", "format": "alpaca"}, {"path": "b.json"}]},
    "train": {"max_steps": 8, "target_modules": "all-linear"},
    "export": {"precision": "bfloat16"},
}

PLUMBING = {
    ("model", "name"), ("train", "save_steps"), ("train", "save_total_limit"), ("train", "logging_steps"), ("train", "misfit"), ("export", "check"),
    *(("train", "health", field) for field in HealthSpec.model_fields),
    ("train", "overlap_comm"),  # without DeepSpeed it has no meaning; where it has one: see below
    ("data", "max_reject_fraction"), ("eval", "device"), ("eval", "gpus"), ("eval", "name"),
    ("model", "key_env"), ("eval", "concurrency"), ("eval", "unsafe_code"), ("eval", "judge", "key_env"), ("dialogues", "device"),
}  # fmt: skip
"""Settings (section, keys) that do not change what a stage computes; documented as such in recipe.py."""
SECTIONS = {"name", "description", "gate", "compare", "runtime", "tracking", "trust_remote_code"}
"""Whole sections of that kind."""

OTHER = {
    "hub": "huggingface", "backend": "vllm", "key_env": "OTHER_KEY", "url": "https://other/v1", "format": "sharegpt", "precision": "float16", "attention": "sdpa", "deepspeed": "zero2", "tuner": "full", "quantization": "4bit",
    "dedup": "none", "consecutive_turns": "merge", "think": "strip", "special_tokens": "keep", "tokens": "exact",
    "action": "drop", "truncation": "left", "device": "cpu", "max_shard_size": "2GB", "log_level": "full", "mode": "offline", "inconclusive": "pass",
    "kind": "open_qa", "style": "likelihood", "language": "en",
    "misfit": "warn", "stall_minutes": 30.0, "diverged": "off", "flat": "off", "slow": "off",
    "checkpoint": "best", "check": "warn", "currency": "EUR",
}  # fmt: skip


def resolved(data: dict[str, Any]) -> Recipe:
    return resolve(Recipe.model_validate_json(json.dumps(data)), GPUS)[0]


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*at, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from leaves(inner, (*at, index))
    elif value not in (None, {}, []):
        yield at


def changed(value: Any, at: tuple[Any, ...]) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value * 2 or 1
    if isinstance(value, float):
        return 0.9 if at[-1] == "confidence" else value / 2
    if value in ("lm_eval", "evalscope") or at[-1] in ("path", "include_path", "few_shot_path"):
        return None
    return "report" if value == "drop" else OTHER.get(at[-1], f"{value}x")


def fingerprints(recipe: Recipe, by: Any = lambda _: "same content") -> dict[str, str]:
    """By label; without the smoke runs, which come and go by a setting of `runtime`."""
    return {label: stage.fingerprint(by) for label, stage in plan(recipe).stages.items() if stage.name != "smoke"}


def cases() -> Iterator[Any]:
    for kind, base in (("hub", HUB), ("local", LOCAL)):
        data = resolved(base).model_dump(mode="json")
        for at in leaves(data):
            value: Any = data
            for part in at:
                value = value[part]
            new = changed(value, at)
            if new is None or (kind == "local" and at[-1] in ("hub", "revision")):  # no meaning beside a path
                continue
            yield pytest.param(data, at, new, id=f"{kind}-{'.'.join(map(str, at))}")


@pytest.mark.parametrize(("data", "at", "new"), list(cases()))
def test_every_leaf(data, at, new):
    other = copy.deepcopy(data)
    node: Any = other
    for part in at[:-1]:
        node = node[part]
    node[at[-1]] = new
    # Nothing is resolved again: a leaf alone must tell, not what follows from it.
    before = fingerprints(Recipe.model_validate_json(json.dumps(data)))
    after = fingerprints(Recipe.model_validate_json(json.dumps(other)))
    section = at[0]
    keys = [part for part in at if isinstance(part, str)]
    plumbing = section in SECTIONS or tuple(keys) in PLUMBING
    assert (sorted(before.values()) == sorted(after.values())) == plumbing


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"gpus": 0}, {"cpu_processes": 2}),
        ({"deepspeed": "zero2"}, {"overlap_comm": True}),
        ({"deepspeed": "zero2"}, {"deepspeed": "zero3"}),
        ({"deepspeed": "zero3"}, {"deepspeed": "zero3_offload"}),
        ({}, {"dora": True}),
        ({"quantization": "4bit"}, {"quantization": "8bit"}),
    ],
    ids=str,
)
def test_settings_that_count_only_beside_others(settings, change):
    before, after = (
        fingerprints(resolved(LOCAL | {"train": {**LOCAL["train"], "micro_batch_size": 1, **settings, **more}}))
        for more in ({}, change)
    )
    assert before["train"] != after["train"]
    assert before["data"] == after["data"]


def test_the_property_test_sees_every_setting():
    seen = {tuple(p for p in case.values[1] if isinstance(p, str))[:2] for case in cases()}
    for section in ("data", "train", "export"):
        fields = type(getattr(resolved(HUB), section)).model_fields
        assert {field for field in fields if (section, field) not in seen} == set()
    for index in (0, 1):
        fields = set(type(resolved(HUB).eval[index]).model_fields)
        assert {f for f in fields if ("eval", f) not in seen} <= {"harness", "include_path", "data_root"}


def local_files(folder: Path, text: str = "x") -> dict[str, Any]:
    (folder / "model").mkdir(parents=True)
    (folder / "model/config.json").write_text("{}")
    (folder / "data.json").write_text(text)
    (folder / "bank").mkdir()
    (folder / "bank/b_val.jsonl").write_text("q")
    (folder / "tasks").mkdir()
    (folder / "tasks/t.yaml").write_text("task: t")
    return {
        "name": "r",
        "model": {"path": str(folder / "model")},
        "data": {"sources": [{"path": str(folder / "data.json")}]},
        "train": {},
        "eval": [
            {"harness": "evalscope", "datasets": [{"name": "general_mcq", "path": str(folder / "bank")}]},
            {"harness": "lm_eval", "tasks": ["t"], "include_path": str(folder / "tasks")},
        ],
    }


def test_places_do_not_matter(tmp_path):
    here = fingerprints(resolved(local_files(tmp_path / "here")), digest)
    there = fingerprints(resolved(local_files(tmp_path / "there/deep")), digest)
    assert here == there


@pytest.mark.parametrize(
    ("file", "same"),
    [
        ("data.json", {"eval.evalscope.base", "eval.lm_eval.base"}),
        ("model/config.json", {"data", "data.contamination"}),
        (
            "bank/b_val.jsonl",
            {
                "data",
                "data.tokens",
                "plan",
                "train",
                "export",
                "check.export",
                "eval.lm_eval.base",
                "eval.lm_eval.tuned",
            },
        ),
        (
            "tasks/t.yaml",
            {
                "data",
                "data.contamination",
                "data.tokens",
                "plan",
                "train",
                "export",
                "check.export",
                "eval.evalscope.base",
                "eval.evalscope.tuned",
            },
        ),
    ],
)
def test_content_matters_to_those_who_read_it(tmp_path, file, same):
    recipe = resolved(local_files(tmp_path))
    before = fingerprints(recipe, digest)
    (tmp_path / file).write_text("other")
    after = fingerprints(recipe, digest)
    assert {label for label in before if before[label] == after[label]} == same


def test_the_base_evaluation_is_shared_by_recipes(tmp_path):
    one = local_files(tmp_path)
    two = one | {
        "name": "another", "description": "another", "train": {"rank": 4, "max_length": 512},
        "eval": [one["eval"][0] | {"name": "my-suite", "device": "cpu", "precision": "bfloat16"}],
    }  # fmt: skip
    three = one | {"train": None, "data": None, "runtime": {"offline": True}}
    store = Store(tmp_path / "runs", digest)

    def folder(data: dict[str, Any], label: str) -> Path:
        return store.folder(plan(resolved({k: v for k, v in data.items() if v is not None})).stages[label])

    assert folder(one, "eval.evalscope.base") == folder(two, "eval.my-suite.base")
    assert folder(one, "eval.evalscope.base") == folder(three, "eval.evalscope.base")
    assert folder(one, "eval.evalscope.tuned") != folder(two, "eval.my-suite.tuned")


@pytest.mark.parametrize("train", [{}, {"max_steps": 8}, {"epochs": 1}, HUB["train"]], ids=str)
def test_writing_a_default_out_changes_nothing(train):
    # 32 and 32.0 are the same setting, but not the same text: a default of the other kind would retrain.
    recipe = resolved(LOCAL | {"train": train})
    assert fingerprints(Recipe.model_validate_json(recipe.model_dump_json())) == fingerprints(recipe)


def test_the_kept_recipe_gives_the_same_stages(tmp_path):
    # recipe.yaml beside a report can be run again.
    recipe = resolved(HUB | {"model": {"path": "/m", "revision": "1e5"}})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    again = load_recipe(tmp_path / "recipe.yaml", env={})
    assert fingerprints(again) == fingerprints(recipe)
    assert resolve(again, GPUS) == (again, [])


@pytest.mark.parametrize(
    ("section", "label"), [("train", "train"), ("export", "export"), ("one", "eval.one.base"), ("two", "eval.two.base")]
)
def test_extra_args_cannot_name_what_the_pipeline_sets(section, label):
    # Identity or places would otherwise say one thing and the tool do another.
    stage = plan(resolved(HUB)).stages[label]
    words = stage.command(stage, Path("out"), {role: Path("in") / role for role in stage.deps}).argv
    places = {a[2:].partition("=")[0] for a, b in pairwise(words) if a[:2] == "--" and b.split("/")[0] in ("in", "out")}
    flags = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
    for flag in (places | flags & stage.plumbing.keys()) - {
        "dataloader_num_workers",
        "include_path",
        "callbacks",
        "external_plugins",
    }:
        data = copy.deepcopy(HUB)
        entry = data[section] if section in data else next(e for e in data["eval"] if e["name"] == section)
        entry["extra_args"] = {flag: "x"}
        with pytest.raises(ValueError, match="is set by the pipeline itself"):
            resolved(data)
    assert places


def test_the_learning_rate_reaches_what_depends_on_it():
    before = fingerprints(resolved(HUB))
    after = fingerprints(resolved(HUB | {"train": HUB["train"] | {"learning_rate": 3e-4}}))
    assert {label for label in before if before[label] != after[label]} == {
        "train", "export", "check.export", "eval.one.tuned", "eval.two.tuned", "dialogues.tuned",
        "export.200", "eval.one.tuned-200", "eval.two.tuned-200",
    }  # fmt: skip


def test_base_and_tuned_differ_only_in_the_model():
    stages = plan(resolved(HUB)).stages
    base, tuned = stages["eval.one.base"], stages["eval.one.tuned"]
    assert (base.args, base.tool, base.program, base.plumbing) == (
        tuned.args,
        tuned.tool,
        tuned.program,
        tuned.plumbing,
    )


def test_the_harness_version_is_part_of_a_score(monkeypatch):
    before = fingerprints(resolved(HUB))
    monkeypatch.setattr(evaluate, "version", lambda _: "99")
    after = fingerprints(resolved(HUB))
    assert {label for label in before if before[label] != after[label]} == {
        label for label in before if label[:4] == "eval"
    }


def test_resolved_alike_is_identical_on_another_machine():
    # A bigger machine of the same kind must not retrain: GPU names, memory and counts are not identity by themselves.
    bigger = GPUS.model_copy(
        update={"cpus": 64, "memory_gb": 512.0, "gpus": (GPUS.gpus[0].model_copy(update={"name": "H100"}),)}
    )
    recipe = Recipe.model_validate_json(json.dumps(HUB))
    assert fingerprints(resolve(recipe, GPUS)[0]) == fingerprints(resolve(recipe, bigger)[0])


def test_a_fingerprint_does_not_depend_on_the_order_of_keys_but_on_the_role_of_content():
    stage = plan(resolved(LOCAL)).stages["data"]
    by = {"a.json": "1", "b.json": "2"}

    def swapped(source: Source) -> str:
        return {"1": "2", "2": "1"}[by[source.path.name]]

    assert stage.fingerprint(lambda s: by[s.path.name]) != stage.fingerprint(swapped)
    backwards = {key: LOCAL["train"][key] for key in reversed(LOCAL["train"])}
    assert fingerprints(resolved(LOCAL | {"train": backwards})) == fingerprints(resolved(LOCAL))
