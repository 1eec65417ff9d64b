"""The same items through two implementations."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score

from pipeline.reconcile import Reconciled, reconcile
from pipeline.results import Implementation, Sample, Score

WORDS = ("red", "green", "blue", "white")


def likely(number: int, best: int, *, right: int = 0, task: str = "hellaswag", **scores: float) -> Sample:
    """An item by likelihood, with `best` as the likeliest choice."""
    return Sample(
        task=task,
        doc_key=f"key{number}",
        scores=scores or {"acc": float(best == right)},
        question=f"Question {number}?",
        choices=WORDS,
        loglikelihoods=tuple(-1.0 if at == best else -2.0 - at for at in range(4)),
        target=WORDS[right],
        answer=WORDS[best],
    )


def written(number: int, answer: str, value: float, *, task: str = "hellaswag", **fields: Any) -> Sample:
    given = {"choices": WORDS, "scores": {"accuracy": value}, **fields}
    return Sample(task=task, doc_key=f"key{number}", answer=answer, target="A", **given)


def score(
    samples: list[Sample], metric: str, task: str = "hellaswag", harness: str = "lm_eval", **fields: Any
) -> Score:
    values = [sample.scores.get(metric, 0.0) for sample in samples]
    given = {"value": sum(values) / max(len(values), 1), "n": len(values), **fields}
    return Score(
        task=task, harness=harness, metric=metric, implementation=Implementation(harness=harness, version="1"), **given
    )


def one(left: list[Sample], right: list[Sample], metrics: tuple[str, str] = ("acc", "accuracy")) -> Reconciled:
    suites = {
        "lm_eval": ([score(left, metrics[0])], left),
        "evalscope": ([score(right, metrics[1], harness="evalscope")], right),
    }
    [found] = reconcile("base", suites)
    return found


def test_counts_agreement_and_kappa() -> None:
    table = [(0, "A", 1.0)] * 5 + [(0, "B", 0.0)] * 3 + [(1, "A", 1.0)] * 2 + [(1, "C", 0.0)] * 4
    left = [likely(n, best) for n, (best, _, _) in enumerate(table)]
    right = [written(n, answer, value) for n, (_, answer, value) in enumerate(table)]
    found = one(left, right)
    assert (found.n, found.both_right, found.only_left, found.only_right, found.both_wrong) == (14, 5, 3, 2, 4)
    assert found.agreement == 9 / 14
    assert found.kappa == pytest.approx(
        cohen_kappa_score([best == 0 for best, _, _ in table], [value for _, _, value in table])
    )
    assert found.reasons == {"prompt": 5}
    assert (found.left.suite, found.left.metric, found.right.metric) == ("lm_eval", "acc", "accuracy")
    assert found.left.implementation.harness == "lm_eval"
    assert len(found.examples) == 3
    assert found.examples[0].answers == ("red", "B")


def test_kappa_is_unknown_where_chance_agrees_always() -> None:
    left, right = [likely(n, 0) for n in range(3)], [written(n, "A", 1.0) for n in range(3)]
    assert one(left, right).kappa is None
    assert one(left, [*right[:2], written(2, "B", 0.0)]).kappa is None


@pytest.mark.parametrize("answer", ["", "Z", "It is a colour."])
def test_no_answer_made_out_is_parsing(answer: str) -> None:
    left = [likely(0, 0), likely(1, 0)]
    found = one(left, [written(0, "A", 1.0), written(1, answer, 0.0)])
    assert found.reasons == {"parsing": 1}
    [example] = found.examples
    assert (example.right, example.reason, example.doc_key) == ("left", "parsing", "key1")


def test_a_wrong_answer_that_was_made_out_is_not_parsing() -> None:
    """The side that counts as right may have said nothing readable: it is the wrong side that matters."""
    left = [likely(0, 1), likely(1, 1)]
    found = one(left, [written(0, "A", 1.0), written(1, "B", 0.0)])
    assert found.reasons == {"prompt": 1}


def test_the_same_preference_under_another_rule() -> None:
    # acc_norm divides by length: its verdict differs though the likelihoods prefer what the other harness wrote.
    left = [likely(0, 0, acc=1.0, acc_norm=0.0), likely(1, 0, acc=1.0, acc_norm=1.0)]
    right = [written(0, "A", 1.0), written(1, "A", 1.0)]
    assert one(left, right, ("acc_norm", "accuracy")).reasons == {"rule": 1}


def test_examples_show_the_answer_that_counted() -> None:
    # -1.0 / 3 (red) against -2.0 / 15: the longer one wins by character only.
    long = {"choices": ("red", "the longer one.")}
    item = Sample(
        task="hellaswag", doc_key="key0", scores={"acc": 1.0, "acc_norm": 0.0}, loglikelihoods=(-1.0, -2.0),
        greedy=(True, False), target="red", answer="red", **long,
    )  # fmt: skip
    other = item.model_copy(update={"doc_key": "key1"})
    right = [written(n, "A", 1.0, **long) for n in range(2)]
    by_character = score([item, other], "acc_norm")
    by_character = by_character.model_copy(
        update={"implementation": by_character.implementation.model_copy(update={"normalisation": "characters"})}
    )
    suites = {"a": ([by_character], [item, other]), "b": ([score(right, "accuracy")], right)}
    [found] = reconcile("base", suites)
    assert found.reasons == {"rule": 2}
    assert found.examples[0].answers == ("the longer one.", "A")


def test_choices_in_another_order_are_the_same_choices() -> None:
    left = [likely(n, 0, acc=1.0, acc_norm=0.0) for n in range(2)]
    turned = {"choices": ("white", "red", "green", "blue")}
    assert one(left, [written(n, "B", 1.0, **turned) for n in range(2)], ("acc_norm", "accuracy")).reasons == {
        "rule": 2
    }
    # Sentences around the options: places count.
    sentences = {"choices": tuple(f"It is {word}." for word in WORDS)}
    found = one(left, [written(n, "A", 1.0, **sentences) for n in range(2)], ("acc_norm", "accuracy"))
    assert found.reasons == {"rule": 2}


def test_one_implementation_with_its_examples_in_another_order_is_no_other() -> None:
    items = [likely(n, n % 2, acc=float(n % 2 == 0), acc_norm=1.0) for n in range(4)]

    def suite(seed: int | None, **fields: Any) -> tuple[list[Score], list[Sample]]:
        update = {"shot_seed": seed, "prompt": "p", **fields}
        return [
            given.model_copy(update={"implementation": given.implementation.model_copy(update=update)})
            for given in (score(items, "acc"), score(items, "acc_norm"))
        ], items

    assert reconcile("base", {"plain": suite(None), "order_1": suite(1), "order_2": suite(2, data="fewer")}) == []
    # Another prompt is another implementation, and so is what the seed does not explain: here a setting of the suite.
    assert len(reconcile("base", {"plain": suite(None), "other": suite(1, prompt="q")})) == 4
    assert len(reconcile("base", {"plain": suite(1), "other": suite(1)})) == 4


def number(n: int, answers: dict[str, str], scores: dict[str, float]) -> Sample:
    return Sample(task="gsm8k", doc_key=f"key{n}", scores=scores, answer=next(iter(answers.values())), answers=answers)


def test_each_rule_has_its_own_answer() -> None:
    strict, flexible = "exact_match,strict-match", "exact_match,flexible-extract"
    left = [
        number(0, {"strict-match": "", "flexible-extract": "1,018"}, {strict: 0.0, flexible: 1.0}),
        number(1, {"strict-match": "7", "flexible-extract": "$1018."}, {strict: 0.0, flexible: 0.0}),
    ]
    right = [written(n, "1018", 1.0, task="gsm8k", choices=()) for n in range(2)]
    suites = {
        "lm_eval": ([score(left, metric, "gsm8k") for metric in (strict, flexible)], left),
        "evalscope": ([score(right, "accuracy", "gsm8k", "evalscope")], right),
    }
    by_rule, by_number = reconcile("base", suites)
    assert by_rule.left.metric == strict
    assert by_rule.reasons == {"parsing": 1, "prompt": 1}
    assert by_number.reasons == {"rule": 1}  # the same number, which one of the rules does not take
    assert by_rule.examples[0].answers == ("", "1018")


def test_groups_are_held_against_groups() -> None:
    left = [likely(n, 0, task=f"mmlu_{'ab'[n % 2]}") for n in range(6)]
    right = [written(n, "A", 1.0, task=f"mmlu/{'ab'[n % 2]}") for n in range(4)]
    leaves = ("mmlu_a", "mmlu_b")
    scores = [score(left, "acc", "mmlu", tasks=leaves), score(left, "acc", "mmlu_stem", tasks=leaves[:1])]
    scores += [score(left, "acc", leaf) for leaf in leaves]
    others = [score(right, "accuracy", "mmlu", "evalscope", tasks=("mmlu/a", "mmlu/b"))]
    [found] = reconcile("base", {"lm_eval": (scores, left), "evalscope": (others, right)})
    assert (found.left.task, found.right.task, found.n) == ("mmlu", "mmlu", 4)
    assert (found.left.n, found.right.n) == (6, 4)


def test_a_subject_is_held_against_that_subject_of_a_group() -> None:
    left = [likely(n, 0, task="mmlu_a") for n in range(4)]
    right = [written(n, "A", 1.0, task=f"mmlu/{'ab'[n > 3]}") for n in range(9)]
    others = [score(right, "accuracy", "mmlu", "evalscope", tasks=("mmlu/a", "mmlu/b"))]
    others += [score(right[:4], "accuracy", "mmlu/a", "evalscope"), score(right[4:], "accuracy", "mmlu/b", "evalscope")]
    [found] = reconcile("base", {"lm_eval": ([score(left, "acc", "mmlu_a")], left), "evalscope": (others, right)})
    assert (found.left.task, found.right.task, found.right.n, found.n) == ("mmlu_a", "mmlu/a", 4, 4)


def test_two_tasks_of_one_suite_meet_too() -> None:
    left = [likely(n, 0, task="mmlu_original") for n in range(3)]
    right = [likely(n, n % 2, task="mmlu_helm") for n in range(3)]
    scores = [score(left, "acc", "mmlu_original"), score(right, "acc", "mmlu_helm")]
    [found] = reconcile("tuned", {"ways": (scores, [*left, *right])})
    assert (found.model, found.left.task, found.right.task, found.only_left) == (
        "tuned",
        "mmlu_original",
        "mmlu_helm",
        1,
    )


def test_other_items_and_graded_metrics_do_not_meet() -> None:
    left, right = [likely(n, 0) for n in range(3)], [written(n + 10, "A", 1.0) for n in range(3)]
    graded = [written(n, "A", 0.4) for n in range(3)]
    for other in (right, graded):
        suites = {"a": ([score(left, "acc")], left), "b": ([score(other, "accuracy")], other)}
        assert reconcile("base", suites) == []
