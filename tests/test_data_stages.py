"""The data stage and its checks in the plan: what each is told, what changes whose identity, who waits for whom."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, get_args

import pytest

from data_prep import __main__ as data_prep
from data_prep import contamination_cli, tokens
from pipeline.dataset import DataSpec, SourceSpec
from pipeline.errors import OutputError
from pipeline.machine import Machine
from pipeline.plan import Plan, plan
from pipeline.recipe import Recipe
from pipeline.resolve import resolve

CPU = Machine(system="Linux", cpus=2, memory_gb=8)
BASE: dict[str, Any] = {
    "name": "r",
    "model": {"path": "model", "model_type": "llama", "template": "chatml"},
    "data": {"sources": [{"path": "a.json"}, {"id": "c/d", "revision": "v1", "format": "query"}]},
    "train": {"max_length": 512, "global_batch_size": 8},
    "eval": [
        {"harness": "lm_eval", "tasks": ["hellaswag", {"name": "arc_easy", "path": "arc"}]},
        {"harness": "evalscope", "datasets": [{"name": "general_mcq", "path": "bank"}]},
    ],
}


def planned(**changes: Any) -> Plan:
    """Changes are by dotted path with `__` for the dot: data__dedup="near"."""
    data = copy.deepcopy(BASE)
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = data
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return plan(resolve(Recipe.model_validate_json(json.dumps(data)), CPU)[0])


def prints(found: Plan) -> dict[str, str]:
    return {label: stage.fingerprint(lambda source: str(source.path)) for label, stage in found.stages.items()}


def differing(before: Plan, after: Plan) -> set[str]:
    one, two = prints(before), prints(after)
    return {label for label in one.keys() | two.keys() if one.get(label) != two.get(label)}


def argv(found: Plan, label: str) -> list[str]:
    stage = found.stages[label]
    return list(stage.command(stage, Path("out"), {role: Path("in") / role for role in stage.deps}).argv)


TRAINED = {"train", "export", "check.export", "eval.lm_eval.tuned", "eval.evalscope.tuned"}


def test_checks_come_before_the_training_and_belong_to_the_target_data() -> None:
    found = planned()
    assert list(found.stages)[:5] == ["data", "data.contamination", "data.tokens", "plan", "train"]
    assert found.select(("data",)) == ["data", "data.contamination", "data.tokens"]
    assert found.select(("train",)) == ["train"]
    assert {"data.contamination", "data.tokens"} <= set(found.select(()))


def test_only_fail_makes_the_training_wait() -> None:
    assert planned().stages["train"].after == (planned().stages["plan"],)
    failing = planned(data__contamination__action="fail")
    assert failing.stages["train"].after == (failing.stages["data.contamination"], failing.stages["plan"])


def test_a_plan_is_made_for_a_training_and_not_for_its_own_sake() -> None:
    found = planned()
    assert "plan" not in found.select(())
    assert found.select(("plan",)) == ["plan"]
    assert found.stages["plan"].deps["tokens"] is found.stages["data.tokens"]
    assert "tokens" not in planned(data__tokens="off").stages["plan"].deps


def test_a_model_is_not_fetched_for_token_lengths_alone() -> None:
    hub = {"id": "a/b", "revision": "v1"}
    found = planned(model=hub)
    assert found.select(("data",)) == ["data", "data.contamination"]
    assert "data.tokens" in found.select(("data", "train"))
    assert "data.tokens" in found.select(())
    assert "data.tokens" in planned(model=hub, data__max_tokens=64).select(("data",)), "the model is needed anyway"


def test_report_and_fail_are_the_same_work_and_drop_is_other_data() -> None:
    report = planned()
    assert differing(report, planned(data__contamination__action="fail")) == set()
    dropping = planned(data__contamination__action="drop")
    assert differing(report, dropping) == {"data", "data.contamination", "data.tokens", "plan"} | TRAINED
    assert "data.contamination" not in dropping.stages
    assert argv(dropping, "data")[-4:] == ["--decontaminate", "arc_easy=in/against0", "--decontaminate", "general_mcq=in/against1"]  # fmt: skip


def test_another_benchmark_never_trains_again() -> None:
    more = [*BASE["eval"], {"harness": "lm_eval", "name": "more", "tasks": [{"name": "piqa", "path": "piqa"}]}]
    assert differing(planned(), planned(eval=more)) == {"data.contamination", "eval.more.base", "eval.more.tuned"}
    drop = {"action": "drop"}
    assert "train" in differing(planned(data__contamination=drop), planned(data__contamination=drop, eval=more))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"data__tokens": "exact"}, {"data.tokens", "plan"}),
        ({"data__tokens": "off"}, {"data.tokens", "plan"}),
        ({"train__max_length": 256}, {"data.tokens", "plan"} | TRAINED),
        ({"train__learning_rate": 2e-4}, TRAINED),
        ({"data__max_reject_fraction": 0.5}, set()),
        ({"data__contamination__benchmarks": []}, {"data.contamination"}),
    ],
    ids=lambda value: "" if isinstance(value, set) else str(value),  # sets have no order of their own
)
def test_what_changes_what(change: dict[str, Any], expected: set[str]) -> None:
    assert differing(planned(), planned(**change)) == expected


def test_nothing_to_compare_with_is_no_check() -> None:
    assert "data.contamination" not in planned(eval=[]).stages
    assert "data.tokens" not in planned(train=None).stages


def test_options_of_a_source_follow_it_and_defaults_are_not_said() -> None:
    sources = [
        {"path": "a", "columns": {"instruction": "问题", "output": "-a"}, "file": "-x*.json", "limit": 5, "weight": 2},
        {"id": "c/d", "hub": "huggingface", "revision": "v1", "format": "xtuner", "weight": 0.5},
        {"path": "b.json", "format": "messages", "weight": 1},
    ]
    assert argv(planned(data__sources=sources), "data")[:24] == [
        "python", "-m", "data_prep",
        "auto", "in/source0", "out", "--columns", "instruction=问题,output=-a", "--file=-x*.json", "--limit", "5", "--weight", "2.0",
        "--also", "xtuner", "huggingface:c/d@v1", "--weight", "0.5",
        "--also", "messages", "in/source2",
        "--val-fraction", "0.02", "--seed",
    ]  # fmt: skip


def test_rows_are_counted_by_the_models_tokenizer_only_where_a_limit_is_given() -> None:
    assert "model" not in planned().stages["data"].deps
    assert "--tokenizer" not in argv(planned(), "data")
    found = planned(data__max_tokens=64, data__system="-s")
    assert "model" in found.stages["data"].deps
    assert argv(found, "data")[-5:] == ["--system=-s", "--tokenizer", "in/model", "--max-tokens", "64"]


@pytest.mark.parametrize(("packing", "tokens"), [(False, "exact"), (True, "sample")])
def test_the_command_of_the_token_lengths(packing: bool, tokens: str) -> None:
    found = planned(data__tokens=tokens)
    stage = found.stages["data.tokens"]
    stage = type(stage)(**{**vars(stage), "args": {**stage.args, "packing": packing}})
    words = stage.command(stage, Path("out"), {"data": Path("in/data"), "model": Path("in/model")})
    assert list(words.argv) == [
        "python", "-m", "data_prep", "tokens", "in/data", "out", "--model", "in/model", "--model-type", "llama",
        "--template", "chatml", "--max-length", "512", "--truncation", "right", "--global-batch-size", "8", *(["--packing"] if packing else []),
        *(["--exact"] if tokens == "exact" else ["--sample", "2000"]), "--seed", "42",
        "--set", "use_chat_template=true",
    ]  # fmt: skip
    assert words.env["HF_HUB_OFFLINE"] == "1"
    assert words.env["CUDA_VISIBLE_DEVICES"] == ""


def test_the_template_is_that_of_the_training() -> None:
    extra = {"enable_thinking": False, "loss_scale": "ignore_empty_think", "neftune_noise_alpha": 5}
    found = argv(planned(chat_template=False, train__extra_args=extra), "data.tokens")
    assert found[-6:] == [
        "--set", "use_chat_template=false", "--set", "loss_scale=ignore_empty_think", "--set", "enable_thinking=false",
    ]  # fmt: skip
    trained = argv(planned(chat_template=False), "train")
    assert trained[trained.index("--use_chat_template") + 1] == "false"


def test_the_command_of_the_check() -> None:
    words = [
        "python", "-m", "data_prep", "contamination", "in/data", "out",
        "--against", "arc_easy=in/against0", "--against", "general_mcq=in/against1", "--action",
    ]  # fmt: skip
    assert argv(planned(), "data.contamination") == [*words, "report"]
    assert argv(planned(data__contamination__action="fail"), "data.contamination") == [*words, "fail"]


def test_the_flags_are_those_of_data_prep() -> None:
    sources = [
        {"path": "a", "columns": {"instruction": "q"}, "file": "-x*.json", "limit": 5, "weight": 2, "format": "alpaca"},
        {"id": "c/d", "revision": "v1", "weight": 0.5},
    ]
    found = planned(data__sources=sources, data__max_tokens=64, data__system="-s", data__contamination__action="drop")
    read = data_prep.arguments().parse_args(argv(found, "data")[3:])
    assert (read.format, read.input, read.outdir) == ("alpaca", "in/source0", Path("out"))
    assert read.first == {"columns": {"instruction": "q"}, "file": "-x*.json", "limit": 5, "weight": 2.0}
    assert read.also == [("auto", "modelscope:c/d@v1", {"weight": 0.5})]
    assert read.decontaminate == [("arc_easy", Path("in/against0")), ("general_mcq", Path("in/against1"))]
    assert (read.tokenizer, read.max_tokens, read.system) == (Path("in/model"), 64, "-s")
    check = contamination_cli.arguments().parse_args(argv(planned(), "data.contamination")[4:])
    assert check.against == ["arc_easy=in/against0", "general_mcq=in/against1"]
    counted = tokens.arguments().parse_args(argv(planned(), "data.tokens")[4:])
    assert (counted.sample, counted.exact, counted.max_length, counted.set) == (
        2000,
        False,
        512,
        ["use_chat_template=true"],
    )


@pytest.mark.parametrize("key", ["dedup", "consecutive_turns", "think", "special_tokens", "format"])
def test_the_choices_are_those_of_data_prep(key: str) -> None:
    spec = SourceSpec if key == "format" else DataSpec
    options = {action.dest: action.choices for action in data_prep.arguments()._actions}
    assert set(options[key] or ()) == set(get_args(spec.model_fields[key].annotation))


COUNTS = {"rows_in": 10, "rows_repeated": 3, "rows_train": 5, "rows_val": 1, "rows_rejected": 1, "rows_deduplicated": 2,
          "rows_decontaminated": 1, "rows_unsampled": 3}  # fmt: skip


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    stage = planned().stages["data"]
    (tmp_path / "stats.json").write_text(json.dumps(COUNTS))
    assert stage.collect(tmp_path, stage, {})["rows_train"] == 5
    for key, rows in COUNTS.items():
        (tmp_path / "stats.json").write_text(json.dumps({**COUNTS, key: rows + 1}))
        with pytest.raises(OutputError, match="rows do not add up: rows_in"):
            stage.collect(tmp_path, stage, {})


@pytest.mark.parametrize("label", ["data", "data.contamination", "data.tokens"])
def test_no_output_is_no_result(tmp_path: Path, label: str) -> None:
    stage = planned().stages[label]
    with pytest.raises(OutputError, match="missing, though data_prep ended well"):
        stage.collect(tmp_path, stage, {})
