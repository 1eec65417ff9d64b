"""Stage `eval`: one suite of one harness on one model. Base and tuned are the same stage with another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import OutputError
from pipeline.harnesses import HARNESSES
from pipeline.provenance import version
from pipeline.results import with_stderr
from pipeline.stage import CPU_ENV, Paths, Source, Stage
from pipeline.suites import EvalScopeSpec, LmEvalSpec

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def stage(spec: LmEvalSpec | EvalScopeSpec, *, model: Stage | Source, chat_template: bool, offline: bool) -> Stage:
    """`spec` is resolved: no `auto` left."""
    harness = HARNESSES[spec.harness]
    cpu = spec.device == "cpu"
    return Stage(
        name="eval",
        program=harness.PROGRAM,
        args=harness.args(spec, chat_template=chat_template),
        plumbing=harness.plumbing(spec),
        deps={"model": model, **{role: Source(path) for role, path in harness.inputs(spec).items()}},
        command=harness.command,
        collect=_collect,
        # What is on disk needs no hub; asking anyway costs seconds of retries behind a firewall.
        env={
            **(OFFLINE if offline or not harness.needs_hub(spec) else {}),
            **(CPU_ENV if cpu else {}),
        },
        secrets=("HF_TOKEN", "MODELSCOPE_API_TOKEN") if harness.needs_hub(spec) and not offline else (),
        tool=(spec.harness, version(harness.DISTRIBUTION) or "not installed"),
    )


def _collect(out: Path, stage: Stage, _deps: Paths) -> dict[str, Any]:
    assert stage.tool is not None
    try:
        scores, samples, remarks = HARNESSES[stage.tool[0]].read(out, stage)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        what = f"missing, cut or not what {' '.join(stage.tool)} writes: {type(error).__name__}: {error}"
        raise OutputError(f"{out}: output is {what}") from error
    if not scores:
        raise OutputError(f"{out}: the harness ended well but gave no score")
    return {
        "scores": [score.model_dump(mode="json") for score in with_stderr(scores, samples)],
        "samples": [sample.model_dump(mode="json") for sample in samples],
        "remarks": remarks,
    }
