"""Rows as `swift sft` 4.6.0 itself encodes them: the one module of data_prep that imports ms-swift.

Nothing of a model is loaded but its configuration and its tokenizer. Code that comes with a model (``auto_map``) is
run, as swift runs it when it trains.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.errors import InputError

IGNORED = -100
"""The label of a token that is not learned."""
SETTINGS = (
    "system", "agent_template", "use_chat_template", "loss_scale", "is_binary_loss_scale", "enable_thinking",
    "preserve_thinking", "add_non_thinking_prefix", "disable_ignore_empty_think",
)  # fmt: skip
"""The settings of `swift sft`, beside model type and template, that change which tokens a row becomes."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the log lines of swift and transformers off the terminal; errors are raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` words as settings; true, false and null are meant as such. InputError for an unknown name."""
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in SETTINGS:
            raise InputError(f"--set {word}: give NAME=VALUE with one of {', '.join(SETTINGS)}")
        settings[name] = {"true": True, "false": False, "null": None}.get(value.lower(), value)
    return settings


@dataclass(frozen=True)
class TemplateSpec:
    """Which model's tokenizer and which of swift's templates to encode with; it can be pickled."""

    model: Path
    """Folder with the model's configuration and tokenizer."""
    model_type: str | None = None
    """One of swift's model types; None where the architecture has only one."""
    template: str | None = None
    """One of swift's templates; None for that of the model type."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Others of `SETTINGS`, by name."""


class Encoded(NamedTuple):
    """One row as the trainer sees it: token ids, and for each of them whether it is learned."""

    ids: list[int]
    trained: list[bool]


class RowTemplate:
    """swift's template for one model, in training mode and without a limit on length."""

    def __init__(self, spec: TemplateSpec) -> None:
        """About 8 s, most of it importing torch. InputError when swift has no such template, or is not there."""
        if not (spec.model / "config.json").is_file():
            raise InputError(f"{spec.model}: no config.json in it: give the folder of a model with --model")
        with quiet():
            try:
                from swift.arguments import BaseArguments  # type: ignore[import-untyped]
            except ImportError as error:
                raise InputError(f"this needs ms-swift ({error}): pip install ms-swift==4.6.0") from error
            try:
                # As `swift sft` makes them, so that defaults that depend on the model are its own. An args.json in the
                # folder is not obeyed: it can name code to run.
                arguments = BaseArguments(
                    model=str(spec.model),
                    model_type=spec.model_type,
                    template=spec.template,
                    load_args=False,
                    **spec.settings,
                )
                _, processor = arguments.get_model_processor(load_model=False)
                template = arguments.get_template(processor)
            except (ValueError, AssertionError, KeyError) as error:
                raise InputError(
                    f"{spec.model}: swift finds no template for it: {error}. Name --model-type and --template"
                ) from error
        template.set_mode("train")
        template.max_length = None  # lengths are wanted, not errors
        self._template = template
        self.model_type = str(arguments.model_type)
        self.name = str(arguments.template)

    def encode(self, row: Mapping[str, Any]) -> Encoded:
        """The tokens of ``row``, ``{"messages": [...], "tools": ...}``; EncodeError when swift would skip it."""
        try:
            encoded = self._template.encode(dict(row))
        except Exception as error:
            raise EncodeError(f"{type(error).__name__}: {error}") from error
        labels = encoded["labels"]
        scale = encoded.get("loss_scale") or [1.0] * len(labels)
        return Encoded(
            list(encoded["input_ids"]),
            [label != IGNORED and weight > 0 for label, weight in zip(labels, scale, strict=True)],
        )

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens included."""
        tokenizer = self._template.tokenizer
        return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def special_ids(self) -> frozenset[int]:
        """The ids of the tokens that are marks, not text."""
        return frozenset(self._template.tokenizer.all_special_ids)


def packs(lengths: Sequence[int], packing_length: int) -> list[int]:
    """The lengths of the packed rows that swift makes of rows of ``lengths`` tokens, in this order.

    It packs 1000 rows at a time, by best fit, and takes the last open pack along to the next thousand.
    """
    with quiet():
        from swift.dataset.packing import (  # type: ignore[import-untyped]
            PackingDataset,
            calculate_matched_group,
        )
    packed: list[int] = []
    left: list[tuple[int, int]] = []
    step = PackingDataset.PACKING_BATCH_SIZE
    for start in range(0, len(lengths), step):
        left += [(start + place, length) for place, length in enumerate(lengths[start : start + step])]
        groups, left = calculate_matched_group(left, packing_length, is_finished=start + step >= len(lengths))
        packed += [sum(length for _, length in group) for group in groups]
    return packed


class EncodeError(Exception):
    """A row that swift's template cannot encode: the trainer leaves it out, or stops on it with ``--strict true``."""
