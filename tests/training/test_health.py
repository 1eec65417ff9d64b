"""Whether a curve is told to be good or bad: divergence under float32 and fp16, explosion, flatness, speed; and the watch."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stage import Signs, Trouble
from pipeline.training import curve, health
from pipeline.training.curve import Point
from pipeline.training.spec import HealthSpec
from pipeline.training.watch import FLOOR_S, START_S, TrainingWatch

INF, NAN = math.inf, math.nan


def points(losses: list[float], norms: list[float] | None = None, every: int = 1) -> list[Point]:
    """As swift logs them: the first step, then every `every`-th."""
    norms = norms or [0.5] * len(losses)
    return [
        {"step": max(1, index * every), "loss": loss, "grad_norm": norm}
        for index, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=0 if every > 1 else 1)
    ]


def normed(*norms: float, every: int = 1) -> list[Point]:
    return points([1.0] * len(norms), list(norms), every)


# ---- NaN and infinity


@pytest.mark.parametrize(
    ("curve_", "step", "until", "words"),
    [
        (points([2, NAN, 1]), 2, 1, "step 2: loss = nan"),
        (points([INF, 1]), 1, 0, "step 1: loss = inf"),
        (normed(1, 1, NAN), 3, 2, "step 3: grad_norm = nan"),
        (normed(1, INF, 1), 2, 1, "step 2: grad_norm = inf"),
        (points([2, 0, 0], [1, NAN, NAN]), 2, 1, "step 2: grad_norm = nan; step 3: grad_norm = nan"),
        ([{"step": 4, "loss": 1.0}, {"step": 4, "eval_loss": NAN}], 4, 4, "step 4: eval_loss = nan"),
    ],
)
def test_a_number_that_is_none_is_a_divergence(curve_: list[Point], step: int, until: float, words: str) -> None:
    found = health.diverged(curve_)
    assert found
    assert (found.step, found.good_until) == (step, until)
    assert words in found.words
    assert "train.learning_rate" in found.remedy
    assert health.good_until(curve_) == until


def test_a_good_curve_is_good() -> None:
    curve_ = points([2 / (1 + i / 10) for i in range(200)])
    assert health.diverged(curve_, ended=True) is None
    assert health.good_until(curve_) == INF
    assert health.flat(curve_, 200, ended=True) is None
    assert health.diverged([], ended=True) is None


# ---- fp16's loss scaling


@pytest.mark.parametrize(
    ("norms", "every", "step"),
    [
        ([INF] * 17 + [1] * 20, 1, None),  # 2**16 halved until the scale is 1, DeepSpeed's hysteresis
        ([NAN] * 17 + [1] * 20, 1, None),
        ([INF] * 20, 1, 1),
        ([1] * 30 + [INF] + [1] * 30, 1, None),  # the scale was doubled to see whether it holds
        ([1] * 30 + [INF] * 20, 1, 31),
        ([INF] * 4, 5, None),  # steps 1, 5, 10, 15
        ([INF] * 5, 5, 1),  # and 20
        ([1, INF, INF, 1], 200, None),  # single overflows, seen by chance
        ([1, INF, INF, INF], 200, 200),
    ],
)
def test_under_fp16_only_a_run_of_infinities_counts(norms: list[float], every: int, step: int | None) -> None:
    curve_ = normed(*norms, every=every)
    found = health.diverged(curve_, fp16=True)
    assert (found and found.step) == step
    if found:
        assert "no finite grad_norm from step" in found.words
        assert "bfloat16" in found.remedy
    first = next(p["step"] for p in curve_ if not math.isfinite(p["grad_norm"]))
    alone = health.diverged(curve_)
    assert alone
    assert alone.step == first, "without loss scaling the first one counts"


def test_an_fp16_training_that_ended_without_one_finite_norm_diverged() -> None:
    curve_ = normed(*[INF] * 6)
    assert health.diverged(curve_, fp16=True) is None, "it may still find its scale"
    found = health.diverged(curve_, fp16=True, ended=True)
    assert found
    assert (found.step, found.good_until) == (1, 0)
    assert health.diverged(normed(*[INF] * 6, 1), fp16=True, ended=True) is None
    assert health.diverged(normed(1, *[INF] * 6), fp16=True, ended=True) is None


def test_a_nan_loss_is_none_of_loss_scalings_doing() -> None:
    assert health.diverged(points([1, NAN], [1, NAN]), fp16=True)
    assert health.diverged(points([1, 0.0], [1, NAN]), fp16=True), "logged as 0 by logging_nan_inf_filter"


@given(st.lists(st.sampled_from([0.5, 1.0, INF, NAN]), min_size=1, max_size=80))
def test_fp16_never_sees_what_float32_does_not(norms: list[float]) -> None:
    curve_ = normed(*norms)
    lenient, strict = (health.diverged(curve_, fp16=fp16, ended=True) for fp16 in (True, False))
    assert (strict is None) == all(map(math.isfinite, norms))
    if lenient:
        assert strict
        assert lenient.step >= strict.step
        assert all(math.isfinite(p["grad_norm"]) or not lenient for p in curve_ if p["step"] == lenient.good_until)


# ---- explosion


def test_a_loss_that_stays_far_above_its_best_exploded() -> None:
    found = health.diverged(points([2.0] * 30 + [9.0] * 20))
    assert found
    assert (found.step, found.good_until) == (31, 30)
    assert "has been 2 and is above 5 since step 31" in found.words


@pytest.mark.parametrize(("began", "best", "level"), [(2.5, 1.2, 5.7), (3.5, 1.1, 6.5), (8.0, 1.0, 7.0)])
def test_a_loss_that_goes_back_to_a_plateau_exploded_wherever_it_began(began: float, best: float, level: float) -> None:
    fell = [began - (began - best) * i / 50 for i in range(50)]
    found = health.diverged(points(fell + [best] * 30 + [level] * 20))
    assert found
    assert found.good_until == 80


@pytest.mark.parametrize(
    "losses",
    [
        [2.0] * 30 + [9.0] * 19 + [2.0] * 20,  # a spike, however high, that comes back
        [2.0] * 30 + [9.0] * 19,
        [2.0] * 30 + [4.9] * 50,
        [0.01] * 30 + [0.9] * 50,  # learned by heart, then rows that are new: 90 times as much is no explosion
        [0.4] * 100 + [2.0] * 100,  # harder rows behind easy ones
        [12.0] * 80,  # random weights, 160,000 words
        [5.0, 0.1] * 40,
    ],
)
def test_spikes_noise_and_small_scales_are_no_explosion(losses: list[float]) -> None:
    assert health.diverged(points(losses)) is None


def test_an_explosion_in_the_beginning_is_seen_by_its_size_alone() -> None:
    assert health.diverged(points([6.0] + [50.0] * 30))


def test_few_points_need_as_many_steps_and_some_points() -> None:
    assert health.diverged(points([2.0] * 10 + [9.0] * 4, every=50)) is None
    assert health.diverged(points([2.0] * 10 + [9.0] * 5, every=50))


@given(st.floats(0, 8), st.lists(st.floats(0, 3), min_size=1, max_size=80))
def test_a_loss_never_three_above_its_best_never_exploded(best: float, above: list[float]) -> None:
    assert health.diverged(points([best + more for more in above])) is None


@given(st.lists(st.floats(0, 16.9), max_size=80), st.integers(20, 40))
def test_whatever_came_before_what_is_far_above_all_of_it_exploded(losses: list[float], high: int) -> None:
    found = health.diverged(points([1.0] * 5 + losses + [20.0] * high))
    assert found
    assert found.good_until <= 5 + len(losses)


@given(
    st.lists(st.sampled_from([0.5, 1.0, 1.2, 9.0, INF, NAN]), min_size=1, max_size=200),
    st.lists(st.sampled_from([0.5, 0.5, 0.5, INF]), min_size=200, max_size=200),
    st.booleans(),
)
def test_what_is_seen_live_from_the_last_points_is_what_all_of_them_say(
    losses: list[float], norms: list[float], fp16: bool
) -> None:
    curve_ = points(losses, norms[: len(losses)])
    whole = health.diverged(curve_, fp16=fp16)
    ends = range(1, len(curve_) + 1)
    live = (health.diverged(curve_[:end], fp16=fp16, since=max(0, end - 101)) for end in ends)
    assert any(live) == bool(whole)


@pytest.mark.parametrize("logging_steps", [1, 2, 5, 7, 10, 50])
@pytest.mark.parametrize("bad_at", [601, 604, 649])
def test_how_late_an_explosion_is_told_at_the_latest(logging_steps: int, bad_at: int) -> None:
    every = range(logging_steps, 2000, logging_steps)
    curve_ = [{"step": step, "loss": 2.0 if step < bad_at else 9.0} for step in every if step > 0]
    ends = range(1, len(curve_) + 1)
    told = next(end for end in ends if health.diverged(curve_[:end]))
    found = health.diverged(curve_[:told])
    assert found
    assert curve_[told - 1]["step"] - found.good_until <= health.lag(logging_steps)


def test_a_long_curve_is_judged_by_its_end_and_its_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says the same as all of it."""
    bench, seen = Bench(tmp_path / "attempts" / "1", flat="off"), []
    judge = health.diverged

    def noted(points_: Any, *, since: int, best: float, **words: Any) -> Any:
        seen.append((len(points_) - since, best))
        return judge(points_, since=since, best=best, **words)

    monkeypatch.setattr(health, "diverged", noted)
    for step in range(1, 1001):
        bench.log(step, loss=1.0 if 300 < step < 320 else 4.0 if step < 990 else 4.5)
        assert bench.look(1) == []
    assert max(length for length, _ in seen) <= 2 * 100 + 1
    assert seen[-1][1] == 1.0, "of 700 steps ago"
    found = []
    for step in range(1001, 1030):
        bench.log(step, loss=4.5)
        found += bench.look(1)
    assert [trouble.stop for trouble in found] == [True]


