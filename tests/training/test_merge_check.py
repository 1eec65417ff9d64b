"""The rules of the merge check, its words, and where it stands in a plan. The real thing: tests/e2e/test_merge.py."""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OutputError
from pipeline.plan import plan
from pipeline.stages import check_export
from pipeline.training import merge_check, merge_logits, merge_tensors
from pipeline.training.merge_check import Prompt
from tests.bin.fake_tools import safetensors
from tests.test_identity import HUB, LOCAL, resolved

GOOD = {
    "mean_abs": 0.024, "max_abs": 0.4, "top1_agreement": 0.99, "tolerance": 0.048, "rounding": 0.024, "base_distance": 5.3,
    "merged_to_base": 5.3, "merged_dtype": "bfloat16", "dtype": "float32",
}  # fmt: skip


# ---- the numbers


@given(st.floats(0, 10))
def test_the_tolerance_is_never_below_what_rounding_does(rounding: float) -> None:
    assert merge_check.tolerance(rounding) > rounding
    assert merge_check.tolerance(rounding) >= merge_check.LEAST


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "agree"),
        ({"mean_abs": 0.049}, "differ"),
        ({"mean_abs": None}, "differ"),
        ({"tolerance": None}, "differ"),  # base + adapter itself is not finite
        ({"base_distance": 0.03}, "lost in rounding"),
        ({"base_distance": 0.0}, "no effect"),
        ({"base_distance": 0.0, "mean_abs": 1.0}, "differ"),  # a no-op adapter that became something else
        ({"unchecked": "too large"}, "unchecked"),
    ],
)
def test_judge(change: dict[str, Any], verdict: str) -> None:
    assert merge_check.judge(GOOD | change) == verdict


def result(verdict: str, **change: Any) -> dict[str, Any]:
    return {"logits": GOOD | change, "verdict": verdict, "quantization": "none", "templates": []}


def test_a_good_merge_says_nothing() -> None:
    assert merge_check.problem(result("agree")) is None
    assert list(merge_check.remarks(result("agree"))) == []


def test_a_wrong_merge_is_a_problem_with_its_numbers_and_a_remedy() -> None:
    text = merge_check.problem(result("differ", mean_abs=2.44))
    assert text is not None
    for part in ("2.44", "0.048", "99.0%", "export.check: warn"):
        assert part in text
    assert "nothing was merged" not in text
    [remark] = merge_check.remarks(result("differ", mean_abs=2.44))
    assert remark == text, "under `warn` it is in the report"


def test_a_merge_that_left_the_base_as_it_was_is_called_that() -> None:
    assert "nothing was merged" in str(merge_check.problem(result("differ", mean_abs=5.3, merged_to_base=0.0)))


def test_numbers_that_are_not_finite() -> None:
    assert "not finite" in str(merge_check.problem(result("differ", mean_abs=None, merged_to_base=None)))


@pytest.mark.parametrize(
    ("verdict", "change", "words"),
    [
        ("no effect", {}, "the training changed nothing"),
        ("lost in rounding", {"base_distance": 0.03}, "changes next to nothing.*0.03.*bfloat16.*0.048"),
        ("unchecked", {"unchecked": "32 B parameters"}, "was not compared.*32 B"),
    ],
)
def test_what_is_no_failure_is_said_all_the_same(verdict: str, change: dict[str, Any], words: str) -> None:
    assert merge_check.problem(result(verdict, **change)) is None
    [remark] = merge_check.remarks(result(verdict, **change))
    assert re.search(words, remark)


def test_qlora_says_what_was_compared() -> None:
    [remark] = merge_check.remarks(result("agree") | {"quantization": "4bit"})
    assert "the whole base + adapter" in remark


def test_memory_decides_what_is_computed_in() -> None:
    parameters = 7e9
    assert merge_logits.arithmetic(parameters, 80e9) == "float32"
    assert merge_logits.arithmetic(parameters, 24e9) == "bfloat16"
    assert merge_logits.arithmetic(parameters, 10e9) is None


@pytest.mark.parametrize(("gpu", "host", "where", "dtype"), [
    (80, 500, True, "float32"),
    (20, 500, True, "bfloat16"),
    (2, 500, False, "float32"),  # somebody sits on the GPU
    (2, 3, False, None),
])  # fmt: skip
def test_a_gpu_that_is_taken_leaves_it_to_the_cpu(gpu: float, host: float, where: bool, dtype: str | None) -> None:
    free = {True: gpu * 1e9, False: host * 1e9}
    assert merge_logits.placed(7e9, [(cuda, free[cuda]) for cuda in (True, False)]) == (where, dtype)
    assert merge_logits.placed(7e9, [(False, 500e9)]) == (False, "float32")


