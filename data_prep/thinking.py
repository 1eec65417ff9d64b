"""Thoughts: ``<think>`` blocks before an answer, made from reasoning fields, stripped or required."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from data_prep.conversation import Message, Reason, Repair, Repairs

ThinkRule: TypeAlias = Literal["keep", "strip", "require"]
OPEN, CLOSE = "<think>", "</think>"
_TAG = re.compile(r"</?think>")


def with_thought(thought: str, answer: str) -> str:
    """``answer`` after ``thought``, laid out as the chat templates of Qwen3 and DeepSeek-R1 lay it out."""
    thought, answer = thought.strip("\n"), answer.lstrip("\n")
    return f"{OPEN}\n{thought}\n{CLOSE}\n\n{answer}"


def split_thought(text: str) -> tuple[str, str] | Reason | None:
    """The thought and the answer of ``text``, None when it has no think tag, MALFORMED_THINK for any other tags.

    A thought without its opening tag counts: the templates of reasoning models put that tag into the prompt.
    """
    tags = _TAG.findall(text)
    if not tags:
        return None
    head, _, answer = text.partition(CLOSE)
    if tags == [CLOSE]:
        return head, answer.lstrip()
    if tags == [OPEN, CLOSE] and head.lstrip().startswith(OPEN):
        return head.lstrip()[len(OPEN) :], answer.lstrip()
    return Reason.MALFORMED_THINK


def apply_think(turns: Sequence[Message], rule: ThinkRule, repairs: Repairs) -> list[Message] | Reason:
    """Strip the thoughts of all assistant turns, or require one in each that is learned; "keep" leaves them be.

    A turn that held nothing but a thought before a call is dropped with it.
    """
    kept: list[Message] = []
    for index, turn in enumerate(turns):
        if turn.role != "assistant" or rule == "keep":
            kept.append(turn)
            continue
        split = split_thought(turn.content)
        if isinstance(split, Reason):
            return split
        if rule == "require":
            if split is None and turn.loss is None:
                return Reason.MISSING_THINK
            if split is not None and OPEN not in turn.content:
                repairs.add(Repair.OPENED_THINK)
                turn = msgspec.structs.replace(turn, content=with_thought(*split))  # noqa: PLW2901
            kept.append(turn)
        elif split is None:
            kept.append(turn)
        else:
            repairs.add(Repair.STRIPPED_THINK)
            if split[1] or index + 1 == len(turns) or turns[index + 1].role != "tool_call":
                kept.append(msgspec.structs.replace(turn, content=split[1]))
    return kept
