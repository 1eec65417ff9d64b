"""Paired statistics against independent implementations, and what is never subtracted."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.compare import compare, paired_statistics
from pipeline.results import Implementation, Sample, Score, doc_key

LM = Implementation(harness="lm_eval", version="0.4.13", task_version="1", n_shot=5, scoring="multiple_choice/none")


def table(both: int, lost: int, gained: int, neither: int) -> list[tuple[float, float]]:
    """(base, tuned) pairs of a 2x2 table."""
    return [(1.0, 1.0)] * both + [(1.0, 0.0)] * lost + [(0.0, 1.0)] * gained + [(0.0, 0.0)] * neither


def score(value: float, n: int, implementation: Implementation = LM, **update: object) -> Score:
    return Score(task="t", harness="lm_eval", metric="acc", value=value, n=n, implementation=implementation).model_copy(
        update=update
    )


def samples(values: list[float], keys: list[str] | None = None) -> list[Sample]:
    names = keys or [f"k{i}" for i in range(len(values))]
    return [Sample(task="t", metric="acc", doc_key=key, score=value) for key, value in zip(names, values, strict=True)]


def one_row(
    base: list[float], tuned: list[float], base_keys: list[str] | None = None, tuned_keys: list[str] | None = None
):
    (row,) = compare(
        "s", [score(sum(base) / len(base), len(base))], [score(sum(tuned) / len(tuned), len(tuned))],
        samples(base, base_keys), samples(tuned, tuned_keys),
    )  # fmt: skip
    return row


@pytest.mark.filterwarnings("default")  # statsmodels' own deprecations
@pytest.mark.parametrize("lost", [0, 1, 2, 3, 7, 20])
@pytest.mark.parametrize("gained", [0, 1, 5, 6, 21])
def test_mcnemar_is_that_of_statsmodels(lost, gained):
    from statsmodels.stats.contingency_tables import mcnemar

    found = paired_statistics(table(30, lost, gained, 10))
    assert found
    expected = mcnemar([[30, lost], [gained, 10]], exact=True).pvalue if lost + gained else 1.0
    assert found.p_value == pytest.approx(expected, abs=1e-12)
    assert (found.gained, found.lost, found.n) == (gained, lost, 40 + lost + gained)
    assert found.delta == pytest.approx((gained - lost) / found.n)


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
    found = paired_statistics(table(both, lost, gained, neither))
    assert found
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), abs=2e-6)


@pytest.mark.parametrize(("n", "p12", "p21"), [(40, 0.2, 0.1), (40, 0.05, 0.05), (100, 0.3, 0.05), (20, 0.1, 0.3)])
def test_bonett_price_covers(n, p12, p21):
    rng = np.random.default_rng(1)
    counts = rng.multinomial(n, [p12, p21, 1 - p12 - p21], size=2000)
    covered = 0
    for gained, lost, rest in counts:
        found = paired_statistics(table(int(rest), int(lost), int(gained), 0))
        assert found
        covered += found.ci_low <= p12 - p21 <= found.ci_high
    # 95% asked for; 2000 trials have a standard error of 0.5 points, and the method is known to err to the wide side.
    assert 0.935 <= covered / len(counts) <= 0.995


def test_confidence_widens():
    narrow, wide = (paired_statistics(table(20, 5, 14, 11), c) for c in (0.8, 0.99))
    assert narrow
    assert wide
    assert wide.ci_low < narrow.ci_low < narrow.ci_high < wide.ci_high
    assert narrow.p_value == wide.p_value


def test_too_few_to_say():
    assert paired_statistics([]) is None
    assert paired_statistics([(0.0, 1.0)]) is None
    found = paired_statistics([(0.0, 1.0), (0.0, 1.0)])
    assert found
    assert found.p_value == 0.5


def test_graded_agrees_with_the_t_test():
    rng = np.random.default_rng(2)
    base = rng.normal(0.5, 0.1, 200)
    tuned = base + rng.normal(0.02, 0.1, 200)
    found = paired_statistics(list(zip(base.tolist(), tuned.tolist(), strict=True)))
    assert found
    reference = stats.ttest_rel(tuned, base)
    interval = reference.confidence_interval(0.95)
    assert found.p_value == pytest.approx(reference.pvalue, abs=0.006)
    assert (found.ci_low, found.ci_high) == pytest.approx((interval.low, interval.high), abs=0.0015)
    assert found.delta == pytest.approx(float(np.mean(tuned - base)))
    assert found.gained is None


def test_graded_permutation_is_exact_for_few():
    # All 2^6 sign patterns; only the observed one and its mirror are as extreme.
    found = paired_statistics([(0.0, 0.1 * i) for i in range(1, 7)])
    assert found
    assert found.p_value == pytest.approx(2 / 64)


def test_graded_without_any_difference():
    found = paired_statistics([(0.3, 0.3), (0.7, 0.7), (0.1, 0.1)])
    assert found
    assert (found.delta, found.ci_low, found.ci_high, found.p_value) == (0, 0, 0, 1)


def test_the_same_numbers_every_time():
    pairs = [(0.1 * (i % 7), 0.1 * (i % 5)) for i in range(30)]
    assert paired_statistics(pairs) == paired_statistics(pairs)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=2, max_size=60))
def test_swapping_right_or_wrong(pairs):
    check_swap(pairs, 1e-12)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20))
@example([(0.0, 0.5), (0.25, 1.0), (0.5, 0.5)])
def test_swapping_graded(pairs):
    check_swap(pairs, 1e-9)


def check_swap(pairs: list[tuple[float, float]], tolerance: float) -> None:
    there, back = paired_statistics(pairs), paired_statistics([(tuned, base) for base, tuned in pairs])
    assert there
    assert back
    assert back.delta == pytest.approx(-there.delta, abs=tolerance)
    assert (back.ci_low, back.ci_high) == pytest.approx((-there.ci_high, -there.ci_low), abs=tolerance)
    assert back.p_value == pytest.approx(there.p_value, abs=tolerance)
    assert (back.gained, back.lost) == (there.lost, there.gained)
    assert there.ci_low <= there.ci_high
    assert -1 <= there.ci_low <= 1
    assert 0 <= there.p_value <= 1
    assert not math.isnan(there.ci_low)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), min_size=3, max_size=30), st.randoms(use_true_random=False))
def test_order_in_the_files_does_not_matter(right, shuffle):
    keys = [f"k{i}" for i in range(len(right))]
    base = [float(value) for value in right]
    tuned = [float(not value) if i % 3 else float(value) for i, value in enumerate(right)]
    order = list(range(len(right)))
    shuffle.shuffle(order)
    assert one_row(base, tuned, keys, keys) == one_row(base, [tuned[i] for i in order], keys, [keys[i] for i in order])


def test_items_are_paired_by_content():
    # By position nothing would have changed; by content every item did.
    row = one_row([1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], ["a", "b", "c", "d"], ["b", "a", "d", "c"])
    assert (row.gained, row.lost, row.delta) == (2, 2, 0)


def test_doc_key_is_the_content():
    key = doc_key("Who?", ["A man", "a plan"], "a plan")
    assert key == doc_key(" Who? \n", ["a plan", "A  man"], "a plan")
    assert key != doc_key("Who?", ["A man", "a plan"], "A man")
    assert key != doc_key("Whom?", ["A man", "a plan"], "a plan")
    assert len(key) == 16


def test_only_common_items_count_and_it_is_said():
    base, tuned = [1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    row = one_row(base, tuned, ["a", "b", "c", "d"], ["a", "b", "x", "y", "c", "d"])
    assert (row.n, row.gained, row.lost) == (4, 0, 0)
    row = one_row([1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], ["a", "b", "c", "d"], ["a", "b", "x", "y"])
    assert row.n == 2
    assert row.remark == "2 of 4 items paired"


def test_a_corpus_metric_gets_no_interval():
    # BLEU over a corpus is no mean over its items; statistics of the items are not statistics of the score.
    (row,) = compare(
        "s", [score(0.9, 4)], [score(0.8, 4)], samples([1.0, 0.0, 1.0, 0.0]), samples([1.0, 0.0, 0.0, 0.0])
    )
    assert (row.base, row.tuned, row.n) == (0.9, 0.8, 4)
    assert row.delta == pytest.approx(-0.1)
    assert (row.ci_low, row.ci_high, row.p_value, row.gained) == (None, None, None, None)
    assert "no paired interval" in row.remark


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({"version": "0.4.9"}, "version: 0.4.13 / 0.4.9"),
        ({"n_shot": 0}, "n_shot: 5 / 0"),
        ({"task_version": "2"}, "task_version: 1 / 2"),
        ({"chat_template": "off"}, "chat_template:  / off"),
        ({"scoring": "generate_until/none"}, "scoring: multiple_choice/none / generate_until/none"),
        ({"precision": "float16"}, "precision:  / float16"),
        ({"harness": "evalscope"}, "harness: lm_eval / evalscope"),
    ],
)
def test_different_implementations_are_never_subtracted(change, remark):
    other = LM.model_copy(update=change)
    values = [1.0, 0.0, 1.0, 0.0]
    (row,) = compare("s", [score(0.5, 4)], [score(0.5, 4, other)], samples(values), samples(values))
    assert (row.delta, row.ci_low, row.p_value, row.gained, row.lost) == (None, None, None, None, None)
    assert row.remark == f"not the same implementation: {remark}"
    assert (row.base, row.tuned) == (0.5, 0.5)


def test_a_score_only_one_model_has_is_no_row():
    assert compare("s", [score(0.5, 4)], [score(0.5, 4, metric="f1")], [], []) == []


def test_metrics_and_tasks_are_not_mixed_up():
    base = samples([1.0, 0.0]) + [Sample(task="u", metric="acc", doc_key=f"k{i}", score=1.0) for i in range(2)]
    tuned = samples([1.0, 1.0]) + [Sample(task="u", metric="acc", doc_key=f"k{i}", score=0.0) for i in range(2)]
    rows = compare("s", [score(0.5, 2), score(1, 2, task="u")], [score(0, 2, task="u"), score(1, 2)], base, tuned)
    assert [(row.task, row.gained, row.lost) for row in rows] == [("t", 1, 0), ("u", 0, 2)]


def test_under_no_difference_p_values_do_not_lie():
    # The exact test may be conservative, never the contrary.
    rng = random.Random(3)
    rejected = 0
    for _ in range(400):
        pairs = [(float(rng.random() < 0.5), float(rng.random() < 0.5)) for _ in range(60)]
        found = paired_statistics(pairs)
        assert found
        rejected += found.p_value < 0.05
    assert rejected / 400 <= 0.06
