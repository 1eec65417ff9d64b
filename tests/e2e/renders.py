"""Prompts as the installed harnesses render them, beside our copy of what they do: `python tests/e2e/renders.py MODEL`.

Prints [[name, ours, theirs], ...] as JSON; the harnesses' own methods run on the real tokenizer, without a model.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

from pipeline.training.merge_prompts import CASES, ids_of, text_of

THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)
WITH_BOS = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"


def of_lm_eval(tokenizer: Any, messages: list[dict[str, str]], thinking: bool | None) -> tuple[str, list[int]]:
    from lm_eval.models.huggingface import HFLM

    words = {} if thinking is None else {"enable_thinking": thinking}
    model = SimpleNamespace(
        tokenizer=tokenizer, chat_template_args=words, add_bos_token=None, custom_prefix_token_id=None,
        prefix_token_id=tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id,
    )  # fmt: skip
    text = HFLM.apply_chat_template(model, messages)
    return text, HFLM.tok_encode(model, text)


def of_evalscope(tokenizer: Any, messages: list[dict[str, str]], thinking: bool | None) -> tuple[str, list[int]]:
    from evalscope.api.messages import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser
    from evalscope.models.modelscope import ModelScopeAPI

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    model = SimpleNamespace(tokenizer=tokenizer, enable_thinking=thinking)
    talk = [kinds[turn["role"]](content=turn["content"]) for turn in messages]
    text = ModelScopeAPI.ms_chat(model, talk, [])
    return text, tokenizer([text], padding=True)["input_ids"][0]


def main(model: str) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    found = []
    for name, template in (("plain", None), ("thinking", THINKING), ("no system", NO_SYSTEM), ("bos", WITH_BOS)):
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.chat_template = template or tokenizer.chat_template
        if name == "bos":  # a tokenizer that puts its first token in by itself, as Llama 3's does
            tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
                single=f"{tokenizer.bos_token} $A", special_tokens=[(tokenizer.bos_token, tokenizer.bos_token_id)]
            )
        for harness, theirs in (("lm_eval", of_lm_eval), ("evalscope", of_evalscope)):
            for thinking in (None, True, False):
                for case, messages in CASES.items():
                    if name == "no system" and case.startswith("system") and harness == "evalscope":
                        continue  # both fail
                    reader = {"harness": harness, **({} if thinking is None else {"enable_thinking": thinking})}
                    text = text_of(tokenizer, messages, reader)
                    ours = (text, ids_of(tokenizer, text, reader))
                    found.append(
                        [f"{name} {harness} {thinking} {case}", ours, theirs(tokenizer, [*messages], thinking)]
                    )
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
