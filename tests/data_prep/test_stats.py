"""Percentiles out of a histogram."""

from __future__ import annotations

from collections import Counter

import pytest

from data_prep.stats import percentile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, 0),
        ([7], 0.95, 7),
        ([1, 9], 0.5, 1),
        ([9, 1, 5], 0.5, 5),
        (list(range(1, 101)), 0.95, 95),
        ([3] * 19 + [100], 0.95, 3),
        ([3] * 18 + [100] * 2, 0.95, 100),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[int], share: float, expected: int) -> None:
    assert percentile(Counter(values), share) == expected
