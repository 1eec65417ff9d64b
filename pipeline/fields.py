"""What all sections of a recipe share: strict models, paths relative to the recipe, words for common settings."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    SerializationInfo,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.settings import is_secret

Auto = Literal["auto"]
Hub = Literal["modelscope", "huggingface"]
Precision = Literal["float32", "bfloat16", "float16"]
ExtraValue = bool | int | float | str | list[str] | list[int] | list[float] | dict[str, object]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def _from_recipe(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base", Path())
    return Path(os.path.normpath(base / path.expanduser()))


def _as_text(path: Path, info: SerializationInfo) -> str:
    return str(path.absolute() if (info.context or {}).get("anywhere") else path)


FilePath = Annotated[Path, AfterValidator(_from_recipe), PlainSerializer(_as_text)]
"""A path on this machine, relative to the recipe file. It is never part of a stage's identity; the content is."""


def _base_url(value: str) -> str:
    if not re.fullmatch(r"https?://[^/@\s?#]+(/[^@\s?#]*)?/v1", value):
        raise ValueError("should be a base URL such as http://127.0.0.1:8000/v1, without a key in it")
    return value


def _key_name(value: str) -> str:
    if not is_secret(value):
        raise ValueError("should end in KEY or TOKEN: by that its value is kept out of logs and results")
    return value


BaseUrl = Annotated[str, AfterValidator(_base_url)]
"""Of an OpenAI-compatible server; ends in /v1."""
KeyName = Annotated[str, AfterValidator(_key_name)]
"""Name of an environment variable (or line of .env) that holds a key; the key itself never stands in a recipe."""

_OWN = frozenset(
    (
        "model model_id model_args adapters dataset val_dataset datasets dataset_args tasks output_dir output_path "
        "work_dir add_version no_timestamp log_samples use_cpu device save_only_model check_model report_to "
        "ddp_timeout resume_from_checkpoint save_steps save_total_limit logging_steps merge_lora load_args exist_ok "
        "push_to_hub api_key api_url eval_type logging_nan_inf_filter batch_size eval_batch_size"
    ).split()
)


def _extra(value: dict[str, ExtraValue]) -> dict[str, ExtraValue]:
    for key in value:
        if not re.fullmatch(r"[A-Za-z]\w*([-.]\w+)*", key):
            raise ValueError(f"{key!r}: write the flag's name without its dashes")
        if key.replace("-", "_") in _OWN:
            # In the tool's argv it would either win over the pipeline's value, or lose to it without a word.
            raise ValueError(f"{key!r} is set by the pipeline itself")
    return value


ExtraArgs = Annotated[dict[str, ExtraValue], AfterValidator(_extra)]
"""Flags of a tool that no setting here stands for; part of the identity."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Origin(Section):
    """Something local (`path`) or on a hub (`id`)."""

    path: FilePath | None = None
    id: str | None = None
    """Hub id, owner/name; downloaded once, resumed when cut, verified."""
    hub: Hub = "modelscope"
    revision: str | None = None
    """Branch, tag or commit of the hub repository. Without one the default branch is used, and a warning says so."""

    @field_validator("id")
    @classmethod
    def _id(cls, value: str | None) -> str | None:
        if value is not None and not HUB_ID.fullmatch(value):
            raise ValueError("should be owner/name")
        return value

    @property
    def origins(self) -> dict[str, object]:
        """The ways to say where it comes from, of which one is given."""
        return {"`path` (local)": self.path, "`id` (hub id)": self.id}

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(value is not None for value in self.origins.values()) != 1:
            raise ValueError(f"give either {' or '.join(self.origins)}")
        return self
