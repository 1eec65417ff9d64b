"""Own question banks scored by our own code: what a model chose or wrote, out of either harness, against the items.

The harness's samples and scores of a bank are replaced, so that both harnesses' figures are made by the same rules.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.eval_items import question_sha256
from pipeline import jsonl
from pipeline.bank import letters, metrics
from pipeline.bank.files import COUNTS_FILE, read_items
from pipeline.bank.items import Item
from pipeline.bank.prompts import DATASETS, LM_EVAL_FILE, likelihood, task_name
from pipeline.errors import OutputError
from pipeline.provenance import version
from pipeline.results import ROUNDED, Implementation, Sample, Score, digest, fingerprint, number_repeats

VERSION = 2
"""Raised when the same answers would get other scores."""
GROUPS = ("type", "subject")
"""Facts that get a score of their own, where a bank has several of a kind."""
_CORPUS = ("macro_f1", "corpus_bleu")
"""Metrics that are no mean over items."""


def replace(
    banks: Sequence[Mapping[str, Any]],
    folders: Mapping[str, Path],
    harness: str,
    scores: Sequence[Score],
    samples: Sequence[Sample],
) -> tuple[list[Score], list[Sample], list[str]]:
    """Scores and samples with those of each bank made anew, and remarks.

    `banks` are the settings the stage was made with, `folders` the outputs of their stages by name. Raises OutputError
    where the harness has no answer of a bank, or one that is of none of its items.
    """
    remarks: list[str] = []
    for bank in banks:
        name, folder = bank["name"], folders[bank["name"]]
        task = task_name(name) if harness == "lm_eval" else f"{DATASETS[bank['kind']]}/{name}"
        told = [score for score in scores if score.task == task]
        answers = [sample for sample in samples if sample.task == task]
        if not told or not answers:
            raise OutputError(f"{folder}: {harness} left no answers to the bank {name} (its task there: {task})")
        items = read_items(folder)
        groups = [fact for fact in GROUPS if len({item.facts.get(fact, "") for item in items}) > 1]
        # With one right answer everywhere, part credit is the same as none.
        bank = {**bank, "elastic": bank["elastic"] and any(len(item.answer) > 1 for item in items)}  # noqa: PLW2901
        # EvalScope's `repeats` asks an item several times.
        mine = number_repeats(_sample(bank, groups, item, answer) for item, answer in _matched(folder, items, answers))
        prompts = jsonl.record(folder / COUNTS_FILE)["prompts"]
        implementation = _implementation(bank, told[0].implementation, harness, prompts)
        own = list(_scores(bank, groups, mine, implementation, harness))
        remarks += _remarks(bank, mine, told)
        scores = [*(score for score in scores if score.task != task), *own]
        samples = [*(sample for sample in samples if sample.task != task), *mine]
    return list(scores), list(samples), remarks


def _matched(folder: Path, items: Sequence[Item], answers: Sequence[Sample]) -> Iterator[tuple[Item, Sample]]:
    """Each answer with its item: by the id where the harness keeps it, else by the prompt, which no two items share."""
    by_id = {item.id: item for item in items}
    by_prompt = {row["written"]: by_id[row["id"]] for row in jsonl.records(folder / LM_EVAL_FILE)}
    for answer in answers:
        asked = _last_turn(answer.prompt)
        item = by_id.get(answer.facts.get("id", "")) or by_prompt.get(asked)
        if item is None or item.question not in asked:
            raise OutputError(f"{folder}: an answer is to none of the bank's questions; it was asked {asked[-300:]!r}")
        yield item, answer


def _last_turn(prompt: str) -> str:
    """What the user said last, of a prompt that was kept as JSON turns; the prompt itself otherwise."""
    if not prompt.startswith("[{"):
        return prompt
    try:
        turns = json.loads(prompt)
    except ValueError:
        return prompt
    return str(next((turn["content"] for turn in reversed(turns) if turn.get("role") == "user"), prompt))


def _sample(bank: Mapping[str, Any], groups: Sequence[str], item: Item, answer: Sample) -> Sample:
    """The item as answered, with its own metrics."""
    if bank["kind"] == "open_qa":
        values, said = dict(_open_metrics(bank["language"], item, answer.output)), answer.output
    else:
        said = _chosen(bank, item, answer)
        values = {"accuracy": metrics.accuracy(said, item.answer)}
        if bank["elastic"]:
            values["elastic_accuracy"] = metrics.elastic_accuracy(said, item.answer)
        said = ",".join(said)
    return Sample(
        task="/".join([bank["name"], *(part for fact in groups for part in (fact, item.facts.get(fact) or "none"))]),
        doc_key=item.key,
        scores=values,
        question=item.question,
        question_sha256=question_sha256(item.question),
        prompt=answer.prompt,
        choices=item.choices,
        loglikelihoods=answer.loglikelihoods,
        greedy=answer.greedy,
        target=",".join(item.answer) if item.choices else item.answer,
        answer=said,
        output=answer.output,
        facts={"id": item.id, **item.facts},
    )


def _chosen(bank: Mapping[str, Any], item: Item, answer: Sample) -> str:
    if not answer.loglikelihoods:
        return letters.chosen(answer.output, item.letters, item.choices, first=bank["few_shot"] > 0)
    if len(answer.loglikelihoods) != len(item.choices):
        raise OutputError(f"{bank['name']}: {item.id} has {len(answer.loglikelihoods)} likelihoods, not one per choice")
    best = max(range(len(item.choices)), key=answer.loglikelihoods.__getitem__)
    return item.letters[best]


def _open_metrics(language: str, item: Item, output: str) -> Iterator[tuple[str, float]]:
    if item.answer:
        one, longest = metrics.rouge(output, item.answer, language)
        yield from (("rouge_1", one), ("rouge_l", longest), ("bleu", metrics.bleu(output, item.answer, language)))
    if item.key_points:
        yield "key_points", metrics.key_point_rate(output, item.key_points)


def _scores(
    bank: Mapping[str, Any],
    groups: Sequence[str],
    samples: Sequence[Sample],
    implementation: Implementation,
    harness: str,
) -> Iterator[Score]:
    """Of the whole bank, then of each type and subject; standard errors come with those of all other scores."""

    def scores(task: str, part: Sequence[Sample], figures: Mapping[str, float]) -> Iterator[Score]:
        leaves = tuple(sorted({sample.task for sample in part}))
        names = dict.fromkeys(metric for sample in part for metric in sample.scores)
        for metric in (*names, *figures):
            found = [s for s in part if metric in s.scores or (metric in figures and s.target)]
            values = [sample.scores[metric] for sample in found if metric in sample.scores]
            yield Score(
                task=task,
                harness=harness,
                metric=metric,
                value=figures[metric] if metric in figures else statistics.fmean(values),
                n=len(found),
                tasks=() if leaves == (task,) else leaves,
                mean="none" if metric in _CORPUS else "items",
                implementation=implementation.model_copy(
                    update={"scoring": _rule(bank, harness, metric), "data": fingerprint(found)}
                ),
            )

    yield from scores(bank["name"], samples, _figures(bank, samples))
    for fact in groups:
        for value in dict.fromkeys(sample.facts.get(fact, "") for sample in samples):
            part = [sample for sample in samples if sample.facts.get(fact, "") == value]
            yield from scores(f"{bank['name']}/{fact}/{value or 'none'}", part, {})


def _figures(bank: Mapping[str, Any], samples: Sequence[Sample]) -> dict[str, float]:
    """What is of all items together and no mean."""
    if bank["kind"] == "mcq":
        pairs = [(sample.answer.replace(",", ""), sample.target.replace(",", "")) for sample in samples]
        return {"macro_f1": metrics.macro_f1(pairs)}
    pairs = [(sample.output, sample.target) for sample in samples if sample.target]
    return {"corpus_bleu": metrics.corpus_bleu(pairs, bank["language"])} if pairs else {}


def _implementation(
    bank: Mapping[str, Any], told: Implementation, harness: str, prompts: Mapping[str, str]
) -> Implementation:
    likely = _by_likelihood(bank, harness)
    cut = f"jieba {version('jieba')}" if bank["language"] == "zh" else "words"
    written = "letters" if bank["kind"] == "mcq" else cut
    return told.model_copy(
        update={
            "task_version": f"bank {VERSION}",
            "n_shot": bank["few_shot"],
            "normalisation": "none" if likely else written,
            "prompt": digest([told.prompt, prompts["likelihood" if likely else "written"]]),
        }
    )


def _by_likelihood(bank: Mapping[str, Any], harness: str) -> bool:
    return harness == "lm_eval" and likelihood(bank)


def _rule(bank: Mapping[str, Any], harness: str, metric: str) -> str:
    if bank["kind"] == "mcq":
        return f"{'multiple_choice' if _by_likelihood(bank, harness) else 'generate'}/{metric}"
    libraries = {"rouge_1": "rouge-score", "rouge_l": "rouge-score", "bleu": "sacrebleu", "corpus_bleu": "sacrebleu"}
    library = libraries.get(metric)
    return f"generate/{library} {version(library)}" if library else f"generate/{metric}"


def _remarks(bank: Mapping[str, Any], samples: Sequence[Sample], told: Sequence[Score]) -> Iterator[str]:
    if bank["kind"] != "mcq":
        return
    silent = sum(not sample.answer for sample in samples)
    if silent:
        yield f"{bank['name']}: {silent} of {len(samples)} answers name no letter of a choice; they count as wrong"
    pairs = [(sample.answer.replace(",", ""), sample.target.replace(",", "")) for sample in samples]
    rules = {"acc": metrics.accuracy, "multi_choice_acc": metrics.elastic_accuracy}
    for score in told:
        rule = rules.get(score.metric)
        mine = statistics.fmean(rule(*pair) for pair in pairs) if rule else score.value
        if abs(score.value - mine) > ROUNDED:
            yield (
                f"{bank['name']}: {score.harness}'s own {score.metric} is {score.value:.4f}, ours by the same rule "
                f"{mine:.4f}: it finds letters in the answers in another way"
            )
