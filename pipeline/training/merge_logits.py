"""A merged model against base + adapter, on a few prompts: `python -m pipeline.training.merge_logits OUT ...`.

The one program of the pipeline that loads weights itself, a process of its own; it writes merge.json. The models are
loaded one after the other, in float32 where memory holds that, so that nothing but the rounding of the stored weights
is left to differ. What the numbers mean is `merge_check`'s business.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.errors import InputError
from data_prep.template import TemplateSpec, parse_settings, quiet
from pipeline import processes
from pipeline.files import read_json, write_json
from pipeline.training import merge_check, merge_prompts, merge_tensors

RESULT = "merge.json"
LARGE = 3e9
"""Parameters from which a CPU gets fewer and shorter prompts: four passes over 32 B cost 25 TFLOP even so."""


class Budget(NamedTuple):
    rows: int
    tokens: int
    """Of a prompt, at most."""


def budget(parameters: float, *, cuda: bool) -> Budget:
    return Budget(2, 24) if parameters > LARGE and not cuda else Budget(4, 64)


def arithmetic(parameters: float, free: float) -> str | None:
    """The data type to compute in, by bytes of free memory; None if not even two bytes a weight fit."""
    room = 0.85 * free
    return "float32" if 4 * parameters <= room else "bfloat16" if 2 * parameters <= room else None


def placed(parameters: float, places: Sequence[tuple[bool, float]]) -> tuple[bool, str | None]:
    """On a GPU or not, and the data type: the first of (GPU?, free bytes) with room, else the last one without."""
    found = [(cuda, arithmetic(parameters, free)) for cuda, free in places]
    return next((one for one in found if one[1]), found[-1])


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.training.merge_logits", description=__doc__)
    parser.add_argument("out", type=Path)
    for name in ("base", "adapter", "merged"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rows", type=Path, nargs="+", required=True, help="rows of the data; the first file with any")
    parser.add_argument("--model-type")
    parser.add_argument("--template")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as for data_prep tokens")
    parser.add_argument("--system", help="system prompt that the data got where they had none")
    parser.add_argument("--readers", default="[]", help="JSON: how each suite renders a prompt")
    parser.add_argument("--cuda", action="store_true", help="compute on the GPU")
    parser.add_argument("--trust-remote-code", action="store_true")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments().parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        write_json(options.out / RESULT, run(options))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """{logits or tensors, templates}: numbers, no verdict."""
    from transformers.utils.logging import disable_progress_bar

    from data_prep.template import RowTemplate

    disable_progress_bar()  # type: ignore[no-untyped-call]
    given = merge_prompts.rows(options.rows, Budget(4, 64).rows)
    settings = parse_settings(options.set)
    say("loading the templates")
    template = RowTemplate(TemplateSpec(options.base, options.model_type, options.template, settings))
    found: dict[str, Any] = {}
    if settings.get("use_chat_template", True):
        found |= templates(options, template, given)
    if (options.adapter / "adapter_config.json").is_file():
        found["logits"] = logits(options, template, given)
    else:
        say("comparing tensors")
        found["tensors"] = merge_tensors.compared(options.adapter, options.merged, options.base)
    return found


def templates(options: argparse.Namespace, template: Any, given: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from transformers import AutoTokenizer

    with quiet():
        tokenizers = {
            name: AutoTokenizer.from_pretrained(folder, trust_remote_code=options.trust_remote_code)
            for name, folder in (("merged", options.merged), ("base", options.base))
        }
    plain = next((row for row in given if merge_prompts.usable(row)), None)
    readers = json.loads(options.readers)
    return {
        "templates": merge_prompts.compared(template, tokenizers["merged"], readers, plain, options.system),
        "export_changed": merge_prompts.of_export(tokenizers),
    }


def logits(options: argparse.Namespace, template: Any, given: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """See `merge_check`; needs room for one model and for two sets of log-probabilities."""
    method = next(filter(None, map(quantized, (options.merged, options.base))), None)
    if method:
        return {
            "unchecked": f"its weights are quantized ({method}), which is more than rounding: the scores tell its cost"
        }
    parameters, stored = merge_tensors.size(options.merged)
    places = [(cuda, free_memory(cuda=cuda)) for cuda in ((True, False) if options.cuda else (False,))]
    options.cuda, dtype = placed(parameters, places)
    if dtype is None:
        return {
            "unchecked": f"{parameters / 1e9:.1f} B parameters need {2 * parameters / 2**30:.0f} GiB of memory, and "
            f"{max(free for _, free in places) / 2**30:.0f} GiB are free"
        }
    limits = budget(parameters, cuda=options.cuda)
    prompts = merge_prompts.encoded(template, given, limits.rows, limits.tokens)
    say(f"base and adapter, in {dtype}")
    base = load(options, options.base, dtype)
    before = list(probabilities(base, prompts))
    tuned = adapted(base, options.adapter)
    reference = list(probabilities(tuned, prompts))
    effect = distances(before, reference)
    say("the same, merged and rounded")
    tuned.merge_adapter()
    to_stored(tuned, stored)
    rounding = distances(probabilities(tuned, prompts), reference)
    del base, tuned  # the merged model takes their place
    say("the merged model")
    seen = list(probabilities(load(options, options.merged, dtype), prompts))
    merged = distances(seen, reference)
    return {
        **merged,
        "tolerance": None if rounding["mean_abs"] is None else merge_check.tolerance(rounding["mean_abs"]),
        "rounding": rounding["mean_abs"],
        "base_distance": effect["mean_abs"],
        "merged_to_base": distances(seen, before)["mean_abs"],
        "prompts": len(prompts),
        "tokens": sum(map(len, prompts)),
        "dtype": dtype,
        "merged_dtype": stored,
        "device": "cuda" if options.cuda else "cpu",
    }


def quantized(folder: Path) -> str | None:
    """How a model's weights are quantized in its files (gptq, awq, bitsandbytes, ...); None if they are not."""
    config = read_json(folder / "config.json") or {}
    settings = config.get("quantization_config")
    return str(settings.get("quant_method", "quantized")) if isinstance(settings, dict) else None


