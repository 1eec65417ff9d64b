"""lm-evaluation-harness by its command line and output files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.command import Command, flags
from pipeline.errors import OutputError
from pipeline.harnesses.base import benchmarks, local_data
from pipeline.results import Implementation, Sample, Score, doc_key, finite, number_repeats
from pipeline.stage import Paths, Stage
from pipeline.suites import LmEvalSpec

DISTRIBUTION = "lm-eval"
PROGRAM: tuple[str, ...] = ("lm_eval", "run")
SUITE = "pipeline_suite"
FILES = (".json", ".jsonl")
"""Endings of a single data file; any other path is a folder."""

QUESTION_FIELDS = "question query goal ctx question_stem sentence passage input problem prompt".split()


def args(spec: LmEvalSpec, *, chat_template: bool) -> dict[str, Any]:
    return {
        # Paths are not here: the content of local data enters through the stage's dependencies.
        "tasks": [
            {"name": b.name, "local": "file" if b.path and b.path.suffix in FILES else bool(b.path), "args": b.args}
            for b in benchmarks(spec)
        ],
        "num_fewshot": spec.num_fewshot,
        "limit": spec.limit,
        "batch_size": spec.batch_size,
        "model_args": {"dtype": spec.precision, **spec.model_args},
        "gen_kwargs": dict(spec.gen_kwargs),
        "apply_chat_template": chat_template,
        "seed": spec.seed,
        "extra": dict(spec.extra_args),
    }


def plumbing(spec: LmEvalSpec) -> dict[str, Any]:
    return {"device": "cpu" if spec.device == "cpu" else "cuda:0"}


def inputs(spec: LmEvalSpec) -> dict[str, Path]:
    own = {"include_path": spec.include_path} if spec.include_path else {}
    return {**local_data(spec), **own}


def needs_hub(spec: LmEvalSpec) -> bool:
    """A task without local data may be the user's own, but what its YAML names is lm-eval's business to find."""
    return any(b.path is None for b in benchmarks(spec))


def command(stage: Stage, out: Path, deps: Paths) -> Command:
    args = stage.args
    words: dict[str, Any] = {
        "model": "hf",
        "model_args": {"pretrained": str(deps["model"]), **args["model_args"]},
    }
    names = [task["name"] for task in args["tasks"] if not (task["local"] or task["args"])]
    files = {}
    if len(names) < len(args["tasks"]):
        suite = out / "suite.yaml"
        files[suite] = _suite(args["tasks"], deps)
        names.append(str(suite))
    words["tasks"] = names
    if "include_path" in deps:
        words["include_path"] = str(deps["include_path"])
    for key in ("num_fewshot", "limit"):
        if args[key] is not None:
            words[key] = args[key]
    words["batch_size"] = args["batch_size"]
    if args["gen_kwargs"]:
        words["gen_kwargs"] = args["gen_kwargs"]
    if args["apply_chat_template"]:
        words["apply_chat_template"] = None
    words |= {"seed": args["seed"], "device": stage.plumbing["device"], "output_path": str(out), "log_samples": None}
    words |= {k: None if v is True else v for k, v in args["extra"].items()}
    return Command((*stage.program, *flags(words)), env=dict(stage.env), files=files)


def _suite(tasks: list[dict[str, Any]], deps: Paths) -> str:
    """A group file that gives built-in (or the user's own) tasks local data and overrides.

    A group's entries inherit the named task; redefining the task itself would drop it out of its groups.
    """
    entries = []
    for index, task in enumerate(tasks):
        entry: dict[str, Any] = {"group" if task["name"] in ("mmlu", "ceval-valid", "cmmlu") else "task": task["name"]}
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
    return yaml.safe_dump({"group": SUITE, "task": entries}, sort_keys=False, allow_unicode=True)


def read(out: Path, stage: Stage) -> tuple[list[Score], list[Sample], list[str]]:
    found = sorted(out.glob("*/results_*.json"))
    if not found:
        raise OutputError(f"{out}: lm_eval ended well but left no results_*.json")
    data = json.loads(found[-1].read_text(encoding="utf-8"))
    scores = list(_scores(data, stage))
    stamp = found[-1].stem.removeprefix("results_")
    samples: list[Sample] = []
    for path in sorted(found[-1].parent.glob(f"samples_*_{stamp}.jsonl")):
        task = path.stem.removeprefix("samples_").removesuffix(f"_{stamp}")
        samples += _samples(path, task)
    groups = {g: leaves for g in data.get("group_subtasks", {}) if (leaves := _leaves(g, data["group_subtasks"]))}
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task, []).append(sample)
    for group, leaves in groups.items():
        if group != SUITE:
            samples += [
                s.model_copy(update={"task": group, "subset": leaf}) for leaf in leaves for s in by_task.get(leaf, [])
            ]
    return scores, number_repeats(samples), []


def _leaves(group: str, subtasks: dict[str, list[str]]) -> list[str]:
    return [leaf for child in subtasks[group] for leaf in (_leaves(child, subtasks) if child in subtasks else [child])]


def _scores(data: dict[str, Any], stage: Stage) -> Iterator[Score]:
    for task, values in data["results"].items():
        if task == SUITE:
            continue
        for key, value in values.items():
            metric, comma, rule = key.partition(",")
            number = finite(value)
            if not comma or metric.endswith("_stderr") or number is None:
                continue
            config = data["configs"].get(task, {})
            counted = data.get("n-samples", {}).get(task, {}).get("effective")
            yield Score(
                task=task,
                harness="lm_eval",
                metric=metric if rule == "none" else f"{metric},{rule}",
                value=number,
                stderr=finite(values.get(f"{metric}_stderr,{rule}")),
                n=int(counted if counted is not None else values.get("sample_len", 0)),
                higher_is_better=data.get("higher_is_better", {}).get(task, {}).get(metric) is not False,
                implementation=Implementation(
                    harness="lm_eval",
                    version=str(data.get("lm_eval_version") or (stage.tool or ("", ""))[1]),
                    task_version=str(data.get("versions", {}).get(task, "")),
                    n_shot=_shots(data.get("n-shot", {}).get(task)),
                    chat_template=(data.get("chat_template_sha") or "off")[:12],
                    scoring=f"{config.get('output_type', 'group')}/{rule}",
                    precision=str(data.get("config", {}).get("model_dtype", "")).removeprefix("torch."),
                ),
            )


def _shots(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _samples(path: Path, task: str) -> Iterator[Sample]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            record = json.loads(line)
            key = _key(record)
            for metric in record.get("metrics", []):
                value = finite(record.get(metric))
                if value is not None:
                    name = metric if record["filter"] == "none" else f"{metric},{record['filter']}"
                    yield Sample(task=task, metric=name, doc_key=key, score=value)


def _key(record: dict[str, Any]) -> str:
    """Content of the item: what is asked, the choices as they were scored, and the right one's text."""
    doc = record["doc"]
    question = " ".join(str(doc[field]) for field in QUESTION_FIELDS if isinstance(doc.get(field), str))
    choices = [str(arguments.get("arg_1", "")) for arguments in record["arguments"].values()]
    target = str(record["target"])
    if not question:
        question = json.dumps(doc, sort_keys=True, ensure_ascii=False)
    if len(choices) > 1 and target.isdigit() and int(target) < len(choices):
        target = choices[int(target)]
    elif len(choices) <= 1:
        choices = []  # a generation task: the one argument is the stop settings
    return doc_key(question, choices, target)
