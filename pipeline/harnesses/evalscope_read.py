"""What EvalScope leaves behind, as scores and samples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline import jsonl
from pipeline.errors import OutputError
from pipeline.harnesses.evalscope_samples import read_samples
from pipeline.results import Implementation, Sample, Score, digest, fingerprint, finite, number_repeats
from pipeline.stage import Stage

MODEL_ID = "model"
"""Constant, so that neither file names nor identity tell base from tuned."""
OWN_DATA = ("general_mcq", "general_qa")
"""Data sets whose subsets are unrelated banks of the user's: an average over them means nothing."""

_SYNONYMS = {"acc": "accuracy"}
_STATISTICS = {"r": "recall", "p": "precision", "f": "f1"}
_PROMPT = ("prompt_template", "query_template", "system_prompt", "extra_params", "shuffle_choices")
_SHOTS = ("few_shot_prompt_template", "few_shot_random")


def read(out: Path, stage: Stage) -> tuple[list[Score], list[Sample], list[str]]:
    reports = sorted((out / "reports" / MODEL_ID).glob("*.json"))
    expected = {entry["name"] for entry in stage.args["datasets"]}
    missing = expected - {path.stem for path in reports}
    if missing:
        raise OutputError(f"{out}: evalscope ended well but left no report for {', '.join(sorted(missing))}")
    config = _config(out / "configs" / "task_config.yaml")
    scores: list[Score] = []
    samples: list[Sample] = []
    remarks: list[str] = []
    for path in reports:
        name = path.stem
        benchmark = config.get("resolved_benchmarks", {}).get(name, {})
        longer = tuple(f"{other}_" for other in expected if other.startswith(f"{name}_"))
        found, failed = _read_reviews(out, name, benchmark, longer)
        with jsonl.naming(path):
            report = jsonl.record(path)
            _check(report, out, name, found)
        for metric, why in sorted(failed.items()):
            remarks.append(f"{name}: {metric} could not be computed for {len(why)} samples ({why[-1]}); left out")
        mine = number_repeats(_without(sample, failed) for items in found.values() for sample in items)
        unscored = sum(not sample.scores for sample in mine)
        if unscored:
            remarks.append(f"{name}: {unscored} samples have no score (a judge or a request failed); not counted")
        with jsonl.naming(path):
            scores += [s for s in _scores(report, name, config, stage, mine) if not _failed(s.metric, failed)]
        samples += mine
    return scores, samples, remarks


def _config(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise OutputError(f"{path}: missing, cut or no YAML ({error}); {jsonl.REMEDY}") from error
    if not isinstance(config, dict):
        raise OutputError(f"{path}: no mapping; {jsonl.REMEDY}")
    return config


def _read_reviews(
    out: Path, name: str, benchmark: Mapping[str, Any], others: tuple[str, ...]
) -> tuple[dict[str, list[Sample]], dict[str, list[str]]]:
    """Samples of one data set by subset, and the metrics that failed inside EvalScope, which reports them as 0.

    Files are called <data set>_<subset>; those that begin with `others` belong to a data set with a longer name.
    """
    found = sorted((out / "reviews" / MODEL_ID).glob(f"{name}_*.jsonl"))
    files = [path for path in found if not path.name.startswith(others)]
    samples: dict[str, list[Sample]] = {}
    failed: dict[str, list[str]] = {}
    for path in files:
        subset = path.stem.removeprefix(f"{name}_")
        task = f"{name}/{subset}" if name in OWN_DATA or len(files) > 1 else name
        samples[subset], broken = read_samples(path, task, benchmark)
        for metric, why in broken.items():
            failed.setdefault(metric, []).extend(why)
    return samples, failed


def _check(report: Mapping[str, Any], out: Path, name: str, found: Mapping[str, Sequence[Sample]]) -> None:
    """Every subset of the report has all of its items: a score without them is none."""
    for metric in report["metrics"]:
        for subset in _subsets(metric):
            held = len(found.get(subset["name"], ()))
            if held < subset["num"]:
                path = out / "reviews" / MODEL_ID / f"{name}_{subset['name']}.jsonl"
                raise OutputError(f"{path}: cut: holds {held} of {subset['num']} items; {jsonl.REMEDY}")


def _subsets(metric: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [s for category in metric["categories"] for s in category["subsets"] if not s.get("is_aggregate")]


def _failed(metric: str, failed: Iterable[str]) -> bool:
    return any(metric.lower().startswith(name.lower()) for name in failed)


def _without(sample: Sample, failed: Iterable[str]) -> Sample:
    kept = {metric: value for metric, value in sample.scores.items() if not _failed(metric, failed)}
    return sample if kept == sample.scores else sample.model_copy(update={"scores": kept})


def _scores(
    report: Mapping[str, Any], name: str, config: Mapping[str, Any], stage: Stage, samples: Sequence[Sample]
) -> Iterator[Score]:
    spellings = dict.fromkeys(metric for sample in samples for metric in sample.scores)
    for metric in report["metrics"]:
        subsets = _subsets(metric)
        # Not how many subsets this metric has: it may be known of one subset alone.
        several = len(subsets) > 1 or any(sample.task != name for sample in samples)
        parts: list[tuple[str, Mapping[str, Any], tuple[str, ...]]]
        parts = [(f"{name}/{s['name']}" if several else name, s, ()) for s in subsets]
        if several and name not in OWN_DATA:
            parts.insert(0, (name, metric, tuple(task for task, _, _ in parts)))
        for task, told, tasks in parts:
            number = finite(told["score"])
            if number is not None:
                yield Score(
                    task=task,
                    harness="evalscope",
                    metric=_metric_name(metric, spellings),
                    value=number,
                    n=told["num"],
                    higher_is_better=(metric.get("semantics") or {}).get("direction") != "lower_is_better",
                    tasks=tasks,
                    mean="items" if metric["identity"].get("aggregation") == "mean" else "none",
                    implementation=_implementation(
                        name, config, stage, [s for s in samples if s.task in (tasks or (task,))]
                    ),
                )


def _implementation(name: str, config: Mapping[str, Any], stage: Stage, items: Iterable[Sample]) -> Implementation:
    benchmark = config.get("resolved_benchmarks", {}).get(name, {})
    identity = config.get("evaluation_identity", {}).get("benchmarks", {}).get(name, {})
    shots = benchmark.get("few_shot_num")
    given = stage.args["model_args"]
    backend = stage.args.get("backend", "hf")
    keys = (*_PROMPT, *_SHOTS) if shots else _PROMPT
    return Implementation(
        harness="evalscope",
        version=str(config.get("evalscope_version") or (stage.tool or ("", ""))[1]),
        task_version=str(identity.get("evaluation_version", "")),
        n_shot=shots,
        chat_template="" if backend == "api" else "off" if "chat_template" in given else "model",
        scoring="generate",
        precision=str(given.get("precision", "")).removeprefix("torch."),
        normalisation=f"filters {digest(benchmark['filters'])}" if benchmark.get("filters") else "extracted answer",
        prompt=digest({key: benchmark.get(key) for key in keys}),
        shot_seed=config.get("seed") if shots and benchmark.get("few_shot_random") else None,
        backend=backend,
        data=fingerprint(items),
    )


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
