"""Looks after a running training by its logging.jsonl; what is read there is judged by `health`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.console import duration
from pipeline.stage import Signs, Trouble
from pipeline.training import curve, health
from pipeline.training.spec import Action, HealthSpec

START_S = 1800.0
"""Silence before the first step after which a training counts as hung: weights may come over a network, kernels be
compiled, rows tokenized; but the tool talks, or moves a bar, more often than that."""
FLOOR_S = 600.0
"""No shorter silence is a hang where `stall_minutes` is `auto`; `START_S` until two steps have told the pace."""
_BACK = 100
"""Points before the new ones that are looked at again: more than any rule of `health` needs to see a beginning."""
TIMES = 5.0
"""Times the second longest wait between two signs of progress so far (steps, evaluations, checkpoints): what took long
only once, a kernel that was compiled, is no measure. Of the first few the longest."""
_WAITS = 8


class TrainingWatch:
    """One attempt of `swift sft`, whose log's new part is read at each look.

    What earlier attempts have logged belongs to the curve: where this one goes on from a checkpoint, that is where the
    loss began.
    """

    def __init__(self, out: Path, spec: HealthSpec) -> None:
        self._out, self._spec = out, spec
        self._fp16 = False
        self._points = curve.stitched(earlier(out))
        self._offset = 0
        self._since, self._best = 0, math.inf
        self._fresh = True  # nothing of this attempt yet
        self._total: int | None = None
        self._last: tuple[float, float] | None = None  # (seconds, step) of the newest record
        self._paces: list[float] = []  # seconds per step
        self._bar = ""
        self._moved = self._heard = 0.0
        self._running = False
        self._waits: list[float] = []
        self._files: dict[str, int] | None = None
        self._told: set[str] = set()

    def look(self, signs: Signs) -> list[Trouble]:
        """Every trouble that is new."""
        records, self._offset = curve.follow(self._out / curve.LOG, self._offset)
        points = self._take(records)
        if points:
            self._time(points, signs.seconds)
        found = list(self._judge(ended=signs.ended, new=len(points)))
        return found if signs.ended else [*found, *self._stall(signs, logged=bool(records))]

    def _take(self, records: list[dict[str, Any]]) -> list[curve.Point]:
        points = [found for record in records if (found := curve.point(record))]
        if points:
            self._total = next((int(r["global_step/max_steps"].split("/")[1]) for r in records if curve.point(r)), None)
            if self._fresh:
                self._points = curve.stitch((self._points, points), (None, curve.went_on_from(self._out)))
                self._fresh, self._fp16 = False, curve.loss_scaled(self._out)
            else:
                self._points += points
        return points

    def _time(self, points: list[curve.Point], now: float) -> None:
        """Records that came in one look are one measurement. Evaluations log when they end, so they are left out."""
        step = points[-1]["step"]
        if self._last and step > self._last[1] and all("loss" in point for point in points):
            self._paces.append((now - self._last[0]) / (step - self._last[1]))
        self._last = now, step

    def _judge(self, *, ended: bool, new: int) -> Iterator[Trouble]:
        if not (new or ended) or self._fresh:
            return
        if self._wanted("diverged", self._spec.diverged):
            while len(self._points) - self._since - new >= 2 * _BACK:  # a long curve is not gone through at every look
                done = self._points[self._since : self._since + _BACK]
                self._best, self._since = min(self._best, health.best_level(done)), self._since + _BACK
            since, best = (0, None) if ended else (self._since, self._best)
            found = health.diverged(self._points, fp16=self._fp16, ended=ended, since=since, best=best)
            if found:
                yield self._tell("diverged", self._spec.diverged, f"{self._out / curve.LOG}: {found}")
        if self._wanted("flat", self._spec.flat):
            words = health.flat(self._points, self._total, ended=ended)
            if words:
                yield self._tell("flat", self._spec.flat, words)
        if self._wanted("slow", self._spec.slow) and not ended:
            words = health.slow(self._paces)
            if words:
                yield self._tell("slow", self._spec.slow, f"at step {self._points[-1]['step']:.0f} {words}", hang=True)

    def _wanted(self, kind: str, action: Action) -> bool:
        return action != "off" and kind not in self._told

    def _tell(self, kind: str, action: Action, words: str, *, hang: bool = False) -> Trouble:
        self._told.add(kind)
        return Trouble(words, stop=action == "stop", hang=hang)

    def _stall(self, signs: Signs, *, logged: bool) -> Iterator[Trouble]:
        begun = not self._fresh
        heard = not begun and signs.heard > self._heard  # before the first step any word will do
        if logged or signs.bar != self._bar or heard:
            if self._running:
                self._waits = sorted((*self._waits, signs.seconds - self._moved))[-_WAITS:]
            self._running = begun  # what comes before the first step is no measure of what comes behind it
            self._bar, self._heard, self._moved, self._files = signs.bar, signs.heard, signs.seconds, None
            return
        silent, limit = signs.seconds - self._moved, self._limit(begun=begun)
        if silent > limit / 2 and self._files is None:
            self._files = _sizes(self._out)
        if silent > limit and "stall" not in self._told:
            sizes = _sizes(self._out)
            if sizes != self._files:  # a checkpoint is being written
                self._moved, self._files = signs.seconds, None
                return
            step = f"since step {self._points[-1]['step']:.0f}" if begun and self._points else "before the first step"
            self._told.add("stall")
            setting = f"longer than the {duration(limit)} of train.health.stall_minutes"
            yield Trouble(f"no progress for {duration(silent)} {step}, {setting}", hang=True)

    def _limit(self, *, begun: bool) -> float:
        """Seconds of silence that are too many."""
        given = self._spec.stall_minutes
        floor = FLOOR_S if self._paces else START_S
        limit = max(floor, TIMES * self._usual()) if given == "auto" else given * 60
        return limit if begun else max(START_S, limit)

    def _usual(self) -> float:
        """Seconds."""
        return (self._waits[-2 if len(self._waits) == _WAITS else -1]) if self._waits else 0.0


def earlier(out: Path) -> list[Path]:
    """Folders of the attempts before this one, oldest first."""
    found = [path for path in out.parent.glob("*") if path.name.isdigit() and out.name.isdigit()]
    return sorted((path for path in found if int(path.name) < int(out.name)), key=lambda path: int(path.name))


def _sizes(folder: Path) -> dict[str, int]:
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118
            try:
                found[path] = os.stat(path).st_size  # noqa: PTH116
            except OSError:
                continue
    return found
