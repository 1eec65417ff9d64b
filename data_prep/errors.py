"""What can go wrong as a whole, with the exit code of the command line; a single bad row is never an error here."""

from __future__ import annotations


class DataPrepError(Exception):
    """Base of the errors that the command line turns into a message and an exit code."""

    exit_code = 1


class InputError(DataPrepError):
    """An argument, a source or its format is wrong; nothing usable was written."""

    exit_code = 2


class RejectedError(DataPrepError):
    """The rows are too bad to go on with; ``rejects.jsonl`` is there to look at, ``stats.json`` is not written."""

    exit_code = 5
