"""How many tokens a conversation has once the model's own chat template has rendered it. Needs no torch.

The template is rendered as transformers renders it (`apply_chat_template`, without the prompt for a next answer), and
the text goes through the model's `tokenizer.json` as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.chat_template import (
    chat_templates,
    compiled,
    named_tokens,
    read_json,
    template_messages,
    template_tools,
)
from data_prep.conversation import Conversation
from data_prep.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenCounter:
    """Counts the tokens of conversations for the model, or only its tokenizer, in a folder.

    Raises InputError when the folder has no `tokenizer.json`, or a chat template that cannot be read. Counting is a
    pure function of the conversation. It can be pickled, and be used after a fork.
    """

    def __init__(self, tokenizer_dir: Path) -> None:
        self._folder = tokenizer_dir
        config = read_json(tokenizer_dir / "tokenizer_config.json")
        self._tokenizer = load_tokenizer(tokenizer_dir)
        self._named = named_tokens(config, read_json(tokenizer_dir / "special_tokens_map.json"))
        added = self._tokenizer.get_added_tokens_decoder().values()
        specials = {token.content for token in added if token.special} | set(self._named.values())
        self.special_tokens: tuple[str, ...] = tuple(sorted(token for token in specials if token.strip()))
        """The texts that the tokenizer takes for marks of its own, wherever they stand in a row."""
        self._expansion = byte_level_expansion(json.loads(self._tokenizer.to_str()))
        sources = chat_templates(tokenizer_dir, config)
        self.has_template = bool(sources)
        """False for a model without a chat template: then the texts count, each turn on a line of its own, and one
        end-of-text token per answer."""
        self._templates = {name: compiled(tokenizer_dir, source) for name, source in sources.items()}
        self._knows_calls = {name: "tool_calls" in source for name, source in sources.items()}
        self._knows_tools = {name: "tools" in source for name, source in sources.items()}

    def __reduce__(self) -> tuple[type[TokenCounter], tuple[Path]]:
        return TokenCounter, (self._folder,)

    def count(self, conversation: Conversation) -> int:
        """The number of tokens of ``conversation``."""
        return self._length(self.render(conversation))

    def fits(self, conversation: Conversation, max_tokens: int) -> bool:
        """True when ``conversation`` has at most ``max_tokens`` tokens; faster than counting where it is short."""
        text = self.render(conversation)
        # A byte-level tokenizer makes at most one token of a byte, so a short text needs no tokenizing.
        if self._expansion is not None and len(text.encode()) * self._expansion <= max_tokens:
            return True
        return self._length(text) <= max_tokens

    def _length(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def render(self, conversation: Conversation) -> str:
        """``conversation`` as the text that the model reads.

        Where the template has no words for tool calls or tools, their JSON stands in the turn, and in a system turn.
        A template that refuses a row, such as one that wants no system prompt, is passed over for that row: its texts
        count as those of a model without a template, for the trainer has a template of its own and will not refuse it.
        """
        from jinja2 import TemplateError

        name = "tool_use" if conversation.tools and "tool_use" in self._templates else "default"
        template = self._templates.get(name)
        if template is None:
            return self._plain(conversation)
        messages = template_messages(conversation, calls=self._knows_calls[name])
        tools = template_tools(conversation.tools)
        if tools and not self._knows_tools[name]:
            messages.insert(0, {"role": "system", "content": conversation.tools or ""})
        try:
            return template.render(
                messages=messages, tools=tools, documents=None, add_generation_prompt=False, **self._named
            )
        except (TemplateError, TypeError, ValueError, KeyError, OverflowError, RecursionError):
            return self._plain(conversation)

    def _plain(self, conversation: Conversation) -> str:
        end = self._named.get("eos_token", "")
        answers = ("assistant", "tool_call")
        texts = [message.content + (end if message.role in answers else "") for message in conversation.messages]
        return "\n".join([conversation.tools, *texts] if conversation.tools else texts)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of ``folder``, without truncation or padding."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(
            f"{folder}: there is no tokenizer.json in it. Give the folder of a model, or save its fast tokenizer there "
            f"with AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)"
        )
    read_json(path)  # its error says more than the library's
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def byte_level_expansion(tokenizer: Mapping[str, Any]) -> int | None:
    """The most tokens that one byte of text can become; None when that cannot be told from ``tokenizer.json``.

    A byte-level BPE splits text into bytes at worst. NFC makes at most three bytes of one (Unicode Standard Annex 15).
    """
    model = tokenizer.get("model") or {}
    splitter = tokenizer.get("pre_tokenizer") or {}
    steps: Sequence[Mapping[str, Any]] = splitter.get("pretokenizers", [splitter])
    levels = [step for step in steps if step.get("type") == "ByteLevel"]
    if model.get("type") != "BPE" or not levels or any(step.get("add_prefix_space") for step in levels):
        return None
    if any(step.get("type") not in ("ByteLevel", "Split", "Digits") for step in steps):
        return None
    normalizer = tokenizer.get("normalizer")
    if normalizer is None:
        return 1
    return 3 if normalizer.get("type") == "NFC" else None
