"""What the task files beside this one call, inside lm-eval's own process: nothing of the pipeline imports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from lm_eval.api.samplers import FirstNSampler
from lm_eval.api.task import ConfigurableTask

LETTERS = "ABCD"


class Shuffled(FirstNSampler):  # type: ignore[misc]
    """The first n examples of the file in another order, one order for all questions."""

    def __init__(self, df: Sequence[dict[str, Any]], seed: int) -> None:
        super().__init__(df)
        self.seed = seed

    def sample(self, n: int, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        return Random(self.seed).sample(list(super().sample(n, *args, **kwargs)), n)  # noqa: S311


class Way(ConfigurableTask):  # type: ignore[misc]
    """A task of lm-eval that also takes `shot_seed`; it is kept in the metadata, which the results show."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        seed = config.get("shot_seed")
        rest = {key: value for key, value in config.items() if key not in ("class", "shot_seed")}
        super().__init__(config=rest | {"metadata": {**config["metadata"], "shot_seed": seed}})
        if seed is not None:
            self.sampler = Shuffled(list(self.fewshot_docs()), seed)


def lettered(doc: Mapping[str, Any]) -> list[str]:
    return [f"{letter}. {choice}" for letter, choice in zip(LETTERS, doc["choices"], strict=True)]


def likeliest_letter(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """`results`: of each letter its log-probability, and whether it is the likeliest of all tokens.

    A letter is one token, so where none of the four is what greedy decoding writes, the likeliest token is another.
    """
    best = max(range(len(LETTERS)), key=lambda index: results[index][0])
    greedy = any(is_greedy for _, is_greedy in results)
    return {"acc": float(best == doc["answer"]), "none_of_letters": float(not greedy)}


def written_letter(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`results`: what was written, one token."""
    text = results[0].strip()
    return {
        "exact_match": float(text == LETTERS[doc["answer"]]),
        "none_of_letters": float(text not in tuple(LETTERS)),
    }
