"""Every expected way to fail, with the exit code it ends the program with. Anything else is a bug: traceback."""

from __future__ import annotations

from collections.abc import Sequence


class PipelineError(Exception):
    """An expected failure: the message says what is wrong, where, and the remedy."""

    exit_code = 1


class RecipeError(PipelineError):
    """The recipe (or the command line) is wrong; the message lists all mistakes, each with file, line and YAML path."""

    exit_code = 2

    def __init__(self, mistakes: str | Sequence[str]) -> None:
        self.mistakes = [mistakes] if isinstance(mistakes, str) else list(mistakes)
        super().__init__("\n".join(self.mistakes))


class PreflightError(PipelineError):
    """A tool, file, key, setting, disk or memory is missing; the message names the line that provides it."""

    exit_code = 3

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class CommandFailedError(PipelineError):
    """A tool exited with a status other than 0."""

    exit_code = 4

    def __init__(self, message: str, kind: str = "") -> None:
        self.kind = kind
        """What kind of cause its log tells of (`causes.CAUSES`); empty where none is known."""
        super().__init__(message)


class OutputError(PipelineError):
    """A tool exited with 0, but its result is absent or wrong."""

    exit_code = 5


class GateFailedError(PipelineError):
    """A score fell by more than the recipe's gate allows."""

    exit_code = 6


class Interrupted(PipelineError):
    """A signal stopped the pipeline; everything it had started is stopped too."""

    def __init__(self, signum: int) -> None:
        self.exit_code = 128 + signum
        super().__init__(f"stopped by signal {signum}; run the same command again to go on from here")
