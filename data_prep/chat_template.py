"""A model's own chat template, set up as transformers sets it up, and conversations in the form templates take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from data_prep.conversation import Conversation
from data_prep.errors import InputError

if TYPE_CHECKING:
    from jinja2 import Template

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_TODAY = datetime(2024, 7, 26, tzinfo=UTC)
"""The date for templates that print one: the length of a row is not to depend on the day it is counted."""


def template_messages(conversation: Conversation, *, calls: bool) -> list[dict[str, Any]]:
    """The turns as chat templates take them.

    Tool calls running become the ``tool_calls`` of one assistant turn, that of the text before them where there is
    one; with ``calls`` false they become its text. Responses get the role ``tool``, the name and id of their call.
    """
    messages: list[dict[str, Any]] = []
    open_calls: list[dict[str, Any]] = []
    for number, message in enumerate(conversation.messages):
        if message.role == "tool_call":
            last = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
            if last is None:
                last = {"role": "assistant", "content": ""}
                messages.append(last)
            if not calls:
                last["content"] += message.content
                continue
            # Nine letters or digits, which is what the templates of Mistral ask for.
            call = {"id": f"call{number:05}", "type": "function", "function": msgspec.json.decode(message.content)}
            last.setdefault("tool_calls", []).append(call)
            open_calls.append(call)
        elif message.role == "tool_response":
            response = {"role": "tool", "content": message.content}
            if open_calls:
                call = open_calls.pop(0)
                response |= {"name": call["function"].get("name", ""), "tool_call_id": call["id"]}
            messages.append(response)
        else:
            open_calls = []
            messages.append({"role": message.role, "content": message.content})
    return messages


def template_tools(tools: str | None) -> list[Any] | None:
    """``tools`` as chat templates take them: a list of ``{"type": "function", "function": ...}``."""
    if tools is None:
        return None
    decoded = msgspec.json.decode(tools)
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in decoded]


def named_tokens(*configs: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that templates know by name, such as ``eos_token``; the first of ``configs`` that has one counts."""
    named: dict[str, str] = {}
    for config in configs:
        for name in _NAMED_TOKENS:
            value = config.get(name)
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                named.setdefault(name, text)
    return named


def chat_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The sources of the chat templates by name, ``default`` and perhaps ``tool_use``; empty when there is none.

    Files win over what ``tokenizer_config.json`` holds, as they do in transformers.
    """
    value = config.get("chat_template")
    found: dict[str, str] = {}
    if isinstance(value, str):
        found["default"] = value
    elif isinstance(value, list):
        found = {entry["name"]: entry["template"] for entry in value if {"name", "template"} <= set(entry)}
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        found[path.stem] = path.read_text("utf-8")
    if (path := folder / "chat_template.jinja").is_file():
        found["default"] = path.read_text("utf-8")
    return found if "default" in found else {}


def compiled(folder: Path, source: str) -> Template:
    """A chat template in the environment in which transformers renders it; InputError when it is broken."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what is trained; it does not change the text."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = _TODAY.strftime
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise InputError(f"{folder}: its chat template cannot be read: {error}") from error


def to_json(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - as templates call it
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """The filter ``tojson``, which in transformers escapes nothing for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``, empty when there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: this is not JSON ({error}): fetch it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: this is no JSON object: fetch it again")
    return value
