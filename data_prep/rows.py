"""The general path of a row: bytes to a conversation that keeps all rules, or the reason why it is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from data_prep import alpaca, messages, query, sharegpt, xtuner
from data_prep.calls import tools_text
from data_prep.columns import check_columns, renamed
from data_prep.conversation import Conversation, Message, Parse, Reason, Reject, Repair, Repairs, flag, order_fault
from data_prep.decode import RawRow, decode, repeats_key
from data_prep.rules import Rules, TextScan, merged, text_fault, token_scans
from data_prep.sources import FormatName
from data_prep.thinking import apply_think

PARSERS: dict[FormatName, Parse] = {
    "alpaca": alpaca.parse,
    "sharegpt": sharegpt.parse,
    "messages": messages.parse,
    "query": query.parse,
    "xtuner": xtuner.parse,
}
"""The function of each format; a new one is a module with `parse`, and a line here, in `KEYS` and in ``columns.py``."""
MEDIA_FIELDS = ("images", "image", "videos", "video", "audios", "audio")
PREFERENCE_FIELDS = ("chosen", "rejected", "rejected_response", "rejected_messages", "chosen_messages")
_UNWANTED_FIELDS = frozenset({*MEDIA_FIELDS, *PREFERENCE_FIELDS, "label"})
_TURN_KEYS = ("role", "content", "tool_calls", *messages.REASONING_KEYS, *messages.LOSS_KEYS)
KEYS: dict[FormatName, tuple[str, ...]] = {
    "alpaca": ("instruction", "input", "output", "history", "system", "tools"),
    "sharegpt": ("conversations", "conversation", "system", "tools", "from", "value", "text", *_TURN_KEYS),
    "messages": ("messages", "system", "tools", *_TURN_KEYS),
    "query": (*query.QUERY_KEYS, *query.RESPONSE_KEYS, "history", "system", "tools"),
    "xtuner": ("conversation", "input", "output", "output_with_loss", "system", "tools"),
}
"""Fields that must not occur twice in one object."""
_TURN_LISTS = ["messages", "conversations", "conversation"]


def unwanted(record: Mapping[str, object]) -> Reason | None:
    """The reason why a well-formed row is not text for supervised fine-tuning, or None."""
    if record.keys().isdisjoint(_UNWANTED_FIELDS):
        return None
    if flag(record, MEDIA_FIELDS):
        return Reason.UNSUPPORTED_MEDIA
    if record.get("label") is False or flag(record, PREFERENCE_FIELDS):
        return Reason.PREFERENCE_DATA
    return None


def system_text(record: Mapping[str, object], repairs: Repairs) -> str | Reason | None:
    """The system prompt that stands beside the turns, None when absent or blank."""
    value = record.get("system") or record.get("system_prompt")
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        return Reason.WRONG_TYPE
    if value.strip():
        return value
    repairs.add(Repair.DROPPED_BLANK_SYSTEM)
    return None


def build(
    record: Mapping[str, object], turns: Sequence[Message], rules: Rules, scans: Sequence[TextScan], repairs: Repairs
) -> Conversation | Reason:
    """Check the turns of ``record``, apply ``rules``, add system prompt and tools: the finished conversation.

    A system turn wins over a ``system`` field, as it does in the trainer; a blank one counts as absent.
    """
    if (reason := unwanted(record)) is not None:
        return reason
    system = system_text(record, repairs)
    if isinstance(system, Reason):
        return system
    tools = tools_text(record.get("tools"))
    if isinstance(tools, Reason):
        return tools
    if rules.consecutive_turns == "merge":
        turns = merged(turns, repairs)
    if turns and turns[0].role == "system":
        system, turns = first_system(system, turns[0].content, repairs), turns[1:]
    if not turns:
        return Reason.EMPTY_CONTENT
    if (fault := order_fault([turn.role for turn in turns])) is not None:
        return fault
    if rules.think != "keep":
        thought = apply_think(turns, rules.think, repairs)
        if isinstance(thought, Reason):
            return thought
        turns = thought
    for turn in turns:
        if turn.role != "tool_response" and not turn.content.strip():
            return Reason.EMPTY_CONTENT
    if (learned := learned_turns(turns)) < len(turns):
        if not learned:
            return Reason.MASKED_TURN
        repairs.add(Repair.DROPPED_MASKED_TAIL)
        turns = turns[:learned]
    head = () if system is None else (Message("system", system),)
    conversation = Conversation((*head, *turns), tools)
    return text_fault(conversation.messages, tools, scans) or conversation


def first_system(field: str | None, turn: str, repairs: Repairs) -> str | None:
    """The system prompt out of a ``system`` field, None when absent, and a system turn."""
    if not turn.strip():
        repairs.add(Repair.DROPPED_BLANK_SYSTEM)
        return field
    if field is not None and field.strip() != turn.strip():
        repairs.add(Repair.DROPPED_SYSTEM_FIELD)
    return turn


def learned_turns(turns: Sequence[Message]) -> int:
    """How many turns there are up to the last one that is learned."""
    count = len(turns)
    while count and (turns[count - 1].loss is False or turns[count - 1].role not in ("assistant", "tool_call")):
        count -= 1
    return count


class RowReader:
    """Reads the rows of one source; what it makes of a row depends on that row and the arguments alone."""

    def __init__(self, format: FormatName, columns: Mapping[str, str], rules: Rules) -> None:  # noqa: A002
        """``format`` is one of `PARSERS`; raises InputError for ``columns`` that it does not have."""
        check_columns(format, columns)
        self._parse = PARSERS[format]
        self._columns = dict(columns)
        self._rules = rules
        self._scans = token_scans(rules)
        self._key_set = frozenset({*KEYS[format], *columns.values()})
        self._turn_lists = [columns[name] for name in _TURN_LISTS if name in columns] or _TURN_LISTS
        names = "|".join(re.escape(key) for key in sorted(self._key_set))
        self._key = re.compile(rb'"(' + names.encode() + rb')"\s*:')

    def read(self, row: RawRow) -> tuple[Conversation | Reject, tuple[str, ...]]:
        """The conversation that ``row`` becomes, or why it is refused, and the repairs made to it, sorted."""
        record = decode(row)
        if isinstance(record, Reject):
            return record, ()
        if not isinstance(record, dict):
            return Reject(Reason.NOT_AN_OBJECT), ()
        fields = renamed(record, self._columns) if self._columns else record
        repairs: Repairs = set()
        turns = self._parse(fields, repairs)
        if isinstance(turns, Reason):
            return Reject((turns is Reason.MISSING_FIELD and unwanted(fields)) or turns), ()
        built = build(fields, turns, self._rules, self._scans, repairs)
        if isinstance(built, Reason):
            return Reject(built), ()
        if self._repeats(row.data, record):
            return Reject(Reason.DUPLICATE_KEY), ()
        return built, tuple(sorted(repairs)) if repairs else ()

    def _repeats(self, data: bytes, record: Mapping[str, object]) -> bool:
        """True when a field that is read occurs twice in one object of a row that was found good.

        The decoder does not tell, so the keys in the bytes are counted first. A key that is spelled with escapes
        (``"\\u0072ole"``) hides from that; nobody writes one.
        """
        found = self._key.findall(data)
        if len(found) == len(set(found)):
            return False
        expected = len(self._key_set & record.keys())
        value = next((record[name] for name in self._turn_lists if name in record), None)
        turns = [turn for turn in value if isinstance(turn, dict)] if isinstance(value, list) else []
        if sum(map(len, turns)) == 2 * len(turns):
            expected += 2 * len(turns)  # a good turn has two of the fields at least, so here it has just those
        else:
            expected += sum([len(self._key_set & turn.keys()) for turn in turns])
        return len(found) > expected and repeats_key(data, self._key_set)
