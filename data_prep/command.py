"""What the commands that look through a model's template have in common: their options and their exit status."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from data_prep.errors import DataPrepError
from data_prep.files import to_stderr
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


def exit_status(work: Callable[[], None]) -> int:
    """Run ``work``; 0, or the status that its error stands for, after a line for a human."""
    try:
        work()
    except DataPrepError as error:
        to_stderr(f"error: {error}")
        return error.exit_code
    except OSError as error:
        to_stderr(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        to_stderr("interrupted")
        return 130
    return 0
