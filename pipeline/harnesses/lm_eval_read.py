"""What lm-evaluation-harness leaves behind, as scores and samples."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import jsonl
from pipeline.errors import OutputError
from pipeline.harnesses.lm_eval_samples import metric_name, read_samples
from pipeline.results import Implementation, Sample, Score, digest, fingerprint, finite, number_repeats
from pipeline.stage import Stage

SUITE = "pipeline_suite"
"""Name of the group file of our own that holds a suite's tasks; no task of the user's."""
_PROMPT = (
    "description",
    "doc_to_text",
    "doc_to_choice",
    "doc_to_target",
    "process_docs",
    "target_delimiter",
    "gen_prefix",
)
_SHOTS = ("fewshot_delimiter", "fewshot_config")


def read(out: Path, stage: Stage) -> tuple[list[Score], list[Sample], list[str]]:
    found = sorted(out.glob("*/results_*.json"))
    if not found:
        raise OutputError(f"{out}: lm_eval ended well but left no results_*.json")
    with jsonl.naming(found[-1]):
        data = jsonl.record(found[-1])
        counts = {task: int(data["n-samples"][task]["effective"]) for task in data["configs"]}
    stamp = found[-1].stem.removeprefix("results_")
    samples: list[Sample] = []
    for task, expected in counts.items():
        path = found[-1].with_name(f"samples_{task}_{stamp}.jsonl")
        mine = read_samples(path, task)
        if len(mine) != expected:
            raise OutputError(f"{path}: cut: holds {len(mine)} of {expected} items; {jsonl.REMEDY}")
        samples += mine
    samples = number_repeats(samples)
    with jsonl.naming(found[-1]):
        return list(_scores(data, samples, stage)), samples, list(_stop_words(data, samples))


def _scores(data: Mapping[str, Any], samples: Iterable[Sample], stage: Stage) -> Iterator[Score]:
    by_task: dict[str, list[Sample]] = {}
    for sample in samples:
        by_task.setdefault(sample.task, []).append(sample)
    subtasks = data.get("group_subtasks", {})
    for task, values in data["results"].items():
        if task == SUITE:
            continue
        leaves = _leaves(task, subtasks) if subtasks.get(task) else []
        for key, value in values.items():
            metric, comma, rule = key.partition(",")
            number = finite(value)
            if not comma or metric.endswith("_stderr") or number is None:
                continue
            parts = [leaf for leaf in leaves or [task] if key in data["results"].get(leaf, {})]
            items = [sample for part in parts for sample in by_task.get(part, [])]
            sizes = [len(by_task.get(part, [])) for part in parts]
            yield Score(
                task=task,
                harness="lm_eval",
                metric=metric_name(metric, rule),
                value=number,
                stderr=finite(values.get(f"{metric}_stderr,{rule}")),
                n=len(items),
                higher_is_better=data.get("higher_is_better", {}).get(task, {}).get(metric) is not False,
                tasks=tuple(parts) if leaves else (),
                mean=_group_mean(number, [data["results"][part][key] for part in parts], sizes)
                if leaves
                else _mean(data["configs"][task], metric),
                implementation=_implementation(data, task, parts, metric, rule, items, stage),
            )


def _stop_words(data: Mapping[str, Any], samples: Iterable[Sample]) -> Iterator[str]:
    """Tasks with answers that a server ended in a stop word (ms-swift 4.6.0 does; vLLM and OpenAI cut it off)."""
    left: Counter[str] = Counter()
    for sample in samples:
        words = (data["configs"][sample.task].get("generation_kwargs") or {}).get("until") or ()
        left[sample.task] += sample.output.endswith((words,) if isinstance(words, str) else tuple(words))
    for task, count in left.items():
        if count:
            yield (
                f"{task}: {count} answers end in a stop word, which lm-eval cuts off a local model's; scores that "
                "compare whole answers are then lower"
            )


def _leaves(group: str, subtasks: Mapping[str, list[str]]) -> list[str]:
    """Tasks below a group, through groups of groups."""
    return [
        leaf for child in subtasks[group] for leaf in (_leaves(child, subtasks) if subtasks.get(child) else [child])
    ]


def _mean(config: Mapping[str, Any], metric: str) -> Any:
    """ "items" for lm-eval's `mean`; a corpus-level figure (BLEU, perplexity) is a mean of nothing."""
    listed = {entry["metric"]: entry.get("aggregation", "mean") for entry in config.get("metric_list") or []}
    return "items" if listed.get(metric, "mean") == "mean" else "none"


