"""The rules a user can choose: what to do with turns of one role running, thoughts, and special tokens inside texts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeAlias

import msgspec

from data_prep.conversation import Message, Reason, Repair, Repairs
from data_prep.thinking import CLOSE, OPEN, ThinkRule

TextScan: TypeAlias = tuple[str, re.Pattern[str]]
"""A character and a pattern that begins with it: to look for the character alone is 30 times as fast."""

# Special tokens that are words of no language. Left out are those that are HTML (<s>) or common talk (<pad>, [MASK]).
_WELL_KNOWN: dict[str, str] = {
    "<": (
        r"<\|[A-Za-z][A-Za-z0-9_]{1,40}\|>"  # ChatML, Llama 3, Phi, GLM-4, gpt-oss
        r"|<｜[^<>\s]{1,40}｜>"  # DeepSeek, with fullwidth bars
        r"|<(?:start|end)_of_turn>"  # Gemma
        r"|<</?SYS>>"  # Llama 2
    ),
    "[": r"\[/?INST\]|\[gMASK\]|\[/?AVAILABLE_TOOLS\]|\[/?TOOL_RESULTS\]|\[TOOL_CALLS\]",  # Mistral, GLM
}
# The same beginnings in UTF-8, shorter: what they find too much is looked at again.
_WELL_KNOWN_STARTS: dict[bytes, list[bytes]] = {
    b"<": [rb"<\|[A-Za-z]", "<｜".encode(), rb"<(?:start|end)_of_turn>", rb"<</?SYS>>"],
    b"[": [rb"\[/?INST\]", rb"\[gMASK\]", rb"\[/?AVAILABLE_TOOLS\]", rb"\[/?TOOL_RESULTS\]", rb"\[TOOL_CALLS\]"],
}
# Text that many tokenizers have as one token, and that belongs into an assistant's turn.
_PLAIN = frozenset({OPEN, CLOSE, "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"})
_MEDIA_STARTS = [rb"<img>", rb"<image>", rb"<video>", rb"<audio>"]
# A placeholder stands alone or at an end; inside a line, <video> and <audio> are mostly talk of HTML.
_PLACEHOLDER = re.compile(r"<image>|(?m:^[ \t]*<(?:video|audio)>|<(?:video|audio)>[ \t\r]*$)")
_HITS_PER_BYTE = 1 / 4096


def merged(turns: Sequence[Message], repairs: Repairs) -> list[Message]:
    """Join system, user and assistant turns that follow one of their own role, with a blank line between.

    Two assistant turns of which only one is to be learned stay apart: no single turn says the same.
    """
    result: list[Message] = []
    for (role, loss), group in groupby(turns, key=lambda turn: (turn.role, turn.loss)):
        same = list(group)
        if len(same) > 1 and role in ("system", "user", "assistant"):
            repairs.add(Repair.MERGED_TURNS)
            same = [Message(role, "\n\n".join(turn.content for turn in same if turn.content.strip()), loss)]
        result += same
    return result


def token_scans(rules: Rules) -> tuple[TextScan, ...]:
    """What finds the special tokens that ``rules`` forbid inside a text; nothing when they may stay."""
    if rules.special_tokens == "keep":
        return ()
    if not rules.tokens:
        return tuple((start, re.compile(pattern)) for start, pattern in _WELL_KNOWN.items())
    grouped: defaultdict[str, list[str]] = defaultdict(list)
    for token in wanted(rules.tokens):
        grouped[token[0]].append(re.escape(token))
    return tuple((start, re.compile("|".join(group))) for start, group in grouped.items())


def wanted(tokens: Iterable[str]) -> Iterator[str]:
    """Those of a tokenizer's special tokens that text must not hold: not blanks, words or the marks of thoughts."""
    for token in tokens:
        if len(token) > 2 and token == token.strip() and not token.isalnum() and token not in _PLAIN:
            yield token


