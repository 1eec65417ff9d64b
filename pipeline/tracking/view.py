"""What a run directory has to say to a tracker: numbers by key and step, and rows of text. Reads files, logs nothing.

Everything here is a function of the files alone, so an experiment can be rebuilt at any time.

Keys put what differs first, because the dashboard's columns show about 15 characters of a name:
`data/rows_in`, `contaminated/<benchmark>`, `tokens/mean`, `tokens/rows_by_length` by tokens, `train/loss`,
`val/loss` and `throughput/tokens_per_second` (of one GPU) by optimizer step, `throughput/mfu`, `seconds/<label>`, and
for each score `<model>/<task>/<metric>/<harness>`; of the report `delta/...`, `ci_low/...`, `ci_high/...`,
`p_value/...`, `p_adjusted/...` with the same ending, and of checkpoints `by_step/...`. An entry with a name of its own
appears as `<harness>.<entry>`. What has no step is at 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.tracking import data as tracking_data
from pipeline.tracking import report as tracking_report
from pipeline.tracking.data import Lengths, part
from pipeline.training import curve, pace

# Speeds of the evaluation pass: about the machine, not about the model, and a column each.
_EVAL_SPEEDS = frozenset({"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"})
_OWN = {"memory(GiB)": "throughput/memory_gib", "train_speed(s/it)": ""}
"""Keys that go by another name. The trainer's speed, a mean since its start, evaluations included, is left out."""


@dataclass(frozen=True)
class StageRef:
    label: str
    name: str
    directory: Path
    status: str


@dataclass(frozen=True)
class Point:
    key: str
    step: int
    value: float


@dataclass(frozen=True)
class Note:
    """Rows of (caption, text) that belong together."""

    key: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Bar:
    label: str
    base: float
    tuned: float


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; {} where there is none."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def stages(run_dir: Path) -> tuple[StageRef, ...]:
    """Stages of `stages.json` in order of execution; none where the file is absent."""
    found = []
    for item in _dicts(read_json(run_dir / "stages.json").get("stages")):
        label, folder = item.get("label"), item.get("dir")
        if isinstance(label, str) and label and isinstance(folder, str) and folder:
            name, status = str(item.get("name") or label), str(item.get("status") or "pending")
            found.append(StageRef(label, name, run_dir / folder, status))
    return tuple(found)


def points(run_dir: Path, *, with_report: bool) -> Iterator[Point]:
    """Every number so far: data, curves (steps ascending per key), scores, seconds, then the report's deltas.

    `with_report` is false while the run goes on: the report in the directory is then the one of the call before.
    """
    for stage in stages(run_dir):
        if stage.name == "train":
            yield from _train_points(stage)
            yield from _speed_points(stage, _plan(run_dir))
        done = read_json(stage.directory / "result.json")
        result = done.get("result")
        if isinstance(result, dict):
            for key, step, value in tracking_data.numbers(stage.name, result):
                yield from _point(key, step, value)
            if stage.name == "eval":
                yield from _score_points(stage.label, _dicts(result.get("scores")))
        yield from _point(f"seconds/{part(stage.label)}", 0, done.get("seconds"))
    if with_report:
        report = read_json(run_dir / "report.json")
        for key, step, value in (*tracking_report.numbers(report), *tracking_data.took(report)):
            yield from _point(key, step, value)


def notes(run_dir: Path, *, with_report: bool) -> Iterator[Note]:
    """The data summary, and with the report its verdict, the comparisons and the dialogues."""
    for stage in stages(run_dir):
        result = read_json(stage.directory / "result.json").get("result")
        if isinstance(result, dict):
            yield from (Note(key, rows) for key, rows in tracking_data.texts(stage.name, result))
    report = read_json(run_dir / "report.json") if with_report else {}
    yield from (Note(key, rows) for key, rows in tracking_report.texts(report))


def bars(run_dir: Path) -> tuple[Bar, ...]:
    """Base beside tuned for a picture: of each task the first metric whose values are fractions (one shared axis)."""
    found: dict[tuple[str, str], Bar] = {}
    for row in _dicts(read_json(run_dir / "report.json").get("rows")):
        base, tuned = _finite(row.get("base")), _finite(row.get("tuned"))
        if base is not None and tuned is not None and 0 <= base <= 1 and 0 <= tuned <= 1:
            bar = Bar(f"{row.get('task')}\n{row.get('metric')} ({_suite(row)})", base, tuned)
            found.setdefault((str(row.get("task")), _suite(row)), bar)
    return tuple(found.values())


