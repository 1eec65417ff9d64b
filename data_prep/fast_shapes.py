"""The shapes of row that the fast path knows: Alpaca, and lists of turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from data_prep.conversation import Conversation, Message

Sizes: TypeAlias = tuple[int, int, int] | tuple[None, None, None]
"""By how many bytes a row is longer than its output line, if it holds nothing but what was read: without white space
between its fields, and with the usual; and how many fields it has. None = unknown."""

_UNREAD = (
    *("images", "image", "videos", "video", "audios", "audio", "chosen", "rejected", "rejected_response"),
    *("rejected_messages", "chosen_messages", "label", "tools", "system_prompt"),
)
"""Fields that change what a row is; a row with anything but null in one of them is left."""
_UNREAD_IN_TURN = (
    *("function_call", "tool_call_id", "reasoning", "thinking", "loss_weight", "loss_scale", "weight", "train"),
)
_CHECKED_IN_TURN = ("tool_calls", "reasoning_content", "loss")
_TURNS = {"sharegpt": ("from", "value", "conversations"), "messages": ("role", "content", "messages")}
_ROLES = {"messages": {"system": "system", "user": "user", "assistant": "assistant"}}
_ROLES["sharegpt"] = {**_ROLES["messages"], "human": "user", "gpt": "assistant"}
_SHORTEST_KEY = 5
"""Bytes. A repeated field with a name this long outweighs all the spaces that a row of five fields can lack."""
_QUERY, _OUTPUT, _END = b'{"messages":[{"role":"user","content":', b'},{"role":"assistant","content":', b"}]}"
_MOST_PAIRS = 1
"""Of a history: with more there are more spaces."""
_TEXT = str | None | UnsetType
_ALPACA = ("instruction", "input", "output", "system", "history")


def is_text(data: bytes) -> bool:
    """Whether ``data`` is UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def stands(source: bytes, fields: int | None, indent: int) -> bool:
    """Whether a row has its ``fields`` on lines of their own, with ``indent`` spaces a level.

    In one that is only as long as if it had, a field could stand twice in the room of the spaces.
    """
    lines = source.count(b"\n" + b" " * (2 * indent) + b'"')
    return lines == fields and source.endswith(b"\n" + b" " * indent + b"}")


class Taken(NamedTuple):
    """What became of the rows of a block, one entry per row in each list."""

    conversations: list[Conversation | None]
    """None where `lines` has None, and of any row with `chars` when only lines are wanted."""
    lines: list[bytes | None]
    """The rows as they are written, without line end; None is left to `RowReader`."""
    chars: list[int]
    """Characters of a row that is one question and one answer; 0 of any other."""
    raw: Sequence[bytes]
    """The rows as they were read."""


class AlpacaShape:
    """Rows of ``instruction``, ``input`` and ``output``."""

    @staticmethod
    def takes(columns: Mapping[str, str]) -> bool:
        """Whether rows under this mapping of columns have this shape: no column is a field of another meaning."""
        names = list(columns.values())
        return set(columns) <= set(_ALPACA) and len(set(names)) == len(names) and not set(names) & {*_ALPACA, *_UNREAD}

    def __init__(self, columns: Mapping[str, str], *, only_lines: bool) -> None:
        self._only_lines = only_lines
        self._encode = msgspec.json.Encoder().encode
        self._names = {field: columns.get(field, field) for field in _ALPACA}
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [("instruction", str), ("output", str)]
        fields += [("input", _TEXT, UNSET), ("system", _TEXT, UNSET)]
        fields.append(("history", list[tuple[str, str]] | None | UnsetType, UNSET))
        fields += [(name, None, None) for name in _UNREAD if name not in self._names.values()]
        self.row = msgspec.defstruct("Alpaca", fields, rename=self._names, gc=False)
        self._sized = all(len(name) >= _SHORTEST_KEY for name in self._names.values())
        self._known: dict[tuple[object, ...], Sizes] = {}

    def take(self, rows: Sequence[Any], raw: Sequence[bytes], *, indent: int, end: int) -> tuple[Taken, list[int]]:
        """Read ``rows``, decoded from ``raw``; and the positions of doubtful ones, which may hold more than was read.

        A row that could not be decoded is None. Each of ``raw`` has ``end`` bytes of line end. With an ``indent`` they
        stand one field a line, with that many spaces a level.
        """
        conversations: list[Conversation | None] = []
        lines: list[bytes | None] = []
        chars: list[int] = []
        doubtful: list[int] = []
        encode, only_lines = self._encode, self._only_lines
        joined, empty, absent, null = (self._sizes(extra, UNSET, UNSET, indent) for extra in ("x", "", UNSET, None))
        for row, source in zip(rows, raw, strict=True):  # the hottest loop of all: what can be left out of it, is
            conversation = line = None
            length = 0
            if row is not None:
                instruction, extra, output = row.instruction, row.input, row.output
                if extra:
                    query, sizes = f"{instruction}\n{extra}", joined
                else:
                    query, sizes = instruction, empty if extra == "" else absent if extra is UNSET else null
                if (
                    not instruction
                    or not output
                    or instruction.isspace()
                    or output.isspace()
                    or (extra and extra.isspace())
                    or "\0" in query
                    or "\0" in output
                ):
                    pass
                elif row.system is UNSET and row.history is UNSET:
                    line = b"".join((_QUERY, encode(query), _OUTPUT, encode(output), _END))
                    length = len(query) + len(output)
                    if not only_lines:
                        conversation = Conversation((Message("user", query), Message("assistant", output)))
                elif (conversation := self._with_more(row, query, output)) is not None:
                    line = encode(conversation)
                    sizes = self._sizes(extra, row.system, row.history, indent)
                if (
                    line is not None
                    and (excess := len(source) - end - len(line)) != sizes[0]
                    and not (
                        excess == sizes[1]
                        and (source.isascii() or is_text(source))
                        and (not indent or stands(source, sizes[2], indent))
                    )
                ):
                    doubtful.append(len(lines))
            conversations.append(conversation)
            lines.append(line)
            chars.append(length)
        return Taken(conversations, lines, chars, raw), doubtful

    def keys(self, rows: Sequence[Any]) -> Iterable[tuple[bytes, int]]:
        """Each key that is read, in quotes, and how many values of it there are in ``rows``."""
        for field, name in self._names.items():
            count = sum(getattr(row, field) is not UNSET for row in rows)
            if count:
                yield b'"%b"' % name.encode(), count

    def _with_more(self, row: Any, query: str, output: str) -> Conversation | None:
        messages = [Message("system", row.system)] if row.system else []
        for asked, answered in row.history or ():
            messages += (Message("user", asked), Message("assistant", answered))
        for message in messages:
            text = message.content
            if not text or text.isspace() or "\0" in text:
                return None
        return Conversation((*messages, Message("user", query), Message("assistant", output)))

    def _sizes(self, extra: object, system: object, history: object, indent: int) -> Sizes:
        """The sizes of rows with these fields: unset, null, empty or filled (one text stands for all)."""
        pairs = len(history) if isinstance(history, list) else 0
        if not self._sized or pairs > _MOST_PAIRS:
            return None, None, None
        extra, system = extra and "x", system and "x"
        key = (extra, system, pairs if isinstance(history, list) else history, indent)
        if key not in self._known:
            history = [["x", "x"]] * pairs if isinstance(history, list) else history
            given = {"instruction": "x", "output": "x", "input": extra, "system": system, "history": history}
            row = {self._names[field]: value for field, value in given.items() if value is not UNSET}
            messages = [Message("user", "x\nx" if extra else "x"), Message("assistant", "x")]
            messages[:0] = [Message("user", "x"), Message("assistant", "x")] * pairs
            messages[:0] = [Message("system", "x")] if system else []
            compact = len(msgspec.json.encode(row)) - len(msgspec.json.encode(Conversation(tuple(messages))))
            spaces = 2 * len(row) - 1 + pairs  # one after each colon and comma
            if indent:
                spaces = len(row) * (2 * indent + 2) + indent + 1
            self._known[key] = compact, compact + spaces, len(row)
        return self._known[key]


