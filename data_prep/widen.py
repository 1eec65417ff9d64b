"""Making the first line of an output file show every field that any line of it has: see `Conversation.widened`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from data_prep.conversation import Conversation
from data_prep.stats import SplitTally


def widened(line: bytes, tally: SplitTally) -> bytes:
    """The first line of a file, with every field that any line of the file has: see `Conversation.widened`."""
    if not (tally.tools or tally.masks):
        return line
    row = msgspec.json.decode(line, type=Conversation).widened(tools=tally.tools, loss=tally.masks)
    return msgspec.json.encode(row) + b"\n"


def wider(path: Path) -> Path:
    """Where the widened ``path`` is while it is written."""
    return path.with_name(path.name + ".wide")


def widen(path: Path, tally: SplitTally) -> None:
    """Widen the first line of ``path``, which was written before it was known what would follow."""
    if not (tally.tools or tally.masks):
        return
    with open(path, "rb") as stream, open(wider(path), "wb") as out:
        line = stream.readline()
        first = widened(line, tally)
        if first != line:
            out.write(first)
            shutil.copyfileobj(stream, out, 1 << 20)
    if first != line:
        os.replace(wider(path), path)
    else:
        wider(path).unlink()