def lengths(run_dir: Path) -> Lengths | None:
    """The training rows by length in tokens, for a picture."""
    found = [stage for stage in stages(run_dir) if stage.name == "tokens"]
    result = read_json(found[0].directory / "result.json").get("result") if found else None
    return tracking_data.histogram(result) if isinstance(result, dict) else None


def _train_points(stage: StageRef) -> Iterator[Point]:
    prefix = "" if stage.label == "train" else f"{part(stage.label)}."
    read = ([point for record in _records(path) if (point := curve.point(record))] for path in _logs(stage))
    for record in curve.stitch(read, _begun(stage)):
        if "train_runtime" in record:
            continue  # the trainer's totals, not a step
        step, bad = record["step"], 0
        evaluated = any(key.startswith("eval_") for key in record)
        for key, value in record.items():
            if key == "step" or key in _EVAL_SPEEDS or (evaluated and not key.startswith("eval_")):
                continue
            if key in _OWN:
                yield from _point(_OWN[key], step, value) if _OWN[key] else ()
                continue
            section, name = ("val", key.removeprefix("eval_")) if evaluated else ("train", key)
            bad += not math.isfinite(value)
            yield from _point(f"{prefix}{section}/{part(name)}", step, value)
        if bad:
            yield Point(f"{prefix}train/non_finite", step, float(bad))


def _speed_points(stage: StageRef, plan: dict[str, Any]) -> Iterator[Point]:
    """Of the steps up to each record, without evaluations; tokens, as many as the plan says that a step has."""
    tokens, processes = _finite(plan.get("tokens_per_step")), _finite(plan.get("processes"))
    read = ([_interval(one) for one in pace.intervals(_records(path))] for path in _logs(stage))
    for interval in curve.stitch(read, _begun(stage)):
        step, seconds = interval["step"], interval["seconds"]
        yield from _point("throughput/seconds_per_step", step, seconds)
        if tokens and processes:
            yield from _point("throughput/tokens_per_second", step, tokens / seconds / processes)


def _interval(interval: pace.Interval) -> curve.Point:
    return {"step": interval.step, "seconds": interval.per_step}


def _plan(run_dir: Path) -> dict[str, Any]:
    for stage in stages(run_dir):
        if stage.name == "plan":
            result = read_json(stage.directory / "result.json").get("result")
            return result if isinstance(result, dict) else {}
    return {}


def _logs(stage: StageRef) -> list[Path]:
    """logging.jsonl of every attempt, oldest first."""
    attempts = sorted(stage.directory.glob("attempts/*"), key=_attempt_number)
    attempts.append(stage.directory / "output")
    return [path for folder in attempts for path in sorted(folder.rglob("logging.jsonl"))]


def _begun(stage: StageRef) -> Iterator[int | None]:
    """The step each attempt went on from."""
    return (curve.went_on_from(path.parent) for path in _logs(stage))


def _records(path: Path) -> tuple[dict[str, Any], ...]:
    try:
        stat = path.stat()
    except OSError:
        return ()
    return _read_once(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=32)
def _read_once(path: Path, _size: int, _mtime_ns: int) -> tuple[dict[str, Any], ...]:
    """A poll costs no reading where the file has not changed."""
    return tuple(curve.records(path))


def _score_points(label: str, scores: Iterable[dict[str, Any]]) -> Iterator[Point]:
    for score in scores:
        key = f"{part(tracking_report.model_of(label))}/{tracking_report.score_key(label, score)}"
        yield from _point(key, 0, score.get("value"))


def _suite(row: dict[str, Any]) -> str:
    return str(row.get("suite") or row.get("harness"))


def _point(key: str, step: int, value: Any) -> Iterator[Point]:
    """No NaN or infinity: the local dashboard answers such a metric with an error instead of a chart."""
    number = _finite(value)
    if number is not None:
        yield Point(key, step, number)


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON has integers that no float can hold
        return None
    return number if math.isfinite(number) else None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _attempt_number(folder: Path) -> tuple[int, str]:
    return (int(folder.name), "") if folder.name.isdigit() else (-1, folder.name)
