"""Whether a training goes well, told from its curve: diverged, exploded, flat, slow. Pure; `watch.py` asks it live."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.training import curve
from pipeline.training.curve import Point

OVERFLOWS = 20
"""Steps in a row without a finite gradient norm that fp16's loss scaling cannot explain.

Both torch's GradScaler and DeepSpeed multiply the loss by 2**16 at first, so that small gradients survive; a step
whose gradients overflow is left out, its norm logged as inf or nan, and the scale halved (DeepSpeed forgives one first:
`hysteresis` 2). So at most 17 norms in a row are not finite before the scale is 1, where an overflow is the model's
own. After 2000 good steps (DeepSpeed: 1000) the scale is doubled to see whether it holds: a single one, now and then.
"""
_RUN = 3
"""Logged norms that such a run has at least: of rare logging two may be single overflows, far apart."""
_LEVEL = 5
"""Logged losses whose median is one level of the loss: no spike makes it."""
_WINDOW = 20
"""Steps a loss has to stay high to have exploded, with at least `_SUSTAINED` logged losses; a spike comes back."""
_SUSTAINED = 5
RISEN = 3.0
"""Nats per token above the best so far: each token 20 times less likely. Harder rows, in a training that does not
shuffle, cost one or two; a LoRA that blew up comes back from 1.2 to 6 or 7, less than from a random beginning."""
HOPELESS = 20.0
"""Nats per token: worse than guessing among 4e8 tokens, so no beginning excuses it."""
_FLAT_POINTS = 12
"""Logged losses without which nothing is said about flatness."""
_FLAT_SHARE = 0.6
"""Of the planned steps, after which a loss should have fallen."""
_FALLEN = 0.98
"""Of the beginning; a loss below has fallen, whatever its shape."""
_ROSE = 1.2
"""Times the beginning, above which a loss rises and is not just level."""
_BINS = 60
_SIGNIFICANT = -1.64
"""One-sided 5 % of the normal distribution."""
SLOWDOWN = 3.0
"""Times the median step so far at which a training has collapsed in speed."""
_RECENT = 5
_EARLIER = 8


@dataclass(frozen=True)
class Divergence:
    step: int
    """The first logged step that is wrong."""
    good_until: float
    """The last logged step before it: checkpoints up to here may be gone on from."""
    words: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.words}\n{self.remedy}"


def diverged(
    points: Sequence[Point], *, fp16: bool = False, ended: bool = False, since: int = 0, best: float | None = None
) -> Divergence | None:
    """NaN or infinity in loss or gradient norm, or a loss that stays far above its best; None if all is well.

    `points` are of the whole training (`curve.stitch`). Under fp16 a norm that is not finite is normal in single steps,
    see `OVERFLOWS`; once the training has `ended`, it is not if there never was a finite one. Points before the index
    `since` are taken for good: they only tell how good the loss has been, where that is not given (`best`).
    """
    found = [_not_finite(points, since, fp16=fp16, ended=ended), _exploded(points, since, best)]
    return min((one for one in found if one), key=lambda one: one.step, default=None)


def lag(logging_steps: int) -> int:
    """Steps from the last good one that was logged to the one at which `diverged` tells of what came then."""
    spans = -(-max(_WINDOW - 1, OVERFLOWS - 1, (_SUSTAINED - 1) * logging_steps) // logging_steps)
    return (spans + 1) * logging_steps


def good_until(points: Sequence[Point], *, fp16: bool = False) -> float:
    """Last logged step before the training diverged; infinite where it did not."""
    found = diverged(points, fp16=fp16)
    return found.good_until if found else math.inf


def _not_finite(points: Sequence[Point], since: int, *, fp16: bool, ended: bool) -> Divergence | None:
    run: list[int] = []  # norms in a row that are not finite
    for index in range(since, len(points)):
        point = points[index]
        keys = curve.non_finite(point)
        # swift can log a NaN loss as 0 (logging_nan_inf_filter): then only the norm tells.
        if [key for key in keys if key != "grad_norm"] or (keys and (not fp16 or point.get("loss") == 0)):
            return _numbers(points, index)
        if keys:
            run.append(index)
        elif "grad_norm" in point:
            run = []
        if len(run) >= _RUN and points[run[-1]]["step"] - points[run[0]]["step"] + 1 >= OVERFLOWS:
            return _scaling(points, run)
    none = ended and run and not any(math.isfinite(point.get("grad_norm", math.nan)) for point in points)
    return _scaling(points, run) if none else None


def _numbers(points: Sequence[Point], index: int) -> Divergence:
    rest = points[index:]
    bad = [f"step {point['step']:.0f}: {key} = {point[key]}" for point in rest for key in curve.non_finite(point)]
    return Divergence(
        int(points[index]["step"]),
        _before(points, index),
        f"training diverged: {'; '.join(bad[:3])}{' ...' if len(bad) > 3 else ''}",
        "Lower train.learning_rate (or raise warmup_ratio), or look at the data around that step.",
    )


def _scaling(points: Sequence[Point], run: Sequence[int]) -> Divergence:
    first, last = (int(points[index]["step"]) for index in (run[0], run[-1]))
    return Divergence(
        first,
        _before(points, run[0]),
        f"training diverged: no finite grad_norm from step {first} to {last} "
        f"(grad_norm = {points[run[-1]]['grad_norm']}): fp16's loss scaling finds no scale that works, all is left out",
        "Set train.precision to bfloat16 (GPUs since Ampere) or float32; a lower train.learning_rate may do, too.",
    )


def best_level(points: Sequence[Point]) -> float:
    """The lowest median of a few logged losses in a row; infinite where there are too few."""
    losses = [point["loss"] for point in points if math.isfinite(point.get("loss", math.nan))]
    whole = range(0, len(losses) - _LEVEL + 1, _LEVEL)
    return min((statistics.median(losses[start : start + _LEVEL]) for start in whole), default=math.inf)


def _exploded(points: Sequence[Point], since: int, known: float | None) -> Divergence | None:
    seen = range(0 if known is None else since, len(points))
    losses = [(index, points[index]["step"], points[index]["loss"]) for index in seen if "loss" in points[index]]
    best, start = math.inf if known is None else known, 0
    for place, (index, step, loss) in enumerate(losses):
        limit = min(best + RISEN, HOPELESS)
        if index < since or best == math.inf or not loss > limit:
            start = place + 1
        elif place - start + 1 >= _SUSTAINED and step - losses[start][1] + 1 >= _WINDOW:
            first, began, _ = losses[start]
            return Divergence(
                int(began),
                _before(points, first),
                f"training diverged: the loss has been {best:.3g} and is above {limit:.3g} since step {began:.0f} "
                f"({loss:.3g} at step {step:.0f})",
                "Lower train.learning_rate (or raise warmup_ratio), or look at the data around that step.",
            )
        if place % _LEVEL == _LEVEL - 1:
            best = min(best, statistics.median(loss for *_, loss in losses[place - _LEVEL + 1 : place + 1]))
    return None


def _before(points: Sequence[Point], index: int) -> float:
    return float(points[index - 1]["step"]) if index else 0.0


def flat(points: Sequence[Point], total: int | None, *, ended: bool = False) -> str | None:
    """Words for a loss that does not fall: no trend downwards over most of the run, and not below where it began.

    The trend is Mann and Kendall's (one-sided, 5 %) over at most 60 medians; the beginning and now are medians, too, so
    neither noise nor a few outliers decide.
    """
    losses = [point["loss"] for point in points if "loss" in point and math.isfinite(point["loss"])]
    if len(losses) < _FLAT_POINTS:
        return None
    step = points[-1]["step"]
    if not ended and (total is None or step < _FLAT_SHARE * total):
        return None
    began = max(statistics.median(losses[:3]), statistics.median(losses[: max(3, len(losses) // 20)]))
    now = statistics.median(losses[-max(3, len(losses) // 3) :])
    if now < _FALLEN * began or _trend(_binned(losses)) < _SIGNIFICANT:
        return None
    told = f"it began at {began:.4g} and is {now:.4g} at step {step:.0f}"
    if now > _ROSE * began:
        return f"the loss rises: {told}; is train.learning_rate too high?"
    return (
        f"the loss does not fall: {told}; is train.learning_rate too low, or do the answers not follow from the "
        "questions?"
    )


def _binned(values: Sequence[float]) -> list[float]:
    """At most 60 medians of neighbours."""
    width = math.ceil(len(values) / _BINS)
    return [statistics.median(values[start : start + width]) for start in range(0, len(values), width)]


def _trend(values: Sequence[float]) -> float:
    """Mann-Kendall's z: below 0 where later values tend to be lower. 0 where all are equal."""
    n = len(values)
    score = sum((b > a) - (b < a) for i, a in enumerate(values) for b in values[i + 1 :])
    spread = math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    return (score - math.copysign(1, score)) / spread if score else 0.0


def slow(step_seconds: Sequence[float]) -> str | None:
    """Words for steps that all take several times as long as before; `step_seconds` are means between logged steps."""
    if len(step_seconds) < _EARLIER + _RECENT:
        return None
    usual = statistics.median(step_seconds[:-_RECENT])
    recent = step_seconds[-_RECENT:]
    if min(recent) <= SLOWDOWN * usual:
        return None
    now = statistics.median(recent)
    return (
        f"a step takes {now:.3g} s, {now / usual:.1f} times as long as before ({usual:.3g} s): does something else use "
        "the GPUs, the cores or the disk, or are they throttled (heat, power)?"
    )
