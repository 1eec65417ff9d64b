"""Benchmark data from their hubs into the caches the harnesses read: resumed when cut, verified, usable offline.

`python -m pipeline.hub.fetch_benchmarks lm_eval|evalscope NAME ... --out DIR`, usually started by the target `fetch`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pipeline import settings
from pipeline.catalog.installed import TASKS, evalscope_set, lm_eval_data, names
from pipeline.errors import PipelineError, PreflightError
from pipeline.files import write_json
from pipeline.hub import snapshots

RECORD = "fetched.json"
_FILE = re.compile(r"hf://datasets/(?P<id>[^@]+)@(?P<revision>[^/]+)/(?P<path>.+)")
_READERS = ("json", "csv", "parquet", "text", "arrow")
"""In the place of a hub id: a reader of local files."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline.hub.fetch_benchmarks", description=__doc__)
    parser.add_argument("harness", choices=("lm_eval", "evalscope"))
    parser.add_argument("names", nargs="+", metavar="NAME", help="the harness's own name of a benchmark")
    parser.add_argument("--hub", choices=("modelscope", "huggingface"), default="modelscope", help="EvalScope's hub")
    parser.add_argument("--include-path", type=Path, action="append", default=[], help="your own lm-eval tasks")
    parser.add_argument("--out", type=Path, required=True, help="folder for the record of what was fetched")
    options = parser.parse_args(argv)
    try:
        if options.harness == "lm_eval":
            fetched = list(_for_lm_eval(options.names, options.include_path))
        else:
            fetched = [_repository(options.hub, name) for name in options.names]
    except PipelineError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / RECORD, {"fetched": fetched})
    return 0


def _repository(where: Literal["modelscope", "huggingface"], name: str) -> dict[str, Any]:
    """EvalScope loads a data set out of its repository's snapshot, so all of that is fetched."""
    known = evalscope_set(name)
    if known is None or not known.hub:
        raise PreflightError(f"{name}: EvalScope names no hub data for it; give it a `path`")
    repo = known.hub[0]
    snapshot = snapshots.fetch(where, "dataset", repo)
    sys.stdout.write(f"{name}: {repo} from {where}, {snapshot.bytes / 1e6:.1f} MB\n")
    return {"name": name, "hub": where, "id": repo, "revision": snapshot.revision, "bytes": snapshot.bytes}


def _for_lm_eval(asked: Sequence[str], own: Sequence[Path]) -> Iterator[dict[str, Any]]:
    found = names("lm_eval", settings.cache_dir(settings.load()), own=[TASKS, *own])
    for name in asked:
        for path, config, options in lm_eval_data(name, found):
            if path not in _READERS and not Path(path).exists():
                yield {"name": name, **_configuration(path, config, options)}


def _configuration(repo: str, config: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Fetch the files of one configuration, and prepare it.

    Offline, `datasets` looks for what it has prepared and not for the repository, so a verified snapshot is not enough.
    It prepares from the hub's cache, where the files are by then.
    """
    datasets = import_module("datasets")  # has no type hints, and takes a second
    options = {key: value for key, value in options.items() if key != "trust_remote_code"}  # unknown to datasets 4
    try:
        builder = datasets.load_dataset_builder(repo, config, **options)
        files = [_FILE.fullmatch(str(file)) for split in (builder.config.data_files or {}).values() for file in split]
        wanted = {match["path"]: match["revision"] for match in files if match and match["id"] == repo}
        if wanted:
            snapshots.fetch("huggingface", "dataset", repo, next(iter(wanted.values())), only=wanted.keys())
        builder.download_and_prepare()
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        text = " ".join(str(error).split())[:300]
        raise PreflightError(f"{repo} ({config or 'default'}): {type(error).__name__}: {text}") from error
    rows = {name: int(split.num_examples) for name, split in (builder.info.splits or {}).items()}
    sys.stdout.write(f"{repo} {config or 'default'}: {json.dumps(rows)}\n")
    commit = next(iter(wanted.values()), None)
    return {"hub": "huggingface", "id": repo, "config": config, "revision": commit, "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
