"""MMLU's scores once more, out of lm-eval's raw samples alone: `python -m tests.mmlu_check runs/stages/eval-...`.

Nothing of the pipeline is imported. `--likelihoods N` also asks the model itself: the first N items of the harness's way
are scored anew with transformers in float32 (as the run has to be), answer by answer. Prints both figures; exit status
1 where they differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

WAYS = ("mmlu_original", "mmlu_helm", "mmlu_harness_2023", "mmlu")


def likelihoods(record):
    return [(float(response[0][0]), str(response[0][1]) == "True") for response in record["resps"]]


def argmax(values):
    return max(range(len(values)), key=values.__getitem__)


def marks(way, record, tokenizer):
    """metric -> 0 or 1 of one item, by the rule of the way."""
    right = record["doc"]["answer"]
    if way == "mmlu_helm":
        text = record["resps"][0][0].strip()
        return {"exact_match": text == "ABCD"[right], "none_of_letters": text not in list("ABCD")}
    found = likelihoods(record)
    sums = [value for value, _ in found]
    if way != "mmlu_harness_2023":
        none = {} if way == "mmlu" else {"none_of_letters": not any(greedy for _, greedy in found)}
        return {"acc": argmax(sums) == right, **none}
    pairs = [(arguments["arg_0"], arguments["arg_1"]) for arguments in record["arguments"].values()]
    texts = [f"{letter}. {choice}" for letter, choice in zip("ABCD", record["doc"]["choices"], strict=True)]
    assert [answer for _, answer in pairs] == [f" {text}" for text in texts]
    count = [len(tokenizer.encode(p + a).ids) - len(tokenizer.encode(p).ids) for p, a in pairs]
    return {
        "acc": argmax(sums) == right,
        "acc_norm": argmax([value / len(text) for value, text in zip(sums, texts, strict=True)]) == right,
        "acc_norm_tokens": argmax([value / n for value, n in zip(sums, count, strict=True)]) == right,
    }


def recomputed(folder, tokenizer):
    """(task or group, metric) -> share; groups are means over all items."""
    values = {}
    for path in sorted((folder / "output").glob("*/samples_mmlu*.jsonl")):
        task = path.name.removeprefix("samples_").rsplit("_", 1)[0]
        way = next(way for way in WAYS if task.startswith(f"{way}_"))
        for line in path.read_text(encoding="utf-8").split("\n"):
            for metric, mark in marks(way, json.loads(line), tokenizer).items() if line else ():
                for name in (task, way):
                    values.setdefault((name, metric), []).append(float(mark))
    return {key: sum(marks) / len(marks) for key, marks in values.items()}


def largest_difference(folder, model_folder, tokenizer, n):
    """Between lm-eval's log-likelihoods and the sums of the model's own log-softmax, over n items' four answers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    records = []
    for path in sorted((folder / "output").glob("*/samples_mmlu_harness_2023_*.jsonl")):
        records += [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    differences = []
    for record in records[:n]:
        for (told, _), pair in zip(likelihoods(record), record["arguments"].values(), strict=True):
            start = len(tokenizer.encode(pair["arg_0"]).ids)
            ids = torch.tensor([tokenizer.encode(pair["arg_0"] + pair["arg_1"]).ids])
            with torch.no_grad():
                logs = torch.log_softmax(model(ids).logits[0, start - 1 : -1], dim=-1)
            own = logs.gather(1, ids[0, start:, None]).sum().item()
            differences.append(abs(own - told))
    return max(differences), len(differences)


def main(folder, n=0):
    from tokenizers import Tokenizer

    model_folder = next((folder / "output").glob("*/results_*.json"))
    model_folder = json.loads(model_folder.read_text())["config"]["model_args"]["pretrained"]
    tokenizer = Tokenizer.from_file(f"{model_folder}/tokenizer.json")
    scores = json.loads((folder / "result.json").read_text())["result"]["scores"]
    told = {(score["task"], score["metric"]): score["value"] for score in scores if score["task"].startswith("mmlu")}
    own, wrong = recomputed(folder, tokenizer), 0
    for key, value in told.items():
        if key in own:  # a group of lm-eval's mmlu (mmlu_stem) is not made up here
            wrong += abs(own[key] - value) > 1e-12
            if key[0] in WAYS or len(told) < 30 or abs(own[key] - value) > 1e-12:
                print(f"{key[0]:<20} {key[1]:<16} told {value:.6f}  recomputed {own[key]:.6f}")
    print(f"{folder}: {sum(key in own for key in told)} scores recomputed, {wrong} differ")
    assert {key for key in own if key[0] not in WAYS} <= told.keys()
    if n:
        difference, count = largest_difference(folder, model_folder, tokenizer, n)
        print(f"log-likelihoods of {count} answers: largest difference {difference:.2e}")
        wrong += difference > 1e-3
    return int(wrong > 0)


if __name__ == "__main__":
    count = int(sys.argv[sys.argv.index("--likelihoods") + 1]) if "--likelihoods" in sys.argv else 0
    sys.exit(main(Path(sys.argv[1]), count))