# ---- flat, slow


@pytest.mark.parametrize("seed", range(20))
def test_noise_around_a_level_is_flat_and_noise_on_a_slope_is_not(seed: int) -> None:
    generator = random.Random(seed)
    noise = [generator.gauss(0, 0.1) for _ in range(200)]
    level = health.flat(points([1.5 + x for x in noise]), 200)
    fell = health.flat(points([1.5 - i * 0.001 + x for i, x in enumerate(noise)]), 200)
    assert fell is None
    # One in twenty levels falls by chance at 5 %, and some end 2 % lower.
    assert level is None or "does not fall: it began at 1." in level


def test_most_levels_are_told() -> None:
    generator = random.Random(1)
    told = [
        health.flat(points([1.5 + generator.gauss(0, 0.05) for _ in range(100)]), 100) is not None for _ in range(100)
    ]
    assert sum(told) > 65


@pytest.mark.parametrize(
    ("losses", "total", "ended", "is_flat"),
    [
        ([2.0] * 59, 100, False, False),  # too early to say
        ([2.0] * 60, 100, False, True),
        ([2.0] * 11, 11, True, False),  # too few to say
        ([2.0] * 12, 12, True, True),
        ([2.0] * 12, None, False, False),
        ([5.0, 3.0] + [2.0] * 98, 100, False, False),  # fell at once: 2 of 100 points are above the rest
        ([2.0 + i / 100 for i in range(80)], 100, False, True),  # rises
        ([0.0] * 80, 100, False, True),  # nothing is trained on: all labels masked
        ([2.0, 2.0, 2.0, *[1.0, 90.0] * 40], 100, False, True),
        ([9.0 if i % 7 == 0 else 2.0 - i / 100 for i in range(80)], 100, False, False),  # outliers
    ],
)
def test_flatness(losses: list[float], total: int | None, ended: bool, is_flat: bool) -> None:
    assert bool(health.flat(points(losses), total, ended=ended)) == is_flat


