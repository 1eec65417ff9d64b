"""Evaluation harnesses as plain modules of one shape; the table is the registry, checked by mypy."""

from __future__ import annotations

from pipeline.harnesses import evalscope, lm_eval
from pipeline.harnesses.base import Harness

HARNESSES: dict[str, Harness] = {"lm_eval": lm_eval, "evalscope": evalscope}
