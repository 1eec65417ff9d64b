"""EvalScope by its command line and output files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.command import Command, flags
from pipeline.errors import OutputError
from pipeline.harnesses.base import PLAIN_TEMPLATE, benchmarks, local_data
from pipeline.results import Implementation, Sample, Score, doc_key, finite, number_repeats
from pipeline.stage import Paths, Stage
from pipeline.suites import EvalScopeSpec

DISTRIBUTION = "evalscope"
PROGRAM: tuple[str, ...] = ("evalscope", "eval")
MODEL_ID = "model"
"""Constant, so that neither file names nor identity tell base from tuned."""
OWN_DATA = ("general_mcq", "general_qa")
"""Data sets whose subsets are unrelated banks of the user's: an average over them means nothing."""

_DTYPES = {"float32": "torch.float32", "bfloat16": "torch.bfloat16", "float16": "torch.float16"}
_SYNONYMS = {"acc": "accuracy"}
_STATISTICS = {"r": "recall", "p": "precision", "f": "f1"}
_CHOICE = re.compile(r"^\(?([A-Z])[).:、]\s*(.*)$", re.MULTILINE)


def args(spec: EvalScopeSpec, *, chat_template: bool) -> dict[str, Any]:
    template = {} if chat_template else {"chat_template": PLAIN_TEMPLATE}
    return {
        "datasets": [{"name": b.name, "local": bool(b.path), "args": b.args} for b in benchmarks(spec)],
        "limit": spec.limit,
        "eval_batch_size": spec.batch_size,
        # Without a precision EvalScope loads local checkpoints in float16, on a CPU too.
        "model_args": {"precision": _DTYPES.get(spec.precision, spec.precision), **template, **spec.model_args},
        "generation": {"do_sample": False, **spec.generation},
        "seed": spec.seed,
        "extra": dict(spec.extra_args),
    }


def plumbing(spec: EvalScopeSpec) -> dict[str, Any]:
    return {"device_map": "cpu" if spec.device == "cpu" else "auto"}


def inputs(spec: EvalScopeSpec) -> dict[str, Path]:
    return local_data(spec)


def needs_hub(spec: EvalScopeSpec) -> bool:
    return any(b.path is None for b in benchmarks(spec))


def command(stage: Stage, out: Path, deps: Paths) -> Command:
    args = stage.args
    overrides = {}
    for index, entry in enumerate(args["datasets"]):
        local = {"local_path": str(deps[f"data{index}.{entry['name']}"])} if entry["local"] else {}
        if local or entry["args"]:
            overrides[entry["name"]] = {**local, **entry["args"]}
    words: dict[str, Any] = {
        "model": str(deps["model"]),
        "model-id": MODEL_ID,
        "model-args": {"device_map": stage.plumbing["device_map"], **args["model_args"]},
        "datasets": [entry["name"] for entry in args["datasets"]],
    }
    if overrides:
        words["dataset-args"] = overrides
    if args["limit"] is not None:
        words["limit"] = args["limit"]
    words |= {
        "generation-config": args["generation"],
        "eval-batch-size": args["eval_batch_size"],
        "seed": args["seed"],
        "work-dir": str(out),
        "no-timestamp": None,
    }
    words |= {k: None if v is True else v for k, v in args["extra"].items()}
    return Command((*stage.program, *flags(words)), env=dict(stage.env))


def read(out: Path, stage: Stage) -> tuple[list[Score], list[Sample], list[str]]:
    reports = sorted((out / "reports" / MODEL_ID).glob("*.json"))
    expected = {entry["name"] for entry in stage.args["datasets"]}
    missing = expected - {path.stem for path in reports}
    if missing:
        raise OutputError(f"{out}: evalscope ended well but left no report for {', '.join(sorted(missing))}")
    config = yaml.safe_load((out / "configs" / "task_config.yaml").read_text(encoding="utf-8"))
    scores: list[Score] = []
    samples: list[Sample] = []
    remarks: list[str] = []
    for path in reports:
        name = path.stem
        benchmark = config.get("resolved_benchmarks", {}).get(name, {})
        longer = tuple(f"{other}_" for other in expected if other.startswith(f"{name}_"))
        found, failed = _read_reviews(out, name, benchmark.get("prompt_template") or "", longer)
        for metric, (count, why) in sorted(failed.items()):
            remarks.append(f"{name}: {metric} could not be computed for {count} samples ({why}); left out")
        report = json.loads(path.read_text(encoding="utf-8"))
        spellings = dict.fromkeys(sample.metric for sample in found)
        told = _scores(report, name, benchmark, config, stage, spellings=spellings)
        scores += [score for score in told if not _failed(score.metric, failed)]
        samples += [sample for sample in found if not _failed(sample.metric, failed)]
    return scores, number_repeats(samples), remarks


def _failed(metric: str, failed: dict[str, tuple[int, str]]) -> bool:
    return any(metric.lower().startswith(name.lower()) for name in failed)