def test_a_large_model_on_a_cpu_gets_less_to_do() -> None:
    small, large, gpu = (merge_logits.budget(n, cuda=cuda) for n, cuda in ((0.1e9, False), (32e9, False), (32e9, True)))
    assert gpu == small
    assert large.rows * large.tokens < small.rows * small.tokens / 4


def test_a_quantized_export_is_not_held_against_rounding(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "gptq", "bits": 4}}')
    options = merge_logits.arguments().parse_args(
        ["out", "--base", str(tmp_path / "none"), "--adapter", "a", "--merged", str(tmp_path), "--rows", "r"]
    )
    found = merge_logits.logits(options, None, [])
    assert "gptq" in found["unchecked"]
    assert merge_check.judge(found) == "unchecked"


# ---- all weights trained: tensors, not probabilities


def bf16(path: Path, name: str, bits: list[int]) -> None:
    raw = struct.pack(f"<{len(bits)}H", *bits)
    header = json.dumps({name: {"dtype": "BF16", "shape": [len(bits)], "data_offsets": [0, len(raw)]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw)


@pytest.mark.parametrize(
    ("exported", "found", "verdict"),
    [
        ({"a": [1.0, 2.0], "b": [3.0]}, {"different": [], "missing": [], "changed": 1}, "agree"),
        ({"a": [1.0, 2.5], "b": [3.0]}, {"different": ["a"], "missing": [], "changed": 1}, "differ"),
        ({"a": [1.0, 2.0, 2.0], "b": [3.0]}, {"different": ["a"], "missing": [], "changed": 1}, "differ"),
        ({"a": [1.0, 2.0]}, {"different": [], "missing": ["b"], "changed": 1}, "differ"),
    ],
)
def test_exported_tensors_are_the_checkpoints(
    tmp_path: Path, exported: dict[str, list[float]], found: dict[str, Any], verdict: str
) -> None:
    safetensors(tmp_path / "base" / "model.safetensors", {"a": [1.0, 1.0], "b": [3.0]})
    safetensors(tmp_path / "checkpoint" / "model.safetensors", {"a": [1.0, 2.0], "b": [3.0]})
    for index, (name, values) in enumerate(exported.items()):  # in shards
        safetensors(tmp_path / "exported" / f"model-{index}.safetensors", {name: values})
    compared = merge_tensors.compared(*(tmp_path / name for name in ("checkpoint", "exported", "base")))
    assert {key: compared[key] for key in found} == found
    assert merge_check.judge_tensors(compared) == verdict
    told = {"tensors": compared, "verdict": verdict}
    assert (merge_check.problem(told) is not None) == (verdict == "differ")


def test_a_training_that_moved_no_tensor(tmp_path: Path) -> None:
    safetensors(tmp_path / "model.safetensors", {"a": [1.0]})
    assert merge_check.judge_tensors(merge_tensors.compared(tmp_path, tmp_path, tmp_path)) == "no effect"


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (1.004, 0x3F81), (-1.00390625, 0xBF80),
        (math.inf, 0x7F80), (3.3895314e38, 0x7F7F),
    ],
)  # fmt: skip
def test_an_export_in_another_type_is_compared_after_the_same_rounding(tmp_path: Path, value: float, bits: int) -> None:
    """To the nearest, ties to even, as torch rounds float32 to bfloat16."""
    safetensors(tmp_path / "checkpoint" / "model.safetensors", {"a": [value, 0.0]})
    bf16(tmp_path / "right" / "model.safetensors", "a", [bits, 0])
    bf16(tmp_path / "wrong" / "model.safetensors", "a", [bits ^ 1, 0])
    left, right, wrong = (merge_tensors.tensors(tmp_path / name)["a"] for name in ("checkpoint", "right", "wrong"))
    assert merge_tensors.equal(left, right)
    assert not merge_tensors.equal(left, wrong)


def test_size(tmp_path: Path) -> None:
    bf16(tmp_path / "a.safetensors", "a", [0] * 10)
    safetensors(tmp_path / "b.safetensors", {"b": [0.0] * 3})
    assert merge_tensors.size(tmp_path) == (13, "bfloat16")


# ---- prompts


