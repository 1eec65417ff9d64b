"""The items of EvalScope's reviews/<model>/<data set>_<subset>.jsonl."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Any

from data_prep.eval_items import question_sha256
from pipeline import jsonl
from pipeline.results import Sample, doc_key, finite, picked

FACTS = ("id", "subject", "category", "type", "level", "difficulty")
"""Of an item's metadata, what tables group by, or that name it."""
USABLE = ("success", "fallback", "degraded")
"""Statuses of scores that count (evalscope.constants.ScoreStatus); a judge that failed is no wrong answer."""

_FIELDS = {
    "fewshot": r"(?P<fewshot>.*)",
    "question": r"(?P<question>.*)",
    "choices": r"(?P<choices>A[).:、．]\s.*)",
    "letters": r"[A-Z](?:,[A-Z])*",
}
"""Greedy, so that the question is what stands last: examples have the same form and come before it."""
_FIRST = re.compile(r"A([).:、．])\s")


def read_samples(path: Path, task: str, benchmark: Mapping[str, Any]) -> tuple[list[Sample], dict[str, list[str]]]:
    """Samples of one subset in the order of its data, and the metrics that failed, with the reason for each item.

    `benchmark`: its entry of `resolved_benchmarks`, for the templates that the prompts are taken apart with.
    """
    with jsonl.naming(path):
        records = sorted(jsonl.records(path), key=lambda record: int(record["index"]))  # the file's: of completion
        pattern = prompt_pattern(benchmark, (prompt_of(record) for record in records))
        failed: dict[str, list[str]] = {}
        for record in records:
            score = record["sample_score"]["score"]
            for metric, why in ((score.get("metadata") or {}).get("metric_errors") or {}).items():
                failed.setdefault(metric, []).append(re.sub(r"[*\s]+", " ", str(why)).strip()[:120])
        return [_sample(record, task, pattern) for record in records], failed


def prompt_of(record: Mapping[str, Any]) -> str:
    """The last thing the user says."""
    users = [message["content"] for message in record["messages"] if message["role"] == "user"]
    return users[-1] if users and isinstance(users[-1], str) else json.dumps(users, ensure_ascii=False)


def prompt_pattern(benchmark: Mapping[str, Any], prompts: Iterable[str]) -> re.Pattern[str] | None:
    """What finds question and choices in a rendered prompt; None if there is no template with a question."""
    template = benchmark.get("prompt_template") or ""
    if benchmark.get("few_shot_num"):
        whole = benchmark.get("few_shot_prompt_template") or ""
        # Without a template of its own EvalScope puts the examples and a blank line before the plain one.
        gap = "\n\n" if template.startswith("{question}") else ""
        template = whole if "{question}" in whole else "{fewshot}" + gap + template
    if "{question}" not in template:
        return None
    # The examples are the same in all prompts: a longer match has a part of a question with blank lines in it.
    pattern = _pattern(template, _FIELDS)
    found = [
        match["fewshot"]
        for prompt in prompts
        if (match := pattern.fullmatch(prompt)) and "fewshot" in match.re.groupindex
    ]
    return _pattern(template, {**_FIELDS, "fewshot": re.escape(min(found, key=len))}) if found else pattern


def _pattern(template: str, fields: Mapping[str, str]) -> re.Pattern[str]:
    left, pattern = dict(fields), ""
    for literal, field, _, _ in Formatter().parse(template.rstrip()):
        pattern += re.escape(literal) + ("" if field is None else left.pop(field, ".*?"))
    return re.compile(pattern + r"\s*", re.DOTALL)


def split_choices(text: str) -> list[str]:
    """`A) red\\nB) blue` -> red, blue. Lines between two letters belong to the choice before them."""
    first = _FIRST.match(text)
    if not first:
        return []
    found, rest = [], text[first.end() :]
    for letter in "BCDEFGHIJKLMNOPQRSTUVWXYZ":
        choice, mark, after = rest.partition(f"\n{letter}{first[1]} ")
        if not mark:
            break
        found.append(choice.strip())
        rest = after
    return [*found, rest.strip()]


def _sample(record: Mapping[str, Any], task: str, pattern: re.Pattern[str] | None) -> Sample:
    prompt = prompt_of(record)
    match = pattern.fullmatch(prompt) if pattern else None
    parts = match.groupdict() if match else {}
    asked = parts.get("question", prompt).strip()
    choices = split_choices(parts.get("choices", ""))
    targets = record["target"] if isinstance(record["target"], list) else [str(record["target"] or "")]
    target = ("," if choices else "\n").join(targets)
    right = picked(target, choices)
    result = record["sample_score"]
    score, facts = result["score"], result.get("sample_metadata") or {}
    return Sample(
        task=task,
        doc_key=doc_key(asked, choices, " ".join(choices[at] for at in sorted(right)) if right else target),
        scores=dict(_values(score)),
        question=asked,
        question_sha256=question_sha256(asked),
        prompt=json.dumps(list(_turns(record)), ensure_ascii=False),
        choices=tuple(choices),
        target=target,
        answer=_text(score.get("extracted_prediction")),
        output=_text(score.get("prediction")),
        facts={key: str(facts[key]) for key in FACTS if isinstance(facts.get(key), str | int)},
    )


def _values(score: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if score.get("status", "success") in USABLE:
        for metric, value in score["value"].items():
            number = finite(float(value) if isinstance(value, bool) else value)
            if number is not None:
                yield metric, number


def _turns(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What was sent: all but the answer."""
    messages = record["messages"]
    asked = messages[:-1] if messages and messages[-1]["role"] == "assistant" else messages
    for message in asked:
        yield {"role": message["role"], "content": message["content"]}


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
