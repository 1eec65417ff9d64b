"""The plan of a training: rows to steps, what fits into memory and what would, how long it takes, what is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.lengths import epoch_of
from pipeline.command import Command
from pipeline.machine import Gpu, Machine
from pipeline.stage import Source, Stage
from pipeline.stages import forecast as plan_stage
from pipeline.training import expected, fit, memory, plan_text, steps
from pipeline.training.forecast import forecast, main, misfit
from pipeline.training.limits import impossible
from pipeline.training.placement import in_main_memory
from pipeline.training.shape import Linear, ModelShape
from pipeline.training.spec import TrainSpec
from tests.worlds import World, build

ROOT = Path(__file__).parents[2]
GIB = 2**30


def spec(**changes: Any) -> TrainSpec:
    """A resolved section: one process on the CPU."""
    values = {
        "gpus": 0, "micro_batch_size": 1, "global_batch_size": 4, "precision": "float32", "attention": "sdpa",
        "packing": False, "padding_free": False, "liger": False, "deepspeed": "none", "overlap_comm": False,
        "gradient_checkpointing": False,
    }  # fmt: skip
    return TrainSpec(**{**values, **changes})


def on_gpu(**changes: Any) -> TrainSpec:
    return spec(**{"gpus": 1, "precision": "bfloat16", **changes})


def shape(layers: int = 32, hidden: int = 4096, vocab: int = 32000, width: int = 11008) -> ModelShape:
    """LLaMA's; 6.7 B parameters as it stands."""
    square = tuple(Linear(f"model.layers.{{}}.self_attn.{name}_proj", hidden, hidden, layers) for name in "qkvo")
    mlp = (
        Linear("model.layers.{}.mlp.gate_proj", hidden, width, layers),
        Linear("model.layers.{}.mlp.up_proj", hidden, width, layers),
        Linear("model.layers.{}.mlp.down_proj", width, hidden, layers),
    )
    linears = (*square, *mlp)
    return ModelShape(
        parameters=sum(one.parameters for one in linears) + 2 * vocab * hidden + (2 * layers + 1) * hidden,
        layers=layers, hidden=hidden, intermediate=width, heads=32, kv_heads=32, head_dim=hidden // 32, vocab=vocab,
        tied=False, dtype="bfloat16", linears=linears,
    )  # fmt: skip


def machine(gigabytes: float | None = None, count: int = 1, name: str = "NVIDIA A100-SXM4-80GB") -> Machine:
    gpu = Gpu(name=name, memory_gb=gigabytes or 0, compute_capability=(8, 0))
    return Machine(system="Linux", cpus=8, memory_gb=64, gpus=(gpu,) * count if gigabytes else ())


def rows(kept: int = 100, **changes: Any) -> steps.Rows:
    values = {"rows": kept, "kept": kept, "dropped": 0, "cut": 0, "tokens": 50 * kept, "longest": 64, "exact": True}
    return steps.Rows(**{**values, **changes})


# rows and steps


