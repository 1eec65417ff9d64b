"""Which scores are compared, on which items, and what is never subtracted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compare import adjusted, compare
from pipeline.results import Implementation, Sample, Score, doc_key

LM = Implementation(harness="lm_eval", version="0.4.13", task_version="1", n_shot=5, scoring="multiple_choice/none")


def score(value: float, n: int, implementation: Implementation = LM, **update: object) -> Score:
    return Score(task="t", harness="lm_eval", metric="acc", value=value, n=n, implementation=implementation).model_copy(
        update=update
    )


def samples(values: list[float], keys: list[str] | None = None, task: str = "t") -> list[Sample]:
    names = keys or [f"k{i}" for i in range(len(values))]
    return [Sample(task=task, doc_key=key, scores={"acc": value}) for key, value in zip(names, values, strict=True)]


def one_row(
    base: list[float], tuned: list[float], base_keys: list[str] | None = None, tuned_keys: list[str] | None = None
):
    (row,) = compare(
        "s", [score(sum(base) / len(base), len(base))], [score(sum(tuned) / len(tuned), len(tuned))],
        samples(base, base_keys), samples(tuned, tuned_keys),
    )  # fmt: skip
    return row


@settings(max_examples=50)
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
    assert row.remark == "2 of 4 items paired: delta and interval are of these"


def test_one_failed_item_does_not_take_the_interval_away():
    # A judge or a request failed on one item of the tuned model: its score is of 9 items, the base's of 10.
    base, tuned = [1.0] * 4 + [0.0] * 6, [1.0] * 6 + [0.0] * 3
    row = one_row(base, tuned)
    assert (row.n, row.base, row.gained, row.lost) == (9, 0.4, 2, 0)
    assert row.tuned == pytest.approx(6 / 9)
    assert row.delta == pytest.approx(2 / 9)  # not 6/9 - 4/10: the item that failed was one that the base had wrong
    assert row.ci_low < row.delta < row.ci_high
    assert row.remark == "9 of 10 items paired: delta and interval are of these"


def test_gained_is_better_also_where_lower_is_better():
    # none_of_letters: 1 where the likeliest token is no letter at all.
    lower = {"higher_is_better": False}
    base, tuned = [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0]
    (row,) = compare("s", [score(0.75, 4, **lower)], [score(0.5, 4, **lower)], samples(base), samples(tuned))
    assert (row.gained, row.lost, row.delta) == (2, 1, -0.25)


def test_which_mean_a_group_is_may_be_told_by_one_model_alone():
    # With nothing right both means are 0, so the base looks like a mean over items.
    base = samples([0.0, 0.0], task="a") + samples([0.0] * 6, task="b")
    tuned = samples([1.0, 0.0], task="a") + samples([0.0] * 6, task="b")
    whole = score(0.0, 8, task="g", tasks=GROUP)
    (row,) = compare("s", [whole], [whole.model_copy(update={"value": 0.25, "mean": "tasks"})], base, tuned)
    assert (row.delta, row.remark) == (0.25, "")
    assert row.ci_low < 0.25 < row.ci_high


def test_a_corpus_metric_gets_no_interval():
    # BLEU over a corpus is no mean over its items; statistics of the items are not statistics of the score.
    (row,) = compare(
        "s", [score(0.9, 4)], [score(0.8, 4)], samples([1.0, 0.0, 1.0, 0.0]), samples([1.0, 0.0, 0.0, 0.0])
    )
    assert (row.base, row.tuned, row.n) == (0.9, 0.8, 4)
    assert row.delta == pytest.approx(-0.1)
    assert (row.ci_low, row.ci_high, row.p_value, row.gained) == (None, None, None, None)
    assert "no paired interval" in row.remark


def test_a_metric_that_no_item_has_is_called_no_mean():
    # macro F1 of a bank: "fewer than two items could be paired" would be another thing.
    f1 = score(0.9, 4, metric="macro_f1", mean="none")
    values = samples([1.0, 0.0, 1.0, 0.0])
    (row,) = compare("s", [f1], [f1], values, values)
    assert row.remark == "not a mean over items: no paired interval"
    (row,) = compare("s", [score(0.5, 4)], [score(0.5, 4)], [], [])
    assert row.remark == ""


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
    base = samples([1.0, 0.0]) + samples([1.0, 1.0], task="u")
    tuned = samples([1.0, 1.0]) + samples([0.0, 0.0], task="u")
    rows = compare("s", [score(0.5, 2), score(1, 2, task="u")], [score(0, 2, task="u"), score(1, 2)], base, tuned)
    assert [(row.task, row.gained, row.lost) for row in rows] == [("t", 1, 0), ("u", 0, 2)]


GROUP = ("a", "b")


def test_a_group_is_paired_over_the_items_of_its_tasks():
    base = samples([1.0, 0.0], task="a") + samples([0.0] * 6, task="b")
    tuned = samples([1.0, 1.0], task="a") + samples([0.0] * 5 + [1.0], task="b")
    (row,) = compare(
        "s", [score(1 / 8, 8, task="g", tasks=GROUP)], [score(3 / 8, 8, task="g", tasks=GROUP)], base, tuned
    )
    assert (row.n, row.gained, row.lost, row.delta) == (8, 2, 0, 0.25)


def test_a_mean_of_tasks_is_one_of_their_means():
    base = samples([1.0, 0.0], task="a") + samples([0.0] * 6, task="b")
    tuned = samples([1.0, 1.0], task="a") + samples([0.0] * 5 + [1.0], task="b")
    means = [score(v, 8, task="g", tasks=GROUP, mean="tasks") for v in (0.25, (1 + 1 / 6) / 2)]
    (row,) = compare("s", means[:1], means[1:], base, tuned)
    assert row.delta == pytest.approx((0.5 + 1 / 6) / 2)
    assert row.ci_low < row.delta < row.ci_high
    assert row.gained is None
    assert "permutation" in row.method


def test_members_of_a_group_are_a_family_of_their_own():
    tasks = {"g": ("a", "b", "c"), "sub": ("a", "b"), "a": (), "b": (), "c": (), "other": ()}
    scores = [score(0.5, 4, task=task, tasks=members) for task, members in tasks.items()]
    items = [s for task in ("a", "b", "c", "other") for s in samples([1.0, 0.0] * 4, task=task)]
    rows = compare("s", scores, scores, items, items)
    assert {row.task: row.part_of for row in rows} == {"g": "", "sub": "g", "a": "g", "b": "g", "c": "g", "other": ""}
    values = {"g": 0.01, "other": 0.04, "sub": 0.001, "a": 0.02, "b": 0.02, "c": 0.9}
    rows = adjusted([row.model_copy(update={"p_value": values[row.task]}) for row in rows])
    found = {row.task: row.p_adjusted for row in rows}
    # g and other: 0.01 x 2, then 0.04. The four members: 0.001 x 4, 0.02 x 3 twice, then 0.9.
    assert found == pytest.approx({"g": 0.02, "other": 0.04, "sub": 0.004, "a": 0.06, "b": 0.06, "c": 0.9})


def test_rows_without_a_test_stay_without_an_adjusted_p_value():
    (row,) = adjusted(compare("s", [score(0.9, 4)], [score(0.8, 4)], [], []))
    assert (row.p_value, row.p_adjusted) == (None, None)


def test_other_items_are_not_another_implementation():
    other = LM.model_copy(update={"data": "abc"})
    values = [1.0, 0.0, 1.0, 0.0]
    (row,) = compare("s", [score(0.5, 4)], [score(0.5, 4, other)], samples(values), samples(values))
    assert (row.delta, row.remark) == (0, "")