def test_a_loss_that_rises_is_not_told_to_want_a_higher_learning_rate() -> None:
    words = health.flat(points([1.2] * 30 + [2.9] * 50), 100)
    assert words
    assert "the loss rises: it began at 1.2 and is 2.9 at step 80; is train.learning_rate too high?" in words


def test_a_collapse_of_speed() -> None:
    assert health.slow([1.0] * 20 + [4.0] * 5)
    assert health.slow([1.0] * 20 + [4.0] * 4) is None
    assert health.slow([1.0] * 20 + [4.0, 4.0, 1.0, 4.0, 4.0]) is None, "not sustained"
    assert health.slow([1.0] * 20 + [2.9] * 5) is None
    assert health.slow([1.0] * 7 + [9.0] * 5) is None, "too little to compare with"
    words = health.slow([0.5] * 20 + [4.0] * 5)
    assert words
    assert "a step takes 4 s, 8.0 times as long as before (0.5 s)" in words


# ---- the watch


class Bench:
    """A training whose log is written, and whose clock is turned, by hand."""

    def __init__(self, attempt: Path, **settings: Any) -> None:
        self.attempt, self.clock, self.heard, self.bar = attempt, 0.0, 0.0, ""
        attempt.mkdir(parents=True)
        self.watch = TrainingWatch(attempt, HealthSpec(**settings))

    def log(self, step: int, loss: float = 1.0, norm: float = 0.5, total: int = 100, **more: Any) -> None:
        record = {"loss": loss, "grad_norm": norm, "global_step/max_steps": f"{step}/{total}", **more}
        with (self.attempt / curve.LOG).open("a") as stream:
            stream.write(json.dumps(record) + "\n")

    def look(self, seconds: float = 0.0, *, ended: bool = False) -> list[Trouble]:
        self.clock += seconds
        return self.watch.look(Signs(self.clock, self.heard, self.bar, ended))

    def said(self) -> None:
        self.heard = self.clock


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "attempts" / "1")