def _scores(
    report: dict[str, Any],
    name: str,
    benchmark: dict[str, Any],
    config: dict[str, Any],
    stage: Stage,
    *,
    spellings: Iterable[str],
) -> Iterator[Score]:
    implementation = Implementation(
        harness="evalscope",
        version=str(config.get("evalscope_version") or (stage.tool or ("", ""))[1]),
        task_version=str(
            config.get("evaluation_identity", {}).get("benchmarks", {}).get(name, {}).get("evaluation_version", "")
        ),
        n_shot=benchmark.get("few_shot_num"),
        chat_template="model" if "chat_template" not in stage.args["model_args"] else "off",
        scoring="generate",
        precision=stage.args["model_args"]["precision"].removeprefix("torch."),
    )
    for metric in report["metrics"]:
        subsets = [s for category in metric["categories"] for s in category["subsets"] if not s.get("is_aggregate")]
        parts = [(f"{name}/{s['name']}", s["score"], s["num"]) for s in subsets]
        if name not in OWN_DATA:
            whole = (name, metric["score"], metric["num"])
            parts = [whole, *parts] if len(parts) > 1 else [whole]
        better = (metric.get("semantics") or {}).get("direction") != "lower_is_better"
        for task, value, n in parts:
            number = finite(value)
            if number is not None:
                yield Score(
                    task=task, harness="evalscope", metric=_metric_name(metric, spellings), value=number, n=n,
                    higher_is_better=better, implementation=implementation,
                )  # fmt: skip


def _metric_name(metric: dict[str, Any], spellings: Iterable[str]) -> str:
    """The name the samples use, so that scores and samples meet.

    The report says {rouge, variant l, statistic recall} where the samples say Rouge-L-R: both are compared as sets
    of words. A metric that no sample has (an aggregate) is called by its identity: rouge-recall-l.
    """
    identity = metric["identity"]
    dimensions = [str(value) for _, value in sorted((identity.get("dimensions") or {}).items())]
    own = str(metric.get("legacy_name") or "-".join([identity["name"], *dimensions]))
    words = _words("-".join([identity["name"], *dimensions]))
    return next((spelling for spelling in spellings if spelling == own or _words(spelling) == words), own)


def _words(name: str) -> frozenset[str]:
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    short = _STATISTICS if len(words) > 1 else {}
    return frozenset(_SYNONYMS.get(word, short.get(word, word)) for word in words)


def _read_reviews(
    out: Path, name: str, template: str, others: tuple[str, ...] = ()
) -> tuple[list[Sample], dict[str, tuple[int, str]]]:
    """Samples of one data set, and the metrics that failed inside EvalScope, which reports them as 0.

    Files are called <data set>_<subset>; those that begin with `others` belong to a data set with a longer name.
    """
    samples: list[Sample] = []
    failed: dict[str, tuple[int, str]] = {}
    found = sorted((out / "reviews" / MODEL_ID).glob(f"{name}_*.jsonl"))
    files = [path for path in found if not path.name.startswith(others)]
    for path in files:
        subset = path.stem.removeprefix(f"{name}_")
        # Not splitlines(): an answer may hold U+2028, which is no end of line in JSON Lines.
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        for record in sorted(records, key=lambda r: int(r["index"])):  # the file is in order of completion
            score = record["sample_score"]["score"]
            for metric, why in ((score.get("metadata") or {}).get("metric_errors") or {}).items():
                count = failed.get(metric, (0, ""))[0] + 1
                failed[metric] = (count, re.sub(r"[*\s]+", " ", str(why)).strip()[:120])
            key = _key(record, template)
            tasks = (
                [f"{name}/{subset}"] if name in OWN_DATA else [name] + ([f"{name}/{subset}"] if len(files) > 1 else [])
            )
            for metric, value in score["value"].items():
                number = finite(float(value) if isinstance(value, bool) else value)
                if number is not None:
                    samples += [Sample(task=t, metric=metric, doc_key=key, score=number, subset=subset) for t in tasks]
    return samples, failed


def _key(record: dict[str, Any], template: str) -> str:
    """Content of the item out of its rendered prompt; where the prompt cannot be taken apart, the prompt as it is."""
    users = [m["content"] for m in record["messages"] if m["role"] == "user"]
    prompt = users[-1] if users and isinstance(users[-1], str) else json.dumps(users)
    target = record["target"]
    target = " ".join(map(str, target)) if isinstance(target, list) else str(target)
    question = _between(template, prompt)
    choices = dict(_CHOICE.findall(question))
    if choices:
        question = question[: next(_CHOICE.finditer(question)).start()]
        target = " ".join(choices.get(letter, letter) for letter in target.split())
    return doc_key(question, choices.values(), target)


def _between(template: str, prompt: str) -> str:
    """The part of the prompt that the template's {question} ... {choices} stand for."""
    start = template.find("{question}")
    if start < 0:
        return prompt
    ends = [template.rfind(mark) + len(mark) for mark in ("{question}", "{choices}") if mark in template]
    head, tail = template[:start], template[max(ends) :]
    head, tail = (re.sub(r"\{letters\}", "", part) for part in (head, tail))
    if prompt.startswith(head) and prompt.endswith(tail) and len(prompt) >= len(head) + len(tail):
        return prompt[len(head) : len(prompt) - len(tail)]
    return prompt
