"""The `benchmarks` section of a recipe: question banks of the user's own, one file each, asked by both harnesses."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pipeline.fields import Auto, FilePath, Section

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class BankSpec(Section):
    """One file of own questions; a suite names it among its tasks like any other benchmark."""

    path: FilePath
    """JSONL, JSON array, CSV or TSV; columns in docs/banks.md."""
    kind: Literal["mcq", "open_qa"] = "mcq"
    """Multiple choice (question, choices, answer), or open questions (query, response, key_points)."""
    style: Auto | Literal["likelihood", "generate"] = "auto"
    """How lm-eval asks an MCQ: by the likelihood of the letters (questions with one right answer only), or in writing.

    `auto`: by likelihood where every question has exactly one right answer and the model runs here.
    """
    language: Auto | Literal["en", "zh"] = "auto"
    """Language of the prompts, and of the word segmentation of open answers; `auto`: by the questions."""
    few_shot: int = Field(default=0, ge=0)
    """Examples in each prompt, the first of `few_shot_path`."""
    few_shot_path: FilePath | None = None
    """File of the same form with the examples; none of them may be in `path`."""
    prompt: str | None = None
    """Prompt with {question} and then (mcq) {choices}; a plain one in the bank's language when absent."""
    max_tokens: int = Field(default=256, ge=1)
    """Of a written answer. EvalScope has one number per suite: it counts where a suite holds banks only."""
    elastic: bool = True
    """Also report elastic accuracy: part credit for a proper subset of the right letters, none for a wrong letter."""

    @model_validator(mode="after")
    def _consistent(self) -> BankSpec:
        if (self.few_shot > 0) != (self.few_shot_path is not None):
            raise ValueError("give `few_shot` and `few_shot_path` together: how many examples, and where they are")
        marks = ["{question}", "{choices}"] if self.kind == "mcq" else ["{question}"]
        if self.prompt is not None:
            found = re.findall(r"\{question\}|\{choices\}", self.prompt)
            if found != marks:
                raise ValueError(f"`prompt` should hold {' and then '.join(marks)}, each once")
        if self.kind == "open_qa" and self.style == "likelihood":
            raise ValueError("`style`: open questions are answered in writing; leave it out")
        return self


def _names(value: dict[str, BankSpec]) -> dict[str, BankSpec]:
    for name in value:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r}: a bank's name should be letters, digits, '_', '-' (at most 64)")
    return value


Banks = Annotated[dict[str, BankSpec], AfterValidator(_names)]