def text_fault(messages: Sequence[Message], tools: str | None, scans: Sequence[TextScan]) -> Reason | None:
    """What stands in the texts of a conversation and would not mean itself to the trainer, or None."""
    whole = "".join([message.content for message in messages])
    doubtful = "\0" in whole or "<" in whole
    for start, _ in scans:
        doubtful = doubtful or start in whole
    for message in messages if doubtful else ():
        text = message.content
        if "\0" in text:
            return Reason.NUL_CHARACTER
        for start, pattern in scans:
            if start in text and pattern.search(text):
                return Reason.SPECIAL_TOKENS
        if "<" in text and media_missing(message.role, text):
            return Reason.MEDIA_PLACEHOLDER
    if tools is not None and any(start in tools and pattern.search(tools) for start, pattern in scans):
        return Reason.SPECIAL_TOKENS
    return None


def media_missing(role: str, text: str) -> bool:
    """True when ``text`` stands for an image, a video or a sound; rows with such files never come this far.

    An answer may talk of ``<image>``, and text with the closing tag too is XML or HTML.
    """
    # The trainer replaces <img>PATH</img> in every turn, and would load that file.
    if (image := text.find("<img>")) >= 0 and text.find("</img>", image + 6) >= 0:
        return True
    if role in ("assistant", "tool_call"):
        return False
    return any(f"</{match[0].strip()[1:]}" not in text for match in _PLACEHOLDER.finditer(text))


def suspicious(rules: Rules) -> Suspicion:
    """What to look for in encoded rows that were made without the rules, so that none slips by them."""
    if rules.think == "require":
        return Suspicion(everything=True, scans=())
    starts: defaultdict[bytes, list[bytes]] = defaultdict(list, {b"<": list(_MEDIA_STARTS)})
    if rules.think == "strip":
        starts[b"<"].append(rb"</?think>")
    if rules.special_tokens == "reject" and rules.tokens:
        for token in wanted(rules.tokens):
            encoded = msgspec.json.encode(token)[1:-1]
            starts[encoded[:1]].append(re.escape(encoded))
    elif rules.special_tokens == "reject":
        for start, group in _WELL_KNOWN_STARTS.items():
            starts[start] += group
    return Suspicion(
        everything=False, scans=tuple((start, re.compile(b"|".join(group))) for start, group in starts.items())
    )


@dataclass(frozen=True)
class Rules:
    """What a source's rows have to be, and what may be mended."""

    consecutive_turns: Literal["reject", "merge"] = "reject"
    """System, user or assistant turns running: refuse the row, or join them with a blank line."""
    think: ThinkRule = "keep"
    """``<think>`` blocks: leave them, take them out, or refuse rows in which a learned assistant turn has none."""
    special_tokens: Literal["reject", "keep"] = "reject"
    """Special tokens of the chat template inside a text, which the tokenizer would take for the real ones."""
    tokens: tuple[str, ...] = ()
    """The special tokens of the model's tokenizer; empty stands for the well-known ones of all templates."""


@dataclass(frozen=True)
class Suspicion:
    """Finds what the rules could refuse or change in encoded output rows; it may find too much, never too little."""

    everything: bool
    """True when every row is suspect."""
    scans: tuple[tuple[bytes, re.Pattern[bytes]], ...]
    """A first byte, and a pattern that begins with it."""

    def spots(self, data: bytes) -> Iterator[int]:
        """Offsets in ``data``, encoded rows, at which something was found; in no order. Useless with ``everything``.

        Looking for one byte costs a thirtieth of what a pattern costs, but each hit costs as much as 700 bytes of a
        pattern: so where there are many hits, the pattern takes over.
        """
        for start, pattern in self.scans:
            at = data.find(start)
            left = 8 + int(len(data) * _HITS_PER_BYTE)
            while at >= 0 and left:
                if pattern.match(data, at):
                    yield at
                at = data.find(start, at + 1)
                left -= 1
            if at >= 0:
                yield from (match.start() for match in pattern.finditer(data, at))