def pieces(text: str) -> Prompt:
    """A token for each word and mark, its number by its text."""
    found = re.findall(r"<\|\w+\|>|</?think>|\w+|\s|[^\w\s]", text)
    return Prompt([sum(map(ord, piece)) * len(piece) for piece in found], found)


USER = "<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\n"
SYSTEM = "<|im_start|>system\nBe kind.<|im_end|>\n"


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 4)), max_size=6))
def test_the_prompt_ends_where_the_last_answer_begins(runs: list[tuple[bool, int]]) -> None:
    trained = [learned for learned, length in runs for _ in range(length)]
    length = merge_check.prompt_length(trained)
    rest = trained[length:]
    if any(trained):
        assert rest[0]
        assert length == 0 or not trained[length - 1]
        assert sorted(rest, reverse=True) == rest, "one run of learned tokens, perhaps a tail that is not"
    else:
        assert length == len(trained)


@pytest.mark.parametrize(
    ("training", "seen", "diff", "advice"),
    [
        (USER, SYSTEM + USER, "is added at the start", "data.system: the same text"),
        (SYSTEM + USER, USER, "is missing at the start", "give the suites the same one"),
        (SYSTEM + USER, SYSTEM.replace("kind", "rude") + USER, "training has 'kind'", "Not the same system prompt"),
        (USER, USER + "<think>\n\n</think>\n\n", "is added after '<|im_start|>assistant\\n'", "enable_thinking"),
        (
            USER + "<think>\n\n</think>\n\nRed.\n" + USER, USER + "Red.\n" + USER,
            "is missing after", "Only answers before the last one",
        ),
        (USER, USER.replace("user\n", "user:"), "training has '\\n' after", "model.template"),
    ],
)  # fmt: skip
def test_differences_in_words(training: str, seen: str, diff: str, advice: str) -> None:
    found = merge_check.compare("user", "lm_eval", pieces(training), pieces(seen))
    assert not found["equal"]
    assert diff in found["diff"]
    assert advice in found["advice"]


def test_a_first_token_that_comes_twice() -> None:
    training = pieces("<|bos|>" + USER)
    seen = Prompt([training.ids[0], *training.ids], [training.pieces[0], *training.pieces])
    assert "tokenizer_call_args" in merge_check.compare("user", "evalscope", training, seen)["advice"]


def test_the_same_text_in_other_tokens() -> None:
    found = merge_check.compare("user", "lm_eval", Prompt([1, 2], ["a", "b"]), Prompt([3], ["ab"]))
    assert "the same text in other tokens (2 in training, 1 here)" in found["diff"]


def test_equal_prompts_need_no_words() -> None:
    found = merge_check.compare("user", "lm_eval", pieces(USER), pieces(USER))
    assert found == {"case": "user", "reader": "lm_eval", "equal": True, "diff": "", "advice": ""}


@given(st.text("ab<", max_size=8), st.text("ab<", max_size=8))
def test_every_difference_is_told(one: str, two: str) -> None:
    training, seen = Prompt([ord(c) for c in one], [*one]), Prompt([ord(c) for c in two], [*two])
    found = merge_check.compare("user", "lm_eval", training, seen)
    assert found["equal"] == (one == two) == (found["diff"] == "") == (found["advice"] == "")


def test_a_long_difference_is_cut() -> None:
    found = merge_check.compare("user", "lm_eval", pieces(USER), pieces("word " * 500 + USER))
    assert len(found["diff"]) < 300


def test_one_sentence_for_what_readers_share() -> None:
    other = merge_check.compare("user", "lm_eval", pieces(USER), pieces(SYSTEM + USER))
    compared = [
        other, other | {"reader": "evalscope"}, other | {"case": "several turns"},
        other | {"reader": "evalscope", "case": "several turns"}, other | {"reader": "third"},
        merge_check.compare("x", "fourth", pieces(USER), pieces(USER)),
    ]  # fmt: skip
    first, second = merge_check.template_remarks(compared)
    assert "training and lm_eval, evalscope (user; several turns)" in first
    assert "training and third (user)" in second


# ---- the stage


@pytest.mark.parametrize(("check", "waits"), [("fail", True), ("warn", False), ("off", False)])
def test_evaluations_of_the_tuned_model_wait_for_the_check(check: str, waits: bool) -> None:
    stages = plan(resolved(LOCAL | {"export": {"check": check}})).stages
    assert ("check.export" in stages) == (check != "off")
    for label, stage in stages.items():
        behind = label.startswith(("eval.", "dialogues.")) and label.endswith(".tuned")
        assert ("merge-check" in [other.name for other in stage.after]) == (waits and behind)


