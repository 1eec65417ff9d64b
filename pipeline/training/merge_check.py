"""Is the merged model what was trained, and is it asked as it was trained? The rules and the words. Pure.

Distances are means over all positions of some prompts and all tokens of the vocabulary of the absolute difference of
log-probabilities, in nats. The tolerance is no constant: merging has to round W + BA to the type of the merged file,
and what that alone does to these prompts is measured, on the same weights, in the same arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal, NamedTuple

Verdict = Literal["agree", "differ", "no effect", "lost in rounding", "unchecked"]

FACTOR = 2.0
"""Of the rounding's own distance. swift's merge is at 1.00 of it (measured: SmolLM2-135M, rank 32, bfloat16); one of
210 matrices left out at 2.2, one of 30 layers at 13, a scale wrong by 5 % at 9, half of the layers at 100."""
LEAST = 1e-4
"""Nats; where nothing is rounded (float32 into float32) only the order of additions differs, by 1e-7 to 1e-5."""

_CONTEXT = 3
"""Tokens shown on each side of a difference."""
_LONGEST = 160
"""Characters of a difference that are shown."""


def tolerance(rounding: float) -> float:
    """Nats; `rounding`: distance between base + adapter before and after W + BA is rounded."""
    return max(FACTOR * rounding, LEAST)


def judge(found: Mapping[str, Any]) -> Verdict:
    """`found`: `logits` of the program's result. A number that is null was not finite."""
    if found.get("unchecked"):
        return "unchecked"
    distance, base, allowed = (_number(found.get(key)) for key in ("mean_abs", "base_distance", "tolerance"))
    if not distance <= allowed:  # NaN is not within any tolerance
        return "differ"
    if base <= LEAST:
        return "no effect"
    return "agree" if base > allowed else "lost in rounding"


def judge_tensors(found: Mapping[str, Any]) -> Verdict:
    """Of a training of all weights, which is not merged: its tensors must be those of the checkpoint."""
    if found["different"] or found["missing"]:
        return "differ"
    return "agree" if found["changed"] else "no effect"


def problem(result: Mapping[str, Any]) -> str | None:
    """Why the merged model is not what was trained; None if it is, or if that was not looked at."""
    if result["verdict"] != "differ":
        return None
    if "tensors" in result:
        found = result["tensors"]
        names = ", ".join([*found["missing"], *found["different"]][:3])
        return (
            f"the exported weights are not those of the checkpoint: {len(found['different'])} of {found['compared']} "
            f"tensors differ, {len(found['missing'])} are missing ({names}). "
            "Delete the folder of the stage `export` and run again"
        )
    found = result["logits"]
    if not math.isfinite(_number(found["mean_abs"])):
        what = "its log-probabilities are not finite"
    else:
        what = (
            f"its log-probabilities are {found['mean_abs']:.3g} away from those of base + adapter on average, and at "
            f"most {found['tolerance']:.3g} can be rounding (top token equal in {found['top1_agreement']:.1%})"
        )
    plain = _number(found.get("merged_to_base")) <= _number(found["tolerance"])
    return (
        f"the merged model is not base + adapter: {what}."
        + (" It is the base model: nothing was merged." if plain else "")
        + " Delete the folders of the stages `export` and `check.export` and run again; export.check: warn goes on all "
        "the same"
    )


def remarks(result: Mapping[str, Any]) -> Iterator[str]:
    """What a reader of the report should know, as sentences."""
    found = result.get("logits") or {}
    verdict = result["verdict"]
    if verdict == "differ":
        yield str(problem(result))
    elif verdict == "unchecked":
        yield f"the merged model was not compared with base + adapter: {found['unchecked']}"
    elif verdict == "no effect":
        yield "the training changed nothing: base, base + adapter and the merged model give the same probabilities"
    elif verdict == "lost in rounding":
        yield (
            f"the adapter changes next to nothing: log-probabilities by {found['base_distance']:.3g} on average, where "
            f"rounding the merged weights to {found['merged_dtype']} may cost {found['tolerance']:.3g}; train longer "
            "or at a higher learning rate, or set export.precision: float32"
        )
    if result.get("quantization", "none") != "none":
        yield (
            f"trained on a base quantized to {result['quantization']} and merged into the whole one: the merge was "
            "checked against the whole base + adapter; what the adapter had learned about the quantization is lost"
        )
    if result.get("export_changed"):
        cases = "; ".join(result["export_changed"])
        yield (
            f"the merged folder renders prompts other than the base model's does ({cases}), "
            "so base and tuned were not asked the same: compare tokenizer_config.json and chat_template.jinja of both"
        )
    yield from template_remarks(result.get("templates", []))


