"""What a training took, out of its log: steps' times against a simulated clock, tokens, memory, hours, cost, plan."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training import curve, pace, throughput
from pipeline.training.shape import Linear, ModelShape
from pipeline.training.spec import TrainSpec

FIXTURES = Path(__file__).parents[1] / "fixtures" / "training"
SHAPE = ModelShape(
    parameters=106_816, layers=2, hidden=64, intermediate=128, heads=4, kv_heads=2, head_dim=16, vocab=512, tied=True,
    dtype="float32", linears=(Linear("layers.{}.q_proj", 64, 64, 2),),
)  # fmt: skip


def spec(**given_: Any) -> TrainSpec:
    return TrainSpec.model_validate({"gpus": 1, "precision": "bfloat16", "save_steps": 10, "eval_steps": 10, **given_})


class Trainer:
    """Logs as ms-swift does, by a clock that is moved by hand."""

    def __init__(self, start: int = 0, total: int = 100) -> None:
        self.now, self.start, self.step, self.total = 0.0, start, start, total
        self.log: list[dict[str, Any]] = []

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def steps(self, count: int, seconds: float) -> None:
        self.step += count
        self.now += count * seconds

    def tell(self, **values: Any) -> None:
        made = self.step - self.start
        self.log.append({
            **values, "epoch": self.step / 10, "global_step/max_steps": f"{self.step}/{self.total}",
            "elapsed_time": clock_words(round(self.now)), "train_speed(s/it)": round(self.now / made, 6) if made else 0.0,
        })  # fmt: skip

    def train(self, count: int, seconds: float, **values: Any) -> None:
        self.steps(count, seconds)
        self.tell(loss=1.0, **values)

    def evaluate(self, seconds: float) -> None:
        self.wait(seconds)
        self.tell(eval_loss=1.0, eval_runtime=seconds)

    def end(self, **values: Any) -> None:
        self.tell(train_runtime=round(self.now, 4), train_loss=1.0, **values)


def clock_words(seconds: int) -> str:
    """swift/utils/utils.py, format_time."""
    parts = {"d": seconds // 86400, "h": seconds % 86400 // 3600, "m": seconds % 3600 // 60}
    shown = [f"{n}{unit}" for unit, n in parts.items()]
    first = next((i for i, n in enumerate(parts.values()) if n), 3)
    return " ".join([*shown[first:], f"{seconds % 60}s"])


@settings(max_examples=200)
@given(
    start=st.integers(0, 40).map(lambda n: n * 10),
    warmup=st.floats(0, 300),
    stretches=st.lists(st.tuples(st.integers(1, 20), st.floats(0.05, 30)), min_size=2, max_size=12),
    ended=st.booleans(),
)
def test_the_time_of_every_step_is_found_again(
    start: int, warmup: float, stretches: list[tuple[int, float]], *, ended: bool
) -> None:
    trainer = Trainer(start, total=10_000)
    trainer.wait(warmup)
    for count, seconds in stretches:
        trainer.train(count, seconds)
    if ended:
        trainer.end()
    if not ended and start and trainer.now < 60:
        return  # a short attempt that was cut does not tell where it began: see the next test
    found = pace.intervals(trainer.log, save_steps=10)
    assert [interval.steps for interval in found] == [count for count, _ in stretches[1:]]
    for interval, (_, seconds) in zip(found, stretches[1:], strict=True):
        # A speed is rounded to a microsecond per step; how far a resumed one may be off is bounded by a second.
        slack = 1e-6 * (interval.step - start) + 1e-6
        assert interval.per_step == pytest.approx(seconds, rel=1e-3, abs=slack)


def test_where_an_attempt_began_is_a_saved_step() -> None:
    trainer = Trainer(start=120)
    for _ in range(4):
        trainer.train(5, 0.9)
    assert pace.began_at(trainer.log, save_steps=40) == 120
    assert pace.began_at([], save_steps=40) == 0
    trainer.end()
    assert pace.began_at(trainer.log) == 120


def test_pauses_are_told_from_steps() -> None:
    trainer = Trainer()
    trainer.wait(50)  # loading the first batches, compiling
    for _ in range(4):
        trainer.train(5, 2.0)
        if trainer.step % 10 == 0:
            trainer.evaluate(30)
            trainer.wait(7)  # the checkpoint
    found = pace.intervals(trainer.log, save_steps=10)
    assert [(one.step, one.paused) for one in found] == [(10, False), (15, True), (20, False)]
    assert [round(one.seconds, 2) for one in found] == [10, 17, 10]
    told = pace.pace([trainer.log], save_steps=10)
    assert told is not None
    assert told.basis == "paused"  # two without a pause are too few
    trainer.train(5, 2.0)
    trainer.train(5, 2.0)
    told = pace.pace([trainer.log], save_steps=10)
    assert told is not None
    assert (told.basis, round(told.seconds, 3), told.steps) == ("steady", 2.0, 15)


def test_an_evaluation_between_two_records_is_taken_off() -> None:
    trainer = Trainer()
    trainer.train(4, 1.0)
    trainer.steps(2, 1.0)
    trainer.evaluate(12)
    trainer.train(2, 1.0)
    found = pace.intervals(trainer.log)
    assert [(one.paused, round(one.seconds, 3)) for one in found] == [(True, 4.0)]


def test_one_record_is_better_than_nothing() -> None:
    trainer = Trainer()
    trainer.wait(3)
    trainer.train(5, 1.0)
    told = pace.pace([trainer.log])
    assert told is not None
    assert (told.basis, told.steps, told.seconds) == ("whole", 5, 1.6)
    assert pace.pace([[{"loss": 1.0, "global_step/max_steps": "5/9"}]]) is None


def test_attempts_count_with_all_their_steps() -> None:
    first, second = Trainer(), Trainer(start=10)
    for _ in range(4):
        first.train(5, 2.0)
    for _ in range(3):
        second.train(5, 4.0)
    told = pace.pace([first.log, second.log], save_steps=10)
    assert told is not None
    assert told.steps == 15 + 10 - 10  # after the first of each; two of them hold a checkpoint
    assert told.seconds == pytest.approx((2 * 5 * 2.0 + 5 * 4.0) / 15)


def test_a_record_says_its_time_in_words() -> None:
    assert [pace.elapsed({"elapsed_time": text}) for text in ("9s", "2m 3s", "1h 0m 1s", "1d 1h 1m 1s", "?")] == [
        9, 123, 3601, 90061, None,
    ]  # fmt: skip
    assert [clock_words(seconds) for seconds in (9, 123, 3601, 90061)] == ["9s", "2m 3s", "1h 0m 1s", "1d 1h 1m 1s"]


def whole(flos: float = 0.0, rows: str = "100.500000±1.0, min=1.0, max=2.0, size=80") -> Trainer:
    """10 epochs of 8,040 tokens in 100 steps of 0.5 s after 20 s, with 25 s of it before the first record."""
    trainer = Trainer()
    trainer.wait(20)
    for _ in range(20):
        trainer.train(5, 0.5, **{"memory(GiB)": 11.5})
    trainer.end(total_flos=flos)
    trainer.log.append({
        "train_dataset": rows, "global_step": 100,
        "model_parameter_info": "PeftModelForCausalLM: 0.1108M Params (0.0041M Trainable [3.6968%]), 0.0M Buffers.",
    })  # fmt: skip
    return trainer


PLAN = {
    "device": "NVIDIA H100 80GB HBM3", "gpus": 2, "processes": 2, "steps": 90, "tokens_per_epoch": 8040,
    "trainable": 4096, "memory": {"weights": 10 * throughput.GIB, "workspace": 600 * 2**20},
    "seconds_expected": {"low": 50.0, "high": 100.0, "source": "x"}, "flops": {"per_token": 1e9},
}  # fmt: skip
RECORD = {"seconds": 130.0, "result": {"steps": 100}, "peak_rss_bytes": 3 * throughput.GIB}


def test_speed_is_of_real_tokens_and_of_one_gpu() -> None:
    weights = 106_816 - 512 * 64 + 2 * 16 * 2 * 64
    padded = 100_000
    told = throughput.measure(
        [whole(6.0 * padded * weights).log], spec(gpus=2), record=RECORD, plan=PLAN, shape=SHAPE, conversations=80,
        price=3.0, currency="EUR",
    )  # fmt: skip
    assert told is not None
    assert (told.tokens, told.padded_tokens, told.steps) == (80_400, padded, 100)
    assert told.tokens_per_second == pytest.approx(80_400 / 100 / 0.5 / 2)
    assert told.padded_tokens_per_second == pytest.approx(padded / 100 / 0.5 / 2)
    assert told.samples_per_second == pytest.approx(80 * 10 / 100 / 0.5)
    assert told.mfu == pytest.approx(804.0 * 1e9 / 989.4e12)
    assert told.peak_memory == 11.5 * throughput.GIB
    assert told.gpu_hours == pytest.approx(2 * 130 / 3600)
    assert told.cost == pytest.approx(3 * 2 * 130 / 3600)
    assert (told.basis, told.measured_steps, told.currency) == ("steady", 50, "EUR")


def test_the_plan_is_held_against_what_came() -> None:
    told = throughput.measure([whole().log], spec(gpus=2), record=RECORD, plan=PLAN)
    assert told is not None
    off = {entry.what: round(entry.off, 4) for entry in told.planned}
    assert off == {
        "steps": round(10 / 90, 4), "tokens_per_epoch": 0.0, "trainable": 0.0, "memory": 0.15, "seconds": 0.3,
    }  # fmt: skip
    within = throughput.measure([whole().log], spec(gpus=2), record={**RECORD, "seconds": 75.0}, plan=PLAN)
    assert within is not None
    assert [entry.off for entry in within.planned if entry.what == "seconds"] == [0.0]


def test_a_process_on_a_cpu_is_not_held_against_the_planned_tensors() -> None:
    # Its main memory has the interpreter and the libraries in it: over 1 GiB before the first tensor.
    told = throughput.measure([whole().log], spec(gpus=0), record=RECORD, plan={**PLAN, "gpus": 0, "processes": 1})
    assert told is not None
    assert told.peak_rss == RECORD["peak_rss_bytes"]
    assert {entry.what for entry in told.planned} == {"steps", "tokens_per_epoch", "trainable", "seconds"}


def test_hours_are_of_all_attempts() -> None:
    cut = Trainer()
    cut.wait(20)
    for _ in range(4):
        cut.train(5, 0.5)
    last = Trainer(start=20)
    last.wait(20)
    for _ in range(16):
        last.train(5, 0.5)
    last.end()
    told = throughput.measure([cut.log, last.log], spec(), record=RECORD, plan=PLAN)
    assert told is not None
    # 130 s of the last one, of which its clock saw 60; 30 by the clock of the first, and as long a start-up.
    assert told.seconds == pytest.approx(130 + 30 + 70)
    assert told.gpu_hours == pytest.approx(230 / 3600)
    assert told.attempts == 2
    assert "seconds" not in {entry.what for entry in told.planned}  # no measure of the plan


def test_an_attempt_that_logged_its_end_alone_counts() -> None:
    """It went on for a step or two after Ctrl-C, fewer than lie between two records."""
    first = Trainer()
    for _ in range(19):
        first.train(5, 0.5)
    last = Trainer(start=99)
    last.steps(1, 0.5)
    last.end()
    told = throughput.measure([first.log, last.log], spec(), record=RECORD, plan=PLAN)
    assert told is not None
    assert (told.attempts, told.steps, told.measured_steps) == (2, 100, 45)
    # 47.5 s by the clock of the first, 130 of the last, of which its clock saw half a second: so long is a start-up.
    assert told.seconds == pytest.approx(47.5 + 130 + 129.5)


def test_what_is_not_known_is_not_told() -> None:
    assert throughput.measure([[], [{"eval_loss": 1.0}]], spec()) is None
    trainer = Trainer()
    trainer.train(5, 1.0)
    told = throughput.measure([trainer.log], spec(gpus=0, precision="float32"))
    assert told is not None
    assert (told.tokens, told.tokens_per_second, told.mfu, told.gpu_hours, told.cost) == (None,) * 5
    assert (told.gpus, told.processes, told.planned) == (0, 1, [])
    counted = throughput.measure([trainer.log], spec(), plan={"tokens_per_epoch": 1000})
    assert counted is not None
    assert counted.tokens == 500  # by the plan's count, half an epoch


def test_fewer_tokens_with_padding_than_without_are_no_figure() -> None:
    told = throughput.measure([whole(6.0).log], spec(), shape=SHAPE)
    assert told is not None
    assert told.tokens == 80_400
    assert told.padded_tokens is None


def test_a_figure_that_is_written_is_read_again() -> None:
    told = throughput.measure([whole().log], spec(gpus=2), record=RECORD, plan=PLAN)
    assert told is not None
    assert throughput.Throughput.model_validate_json(json.dumps(told.model_dump(mode="json"))) == told


@pytest.mark.parametrize("name", ["whole", "resumed"])
def test_logs_that_ms_swift_wrote(name: str) -> None:
    """Captured from ms-swift 4.6 on a tiny model: 60 rows, 3 epochs, 24 steps; `resumed` went on from step 8.

    With `include_num_input_tokens_seen true` the same training counted 24,208 tokens with padding.
    """
    log = list(curve.records(FIXTURES / f"logging_{name}.jsonl"))
    shape = dataclasses.replace(SHAPE, linears=tuple(
        Linear(f"layers.{{}}.{module}", inputs, outputs, 2)
        for module, inputs, outputs in (
            ("q_proj", 64, 64), ("k_proj", 64, 32), ("v_proj", 64, 32), ("o_proj", 64, 64), ("gate_proj", 64, 128),
            ("up_proj", 64, 128), ("down_proj", 128, 64),
        )
    ))  # fmt: skip
    told = throughput.measure([log], spec(gpus=0, rank=8, save_steps=8), shape=shape, conversations=60)
    assert told is not None
    assert (told.tokens, told.padded_tokens) == (6059 * 3, 24_208)
    assert pace.began_at(log, 8) == {"whole": 0, "resumed": 8}[name]
    summary = next(entry for entry in log if "train_runtime" in entry)
    assert pace.clock(log, 8) == pytest.approx(summary["train_runtime"], rel=0.01)
    assert told.seconds_per_step is not None
    assert 0.5 < told.seconds_per_step * summary["train_steps_per_second"] < 1.0  # steady is faster than the mean