@given(st.integers(1, 200), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.floats(0.1, 4), st.booleans())
def test_steps_are_those_of_a_loader_that_deals_the_rows_out(count, processes, micro, accumulate, epochs, whole):
    train = spec(
        cpu_processes=processes, micro_batch_size=micro, global_batch_size=micro * accumulate * processes,
        epochs=epochs, extra_args={"dataloader_drop_last": True} if whole else {},
    )  # fmt: skip
    dealt = list(range(count // processes * processes))[::processes]
    batches = [dealt[at : at + micro] for at in range(0, len(dealt), micro)]
    batches = [batch for batch in batches if not whole or len(batch) == micro]
    groups = [batches[at : at + accumulate] for at in range(0, len(batches), accumulate)]
    assert steps.steps_per_epoch(count, train) == max(len(groups), 1)
    assert steps.total_steps(count, train) == math.ceil(epochs * max(len(groups), 1))


REAL = """
import json, sys
from types import SimpleNamespace
from swift.dataloader import BatchSamplerShard
from transformers import Trainer
found = []
for count, world, micro, accumulate, epochs in json.load(sys.stdin):
    class Shard(BatchSamplerShard):
        world_size = world
    loader = Shard(count, batch_size=micro, shuffle=True, drop_last=False, data_seed=1)
    args = SimpleNamespace(max_steps=-1, gradient_accumulation_steps=accumulate, num_train_epochs=epochs)
    trainer = SimpleNamespace(
        get_total_train_batch_size=lambda args: 1, get_sp_size=lambda: 1, num_examples=lambda loader: count
    )
    values = Trainer.set_initial_training_values(trainer, args, loader)
    found.append([values[1], values[-1]])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_steps_are_those_of_swift_and_transformers():
    asked = [
        (count, world, micro, accumulate, epochs)
        for count in (8, 9, 37, 100, 1001) for world in (1, 2, 8) for micro in (1, 3, 4)
        for accumulate in (1, 2, 5) for epochs in (0.5, 1.0, 2.5)
    ]  # fmt: skip
    said = child(REAL, asked)
    for (count, world, micro, accumulate, epochs), (epoch, total) in zip(asked, said, strict=True):
        train = spec(
            cpu_processes=world, micro_batch_size=micro, global_batch_size=micro * accumulate * world, epochs=epochs
        )
        assert (steps.steps_per_epoch(count, train), steps.total_steps(count, train)) == (epoch, total)


PACKED = """
import json, sys
from types import SimpleNamespace
from swift.dataset import PackingDataset
found = []
for lengths, limit in json.load(sys.stdin):
    class Data(dict):
        def __len__(self):
            return len(self["lengths"])
    data = Data(lengths=lengths)
    made = PackingDataset(SimpleNamespace(max_length=limit), data)
    found.append(made.packed_length)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_packed_rows_and_steps_are_those_that_swift_packs(tmp_path):
    """swift refuses to train on packed rows without flash-attention, but it packs them anywhere."""
    from data_prep.template import packs

    cases = [
        ([100, 20, 30, 60, 90, 10, 50, 40], 128),
        ([64] * 8, 512),  # the classic: 8 rows packed into 1
        ([(i * 37) % 200 + 5 for i in range(700)], 256),
        ([(i * 53) % 400 + 5 for i in range(2500)], 512),  # three rounds of a thousand, with a row carried over
    ]
    for (lengths, limit), made in zip(cases, child(PACKED, cases), strict=True):
        assert packs(lengths, limit) == made
        epoch = epoch_of(
            lengths, len(lengths), global_batch_size=4, packs=lambda some, n=limit: packs(some, n), max_length=limit,
            seed=1,
        )  # fmt: skip
        assert epoch.packed_rows is not None
        if len(lengths) <= steps.PACKED_TOGETHER:
            assert epoch.packed_rows == len(made)
        else:  # packed in a random order there, and in another one here
            assert epoch.packed_rows == pytest.approx(len(made), rel=0.01)
        train = on_gpu(packing=True, attention="flash_attention_2", max_length=limit, epochs=3)
        plan = forecast(None, train, None, rows(len(lengths), tokens=sum(lengths), packed=epoch.packed_rows))
        assert plan["packed_rows"] == epoch.packed_rows
        assert plan["steps"] == 3 * math.ceil(epoch.packed_rows / 4)
        assert plan["exact"] == (len(lengths) <= steps.PACKED_TOGETHER)


def child(code: str, value: Any) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(value), capture_output=True, text=True, timeout=300,
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def tokens(**changes: Any) -> dict[str, Any]:
    """tokens.json of 100 rows, 30 of them longer than 128 tokens, as data_prep writes it."""
    train = {
        "rows": 100, "sampled": 100, "exact": True, "failed": None,
        "over_max_length": {"sampled_rows": 30}, "unlearned": {"sampled_rows": 0}, "epoch": {"tokens": 7000, "packed_rows": None, "longest": 120},
        "tokens": {"mean": 90.0},
    }  # fmt: skip
    val = {
        "rows": 10, "sampled": 10, "failed": None, "tokens": {"mean": 80.5},
        "over_max_length": {"sampled_rows": 1}, "unlearned": {"sampled_rows": 0},
    }  # fmt: skip
    return {"max_length": 128, "truncation": "right", "train": {**train, **changes}, "val": val}


def test_what_the_token_count_says_of_the_rows():
    cut = steps.counted(tokens())
    assert (cut.kept, cut.dropped, cut.cut, cut.longest, cut.val_rows, cut.val_tokens) == (100, 0, 30, 120, 10, 805)
    deleted = steps.counted(tokens() | {"truncation": "delete"})
    assert (deleted.kept, deleted.dropped, deleted.cut, deleted.val_rows) == (70, 30, 0, 9)
    unlearned = steps.counted(tokens(unlearned={"sampled_rows": 12}))
    assert (unlearned.kept, unlearned.dropped, unlearned.cut) == (88, 12, 18)
    failed = steps.counted(tokens(failed={"rows": {"sampled_rows": 5}}))
    assert (failed.kept, failed.dropped, failed.failed) == (95, 5, 5)
    sampled = steps.counted(tokens(rows=1000, exact=False) | {"truncation": "delete"})
    assert (sampled.kept, sampled.dropped, sampled.longest, sampled.exact) == (700, 300, None, False)


# what is refused


def test_eight_rows_packed_into_one_step_are_refused():
    train = on_gpu(packing=True, attention="flash_attention_2", epochs=3, global_batch_size=2)
    [problem] = steps.problems(rows(8, packed=1), train)
    assert "8 rows, packed into 1, in batches of 2, make 3 optimizer steps in all" in problem
    assert "packing: false (12 steps)" in problem
    assert "epochs: 10 (10 steps)" in problem
    assert list(steps.problems(rows(8, packed=1), train.model_copy(update={"epochs": None, "max_steps": 3}))) == []


@given(st.integers(1, 60), st.integers(1, 3), st.sampled_from([1, 2, 4, 8, 16, 32]), st.booleans())
def test_every_way_to_more_steps_leads_there(count, processes, batch, packing):
    train = spec(
        cpu_processes=processes, global_batch_size=batch * processes, packing=packing, epochs=1, attention="sdpa"
    )
    data = rows(count, packed=max(count // 4, 1))
    units = data.units(train)
    assert units is not None
    for problem in steps.problems(data, train):
        if "optimizer step" not in problem:
            assert units < processes
            continue
        assert steps.total_steps(units, train) < steps.FEW_STEPS
        ways = re.findall(r"(packing|global_batch_size|epochs): (\w+) \((\d+) steps\)", problem)
        assert ways
        for name, value, said in ways:
            other = train.model_copy(update={name: json.loads(value)})
            assert steps.total_steps(data.units(other) or 0, other) == int(said) >= steps.FEW_STEPS


@pytest.mark.parametrize(
    ("data", "train", "words"),
    [
        (rows(40, rows=100, dropped=60), spec(truncation="delete", max_length=64), "drops 60 of 100 rows (60%)"),
        (rows(40, rows=100, dropped=60, exact=False), spec(truncation="delete"), "drops about 60 of 100 rows"),
        (rows(100, cut=51), spec(max_length=64), "train.max_length: 64 tokens cut 51 of 100 rows (51%)"),
        (rows(100, rows=300, dropped=200, failed=200), spec(), "200 of 300 rows cannot be encoded"),
        (rows(0, rows=9, dropped=9), spec(truncation="delete"), "of 9 training rows 0 are left"),
        (rows(1), spec(cpu_processes=2), "of 1 training rows 1 are left, for 2 process(es)"),
    ],
)
def test_data_that_nobody_means_to_train_on(data, train, words):
    [problem] = steps.problems(data, train)
    assert words in problem


@pytest.mark.parametrize(("data", "count"), [(rows(50, rows=100, dropped=50), 1), (rows(cut=50), 1), (rows(), 0)])
def test_up_to_half_of_the_rows_is_worth_a_remark(data, count):
    assert list(steps.problems(data, spec(max_length=64))) == []
    assert len(list(steps.remarks(data, spec(max_length=64)))) == count


# memory


def named(text: str) -> list[dict[str, Any]]:
    """Settings that a message says would make it fit, in groups that go together."""
    said = text.split("it would fit with ")[1]
    groups = [re.findall(r"(\w+): (\w+)", group) for group in said.split(", or with ")]
    return [{name: _value(value) for name, value in group} for group in groups]


def _value(word: str) -> Any:
    return {"true": True, "false": False}.get(word, int(word) if word.isdigit() else word)


@settings(max_examples=300)
@given(
    st.integers(1, 80), st.sampled_from([512, 2048, 4096, 8192]), st.integers(4, 200), st.integers(1, 8),
    st.sampled_from([256, 1000, 4096]), st.integers(1, 16), st.booleans(), st.sampled_from(["lora", "full"]),
    st.sampled_from(["none", "zero2", "zero3"]), st.integers(1, 8000),
)  # fmt: skip
def test_every_setting_that_is_named_makes_it_fit(
    layers, hidden, gigabytes, gpus, length, micro, packing, tuner, deepspeed, longest
):
    model, here = shape(layers, hidden, width=3 * hidden), machine(gigabytes, gpus)
    train = on_gpu(
        gpus=gpus, micro_batch_size=micro, max_length=length, packing=packing, tuner=tuner,
        attention="flash_attention_2", deepspeed=deepspeed if gpus > 1 else "none",
    )  # fmt: skip

    def fits(one: TrainSpec) -> bool:
        need = memory.estimate(model, one, processes=gpus, tokens=longest).total
        return need <= gigabytes * GIB and in_main_memory(model, one) <= here.memory_gb * GIB

    problems = misfit(model, train, here, longest=longest)
    assert bool(problems) == (not fits(train))
    for text in problems:
        assert "it would fit with" in text or "no setting makes it fit" in text
        for changes in named(text) if "it would fit with" in text else ():
            changed = train.model_copy(update=changes)
            assert fits(changed), (changes, text)
            assert set(impossible(changed, here)) <= set(impossible(train, here)), (changes, text)


@pytest.mark.parametrize("gpus", [2, 4, 8])
@pytest.mark.parametrize("gigabytes", [16, 20, 24, 40, 48])
@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_quantized_weights_and_zero3_are_never_named_together(gpus, gigabytes, tuner):
    here = machine(gigabytes, gpus)
    train = on_gpu(gpus=gpus, global_batch_size=8, max_length=1024, deepspeed="zero2", tuner=tuner)
    for layers in (40, 60, 80):
        for text in misfit(shape(layers, 8192, width=28672), train, here, longest=1024):
            for changes in named(text) if "it would fit with" in text else ():
                assert not list(impossible(train.model_copy(update=changes), here)), text


def test_quantization_is_named_where_zero3_is_not_enough():
    train = on_gpu(gpus=2, max_length=4096, micro_batch_size=2, deepspeed="zero2", liger=True, global_batch_size=8)
    text = misfit(shape(80, 8192, width=28672), train, machine(60, 2), longest=4096)[0]
    assert "quantization: 4bit" in text and "zero3" not in text


def test_what_cannot_be_had_here_is_not_named():
    train = on_gpu(micro_batch_size=4, max_length=2048, gradient_checkpointing=True)
    model = replace(shape(vocab=250_000), model_type="llama")
    here = machine(26)
    assert "liger: true" in misfit(model, train, here, longest=2048)[0]  # not installed: it can be
    only = here.model_copy(update={"liger": ("qwen3",)})
    assert "liger: true" not in misfit(model, train, only, longest=2048)[0]
    windows = machine(24, 2).model_copy(update={"system": "Windows"})
    assert "deepspeed" not in misfit(model, on_gpu(gpus=2, tuner="full"), windows)[0]


def test_the_message_names_what_takes_the_memory_and_mild_ways_out_first():
    [problem] = misfit(shape(), on_gpu(micro_batch_size=16, max_length=4096), machine(80), longest=4096)
    assert re.search(r"needs about \d+\.\d GiB per GPU \(weights 12\.6, .*activations", problem)
    assert "NVIDIA A100-SXM4-80GB has 80.0" in problem
    assert list(named(problem)[0]) == ["gradient_checkpointing"]


def test_before_the_data_are_known_only_what_no_data_would_fit_is_refused():
    train = on_gpu(micro_batch_size=8, max_length=16384, gradient_checkpointing=True)
    assert misfit(shape(), train, machine(24)) == []
    assert misfit(shape(), train, machine(24), longest=16384)
    assert misfit(shape(), train.model_copy(update={"packing": True}), machine(24)), "packed rows are full"
    assert misfit(shape(), on_gpu(tuner="full"), machine(24))


def test_on_a_cpu_the_processes_share_the_memory():
    small = shape(hidden=1024, layers=24, width=2816)
    one, four = (spec(cpu_processes=count, tuner="full", max_length=512) for count in (1, 4))
    here = Machine(system="Linux", cpus=8, memory_gb=12)
    assert misfit(small, one, here) == []
    [problem] = misfit(small, four, here)
    assert "per process" in problem


def test_a_plan_for_gpus_elsewhere_is_not_held_against_this_machine():
    assert misfit(shape(), on_gpu(tuner="full"), machine()) == []


# time


def test_time_comes_from_the_peak_and_says_so():
    train, here = on_gpu(packing=True, attention="flash_attention_2", epochs=1), machine(80)
    data = rows(10_000, tokens=5_000_000, packed=2500, longest=2000)
    plan = forecast(shape(), train.model_copy(update={"gradient_checkpointing": True}), here, data)
    total = plan["tokens_per_step"] * plan["steps"] * plan["flops"]["per_token_hardware"]
    peak = 312e12
    assert plan["seconds_expected"]["low"] == pytest.approx(total / (0.5 * peak) + expected.START[0], rel=1e-3)
    assert plan["seconds_expected"]["high"] == pytest.approx(total / (0.2 * peak) + expected.START[1], rel=1e-3)
    assert "312 TFLOP/s of NVIDIA A100-SXM4-80GB" in plan["seconds_expected"]["source"]


def test_an_unknown_gpu_gets_no_time():
    plan = forecast(shape(), on_gpu(), machine(80, name="Some GPU"), rows())
    assert plan["seconds_expected"] is None
    assert any("no peak is known of Some GPU" in remark for remark in plan["remarks"])


def runs(folder: Path, plan: dict[str, Any], took: float, name: str = "r", attempt: str = "1") -> Path:
    """A runs folder with one recipe's plan and training."""
    for label, result in (("plan", {"result": plan}), ("train", {"attempt": attempt, "result": {}})):
        place = folder / "stages" / f"{label}-{name}"
        (place / "output").mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(result))
    log = [{"loss": 1.0, "global_step/max_steps": "1/9"}, {"train_runtime": took}, {"global_step": 9}]
    (folder / "stages" / f"train-{name}" / "output" / "logging.jsonl").write_text("\n".join(map(json.dumps, log)))
    states = [{"label": label, "dir": f"../stages/{label}-{name}"} for label in ("plan", "train")]
    (folder / name).mkdir()
    (folder / name / "stages.json").write_text(json.dumps({"stages": states}))
    return folder


def test_an_earlier_training_of_this_model_tells_better_than_the_peak(tmp_path):
    train, here, data = on_gpu(epochs=1), machine(80), rows(10_000, tokens=5_000_000)
    before = forecast(shape(), train, here, data)
    earlier = runs(tmp_path / "runs", before, 1000.0)
    twice = forecast(shape(), train.model_copy(update={"epochs": 2.0}), here, data, earlier=earlier)
    said = twice["seconds_expected"]
    assert said["low"] == pytest.approx(2000 / 1.1 + expected.START[0], rel=1e-3)
    assert said["high"] == pytest.approx(2000 / 0.9 + expected.START[1], rel=1e-3)
    assert said["source"].startswith("1 earlier training of this model")


@pytest.mark.parametrize("change", ["device", "precision", "parameters", "resumed", "cut"])
def test_other_trainings_tell_nothing(tmp_path, change):
    train, here, data = on_gpu(epochs=1), machine(80), rows(10_000, tokens=5_000_000)
    plan = forecast(shape(), train, here, data)
    other = {**plan, **({change: "x"} if change in plan else {})}
    earlier = runs(tmp_path / "runs", other, 1000.0, attempt="2" if change == "resumed" else "1")
    if change == "cut":
        (earlier / "stages" / "plan-r" / "result.json").write_text('{"result": ')
    again = forecast(shape(), train, here, data, earlier=earlier)
    assert "TFLOP/s" in again["seconds_expected"]["source"]


# the whole, and its stage


def test_a_model_that_is_not_known_still_has_steps():
    plan = forecast(None, spec(epochs=2), machine(), rows(100))
    assert (plan["steps_per_epoch"], plan["steps"], plan["tokens_per_step"]) == (25, 50, 200)
    assert plan["memory"] is plan["parameters"] is plan["seconds_expected"] is None
    assert any("do not say enough" in remark for remark in plan["remarks"])


def test_without_a_token_count_packed_steps_are_not_known():
    plan = forecast(shape(), on_gpu(packing=True, epochs=1), machine(80), steps.uncounted(100, 0))
    assert plan["steps"] is plan["steps_per_epoch"] is plan["seconds_expected"] is None
    assert plan["problems"] == []
    assert any("data.tokens is off" in remark for remark in plan["remarks"])
    assert "optimizer steps not known" in "\n".join(plan_text.lines(plan))


def test_the_share_is_that_of_base_and_adapter_together():
    small = shape(layers=2, hidden=64, vocab=512, width=128)
    plan = forecast(small, spec(rank=8, epochs=1), machine(), rows())
    added = 2 * 8 * (4 * (64 + 64) + 3 * (64 + 128))
    assert plan["trainable"] == added
    assert plan["trainable_share"] == added / (small.parameters + added)
    assert forecast(small, spec(tuner="full", epochs=1), machine(), rows())["trainable_share"] == 1


def _stage(train: TrainSpec, here: Machine | None = None) -> Stage:
    data = Stage("data", ("x",), {"val_fraction": 0.1}, {}, lambda *_: Command(()), lambda *_: {})
    return plan_stage.stage(train, here, base=Source(Path("model")), data=data, tokens=None)


def test_the_verdict_refuses_unless_told_otherwise():
    plan = forecast(shape(), on_gpu(tuner="full", epochs=1), machine(24), rows(8))
    assert len(plan["problems"]) == 2
    refused = _stage(on_gpu()).verdict(plan)
    assert refused is not None and all(problem in refused for problem in plan["problems"])
    assert "train.misfit: warn" in refused
    assert _stage(on_gpu(misfit="warn")).verdict(plan) is None
    assert _stage(on_gpu()).verdict({**plan, "problems": []}) is None


def test_what_decides_about_a_plan_is_no_part_of_it():
    one, two = _stage(spec()), _stage(spec(misfit="warn", learning_rate=0.5, save_steps=3))
    by = lambda _: "x"  # noqa: E731
    assert one.fingerprint(by) == two.fingerprint(by)
    assert _stage(spec(max_length=64)).fingerprint(by) != one.fingerprint(by)


def test_the_command_line_writes_what_the_stage_reads(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train.jsonl").write_text('{"messages": []}\n' * 50)
    stage = _stage(spec(epochs=1), machine())
    out = tmp_path / "stages/plan/output"
    places = {"model": tmp_path / "model", "data": tmp_path / "data"}
    command = stage.command(stage, out, places)
    for path, text in command.files.items():
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert command.argv[:3] == ("python", "-m", "pipeline.training.forecast")
    assert main(command.argv[3:]) == 0
    plan = stage.collect(out, stage, places)
    assert (plan["rows"], plan["steps"]) == (50, 13)
    assert "13 optimizer steps" in capsys.readouterr().out
    assert "| optimizer steps | 13 |" in (out / "plan.md").read_text()


def test_the_text_shows_problems_and_memory():
    plan = forecast(shape(), on_gpu(tuner="full", epochs=1), machine(24), rows(8, packed=None))
    text = "\n".join(plan_text.lines(plan))
    assert "6.74 B parameters, 6.74 B trained (100.00%), 8 rows" in text
    assert re.search(r"memory per GPU: about \d+\.\d of 24\.0 GiB \(", text)
    assert text.count("problem: ") == 2
    page = plan_text.page(plan)
    assert "## Problems" in page and "| there is | 24.00 |" in page
    assert fit.GIB == GIB


def test_the_memory_of_a_tiny_model_is_not_nothing():
    plan = forecast(None, spec(epochs=2), machine(), rows(100))
    plan |= {"gpus": 1, "memory": {"weights": 13_000_000, "optimizer": 900}, "gpu_memory": 24 * GIB}
    assert "memory per GPU: about 0.012 of 24.0 GiB (weights 0.012)" in plan_text.lines(plan)


# in the pipeline, whose tools are stand-ins


@pytest.fixture
def world(tmp_path) -> World:
    return build(tmp_path)


def test_a_plan_that_cannot_go_well_stops_before_the_training_and_can_be_overruled(world):
    few = ("--set", "train.max_steps=null", "--set", "train.epochs=1", "--set", "train.global_batch_size=16")
    text = world.run("train", *few, status=5)
    assert "plan: train.epochs: 37 rows, in batches of 16, make 3 optimizer steps in all; set global_batch_size" in text
    assert world.tools() == []
    [made] = world.runs.glob("stages/plan-*/result.json")
    stamp = made.stat().st_mtime_ns
    text = world.run("train", *few, "--set", "train.misfit=warn")
    assert world.tools() == ["sft"]
    assert made.stat().st_mtime_ns == stamp, "the plan is the same, only what follows from it is not"


def test_the_dry_run_shows_a_plan_that_is_made(world):
    assert "optimizer steps" not in world.run("--dry-run")
    text = world.run("plan")
    assert "plan: 8 optimizer steps (19 an epoch)" in text
    assert world.tools() == []
    assert "# plan\n#   37 rows\n#   8 optimizer steps (19 an epoch)\n" in world.run("--dry-run")
    assert "optimizer steps" not in world.run("--dry-run", "--set", "train.max_steps=9"), "that is another plan"


def test_a_finished_run_is_not_planned_again(world):
    world.run()
    for path in world.runs.glob("stages/plan-*"):
        shutil.rmtree(path)
    assert "plan: started" not in world.run()