def template_remarks(compared: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One sentence per difference, with the readers that share it, each in the same cases."""
    cases: dict[tuple[str, str, str], list[str]] = {}
    for entry in compared:
        if not entry["equal"]:
            cases.setdefault((entry["diff"], entry["advice"], entry["reader"]), []).append(entry["case"])
    readers: dict[tuple[str, str, str], list[str]] = {}
    for (diff, remedy, reader), names in cases.items():
        readers.setdefault((diff, remedy, "; ".join(names)), []).append(reader)
    for (diff, remedy, which), who in readers.items():
        yield f"prompts differ between training and {', '.join(who)} ({which}): {diff}. {remedy}"


_THINKING = (
    "Set the suites' enable_thinking to what the answers in the data are: false where they hold no thoughts, true "
    "where they do"
)
_THOUGHTS_BEFORE = (
    "Only answers before the last one are concerned: it matters to questions of several turns, and to examples as turns"
)


class Prompt(NamedTuple):
    """What a model sees before its answer: token ids, and the text of each."""

    ids: Sequence[int]
    pieces: Sequence[str]


def prompt_length(trained: Sequence[bool]) -> int:
    """Tokens before the last answer, given which tokens of a row are learned; all of them if none is."""
    end = len(trained)
    while end and not trained[end - 1]:
        end -= 1
    start = end
    while start and trained[start - 1]:
        start -= 1
    return start if end else len(trained)


def compare(case: str, reader: str, training: Prompt, seen: Prompt) -> dict[str, Any]:
    """One case as training and one reader of the merged model render it; `diff` and `advice` are empty if equal."""
    equal = list(training.ids) == list(seen.ids)
    return {
        "case": case,
        "reader": reader,
        "equal": equal,
        "diff": "" if equal else difference(training, seen),
        "advice": "" if equal else advice(training, seen),
    }


def refused(case: str, reader: str, why: str) -> dict[str, Any]:
    """A case that the merged model's chat template cannot render."""
    advice = "Take another model.template, or give the model's folder a chat template that can"
    return {"case": case, "reader": reader, "equal": False, "diff": f"its chat template fails: {why}", "advice": advice}


def difference(training: Prompt, seen: Prompt) -> str:
    """Where two prompts part, in words, with a few tokens around it."""
    if "".join(training.pieces) == "".join(seen.pieces):
        return f"the same text in other tokens ({len(training.ids)} in training, {len(seen.ids)} here)"
    parts = []
    for _, left, right, context in _changes(training, seen):
        after = f" after {shown(context)}" if context else " at the start"
        if left and right:
            parts.append(f"training has {shown(left)}{after}, here it is {shown(right)}")
        elif right:
            parts.append(f"{shown(right)} is added{after}")
        else:
            parts.append(f"{shown(left)} is missing{after}")
    return "; ".join(parts)


def advice(training: Prompt, seen: Prompt) -> str:
    """What to do about it."""
    if len(seen.ids) > 1 and seen.ids[0] == seen.ids[1] and list(training.ids) == list(seen.ids[1:]):
        return (
            "The tokenizer adds the first token again: give the EvalScope suite "
            "model_args: {tokenizer_call_args: {add_special_tokens: false}}"
        )
    changes = list(_changes(training, seen))
    if not changes:
        return "The tokenizer of the merged folder is another than that of training: compare both tokenizer.json"
    place, left, right, _ = changes[0]
    if "think" in left + right:
        last = "".join(training.pieces[-_CONTEXT:]) != "".join(seen.pieces[-_CONTEXT:])
        return _THINKING if last else _THOUGHTS_BEFORE
    before = "".join(training.pieces[:place])
    if place == 0 and "system" in right and not left:
        return "The model's own chat template puts a system prompt in: train with it (data.system: the same text)"
    if place == 0 and "system" in left and not right:
        return "Training has a system prompt: give the suites the same one (system_prompt)"
    if "user" not in before and "system" in before + left:
        return "Not the same system prompt: write it out for both (data.system and the suites' system_prompt)"
    return "Another model.template may fit the model's own chat template; scores then are of a prompt never trained"


def _changes(training: Prompt, seen: Prompt) -> Iterator[tuple[int, str, str, str]]:
    """(place in tokens, text of training, text of the reader, text before them) of every difference."""
    matcher = SequenceMatcher(a=list(training.pieces), b=list(seen.pieces), autojunk=False)
    for tag, start, end, other, other_end in matcher.get_opcodes():
        if tag != "equal":
            context = "".join(training.pieces[max(0, start - _CONTEXT) : start])
            yield start, "".join(training.pieces[start:end]), "".join(seen.pieces[other:other_end]), context


def shown(text: str) -> str:
    """In quotes, on one line, and not too long."""
    return repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "...")


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