def test_only_fail_stops_a_run() -> None:
    bad = result("differ", mean_abs=2.0)
    by = {c: plan(resolved(LOCAL | {"export": {"check": c}})).stages["check.export"] for c in ("fail", "warn")}
    assert by["fail"].verdict(bad)
    assert by["fail"].verdict(result("no effect", base_distance=0.0)) is None
    assert by["warn"].verdict(bad) is None
    assert by["fail"].fingerprint(str) == by["warn"].fingerprint(str), "the decision computes nothing anew"


def test_an_export_is_checked_when_it_is_asked_for() -> None:
    assert {"export", "check.export"} <= set(plan(resolved(LOCAL)).select(("export",)))
    assert "check.export" in plan(resolved(LOCAL)).select(())
    assert "check.export" not in plan(resolved(LOCAL)).select(("train",))


def test_it_runs_where_the_training_ran() -> None:
    gpu, cpu = (plan(resolved(LOCAL | {"train": {"gpus": n}})).stages["check.export"] for n in (1, 0))
    assert (gpu.gpus, cpu.gpus) == (1, 0)
    assert gpu.fingerprint(str) != cpu.fingerprint(str), "another training"
    assert gpu.args == cpu.args


def test_a_gpu_without_room_leaves_it_to_the_cpu() -> None:
    gpu = plan(resolved(LOCAL | {"train": {"gpus": 1}})).stages["check.export"]
    again = gpu.retry("memory", gpu.plumbing)
    assert again is not None
    assert (again["cuda"], gpu.plumbing["cuda"]) == (False, True)
    assert gpu.retry("memory", again) is None
    assert gpu.retry("disk", gpu.plumbing) is None
    command = replace(gpu, plumbing=again).command(replace(gpu, plumbing=again), Path("out"), paths(gpu))
    assert "--cuda" not in command.argv


def paths(stage: Any) -> dict[str, Path]:
    return {role: Path("/at") / role for role in stage.deps}


def test_the_command_names_what_the_export_was_made_of() -> None:
    stage = plan(resolved(HUB)).stages["check.export"]
    argv = stage.command(stage, Path("/out"), paths(stage)).argv
    options = merge_logits.arguments().parse_args(argv[3:])
    assert (options.base, options.merged) == (Path("/at/model"), Path("/at/merged"))
    assert options.rows[0].name == "val.jsonl"
    assert (options.model_type, options.template, options.system) == ("qwen3", "qwen3", "s")
    assert options.set == ["use_chat_template=true"]
    assert json.loads(options.readers) == [
        {"harness": name, "enable_thinking": False, "system": "s"} for name in ("lm_eval", "evalscope")
    ]
    assert options.cuda


def test_suites_that_render_alike_are_one_reader() -> None:
    suite = {"harness": "lm_eval", "tasks": ["hellaswag"]}
    suites = [
        suite, suite | {"name": "b", "limit": 3}, suite | {"name": "c", "enable_thinking": True},
        suite | {"name": "d", "chat_template": False},
        {"harness": "evalscope", "datasets": ["gsm8k"], "model_args": {"tokenizer_call_args": {"add_special_tokens": False}}},
    ]  # fmt: skip
    assert check_export.readers(resolved(LOCAL | {"eval": suites})) == [
        {"harness": "lm_eval"},
        {"harness": "lm_eval", "enable_thinking": True},
        {"harness": "evalscope", "tokenizer_call_args": {"add_special_tokens": False}},
    ]
    assert len(check_export.readers(resolved(LOCAL | {"eval": []}))) == 2, "nothing is asked yet: both harnesses"


def test_collect(tmp_path: Path) -> None:
    stage = plan(resolved(LOCAL)).stages["check.export"]
    with pytest.raises(OutputError, match=r"merge\.json: missing or cut"):
        stage.collect(tmp_path, stage, {})
    measured = {"logits": GOOD | {"mean_abs": 2.0}, "templates": [], "export_changed": ["user"]}
    (tmp_path / merge_logits.RESULT).write_text(json.dumps(measured))
    found = stage.collect(tmp_path, stage, {})
    assert found["verdict"] == "differ"
    assert len(found["remarks"]) == 2
    assert "renders prompts other than the base model's" in found["remarks"][1]
