"""Stage `contamination`: do training rows hold items of the evaluation sets? `python -m data_prep contamination`.

A stage of its own, so that another benchmark never prepares or trains anything again. What it found is its result
whatever is to be done about it; `verdict` says whether that is a reason to stop.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.command import Command, flags
from pipeline.dataset import DataSpec
from pipeline.errors import OutputError
from pipeline.report.data_remarks import contaminated
from pipeline.stage import Paths, Stage
from pipeline.stages.prepare import against_deps, against_words, benchmarks

FOUND = 5
"""Exit status of data_prep with `--action fail` when training rows overlap; contamination.json is whole."""


def stage(spec: DataSpec, *, data: Stage) -> Stage:
    """`spec` is resolved and names at least one benchmark."""
    sets = benchmarks(spec)
    fails = spec.contamination.action == "fail"
    return Stage(
        name="contamination",
        program=("python", "-m", "data_prep", "contamination"),
        args={"against": [entry.name for entry in sets]},
        # What is found is the same, so `fail` after `report` compares nothing anew.
        plumbing={"action": "fail" if fails else "report"},
        deps={"data": data, **against_deps(sets)},
        command=_command,
        collect=_collect,
        whole=(0, FOUND) if fails else (0,),
        verdict=_verdict if fails else Stage.verdict,
    )


def _command(stage: Stage, out: Path, deps: Paths) -> Command:
    words = against_words("against", stage.args["against"], deps)
    return Command((*stage.program, str(deps["data"]), str(out), *words, *flags(stage.plumbing)))


def _collect(out: Path, _stage: Stage, _deps: Paths) -> dict[str, Any]:
    path = out / "contamination.json"
    if not path.is_file():
        raise OutputError(f"{path}: missing, though data_prep ended well")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _verdict(found: Mapping[str, Any]) -> str | None:
    overlap = contaminated(found)
    if not overlap:
        return None
    return (
        f"{overlap}\nTake them out of the source, or set data.contamination.action to drop (they are left out) or to "
        "report (trained on all the same); the report shows the worst of them side by side"
    )
