"""The shapes of row that the fast path knows: Alpaca, and lists of turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from data_prep.conversation import Conversation, Message

Sizes: TypeAlias = tuple[int, ...]
"""By how many bytes a row may be longer than its output line, if it holds nothing but what was read; () = unknown."""

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


class Read(NamedTuple):
    """What rows were read as, one entry per row in each list."""

    rows: Sequence[Conversation | bytes | None]
    """The conversation or its line; None: left."""
    sizes: list[Sizes]
    chars: list[int]
    """Characters of a row that is one question and one answer; 0 of any other."""


class AlpacaShape:
    """Rows of ``instruction``, ``input`` and ``output``."""

    @staticmethod
    def takes(columns: Mapping[str, str]) -> bool:
        """Whether rows under this mapping of columns have this shape: no column is a field of another meaning."""
        names = list(columns.values())
        return set(columns) <= set(_ALPACA) and len(set(names)) == len(names) and not set(names) & {*_ALPACA, *_UNREAD}

    def __init__(self, columns: Mapping[str, str], *, only_lines: bool) -> None:
        self._only_lines = only_lines
        self._indent = 0
        self._names = {field: columns.get(field, field) for field in _ALPACA}
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [("instruction", str), ("output", str)]
        fields += [("input", _TEXT, UNSET), ("system", _TEXT, UNSET)]
        fields.append(("history", list[tuple[str, str]] | None | UnsetType, UNSET))
        fields += [(name, None, None) for name in _UNREAD if name not in self._names.values()]
        self.row = msgspec.defstruct("Alpaca", fields, rename=self._names, gc=False)
        self._sized = all(len(name) >= _SHORTEST_KEY for name in self._names.values())
        self._sizes: dict[tuple[object, ...], Sizes] = {}

    def indented(self, indent: int) -> None:
        """From now on rows may also stand one field a line, with ``indent`` spaces a level; 0: they may not."""
        if indent != self._indent:
            self._indent = indent
            self._sizes.clear()

    def take(self, rows: Sequence[Any]) -> Read:
        """Read ``rows``; one that could not be decoded is None."""
        taken: list[Conversation | bytes | None] = []
        encode, only_lines = msgspec.json.Encoder().encode, self._only_lines
        sizes: list[Sizes] = []
        chars: list[int] = []
        joined, empty, absent, null = (self._size(extra, UNSET, UNSET) for extra in ("x", "", UNSET, None))
        for row in rows:  # the hottest loop of all: what can be left out of it, is
            found: Conversation | bytes | None = None
            size: Sizes = ()
            length = 0
            if row is not None:
                instruction, extra, output = row.instruction, row.input, row.output
                if extra:
                    query, size = f"{instruction}\n{extra}", joined
                else:
                    query, size = instruction, empty if extra == "" else absent if extra is UNSET else null
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
                    if only_lines:
                        found = b"".join((_QUERY, encode(query), _OUTPUT, encode(output), _END))
                    else:
                        found = Conversation((Message("user", query), Message("assistant", output)))
                    length = len(query) + len(output)
                else:
                    found, size = self._with_more(row, query, output)
            taken.append(found)
            sizes.append(size)
            chars.append(length)
        return Read(taken, sizes, chars)

    def keys(self, rows: Sequence[Any]) -> Iterable[tuple[bytes, int]]:
        """Each key that is read, in quotes, and how many values of it there are in ``rows``."""
        for field, name in self._names.items():
            count = sum(getattr(row, field) is not UNSET for row in rows)
            if count:
                yield b'"%b"' % name.encode(), count

    def _with_more(self, row: Any, query: str, output: str) -> tuple[Conversation | None, Sizes]:
        system, history = row.system, row.history
        turns = [text for pair in history or () for text in pair]
        texts = [system, *turns] if system else turns
        if any(not text or text.isspace() or "\0" in text for text in texts):
            return None, ()
        messages = [Message("system", system)] if system else []
        messages += [Message(("user", "assistant")[at % 2], text) for at, text in enumerate((*turns, query, output))]
        return Conversation(tuple(messages)), self._size(row.input, system, history)

    def _size(self, extra: object, system: object, history: object) -> Sizes:
        """The sizes of rows with these fields: unset, null, empty or filled (one text stands for all)."""
        pairs = len(history) if isinstance(history, list) else 0
        if not self._sized or pairs > _MOST_PAIRS:
            return ()
        extra, system = extra and "x", system and "x"
        history = [["x", "x"]] * pairs if isinstance(history, list) else history
        given = {"instruction": "x", "output": "x", "input": extra, "system": system, "history": history}
        key = tuple(None if value is None else str(value) for value in given.values())
        if key not in self._sizes:
            row = {self._names[field]: value for field, value in given.items() if value is not UNSET}
            messages = [Message("user", "x\nx" if extra else "x"), Message("assistant", "x")]
            messages[:0] = [Message("user", "x"), Message("assistant", "x")] * pairs
            messages[:0] = [Message("system", "x")] if system else []
            compact = len(msgspec.json.encode(row)) - len(msgspec.json.encode(Conversation(tuple(messages))))
            spaced = compact + 2 * len(row) - 1 + pairs  # with a space after each colon and comma
            indented = compact + len(row) * (2 * self._indent + 2) + self._indent + 1
            self._sizes[key] = (compact, spaced, indented) if self._indent and not pairs else (compact, spaced)
        return self._sizes[key]


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
        self._roles = _ROLES[format_name]
        self._keys = [b'"%b"' % key.encode() for key in (turns, role, content)]

    def indented(self, indent: int) -> None:
        """Nothing to know: rows of turns are not told by their sizes."""

    def take(self, rows: Sequence[Any]) -> Read:
        """Read ``rows``; one that could not be decoded is None."""
        taken = [None if row is None else self._conversation(row) for row in rows]
        return Read(taken, [()] * len(rows), [0] * len(rows))

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