class TurnsShape:
    """Rows with a list of turns: ShareGPT, or messages."""

    def __init__(self, format_name: str) -> None:
        role, content, turns = _TURNS[format_name]
        # None where a value would have to be looked at; UNSET where even null has to, as it may hide a repeated key.
        turn = msgspec.defstruct(
            "Turn",
            [
                ("role", str),
                ("content", str),
                *((name, None | UnsetType, UNSET) for name in _CHECKED_IN_TURN),
                *((name, None, None) for name in _UNREAD_IN_TURN),
            ],
            rename={"role": role, "content": content},
            gc=False,
        )
        others = {"conversations", "conversation", "messages"} - {turns}
        self.row = msgspec.defstruct(
            "Turns",
            [
                ("turns", list[turn]),  # type: ignore[valid-type]
                *((name, None | UnsetType, UNSET) for name in ("system", "tools")),
                *((name, None, None) for name in sorted({*_UNREAD, *others} - {"tools"})),
            ],
            rename={"turns": turns},
            gc=False,
        )
        self._encode = msgspec.json.Encoder().encode
        self._roles = _ROLES[format_name]
        self._keys = [b'"%b"' % key.encode() for key in (turns, role, content)]

    def take(self, rows: Sequence[Any], raw: Sequence[bytes], **_: int) -> tuple[Taken, list[int]]:
        """Read ``rows`` as `AlpacaShape.take` does; all are doubtful, as rows of turns are not told by their sizes."""
        conversations = [None if row is None else self._conversation(row) for row in rows]
        lines = [None if conversation is None else self._encode(conversation) for conversation in conversations]
        doubtful = [at for at, line in enumerate(lines) if line is not None]
        return Taken(conversations, lines, [0] * len(rows), raw), doubtful

    def keys(self, rows: Sequence[Any]) -> Iterable[tuple[bytes, int]]:
        """Each key that is read, in quotes, and how many values of it there are in ``rows``."""
        turns = sum(len(row.turns) for row in rows)
        yield self._keys[0], len(rows)
        yield self._keys[1], turns
        yield self._keys[2], turns

    def _conversation(self, row: Any) -> Conversation | None:
        roles = self._roles
        if row.system is not UNSET or row.tools is not UNSET:
            return None
        messages: list[Message] = []
        wanted = "user"
        for turn in row.turns:
            role, content = roles.get(turn.role), turn.content
            if role is None or (role != wanted and not (role == "system" and not messages)):
                return None
            if not content or content.isspace() or "\0" in content:
                return None
            if not (turn.loss is turn.tool_calls is turn.reasoning_content is UNSET):
                return None
            messages.append(Message(role, content))
            wanted = "assistant" if role == "user" else "user"
        return Conversation(tuple(messages)) if messages and messages[-1].role == "assistant" else None
