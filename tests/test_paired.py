"""Paired statistics against independent implementations and against simulated comparisons whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.paired import Pair, holm, paired_statistics


def table(both: int, lost: int, gained: int, neither: int) -> list[Pair]:
    """(base, tuned) pairs of a 2x2 table."""
    return [(1.0, 1.0)] * both + [(1.0, 0.0)] * lost + [(0.0, 1.0)] * gained + [(0.0, 0.0)] * neither


def found(*groups: list[Pair], confidence: float = 0.95):
    result = paired_statistics(groups, confidence)
    assert result
    return result


@pytest.mark.filterwarnings("default")  # statsmodels' own deprecations
@pytest.mark.parametrize("lost", [0, 1, 2, 3, 7, 20])
@pytest.mark.parametrize("gained", [0, 1, 5, 6, 21])
def test_mcnemar_is_that_of_statsmodels(lost, gained):
    from statsmodels.stats.contingency_tables import mcnemar

    result = found(table(30, lost, gained, 10))
    expected = mcnemar([[30, lost], [gained, 10]], exact=True).pvalue if lost + gained else 1.0
    assert result.p_value == pytest.approx(expected, abs=1e-12)
    assert (result.gained, result.lost, result.n) == (gained, lost, 40 + lost + gained)
    assert result.delta == pytest.approx((gained - lost) / result.n)


@pytest.mark.parametrize(
    ("lost", "gained", "expected"), [(1, 1, 0.75), (0, 5, 1 / 32), (2, 8, 0.065430), (3, 9, 0.0923)]
)
def test_mid_p(lost, gained, expected):
    # 1/1: 1 - 0.5/2. 0/5: 2/32 - 1/32. 2/8: 0.109375 - C(10,2)/2^10. 3/9 (Fagerland et al. 2013): 0.146 - 0.0537.
    assert found(table(5, lost, gained, 5)).p_mid == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("both", "lost", "gained", "neither", "low", "high"),
    [
        # Worked by hand, p12 = (gained + 1)/(n + 2), p21 = (lost + 1)/(n + 2), z = 1.959964:
        # n = 50: 15/52 - 6/52 = 9/52; variance (21/52 - (9/52)^2)/52 = 0.00719021; half width 0.166196
        (20, 5, 14, 11, 0.006881, 0.339273),
        # n = 100: 3/102 - 11/102 = -8/102; variance (14/102 - (8/102)^2)/102 = 0.00128529; half width 0.070267
        (80, 10, 2, 8, -0.148698, -0.008165),
        # n = 10, no change at all: 0 +- z sqrt((2/12)/12) = 0.230985
        (6, 0, 0, 4, -0.230985, 0.230985),
    ],
)
def test_bonett_price_by_hand(both, lost, gained, neither, low, high):
    result = found(table(both, lost, gained, neither))
    assert (result.ci_low, result.ci_high) == pytest.approx((low, high), abs=2e-6)


COMPARISONS = 2000


def simulated(n: int, p12: float, p21: float):
    """Results of 2,000 comparisons of n items of which shares p12 and p21 change, with how often each came up."""
    rng = np.random.default_rng(n)
    counts = rng.multinomial(n, [p12, p21, 1 - p12 - p21], size=COMPARISONS)
    tables, times = np.unique(counts, axis=0, return_counts=True)
    return [
        (found(table(int(rest), int(lost), int(gained), 0)), int(t))
        for (gained, lost, rest), t in zip(tables, times, strict=True)
    ]


def share(results, condition) -> float:
    return sum(times for result, times in results if condition(result)) / COMPARISONS


@pytest.mark.parametrize("n", [60, 100, 250, 1000])
@pytest.mark.parametrize("changed", [0.1, 0.3, 0.5])
def test_alarms_without_a_difference(n, changed):
    """Of 2,000 comparisons of equal models few are called different: the exact test is careful, mid-p is near 5 %."""
    results = simulated(n, changed / 2, changed / 2)
    assert share(results, lambda r: r.p_value <= 0.05) <= 0.06
    if n * changed >= 25:
        assert 0.04 <= share(results, lambda r: r.p_mid <= 0.05) <= 0.06


@pytest.mark.parametrize("n", [60, 100, 250, 1000])
@pytest.mark.parametrize(("p12", "p21"), [(0.2, 0.1), (0.15, 0.15), (0.3, 0.05), (0.1, 0.3)])
def test_bonett_price_covers(n, p12, p21):
    results = simulated(n, p12, p21)
    assert 0.94 <= share(results, lambda r: r.ci_low <= p12 - p21 <= r.ci_high) <= 0.97


def rouge_like(rng, n):
    return np.where(rng.random(n) < 0.6, 0.0, rng.beta(1, 3, n)), 0.4 * 0.25


def two_models(rng, n):
    return rng.beta(2, 5, n) - rng.beta(2, 4, n), 2 / 7 - 1 / 3


def rarely_different(rng, n):
    return np.where(rng.random(n) < 0.9, 0.0, rng.choice([0.25, 0.5, 1.0, -0.5], n)), 0.1 * 1.25 / 4


@pytest.mark.parametrize("draw", [rouge_like, two_models, rarely_different])
@pytest.mark.parametrize("n", [60, 200])
def test_the_interval_of_graded_metrics_covers(draw, n, monkeypatch):
    monkeypatch.setattr("pipeline.paired._sign_flips", lambda _: 1.0)  # not what is tested, and slow
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(1000):
        differences, truth = draw(rng, n)
        result = found([(0.0, float(d)) for d in differences])
        covered += result.ci_low <= truth <= result.ci_high
    assert 0.925 <= covered / 1000 <= 0.985


def test_confidence_widens():
    narrow, wide = (found(table(20, 5, 14, 11), confidence=c) for c in (0.8, 0.99))
    assert wide.ci_low < narrow.ci_low < narrow.ci_high < wide.ci_high
    assert narrow.p_value == wide.p_value


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_nothing_changed_is_no_proof_that_nothing_can(value):
    result = found([(value, value), (0.0, 0.0)] * 30)
    assert (result.delta, result.p_value) == (0, 1)
    assert result.ci_low < 0 < result.ci_high
    assert result.mde > 0
    # Right or wrong, but a mean of tasks' means: about as wide as the interval of one task.
    one, several = found([(1.0, 1.0)] * 60), paired_statistics([[(1.0, 1.0)] * 30] * 2)
    assert several.ci_high == pytest.approx(one.ci_high, rel=0.1)


def test_too_few_to_say():
    assert paired_statistics([]) is None
    assert paired_statistics([[], []]) is None
    assert paired_statistics([[(0.0, 1.0)]]) is None
    assert found([(0.0, 1.0), (0.0, 1.0)]).p_value == 0.5


def test_graded_agrees_with_the_t_test():
    rng = np.random.default_rng(2)
    base = rng.normal(0.5, 0.1, 200)
    tuned = base + rng.normal(0.02, 0.1, 200)
    result = found(list(zip(base.tolist(), tuned.tolist(), strict=True)))
    reference = stats.ttest_rel(tuned, base)
    interval = reference.confidence_interval(0.95)
    assert result.p_value == pytest.approx(reference.pvalue, abs=0.006)
    assert (result.ci_low, result.ci_high) == pytest.approx((interval.low, interval.high), abs=0.0015)
    assert result.ci_low < interval.low < interval.high < result.ci_high  # the two pseudo-items widen it
    assert result.delta == pytest.approx(float(np.mean(tuned - base)))
    assert result.gained is None


def test_graded_permutation_is_exact_for_few():
    # All 2^6 sign patterns; only the observed one and its mirror are as extreme.
    assert found([(0.0, 0.1 * i) for i in range(1, 7)]).p_value == pytest.approx(2 / 64)


def test_graded_without_any_difference():
    result = found([(0.3, 0.3), (0.7, 0.7), (0.1, 0.1)])
    assert (result.delta, result.p_value) == (0, 1)
    assert result.ci_low == -result.ci_high < 0


def test_a_mean_of_means_counts_every_task_alike():
    # Task a: +1 on 1 of 2 items, b: 0 on 8 items. Of all items that is 0.1, of the two tasks' means 0.25.
    a, b = [(0.0, 1.0), (0.0, 0.0)], [(1.0, 1.0)] * 8
    assert found(a + b).delta == pytest.approx(0.1)
    result = found(a, b)
    assert result.delta == pytest.approx(0.25)
    # By hand: variance of a 0.5/2, of b 0, over k^2 = 4: 0.0625; with the pseudo-items 2/10^2 more; t(9) = 2.262157.
    half = 2.262157 * math.sqrt(0.0625 + 0.02)
    assert (result.ci_low, result.ci_high) == pytest.approx((0.25 - half, 0.25 + half), abs=1e-6)
    assert result.p_value == 1.0  # one item differs: its sign may be either


def test_holm_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    values = [0.01, 0.04, 0.03, 0.005, 0.6, 0.04]
    assert holm(values) == pytest.approx(list(multipletests(values, method="holm")[1]))
    assert holm([]) == []


def test_the_minimum_detectable_effect_is_detected_four_times_in_five():
    n, changed = 400, 0.3
    mde = found(table(100, 60, 60, 180)).mde
    power = share(simulated(n, (changed + mde) / 2, (changed - mde) / 2), lambda r: r.p_mid <= 0.05)
    assert 0.76 <= power <= 0.84


def test_no_effect_smaller_than_the_exact_test_can_find():
    # With 0 changes in 60 items six, all in one direction, are the fewest with p < 0.05 (2 / 2^6).
    assert found(table(60, 0, 0, 0)).mde >= 6 / 60
    assert found([(0.0, 0.0)] * 3).mde == 1.0


def test_the_same_numbers_every_time():
    pairs = [(0.1 * (i % 7), 0.1 * (i % 5)) for i in range(30)]
    assert found(pairs) == found(pairs)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=2, max_size=60))
def test_swapping_right_or_wrong(pairs):
    check_swap(pairs, 1e-12)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20))
@example([(0.0, 0.5), (0.25, 1.0), (0.5, 0.5)])
def test_swapping_graded(pairs):
    check_swap(pairs, 1e-9)


def check_swap(pairs: list[tuple[float, float]], tolerance: float) -> None:
    there, back = found(pairs), found([(tuned, base) for base, tuned in pairs])
    assert back.delta == pytest.approx(-there.delta, abs=tolerance)
    assert (back.ci_low, back.ci_high) == pytest.approx((-there.ci_high, -there.ci_low), abs=tolerance)
    assert back.p_value == pytest.approx(there.p_value, abs=tolerance)
    assert (back.gained, back.lost) == (there.lost, there.gained)
    assert there.ci_low <= there.ci_high
    assert 0 <= there.p_value <= 1
    assert not math.isnan(there.ci_low)
