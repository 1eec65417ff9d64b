"""`submission.zip`: the results and samples of every evaluated model in one archive that vouches for itself.

results/<model>/<suite>/...   the harness's own result and sample files, as it wrote them
samples/<model>/<suite>.jsonl every item in the one form of this project (results.Sample)
scores.csv report.json recipe.yaml
manifest.json                 sha256 and size of each file; of each evaluation fingerprint, harness and command
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline import samples
from pipeline.errors import OutputError
from pipeline.files import read_json, sync_folder
from pipeline.stage import Stage
from pipeline.store import Store

NAME = "submission.zip"
_RESULTS = ("*/results_*.json", "*/samples_*.jsonl", "reports/*/*.json", "reviews/*/*.jsonl", "predictions/*/*.jsonl")
"""Of lm-eval, then of EvalScope."""
_RUN = ("scores.csv", "report.json", "recipe.yaml")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The same contents make the same archive, whenever it is made."""


def write(run_dir: Path, store: Store, stages: Mapping[str, Stage]) -> Path:
    """Pack what is evaluated in `run_dir`; OutputError when that is nothing. The file is there whole or not at all."""
    entries: dict[str, Path] = {}
    evaluations = []
    for label, stage in stages.items():
        record = store.result(stage) if stage.name == "eval" else None
        if record is None:
            continue
        _, suite, model = label.split(".", 2)
        folder = store.folder(stage)
        entries |= {f"results/{model}/{suite}/{name}": path for name, path in _own_files(folder / "output")}
        entries[f"samples/{model}/{suite}.jsonl"] = folder / "output" / samples.FILE
        told = read_json(folder / "stage.json")
        evaluations.append(_evaluation(model, suite, record, told if isinstance(told, dict) else {}))
    if not evaluations:
        raise OutputError(f"{run_dir}: nothing is evaluated yet, so there is nothing to submit")
    entries |= {name: run_dir / name for name in _RUN if (run_dir / name).is_file()}
    missing = [label for label, stage in stages.items() if stage.name == "eval" and store.result(stage) is None]
    target = run_dir / NAME
    scratch = target.with_suffix(".tmp")
    with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
        files = [_add(archive, name, path) for name, path in sorted(entries.items())]
        manifest = {"schema": 1, "evaluations": evaluations, "not_evaluated": missing, "files": files}
        archive.writestr(zipfile.ZipInfo("manifest.json", _EPOCH), json.dumps(manifest, indent=1, ensure_ascii=False))
    with scratch.open("rb") as stream:
        os.fsync(stream.fileno())
    scratch.replace(target)
    sync_folder(run_dir)
    return target


def _own_files(out: Path) -> Iterator[tuple[str, Path]]:
    for pattern in _RESULTS:
        for path in sorted(out.glob(pattern)):
            yield path.relative_to(out).as_posix(), path


def _evaluation(model: str, suite: str, record: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": model,
        "suite": suite,
        "fingerprint": record["fingerprint"],
        "started": record["started"],
        "seconds": record["seconds"],
        **{key: told.get(key) for key in ("tool", "command", "provenance")},
        "scores": len(record["result"]["scores"]),
        "samples": record["result"]["samples"],
    }


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> dict[str, Any]:
    total = hashlib.sha256()
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
        while chunk := source.read(1 << 20):
            total.update(chunk)
            target.write(chunk)
    return {"path": name, "size": path.stat().st_size, "sha256": total.hexdigest()}