def test_a_nan_is_told_once_and_stops(bench: Bench) -> None:
    bench.log(1)
    assert bench.look(1) == []
    bench.log(2, norm=NAN)
    [trouble] = bench.look(1)
    assert (trouble.stop, trouble.hang) == (True, False)
    assert f"{bench.attempt / curve.LOG}: training diverged: step 2: grad_norm = nan" in trouble.words
    bench.log(3, norm=NAN)
    assert bench.look(1) == []


@pytest.mark.parametrize(("action", "stops"), [("warn", [False]), ("off", [])])
def test_what_is_done_about_it_is_the_recipes_choice(tmp_path: Path, action: str, stops: list[bool]) -> None:
    bench = Bench(tmp_path / "1", diverged=action)
    bench.log(1, loss=NAN)
    assert [trouble.stop for trouble in bench.look(1)] == stops


def test_half_a_line_is_waited_for(bench: Bench) -> None:
    bench.log(1)
    path = bench.attempt / curve.LOG
    whole = json.dumps({"loss": NAN, "global_step/max_steps": "2/100"}) + "\n"
    with path.open("a") as stream:
        stream.write(whole[:20])
    assert bench.look(1) == []
    with path.open("a") as stream:
        stream.write(whole[20:])
    assert len(bench.look(1)) == 1


def test_only_what_is_new_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = []
    follow = curve.follow

    def noted(path: Path, offset: int) -> Any:
        offsets.append(offset)
        return follow(path, offset)

    monkeypatch.setattr(curve, "follow", noted)
    for step in range(1, 4):
        bench.log(step)
        bench.look(1)
    size = (bench.attempt / curve.LOG).stat().st_size
    assert offsets == [0, size // 3, 2 * size // 3]


def test_fp16_is_known_from_what_swift_says_it_does(bench: Bench) -> None:
    (bench.attempt / "args.json").write_text('{"fp16": true}')
    bench.log(1, norm=INF)
    assert bench.look(1) == []
    for step in range(2, 21):
        bench.log(step, norm=INF)
    assert len(bench.look(1)) == 1


def test_an_attempt_that_goes_on_is_judged_by_where_the_training_began(tmp_path: Path) -> None:
    first = Bench(tmp_path / "attempts" / "1")
    for step in range(1, 31):
        first.log(step, loss=2.0 if step < 20 else 9.0)
    second = Bench(tmp_path / "attempts" / "2")
    for step in range(20, 39):
        second.log(step, loss=9.0)
    assert second.look(1) == []
    second.log(39, loss=9.0)
    [trouble] = second.look(1)
    assert "the loss has been 2 and is above 5 since step 20" in trouble.words


def test_flat_is_a_warning_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "1")
    found = []
    for step in range(1, 101):
        bench.log(step, loss=2.0)
        found += bench.look(1)
    found += bench.look(ended=True)
    assert [(trouble.stop, "does not fall" in trouble.words) for trouble in found] == [(False, True)]