def load(options: argparse.Namespace, folder: Path, dtype: str) -> Any:
    """A causal language model, ready to be asked."""
    import torch
    from transformers import AutoModelForCausalLM

    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            device_map={"": "cuda:0" if options.cuda else "cpu"},
            trust_remote_code=options.trust_remote_code,
        )
    return model.eval()


def adapted(base: Any, adapter: Path) -> Any:
    from peft import PeftModel

    with quiet():
        return PeftModel.from_pretrained(base, str(adapter)).eval()


def to_stored(model: Any, stored: str) -> None:
    """Round all weights to the type they are stored in, in place."""
    import torch

    for weight in model.parameters():
        weight.data = weight.data.to(getattr(torch, stored)).to(weight.dtype)


def probabilities(model: Any, prompts: Sequence[Sequence[int]]) -> Iterator[Any]:
    """Log-probabilities in float32 on the CPU, tokens x vocabulary, of one prompt after the other."""
    import torch

    for ids in prompts:
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0]
            yield torch.log_softmax(out.float(), dim=-1).cpu()


def distances(found: Any, reference: Sequence[Any]) -> dict[str, float | None]:
    """Mean and largest absolute difference in nats, and the share of positions with the same likeliest token."""
    total = most = same = 0.0
    count = positions = 0
    for ours, theirs in zip(found, reference, strict=True):
        difference = (ours - theirs).abs()
        total += difference.double().sum().item()
        most = max(most, difference.max().item())
        count += difference.numel()
        same += (ours.argmax(-1) == theirs.argmax(-1)).sum().item()
        positions += len(ours)
    mean = total / count
    finite = math.isfinite(mean)
    return {
        "mean_abs": mean if finite else None,
        "max_abs": most if finite else None,
        "top1_agreement": same / positions,
    }


def free_memory(*, cuda: bool) -> float:
    """Bytes."""
    if cuda:
        import torch

        return float(torch.cuda.mem_get_info()[0])
    return float(processes.free_memory())


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
