"""MMLU as three projects once evaluated it: where our task files lie, and what their samples tell only afterwards."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import jsonl
from pipeline.results import Sample, Score
from pipeline.suites import Benchmark

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FOLDER = Path(__file__).parent / "tasks" / "mmlu_ways"
"""Task files for lm-eval's include_path; their content is part of the identity of an evaluation that asks for them."""
ROLE = "mmlu_ways"
ORIGINAL, HELM, HARNESS = WAYS = ("mmlu_original", "mmlu_helm", "mmlu_harness_2023")
BY_TOKENS = "acc_norm_tokens"
NONE_OF_LETTERS = "none_of_letters"
"""Metric: the likeliest token is none of the four letters."""
_LETTERS = "the likeliest of the four letters, whatever else the model would rather write"
_WHOLE = "the likeliest of the four whole answers, letter and text"
RULES = {
    ("lm_eval", ORIGINAL, "acc"): _LETTERS,
    ("lm_eval", HELM, "exact_match"): "the model writes one token; without white space it has to be the right letter",
    ("lm_eval", HARNESS, "acc"): f"{_WHOLE}, summed over tokens",
    ("lm_eval", HARNESS, "acc_norm"): f"{_WHOLE}, summed over tokens and divided by characters",
    ("lm_eval", HARNESS, BY_TOKENS): f"{_WHOLE}, summed over tokens and divided by their number",
    ("lm_eval", "mmlu", "acc"): _LETTERS,
    ("evalscope", "mmlu", "accuracy"): "the model writes; the letter that is found in its text has to be the right one",
}
"""(harness, task, metric) -> what counts as right."""
SOURCES = {
    ORIGINAL: "hendrycks/test, pull request 13",
    HELM: "stanford-crfm/helm at cab5d89",
    HARNESS: "EleutherAI/lm-evaluation-harness at e47e01b",
    "mmlu": "the installed harness",
}


def is_way(task: str) -> bool:
    """Whether the task is one of the groups, or a subject of one: mmlu_helm, mmlu_helm_anatomy."""
    return any(task == way or task.startswith(f"{way}_") for way in WAYS)


def problems(entries: Iterable[Benchmark]) -> Iterator[str]:
    for entry in entries:
        seed = entry.args.get("shot_seed")
        if "shot_seed" in entry.args and not is_way(entry.name):
            yield f"{entry.name}: shot_seed is known to {', '.join(WAYS)} alone; drop it, or ask one of these"
        elif seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            yield f"{entry.name}: shot_seed should be a whole number, not {seed!r}"


def finish(
    out: Path, model: Path, scores: Sequence[Score], samples: Sequence[Sample]
) -> tuple[list[Score], list[Sample], list[str]]:
    """With what takes the model's tokenizer: acc_norm_tokens, and a remark where none_of_letters cannot be believed.

    lm-eval knows no tokens where it makes scores of likelihoods (its acc_norm divides by characters), so they are
    counted here, as it counts them: those of prompt and answer together less those of the prompt.
    """
    if not (model / "tokenizer.json").is_file():
        why = "the model has no tokenizer.json"
        return list(scores), list(samples), [f"MMLU: no {BY_TOKENS}, and {NONE_OF_LETTERS} not checked: {why}"]
    tokenizer = _tokenizer(model / "tokenizer.json")
    tasks = [task for task in dict.fromkeys(sample.task for sample in samples) if task.startswith(f"{HARNESS}_")]
    lengths = {task: list(_lengths(_file(out, task), tokenizer)) for task in tasks}
    found: list[Sample] = []
    for sample in samples:
        if sample.task in lengths:
            counts = lengths[sample.task].pop(0)  # in the order of the data, as the samples are
            sample = sample.model_copy(  # noqa: PLW2901
                update={"scores": {**sample.scores, BY_TOKENS: _right(sample, counts)}}
            )
        found.append(sample)
    return [*scores, *_means(scores, found)], found, list(_long_letters(tokenizer))


def _long_letters(tokenizer: Tokenizer) -> Iterator[str]:
    """A letter of several tokens may begin with the likeliest one and yet not be what greedy decoding writes."""
    counts = _counts(tokenizer, "Answer:", [f"Answer: {letter}" for letter in "ABCD"])
    if counts != [1, 1, 1, 1]:
        yield f"MMLU: this tokenizer makes {counts} tokens of the four letters; {NONE_OF_LETTERS} counts too many"


def _right(sample: Sample, counts: Sequence[int]) -> float:
    each = [value / count for value, count in zip(sample.loglikelihoods, counts, strict=True)]
    return float(sample.choices[each.index(max(each))] == sample.target)


def _means(scores: Sequence[Score], samples: Sequence[Sample]) -> Iterator[Score]:
    """A score beside each acc of these tasks; their standard errors come with those of all other scores."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        if BY_TOKENS in sample.scores:
            values.setdefault(sample.task, []).append(sample.scores[BY_TOKENS])
    for score in scores:
        mine = [value for task in score.tasks or (score.task,) for value in values.get(task, [])]
        if score.metric == "acc" and mine and len(mine) == score.n:
            implementation = score.implementation.model_copy(update={"normalisation": "tokens"})
            yield score.model_copy(
                update={
                    "metric": BY_TOKENS,
                    "value": statistics.fmean(mine),
                    "stderr": None,
                    "implementation": implementation,
                }
            )


def _file(out: Path, task: str) -> Path:
    return max(out.glob(f"*/samples_{task}_2*.jsonl"))


def _tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _lengths(path: Path, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Of each item, by doc_id, the tokens of each answer."""
    with jsonl.naming(path):
        records: dict[int, Any] = {int(record["doc_id"]): record["arguments"] for record in jsonl.records(path)}
        for _, arguments in sorted(records.items()):
            pairs = [(str(pair["arg_0"]), str(pair["arg_1"])) for pair in arguments.values()]
            # lm-eval moves white space at the end of the prompt over to the answer (api/model.py, _encode_pair).
            yield _counts(tokenizer, pairs[0][0].rstrip(), [prompt + answer for prompt, answer in pairs])


def _counts(tokenizer: Tokenizer, prompt: str, whole: Sequence[str]) -> list[int]:
    """Tokens of each whole text behind the prompt's own."""
    first, *rest = (len(found.ids) for found in tokenizer.encode_batch([prompt, *whole]))
    return [count - first for count in rest]