def test_slow_steps_are_told_but_no_evaluation_is_taken_for_one(bench: Bench) -> None:
    found = []
    for step in range(1, 60):
        bench.log(step, loss=2 / step)
        found += bench.look(1 if step < 50 else 10)
        if step % 5 == 0:
            with (bench.attempt / curve.LOG).open("a") as stream:
                stream.write(json.dumps({"eval_loss": 1.0, "global_step/max_steps": f"{step}/100"}) + "\n")
            bench.look(60)
    [trouble] = found
    assert not trouble.stop
    assert "a step takes 10 s, 10.0 times as long as before (1 s)" in trouble.words


# ---- no progress


def _silent(bench: Bench, limit: float, steps: int = 40) -> float:
    """Seconds of silence after which it is told; looks every `limit / steps`."""
    for turn in range(1, 2 * steps):
        found = bench.look(limit / steps)
        if found:
            assert [(trouble.stop, trouble.hang) for trouble in found] == [(True, True)]
            assert "no progress for" in found[0].words
            return turn * limit / steps
    return INF


def test_a_silence_is_a_hang_only_when_it_is_longer_than_all_that_is_normal(bench: Bench) -> None:
    for step in range(1, 5):
        bench.log(step)
        assert bench.look(300) == []
    # The first wait, for the model to load, is no measure: 300 s between steps, not 300 s from the start.
    assert 1500 <= _silent(bench, 1500) <= 1580


def test_short_steps_make_no_hair_trigger(bench: Bench) -> None:
    for step in range(1, 5):
        bench.log(step)
        assert bench.look(0.1) == []
    assert FLOOR_S <= _silent(bench, FLOOR_S) <= FLOOR_S * 1.1


def test_the_second_step_may_take_long_too_as_no_pace_is_known_yet(bench: Bench) -> None:
    bench.bar = "0/20"
    for step in range(1, 6):
        assert bench.look(FLOOR_S * 1.5) == []
        bench.log(step)
        assert bench.look(0.25) == []
        bench.bar = f"{step}/20"  # drawn a moment after the record was written
        assert bench.look(0.25) == []


def test_what_took_long_only_once_is_no_measure(bench: Bench) -> None:
    """A kernel that is compiled at the second step, say."""
    for step in range(1, 20):
        bench.log(step)
        assert bench.look(FLOOR_S * 2 if step == 2 else 10) == []
    assert FLOOR_S <= _silent(bench, FLOOR_S) <= FLOOR_S * 1.1


def test_minutes_can_be_given(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "1", stall_minutes=2)
    for step in range(1, 5):
        bench.log(step)
        assert bench.look(100) == []
    assert 120 <= _silent(bench, 120) <= 130


def test_before_the_first_step_any_word_and_any_bar_is_progress(bench: Bench) -> None:
    for turn in range(20):
        if turn % 2:
            bench.said()
        else:
            bench.bar = f"{turn}/20"
        assert bench.look(START_S * 0.9) == []
    assert START_S <= _silent(bench, START_S) <= START_S * 1.1


def test_words_are_no_progress_once_steps_are_made(bench: Bench) -> None:
    for step in (1, 2):
        bench.log(step)
        bench.look(1)
    for _ in range(9):
        bench.said()  # the other ranks' watchdogs talk while they wait
        assert bench.look(FLOOR_S / 10) == []
    bench.said()
    assert len(bench.look(FLOOR_S / 5)) == 1


def test_a_bar_that_moves_between_logged_steps_is_progress(bench: Bench) -> None:
    bench.log(1)
    for turn in range(30):
        bench.bar = f"{turn}/400"
        assert bench.look(FLOOR_S * 0.9) == []


def test_a_checkpoint_that_grows_is_progress(bench: Bench) -> None:
    for step in (1, 2):
        bench.log(step)
        bench.look(1)
    for turn in range(1, 30):
        (bench.attempt / "weights.safetensors").write_bytes(b"x" * turn)
        assert bench.look(FLOOR_S * 0.3) == []
    assert _silent(bench, FLOOR_S) < INF
