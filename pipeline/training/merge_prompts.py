"""Conversations as training encodes them and as the harnesses render them. For the program `merge_logits` alone.

What a harness does with a tokenizer is copied from its source in a few lines (importing it takes ten seconds);
tests/e2e/test_merge.py holds the copies against the installed harnesses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.line_sample import records, sample
from data_prep.template import EncodeError, RowTemplate
from pipeline.dialogues import Turn, with_system
from pipeline.training.merge_check import Prompt, compare, prompt_length, refused

FIXED: tuple[tuple[Turn, ...], ...] = (
    (
        {"role": "user", "content": "Why is the sky blue?"},
        {"role": "assistant", "content": "Air scatters the short waves of sunlight more than the long ones."},
    ),
    (
        {"role": "user", "content": "天空为什么是蓝色的？"},
        {"role": "assistant", "content": "因为空气对短波的散射比对长波的散射更强。"},
    ),
)
"""Asked of every model, so that data of a few words do not decide alone."""

CASES: dict[str, tuple[Turn, ...]] = {
    "user": ({"role": "user", "content": "Name a colour."},),
    "system, user": (
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "Name a colour."},
    ),
    "several turns": (
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Red."},
        {"role": "user", "content": "Another one."},
    ),
}
_ANSWER: Turn = {"role": "assistant", "content": "Blue."}
_THOUGHT = "<think>"
_THINKING_ANSWER: Turn = {"role": "assistant", "content": "<think>\nSomething cold.\n</think>\n\nBlue."}
_ROLES = ("system", "user", "assistant")
_ROWS = 32
"""Rows of the data looked at, of which some may be of no use: tools, or what swift cannot encode."""


def rows(paths: Sequence[Path], count: int) -> list[dict[str, Any]]:
    """`count` rows of the first of these files that has any, chosen by content."""
    for path in paths:
        if path.is_file():
            chosen = sample(path, max(count, _ROWS), 0)[1]
            if chosen:
                return [record for _, record in records(path, chosen)]
    return []


def encoded(template: RowTemplate, given: Sequence[Mapping[str, Any]], count: int, longest: int) -> list[list[int]]:
    """The first `longest` tokens of `count` rows, and of the fixed conversations, as training sees them."""
    found: list[list[int]] = []
    for row in given:
        if len(found) == count:
            break
        found += [ids[:longest] for ids in _ids(template, row)]
    fixed = [ids[:longest] for talk in FIXED for ids in _ids(template, {"messages": [*talk]})]
    return [ids for ids in [*found, *fixed] if len(ids) > 1]


def _ids(template: RowTemplate, row: Mapping[str, Any]) -> Iterator[list[int]]:
    try:
        yield template.encode({**row, "messages": [dict(turn) for turn in row["messages"]]}).ids
    except EncodeError:
        return


def compared(
    template: RowTemplate,
    tokenizer: Any,
    readers: Sequence[Mapping[str, Any]],
    row: Mapping[str, Any] | None,
    system: str | None,
) -> list[dict[str, Any]]:
    """Every case through every reader, against training.

    `tokenizer`: of the merged folder. `readers`: {harness, enable_thinking, system, ...} of the suites. `row`: a
    conversation of the data, whose own answer tells whether it thinks. `system`: what the recipe's data have put before
    conversations that have no system prompt.
    """
    thinks = row is not None and row["messages"][-1]["content"].startswith(_THOUGHT)
    answer = _THINKING_ANSWER if thinks else _ANSWER
    cases = {name: [*messages, answer] for name, messages in CASES.items()}
    if row is not None:
        cases["a row of the data"] = [dict(turn) for turn in row["messages"]]
    found = []
    for name, messages in cases.items():
        try:
            whole = template.encode({"messages": with_system([dict(turn) for turn in messages], system)})
        except EncodeError:
            continue  # a template without system prompts, say: nothing of the kind can be trained
        length = prompt_length(whole.trained)
        ids = whole.ids[:length]
        training = Prompt(ids, [template.decode([token]) for token in ids])
        found += [_entry(name, training, tokenizer, messages[:-1], reader) for reader in readers]
    return found


def _entry(
    case: str, training: Prompt, tokenizer: Any, messages: Sequence[Turn], reader: Mapping[str, Any]
) -> dict[str, Any]:
    from jinja2 import TemplateError

    try:
        return compare(case, said(reader), training, prompt(tokenizer, messages, reader))
    except (TemplateError, InputError) as error:
        return refused(case, said(reader), str(error))


def of_export(tokenizers: Mapping[str, Any]) -> list[str]:
    """Cases that the merged folder's tokenizer renders other than the base's: swift writes it anew."""
    plain = {"harness": "evalscope"}
    return [
        name
        for name, messages in CASES.items()
        if _outcome(tokenizers["merged"], messages, plain) != _outcome(tokenizers["base"], messages, plain)
    ]


def _outcome(tokenizer: Any, messages: Sequence[Turn], reader: Mapping[str, Any]) -> list[int] | str:
    from jinja2 import TemplateError

    try:
        return list(prompt(tokenizer, messages, reader).ids)
    except TemplateError as error:
        return str(error)


def usable(row: Mapping[str, Any]) -> bool:
    """Whether a row is a plain conversation, which a harness could send as well."""
    messages = row["messages"]
    return not row.get("tools") and messages[-1]["role"] == "assistant" and all(t["role"] in _ROLES for t in messages)


def prompt(tokenizer: Any, messages: Sequence[Turn], reader: Mapping[str, Any]) -> Prompt:
    """What a model is given by a harness before it answers."""
    text = text_of(tokenizer, with_system([dict(turn) for turn in messages], reader.get("system")), reader)
    ids = ids_of(tokenizer, text, reader)
    return Prompt(ids, [tokenizer.decode([token]) for token in ids])


def text_of(tokenizer: Any, messages: Sequence[Turn], reader: Mapping[str, Any]) -> str:
    """lm-eval 0.4.13: HFLM.apply_chat_template; EvalScope 1.14.1: ModelScopeAPI.ms_chat."""
    from jinja2 import TemplateError

    thinking = reader.get("enable_thinking")
    words = {} if thinking is None else {"enable_thinking": thinking}
    talk = [dict(turn) for turn in messages]
    if getattr(tokenizer, "chat_template", None) is None:
        if reader["harness"] == "lm_eval":
            raise InputError("the merged folder has no chat template, so lm-eval cannot apply one")
        return "".join(f"{turn['role']}: {turn['content']}\n" for turn in talk)
    try:
        return str(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True, **words))
    except TemplateError:
        if reader["harness"] != "lm_eval":
            raise
        talk = [turn for turn in talk if turn["role"] != "system"]  # as lm-eval does, with a warning
        return str(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True, **words))


def ids_of(tokenizer: Any, text: str, reader: Mapping[str, Any]) -> list[int]:
    """lm-eval takes care not to begin with the first token twice (HFLM.tok_encode); EvalScope does not."""
    if reader["harness"] != "lm_eval":
        return list(tokenizer(text, **reader.get("tokenizer_call_args", {}))["input_ids"])
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    words = {} if reader.get("add_bos_token") is None else {"add_special_tokens": reader["add_bos_token"]}
    if first is not None and text.startswith(tokenizer.decode(first)):
        words = {"add_special_tokens": False}
    return list(tokenizer.encode(text, **words))


def said(reader: Mapping[str, Any]) -> str:
    """A reader in words."""
    given = [f"{key}: {reader[key]}".lower() for key in ("enable_thinking", "add_bos_token") if key in reader]
    given += ["system_prompt"] if reader.get("system") is not None else []
    return str(reader["harness"]) + (f" ({', '.join(given)})" if given else "")
