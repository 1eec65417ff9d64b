"""What can be known of a training before anything starts, for preflight.py and run.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.errors import PreflightError
from pipeline.machine import Machine
from pipeline.provenance import version
from pipeline.stage import Stage
from pipeline.store import Store
from pipeline.training import fit, resume
from pipeline.training.locate import Located
from pipeline.training.spec import TrainSpec


def libraries(stage: Stage) -> Iterator[str]:
    """What a training imports only where a setting asks for it; swift would find out after it loaded the model."""
    args = stage.args
    for setting, asked, library, remedy in (
        ("deepspeed", args.get("deepspeed"), "deepspeed", "run `make setup`, or set it to none"),
        ("liger", args.get("use_liger_kernel"), "liger-kernel", "pip install '.[gpu]', or set it to auto"),
        ("quantization", args.get("quant_method"), "bitsandbytes", "pip install '.[gpu]', or set it to none"),
    ):
        if asked and version(library) is None:
            yield f"train.{setting}: needs {library}, which is not installed; {remedy}"


def elsewhere(stages: Iterable[Stage], store: Store) -> Iterator[str]:
    """Trainings that would begin anew, although they have begun with another number of processes."""
    for stage in stages:
        folder = store.folder(stage)
        if stage.name == "train" and not (folder / "stage.json").exists():
            places = {role: str(store.place(dep)) for role, dep in stage.deps.items()}
            yield from resume.elsewhere(folder, stage.args, places, stage.version)


def misfits(train: TrainSpec, machine: Machine, found: Located) -> list[str]:
    """Why a training cannot fit into memory, whatever the data are, and what would make it fit."""
    problems = fit.misfit(found.shape, train, machine) if found.shape else []
    return [
        f"{problem} (by the model's published shape)" if found.source == "table" else problem for problem in problems
    ]


def check_fit(train: TrainSpec, machine: Machine, found: Located) -> list[str]:
    """Remarks on a training that cannot fit into memory; PreflightError where `train.misfit` refuses it.

    Before the data are there: what is too much with short rows is too much with any. The stage `plan` looks again.
    """
    problems = misfits(train, machine, found)
    if problems and train.misfit == "refuse":
        raise PreflightError([f"{problem}; or train.misfit: warn" for problem in problems])
    return problems
