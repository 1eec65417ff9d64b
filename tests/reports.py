"""Reports to render: whole, unfinished, of many models, with items; and a reader of the page's elements."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pipeline.clean import CleanRow
from pipeline.compare import Row, adjusted
from pipeline.dialogues import Dialogue
from pipeline.gate import GateSpec, gate_lines, verdict
from pipeline.reconcile import reconcile
from pipeline.report.compile import Report, StageLine
from pipeline.report.model_score import ModelScore
from pipeline.report.ways import ways
from pipeline.results import Implementation, Sample, Score
from pipeline.training.throughput import Planned, Throughput

FIXTURES = Path(__file__).parent / "fixtures" / "data_prep"
EVIL = '<img src=x onerror=alert(1)>|"&`_a_` [x](javascript:1)'
MMLU = [f"mmlu/subject_{i:02}" for i in range(12)]
EMPTY = Report(
    recipe="nothing", description="", confidence=0.95, rows=[], scores=[], data=None, train=None, curve=[], stages=[],
    choices=[], remarks=[], provenance={},
)  # fmt: skip


def row(
    task: str, base: float, tuned: float, low: float | None, high: float | None, p: float | None, **more: Any
) -> Row:
    return Row(**{
        "task": task, "harness": "lm_eval", "suite": "lm_eval", "metric": "acc", "n": 120, "base": base, "tuned": tuned,
        "delta": tuned - base, "ci_low": low, "ci_high": high, "p_value": p, "mde": None if p is None else 0.11, **more,
    })  # fmt: skip


def score(model: str, task: str, value: float, **more: Any) -> ModelScore:
    harness = more.get("harness", "lm_eval")
    own = {"harness": harness, "version": "1.14.1" if harness == "evalscope" else "0.4.13", "task_version": "1.0", "n_shot": 0, "chat_template": "off",
           "scoring": "multiple_choice/none", "precision": "float32", **more.pop("implementation", {})}  # fmt: skip
    return ModelScore(**{
        "model": model, "suite": harness, "task": task, "harness": harness, "metric": "acc", "value": value,
        "stderr": 0.0417, "n": 120, "implementation": Implementation(**own), **more,
    })  # fmt: skip


def captured(name: str) -> dict[str, Any]:
    """What data_prep really wrote for invented rows."""
    value: dict[str, Any] = json.loads((FIXTURES / name).read_text(encoding="utf-8"))
    return value


SUITES = ("lm_eval", "evalscope")
ASKED = 12
"""Items of each suite."""


def made_of(suite: str) -> Score:
    """The score of `answers`."""
    what = Implementation(harness=suite, version="1")
    return Score(task="demo_bank", harness=suite, metric="acc", value=0.5, n=ASKED, implementation=what)


def answers(suite: str, first: int) -> list[Sample]:
    """Items of which the first `first` are answered right, and of the others every third.

    lm_eval's are by likelihood, evalscope's in writing; the question of item 2 is in contamination.json.
    """
    held = captured("contamination.json")["benchmarks"]["bank"]["contaminated"][0]["raw"]
    found = []
    for i in range(ASKED):
        right = i < first or i % 3 == 0
        written: dict[str, Any] = {"answer": "A" if right else "", "output": f"The answer is {i}. </script><!--"}
        likely: dict[str, Any] = {"loglikelihoods": (-1.5, -2.0 if right else -0.5, -math.inf, -3.0), "answer": "red"}
        found.append(Sample(**{
            "task": "demo_bank", "doc_key": f"{i:016x}", "scores": {"acc": float(right)},
            "question": held["question"] if i == 2 else f"Question {i}? {EVIL} \u2028", "target": "A", "prompt": f"Q{i}" * 40,
            "choices": tuple(held[c] for c in "ABCD") if i == 2 else ("red", "银行", "blue", "green"), **(likely if suite == "lm_eval" else written),
        }))  # fmt: skip
    return found


def asked() -> dict[str, list[Sample]]:
    """Items of demo(), by label."""
    return {f"eval.{s}.{m}": answers(s, n) for s in SUITES for m, n in (("base", 2), ("tuned", 8))}


PLAN: dict[str, Any] = {
    "device": "NVIDIA H200", "gpus": 2, "processes": 2, "precision": "bfloat16", "steps": 120, "steps_per_epoch": 60,
    "tokens_per_epoch": 402_120, "tokens_per_step": 6702, "trainable": 8_798_208, "parameters": 494_032_768,
    "memory": {"weights": 988_065_536, "adapter": 35_192_832, "gradients": 35_192_832, "optimizer": 70_385_664,
               "activations": 9_663_676_416, "logits": 5_368_709_120, "workspace": 1_241_513_984},
    "gpu_memory": 151_397_597_184, "seconds_expected": {"low": 900.0, "high": 1250.0, "source": "2 earlier trainings"},
    "flops": {"per_token": 2.1e9}, "problems": [], "remarks": ["about 12 of 456 rows (3%) will be cut at 1024 tokens"],
}  # fmt: skip


def throughput() -> Throughput:
    planned = [("steps", 120, 120, 120), ("tokens_per_epoch", 402_120, 402_120, 402_120), ("trainable", 8_798_200, 8_798_200, 8_798_200),
               ("memory", 16.2e9 - 6.3e8, 16.2e9 - 6.3e8, 16.9e9), ("seconds", 900.0, 1250.0, 1312.0)]  # fmt: skip
    return Throughput(
        gpus=2, processes=2, device="NVIDIA H200", attempts=2, steps=120, measured_steps=104, basis="steady",
        seconds_per_step=0.0832, seconds_per_step_median=0.0815, seconds_per_step_p95=0.1201, tokens=804_240,
        padded_tokens=871_104, tokens_per_step=6702.0, tokens_per_second=40_276.4, padded_tokens_per_second=43_625.0,
        samples_per_second=91.35, flops_per_token=2.1e9, peak_flops=989.4e12, mfu=0.0855, peak_memory=16_900_000_000,
        peak_rss=9_300_000_000, seconds=1711.0, gpu_hours=0.951, cost=3.23, currency="EUR",
        planned=[Planned.model_validate(dict(zip(("what", "low", "high", "actual"), one, strict=True))) for one in planned],
    )  # fmt: skip


def merge() -> dict[str, Any]:
    """What the check of the export found: a good merge, and one prompt of six that differs."""
    cases = [{"case": f"case {i}", "reader": "lm_eval", "equal": True, "diff": "", "advice": ""} for i in range(5)]
    other = {"case": "a system prompt", "reader": "evalscope", "equal": False, "diff": f"'{EVIL}' is added at the start",
             "advice": "The model's own chat template puts a system prompt in: train with it"}  # fmt: skip
    return {
        "verdict": "agree", "quantization": "none", "export_changed": [], "templates": [*cases, other], "remarks": [],
        "logits": {"mean_abs": 0.00412, "max_abs": 0.0831, "top1_agreement": 0.9961, "tolerance": 0.00822,
                   "rounding": 0.00411, "base_distance": 0.812, "merged_to_base": 0.811, "prompts": 4, "tokens": 256},
    }  # fmt: skip


def demo() -> Report:
    scope: dict[str, Any] = {"harness": "evalscope", "suite": "evalscope"}
    rows = [
        row("demo_bank", 0.2083, 0.9167, 0.601, 0.789, 2e-19, gained=86, lost=1),
        row("demo_bank", 0.2333, 0.9083, 0.565, 0.758, 4e-18, metric="acc_norm", gained=83, lost=2),
        row("demo_general", 0.6333, 0.6167, -0.075, 0.042, 0.727, gained=5, lost=7),
        row("gsm8k", 0.3417, 0.2333, -0.176, -0.036, 0.0041, metric="exact_match,strict-match"),
        row("wikitext", 18.42, 15.07, -4.02, -2.71, 0.0002, metric="word_perplexity", n=62, higher_is_better=False),
        row("lambada_openai", 9.81, 11.35, 0.62, 2.47, 0.0011, metric="perplexity", n=200, higher_is_better=False),
        row("general_mcq/银行业务与个人理财知识", 0.25, 0.875, 0.41, 0.79, 6e-5, n=24, **scope),
        row("general_qa/open", 0.1124, 0.4417, None, None, None, metric="bleu-4", n=16,
            remark="not a mean over items: no paired interval", **scope),
        row("mmlu", 0.4708, 0.4767, -0.0004, 0.012, 0.072, n=1400, remark="1400 of 1402 items paired: delta and interval are of these", **scope),
        row("ceval", 0.41, 0.47, None, None, None, delta=None,
            remark="not the same implementation: precision: float32 / bfloat16", **scope),
        *(row(t, 0.4 + i / 100, 0.42 + i / 50, -0.04, 0.08, 0.5, n=100, part_of="mmlu", **scope)
          for i, t in enumerate(MMLU)),
    ]  # fmt: skip
    rows = adjusted(rows)
    bounds = gate_lines(GateSpec(max_drop={"gsm8k": 0.02, "mmlu": 0.0001}, min_gain={"demo_bank": 0.3}), rows)
    scores = []
    for r in rows:
        own = {"precision": "bfloat16"} if r.task == "ceval" else {}
        more = {"metric": r.metric, "n": r.n, "harness": r.harness, "higher_is_better": r.higher_is_better}
        scores.append(score("base", r.task, r.base, **more))
        scores.append(score("tuned", r.task, r.tuned, implementation=own, **more))
    scores.append(score("base", "truthfulqa", 0.3, metric="rouge1_max", stderr=None))
    curve: list[dict[str, Any]] = [
        {"step": s, "loss": 3.4 * math.exp(-s / 25) + 0.45 + 0.07 * math.sin(s * 1.7), "grad_norm": 1.2,
         "learning_rate": 1e-4 * min(s / 8, 1) * (0.5 + 0.5 * math.cos(math.pi * min(1, s / 120)))}
        for s in range(1, 121)
    ]  # fmt: skip
    curve += [{"step": s, "eval_loss": 3.3 * math.exp(-s / 25) + 0.56} for s in range(20, 121, 20)]
    part = {"rows": 456, "turns": 1020, "assistant_turns": 510, "chars": 84_210, "chars_mean": 184.67,
            "chars_p50": 161, "chars_p95": 402, "chars_max": 1980}  # fmt: skip
    none = {"rows_deduplicated": 0, "rows_decontaminated": 0, "rows_unsampled": 0, "rows_repeated": 0}
    source = {"source": "train_sharegpt.jsonl", "format": "sharegpt", "files": 1, "weight": 1.0, "limit": None,
              "rows_in": 340, "rows_kept": 306, "rows_rejected": 14, "rejected": {"empty_assistant": 9, "truncated": 5},
              **none, "rows_deduplicated": 20}  # fmt: skip
    other = {"source": "银行问答.json", "format": "alpaca", "files": 1, "weight": 2.0, "limit": 87, "rows_in": 180,
             "rows_kept": 174, "rows_rejected": 6, "rejected": {"no_assistant_turn": 6}, **none, "rows_deduplicated": 4,
             "rows_unsampled": 83, "rows_repeated": 87}  # fmt: skip
    return EMPTY.model_copy(update={
        "recipe": "demo-qwen2.5-0.5b",
        "description": "LoRA on an invented bank's questions and answers (银行问答), scored by two harnesses.",
        "verdict": verdict(bounds),
        "gate": bounds,
        "rows": rows,
        "clean": [CleanRow(**{**rows[0].model_dump(), "n": n, "delta": d}, part=part, of=120)
                  for part, n, d in (("clean", 114, 0.7), ("contaminated", 6, 0.9))],
        "reconciled": reconcile("tuned", {suite: ([made_of(suite)], answers(suite, 1)) for suite in SUITES}),
        "dialogues": [Dialogue(messages=({"role": "user", "content": "What is <Brasko>?"},), reference="A town.",
                               answers={"tuned": "A town.", "base": "I do not know.\nSorry."})],
        "recipe_yaml": "name: demo\ntrain:\n  seed: 42\neval:\n- seed: 7\n  note: '```'\n",
        "scores": scores,
        "data": {"schema": 2, "rows_in": 520, "rows_repeated": 87, "rows_train": 456, "rows_val": 24,
                 "rows_rejected": 20, "rows_deduplicated": 24, "rows_decontaminated": 0, "rows_unsampled": 83,
                 "reject_fraction": 0.04, "rejected": {"empty_assistant": 9, "no_assistant_turn": 6, "truncated": 5},
                 "deduplicated": {"exact": 19, "near": 5}, "decontaminated": {}, "repaired": {"merged_turns": 12},
                 "sources": [source, other],
                 "train": part, "val": {**part, "rows": 24, "turns": 52, "chars": 4411, "chars_max": 611}},
        "contamination": captured("contamination.json"),
        "unchecked": ["gsm8k", "ceval"],
        "tokens": captured("tokens.json"),
        "train": {"checkpoint": "checkpoint-120", "steps": 120, "epochs": 2.0, "first_loss": 3.7129,
                  "last_loss": 0.4632, "last_eval_loss": 0.5871},
        "plan": PLAN,
        "throughput": throughput(),
        "merge": merge(),
        "curve": curve,
        "stages": [StageLine(label=name, done=True, seconds=s, folder=f"stages/{name}-3fa9c1",
                             command=f"HF_HUB_OFFLINE=1 {name} \\\n  --limit 5")
                   for name, s in [("base", 41.2), ("data", 3.4), ("train", 1312), ("export", 38.9),
                                   ("eval.lm_eval.base", 301), ("eval.lm_eval.tuned", 297.5)]],
        "choices": [{"where": "train.precision", "value": "float32", "reason": "no GPU: bf16 is fast on few CPUs"},
                    {"where": "train.packing", "value": "false", "reason": "sdpa: packing needs flash-attention"}],
        "remarks": ["evalscope, base: general_qa: rouge could not be computed for 3 samples (no text); left out"],
        "provenance": {"time": "2025-06-01T09:30:00+00:00", "host": "box", "python": "3.11.9", "git": None,
                       "tools": {"ms-swift": "4.6.0", "lm-eval": "0.4.13", "evalscope": "1.14.1"}},
    })  # fmt: skip


def many_ways() -> Report:
    """Two models on MMLU in two ways, which order them differently."""
    scores, samples = [], {}
    for model, values in (("small", (0.5, 0.25)), ("large", (0.25, 0.5))):
        for task, metric, value in zip(WAYS, ("acc", "exact_match"), values, strict=True):
            scores.append(score(model, task, value, metric=metric, suite="ways"))
        samples[f"eval.ways.{model}"] = [
            Sample(task=f"{task}_anatomy", doc_key="a", question="Where is <it>?", prompt=f"{task}: Where is <it>?",
                   scores={metric: 1.0, "none_of_letters": 1.0}, target="C", output=" Zygote")
            for task, metric in zip(WAYS, ("acc", "exact_match"), strict=True)
        ]  # fmt: skip
    return EMPTY.model_copy(update={"recipe": "ways", "scores": scores, "ways": ways(scores, samples)})


WAYS = ("mmlu_original", "mmlu_helm")


def partial() -> Report:
    """Prepared, training at step 6, nothing scored."""
    whole = demo()
    return EMPTY.model_copy(update={
        "recipe": "demo-running", "data": whole.data, "curve": whole.curve[:6],
        "stages": [StageLine(label="data", done=True, seconds=3.4), StageLine(label="train", done=False)],
        "remarks": ["not done yet: train"],
    })  # fmt: skip


def leaderboard() -> Report:
    values = {"qwen2.5-0.5b": 0.4758, "qwen2.5-1.5b": 0.6013, "通义千问-7b-instruct": 0.7342}
    scores = []
    for model, value in values.items():
        scores += [
            score(model, "mmlu", value),
            score(model, "arc_challenge", value - 0.1, metric="acc_norm", stderr=None),
        ]
        scores += [score(model, f"mmlu_s{i}", value) for i in range(10)]
        scores.append(score(model, "wikitext", 30 - 20 * value, metric="word_perplexity", higher_is_better=False))
        scores.append(score(model, "gsm8k", value - 0.2, implementation={"chat_template": model}))
    return EMPTY.model_copy(update={"recipe": "leaderboard", "scores": scores})


class Elements(HTMLParser):
    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.details: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if "details" in self.open:
            self.details.append(data)
