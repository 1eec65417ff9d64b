"""The gate: bounds against intervals."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pipeline.compare import Row
from pipeline.gate import GateSpec, gate_lines, verdict


def row(low: float | None, high: float | None, **update: object) -> Row:
    delta = None if low is None or high is None else (low + high) / 2
    return Row(
        task="mmlu", harness="lm_eval", suite="knowledge", metric="acc", n=100, base=0.5, tuned=0.5 + (delta or 0),
        delta=delta, ci_low=low, ci_high=high, p_value=None,
    ).model_copy(update=update)  # fmt: skip


def words(spec: GateSpec, *rows: Row) -> list[str]:
    return [line.verdict for line in gate_lines(spec, rows)]


@pytest.mark.parametrize(
    ("kind", "low", "high", "word"),
    [
        ("max_drop", -0.01, 0.03, "PASS"),
        ("max_drop", -0.02, 0.03, "PASS"),  # a drop of just the bound is allowed
        ("max_drop", -0.03, 0.03, "INCONCLUSIVE"),
        ("max_drop", -0.03, -0.02, "INCONCLUSIVE"),
        ("max_drop", -0.05, -0.03, "FAIL"),
        ("min_gain", 0.02, 0.05, "PASS"),
        ("min_gain", 0.01, 0.05, "INCONCLUSIVE"),
        ("min_gain", 0.0, 0.02, "INCONCLUSIVE"),
        ("min_gain", -0.01, 0.01, "FAIL"),
    ],
)
def test_the_interval_decides(kind, low, high, word):
    spec = GateSpec(**{kind: {"mmlu": 0.02}})
    assert words(spec, row(low, high)) == [word]
    assert verdict(gate_lines(spec, [row(low, high)])) == word


def test_lower_is_better():
    # Perplexity falls by 2 to 4: a gain of 2 to 4.
    better = row(-4.0, -2.0, higher_is_better=False, metric="perplexity")
    (line,) = gate_lines(GateSpec(min_gain={"mmlu": 2}), [better])
    assert (line.verdict, line.gain, line.low, line.high) == ("PASS", 3, 2, 4)
    assert words(GateSpec(max_drop={"mmlu": 1}), row(2.0, 4.0, higher_is_better=False)) == ["FAIL"]


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("mmlu", [("knowledge", "acc"), ("written", "accuracy")]),
        ("mmlu/acc_norm", [("knowledge", "acc_norm")]),
        ("knowledge/mmlu", [("knowledge", "acc")]),
        ("knowledge/mmlu/acc_norm", [("knowledge", "acc_norm")]),
        ("bank/part", [("written", "accuracy")]),  # EvalScope's names hold a slash
    ],
)
def test_keys(key, found):
    rows = [
        row(0.1, 0.2), row(0.1, 0.2, metric="acc_norm"), row(0.1, 0.2, suite="written", metric="accuracy"),
        row(0.1, 0.2, suite="written", metric="accuracy", task="bank/part"),
    ]  # fmt: skip
    assert [(line.suite, line.metric) for line in gate_lines(GateSpec(min_gain={key: 0}), rows)] == found


def test_what_cannot_be_decided_never_passes():
    (line,) = gate_lines(GateSpec(max_drop={"mlu": 0.02}), [row(0.0, 0.1)])
    assert (line.verdict, line.why) == ("INCONCLUSIVE", "no such score of base and tuned; compared tasks: mmlu")
    (line,) = gate_lines(GateSpec(max_drop={"mmlu": 0.02}), [row(None, None, remark="not the same implementation: x")])
    assert (line.verdict, line.why) == ("INCONCLUSIVE", "not the same implementation: x")


def test_one_failure_fails_and_one_doubt_is_no_pass():
    spec = GateSpec(max_drop={"a": 0, "b": 0, "c": 0})
    good, doubt, bad = row(0.0, 0.1, task="a"), row(-0.1, 0.1, task="b"), row(-0.2, -0.1, task="c")
    assert verdict(gate_lines(spec, [good, doubt, bad])) == "FAIL"
    assert verdict(gate_lines(spec, [good, doubt, good.model_copy(update={"task": "c"})])) == "INCONCLUSIVE"
    assert verdict(gate_lines(GateSpec(max_drop={"a": 0}), [good])) == "PASS"


def test_a_gate_needs_a_bound():
    with pytest.raises(ValidationError, match="max_drop"):
        GateSpec()
