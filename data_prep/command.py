"""The options that the commands which look through a model's template have in common."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_prep.template import SETTINGS, TemplateSpec, parse_settings


def template_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which template of swift's is meant."""
    parser.add_argument(
        "--model", type=Path, required=True, metavar="DIR", help="folder of the model; no weights needed"
    )
    parser.add_argument("--model-type", metavar="NAME", help="as for `swift sft`; needed where several share a form")
    parser.add_argument("--template", metavar="NAME", help="as for `swift sft`; that of the model type by default")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"another setting of `swift sft`; repeatable; one of {', '.join(SETTINGS)}",
    )


def template_spec(options: argparse.Namespace) -> TemplateSpec:
    """The template that `template_options` describe."""
    return TemplateSpec(options.model, options.model_type, options.template, parse_settings(options.set))
