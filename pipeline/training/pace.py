"""How long the optimizer steps of a training took, by the trainer's own clock in logging.jsonl. Pure.

ms-swift writes the time into a record in several ways (swift/trainers/patcher.py, add_train_message): `elapsed_time`
since its first step, rounded to seconds, and `train_speed(s/it)`, the same time over the steps since then, to a
microsecond. So the exact time of a record is its speed times the steps since the attempt began. Where it began is step
0, or after a resume the checkpoint's step, which no record names: it is what makes speed and rounded time agree.

What counts as steady is the time between two training records, from the first one on: what comes before it is loading
the first batches, skipping those of a resumed epoch, and compiling kernels. Loading the model is before the clock.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Record = Mapping[str, Any]

_POSITION = re.compile(r"(\d+)/\d+")
_ELAPSED = re.compile(r"(?:(\d+)d )?(?:(\d+)h )?(?:(\d+)m )?(\d+)s")
_SPEED = "train_speed(s/it)"
ENOUGH = 3
"""Intervals without a pause that are enough to leave out those with one."""


@dataclass(frozen=True)
class Interval:
    """Between two training records."""

    step: int
    """Optimizer step at its end."""
    steps: int
    seconds: float
    """Without evaluation where the log tells its time."""
    paused: bool
    """An evaluation or the saving of a checkpoint fell into it."""

    @property
    def per_step(self) -> float:
        return self.seconds / self.steps


@dataclass(frozen=True)
class Pace:
    seconds: float
    """Of one optimizer step, mean over those that were measured."""
    median: float
    """Over the intervals, of an interval's mean step."""
    slow: float
    """95th percentile of the same."""
    steps: int
    """Optimizer steps it was measured on, of all attempts."""
    basis: Literal["steady", "paused", "whole"]
    """`paused`: too few intervals are without checkpoint or evaluation, so theirs count, too, less the evaluation's own
    time. `whole`: there is only one record, so start-up is in it."""


def intervals(log: Sequence[Record], save_steps: int | None = None) -> list[Interval]:
    """Of one attempt, in the order of its steps. `save_steps`: a checkpoint is saved after each multiple of it."""
    start = began_at(log, save_steps)
    found: list[Interval] = []
    last: tuple[int, float] | None = None
    evaluated, paused = 0.0, False
    for record in log:
        step, speed = position(record), number(record, _SPEED)
        if step is None or speed is None or step <= start:
            continue
        clock = speed * (step - start)
        if not is_training(record):
            if last is not None and "eval_loss" in record:
                paused = True
                # Of an evaluation at a step that was logged the end is known, else only how long it says it took.
                last, evaluated = ((step, clock), 0.0) if step == last[0] else (last, evaluated + _runtime(record))
            continue
        if last is not None and step > last[0]:
            seconds = clock - last[1] - evaluated
            saved = save_steps is not None and (step - 1) // save_steps > (last[0] - 1) // save_steps
            if seconds > 0:
                found.append(Interval(step, step - last[0], seconds, paused or saved))
        last, evaluated, paused = (step, clock), 0.0, False
    return found


def pace(logs: Sequence[Sequence[Record]], save_steps: int | None = None) -> Pace | None:
    """Over all attempts, steps that were made twice counted twice; None where no log tells a time."""
    found = [interval for log in logs for interval in intervals(log, save_steps)]
    smooth = [interval for interval in found if not interval.paused]
    if len(smooth) >= ENOUGH:
        return _pace(smooth, "steady")
    return _pace(found, "paused") if found else _whole(logs, save_steps)


def _pace(found: Sequence[Interval], basis: Literal["steady", "paused"]) -> Pace:
    each = sorted(interval.per_step for interval in found)
    steps = sum(interval.steps for interval in found)
    return Pace(
        seconds=sum(interval.seconds for interval in found) / steps,
        median=statistics.median(each),
        slow=each[math.ceil(0.95 * len(each)) - 1],
        steps=steps,
        basis=basis,
    )


def _whole(logs: Sequence[Sequence[Record]], save_steps: int | None) -> Pace | None:
    """From the start of the clock to the last training record."""
    steps, seconds = 0, 0.0
    for log in logs:
        start = began_at(log, save_steps)
        timed = [(step - start, speed) for step, speed in _timed(log) if step > start]
        if timed:
            steps += timed[-1][0]
            seconds += timed[-1][0] * timed[-1][1]
    return Pace(seconds / steps, seconds / steps, seconds / steps, steps, "whole") if steps and seconds else None


def clock(log: Sequence[Record], save_steps: int | None = None) -> float:
    """Seconds from an attempt's first step to its last record; 0 where there is none."""
    start = began_at(log, save_steps)
    times = [
        speed * (step - start)
        for record in log
        if (step := position(record)) is not None and (speed := number(record, _SPEED)) is not None
    ]
    return max(times, default=0.0)


def began_at(log: Sequence[Record], save_steps: int | None = None) -> int:
    """The step an attempt went on from; 0 where it began anew, or where the log says nothing of it."""
    low, high = 0.0, math.inf
    for record in log:
        step, speed = position(record), number(record, _SPEED)
        if step is None or not speed:
            continue
        if is_training(record):
            high = min(high, step - 1)
        exact = number(record, "train_runtime")
        rounded = elapsed(record)
        if exact is not None:
            return max(0, step - round(exact / speed))
        if rounded is not None:
            low, high = max(low, step - (rounded + 0.5) / speed), min(high, step - (rounded - 0.5) / speed)
    if math.isinf(high):
        return 0
    fitting = range(math.ceil(low - 1e-6), math.floor(high + 1e-6) + 1)
    likely = [step for step in fitting if save_steps and step % save_steps == 0] or list(fitting)
    return likely[len(likely) // 2] if likely else max(0, round((low + high) / 2))


def is_training(record: Record) -> bool:
    """A record of optimizer steps, not of an evaluation, and not the summary at the end."""
    return "loss" in record and "eval_loss" not in record and "train_runtime" not in record


def position(record: Record) -> int | None:
    """Optimizer steps made."""
    match = _POSITION.fullmatch(str(record.get("global_step/max_steps", "")))
    return int(match[1]) if match else None


def elapsed(record: Record) -> int | None:
    """Seconds of `1h 2m 3s`."""
    match = _ELAPSED.fullmatch(str(record.get("elapsed_time", "")))
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def number(record: Record, key: str) -> float | None:
    value = record.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _timed(log: Sequence[Record]) -> Iterator[tuple[int, float]]:
    for record in log:
        step, speed = position(record), number(record, _SPEED)
        if step is not None and speed and is_training(record):
            yield step, speed


def _runtime(record: Record) -> float:
    return number(record, "eval_runtime") or 0.0