def _group_mean(value: float, parts: Sequence[float], sizes: Sequence[int]) -> Any:
    """How a group was summed up. The results do not hold its `weight_by_size`, but the figures tell."""
    weighted = sum(part * size for part, size in zip(parts, sizes, strict=True)) / max(sum(sizes), 1)
    if math.isclose(value, weighted, abs_tol=1e-9):
        return "items"
    return "tasks" if math.isclose(value, statistics.fmean(parts), abs_tol=1e-9) else "none"


def _implementation(
    data: Mapping[str, Any],
    task: str,
    parts: Sequence[str],
    metric: str,
    rule: str,
    items: Iterable[Sample],
    stage: Stage,
) -> Implementation:
    run = data["config"]
    configs = [data["configs"][part] for part in parts]
    counts = {data.get("n-shot", {}).get(part) for part in parts}  # of a group of groups lm-eval gives none
    shots = next((count for count in counts if isinstance(count, int)), None) if len(counts) == 1 else None
    kinds = sorted({str(config.get("output_type")) for config in configs})
    return Implementation(
        harness="lm_eval",
        version=str(data.get("lm_eval_version") or (stage.tool or ("", ""))[1]),
        task_version=str(data.get("versions", {}).get(task, "")),
        n_shot=shots,
        # Over a chat endpoint the server applies a template that it tells nobody about.
        chat_template=(data.get("chat_template_sha") or ("" if "chat" in str(run.get("model")) else "off"))[:12],
        scoring=f"{'+'.join(kinds)}/{rule}",
        precision=str(run.get("model_dtype") or "").removeprefix("torch."),
        normalisation=_normalisation(metric) if "multiple_choice" in kinds else rule,
        prompt=_prompt(data, configs, shots),
        shot_seed=_shot_seed(run, configs) if shots else None,
        backend=_backend(str(run.get("model"))),
        data=fingerprint(items),
    )


def _normalisation(metric: str) -> str:
    """What a choice's log-likelihood is divided by (lm_eval.api.task.ConfigurableTask.process_results)."""
    if "token" in metric:
        return "tokens"
    names = {"acc_norm": "characters", "acc_bytes": "bytes", "acc_mutual_info": "unconditional likelihood"}
    return names.get(metric, "none")


def _prompt(data: Mapping[str, Any], configs: Sequence[Mapping[str, Any]], shots: int | None) -> str:
    """Hash of all templates that make the prompt; those of the examples only where there are some."""
    keys = (*_PROMPT, *_SHOTS) if shots else _PROMPT
    several = [{key: config.get(key) for key in keys} for config in configs]
    whole = [several, data.get("system_instruction"), data.get("fewshot_as_multiturn") if shots else None]
    # Functions that have no source at hand are written with their address.
    return digest(re.sub(r" at 0x[0-9a-f]+", "", json.dumps(whole, sort_keys=True, default=str)))


def _shot_seed(run: Mapping[str, Any], configs: Sequence[Mapping[str, Any]]) -> int | None:
    """The seed that the examples are drawn with; a task that orders them itself says so in its metadata."""
    own = {(config.get("metadata") or {}).get("shot_seed") for config in configs}
    if own != {None}:
        return next(seed for seed in own if seed is not None) if len(own) == 1 else None
    samplers = {(config.get("fewshot_config") or {}).get("sampler") for config in configs}
    seed = run.get("fewshot_seed")
    return seed if isinstance(seed, int) and samplers != {"first_n"} else None


def _backend(model: str) -> str:
    return "hf" if model.startswith("hf") else "vllm" if model.startswith("vllm") else "api"
