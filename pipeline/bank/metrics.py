"""Our own metrics of own question banks, the same for every harness. Pure; values are fractions from 0 to 1.

Multiple choice, with R the right letters of an item and C the chosen ones:
  accuracy           1 if C = R, else 0
  elastic accuracy   |C| / |R| if C is a part of R and not empty, else 0: a wrong letter leaves nothing
  macro F1           over all items: of each letter 2 TP / (2 TP + FP + FN), then their mean over the letters that are
                     right or chosen anywhere. An item without an answer counts as FN for its right letters.

Open answers, compared as lists of words (`words`):
  ROUGE-1, ROUGE-L   F1 of common words, and of the longest common subsequence (Lin 2004), by `rouge_score`
  BLEU               Papineni et al. 2002 by `sacrebleu`: of one answer with effective order and exponential smoothing
                     (Chen & Cherry 2014, method 3); of the whole corpus without effective order
  key points         share of the listed points whose text occurs in the answer, once both are folded (`folded`)
"""

from __future__ import annotations

import logging
import re
import statistics
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

_WORD = re.compile(r"\w+")
_GAP = re.compile(r"(?<=[^\x00-\u024f]) | (?=[^\x00-\u024f])")
"""A blank beside a character that is not Latin: Chinese is written with or without."""


def accuracy(chosen: str, right: str) -> float:
    """Both as sorted letters."""
    return float(set(chosen) == set(right))


def elastic_accuracy(chosen: str, right: str) -> float:
    picked = set(chosen)
    return len(picked) / len(set(right)) if picked and picked <= set(right) else 0.0


def macro_f1(answers: Sequence[tuple[str, str]]) -> float:
    """Of (chosen, right) pairs; 0 without any."""
    letters = sorted({letter for pair in answers for text in pair for letter in text})
    values = []
    for letter in letters:
        both = sum(letter in chosen and letter in right for chosen, right in answers)
        one = sum((letter in chosen) != (letter in right) for chosen, right in answers)
        values.append(2 * both / (2 * both + one))
    return statistics.fmean(values) if values else 0.0


def words(text: str, language: str) -> list[str]:
    """Words in lower case, without punctuation; Chinese (`zh`) is cut by jieba, anything else at what is no letter."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    cut = _segmenter()(plain) if language == "zh" else [plain]
    return [word for part in cut for word in _WORD.findall(part)]


def rouge(answer: str, reference: str, language: str) -> tuple[float, float]:
    """ROUGE-1 and ROUGE-L (F)."""
    found = _scorer(language).score(reference, answer)
    return float(found["rouge1"].fmeasure), float(found["rougeL"].fmeasure)


def bleu(answer: str, reference: str, language: str) -> float:
    """Of one answer."""
    metric = _bleu(effective_order=True)
    spaced = [" ".join(words(text, language)) for text in (answer, reference)]
    return float(metric.sentence_score(spaced[0], [spaced[1]]).score) / 100


def corpus_bleu(answers: Sequence[tuple[str, str]], language: str) -> float:
    """Of (answer, reference) pairs taken together, which is no mean of their values."""
    spaced = [[" ".join(words(text, language)) for text in pair] for pair in answers]
    found = _bleu(effective_order=False).corpus_score([pair[0] for pair in spaced], [[pair[1] for pair in spaced]])
    return float(found.score) / 100


def key_point_rate(answer: str, points: Sequence[str]) -> float:
    """Share of `points` (at least one) that occur in the answer; a Latin word is found only whole."""
    text = folded(answer)
    return statistics.fmean(_occurs(folded(point), text) for point in points)


def folded(text: str) -> str:
    """NFKC, lower case, punctuation as one blank, and no blank beside a character that is not Latin."""
    plain = " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))
    return _GAP.sub("", plain)


def _occurs(point: str, text: str) -> bool:
    before = "(?<![a-z0-9])" if re.match(r"[a-z0-9]", point) else ""
    after = "(?![a-z0-9])" if re.search(r"[a-z0-9]$", point) else ""
    return bool(point) and re.search(f"{before}{re.escape(point)}{after}", text) is not None


class _Words:
    """What `rouge_score` wants of a tokenizer."""

    def __init__(self, language: str) -> None:
        self.language = language

    def tokenize(self, text: str) -> list[str]:
        return words(text, self.language)


@cache
def _scorer(language: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rougeL"], tokenizer=_Words(language))


@cache
def _bleu(*, effective_order: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize="none", effective_order=effective_order)


@cache
def _segmenter() -> Callable[[str], list[str]]:
    import jieba

    jieba.setLogLevel(logging.WARNING)  # it announces its dictionary on stderr
    cut: Callable[[str], list[str]] = jieba.lcut
    return cut
