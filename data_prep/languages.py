"""Which language a text is in: by its script where that tells, by py3langid among the languages of one script."""

from __future__ import annotations

import re
from copy import copy
from functools import cache
from typing import Any

FEWEST = 20
"""Letters that a text must have; of less, no method tells reliably. A Chinese, Japanese or Korean one counts thrice."""
_LOOK = 1000
_DENSE = 3
_SCRIPTS = {
    "Hani": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f",
    "Kana": "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9d",
    "Hang": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
    "Latn": "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "Cyrl": "\u0400-\u052f",
    "Arab": "\u0620-\u06ff\u0750-\u077f",
    "Deva": "\u0900-\u097f",
    "Thai": "\u0e01-\u0e4e",
    "Hebr": "\u05d0-\u05ea",
    "Grek": "\u0370-\u03ff\u1f00-\u1fff",
}
# Code and names in Latin letters stand in texts of every language, so a tenth of another script decides for that.
_RUNS = {script: re.compile(f"[{chars}]") for script, chars in _SCRIPTS.items()}
_ONE = {"Hani": "zh", "Kana": "ja", "Hang": "ko", "Thai": "th", "Hebr": "he", "Grek": "el"}
_SEVERAL = {
    "Latn": frozenset("ca cs da de en es fi fr hr hu id it ms nl no pl pt ro sk sl sv tr vi".split()),
    "Cyrl": frozenset("be bg kk mk mn ru sr uk".split()),
    "Arab": frozenset("ar fa ur".split()),
    "Deva": frozenset("hi mr ne".split()),
}


def language(text: str) -> str:
    """The ISO 639 code of the language of ``text``, ``und`` for too few letters.

    Without py3langid a script of several languages gives its ISO 15924 code, such as ``Latn``. The first 1000
    characters are looked at.
    """
    text = text[:_LOOK]
    counts = {script: len(letters.findall(text)) for script, letters in _RUNS.items()}
    for script in ("Hani", "Kana", "Hang"):
        counts[script] *= _DENSE
    letters = sum(counts.values())
    if letters < FEWEST:
        return "und"
    others = {script: count for script, count in counts.items() if script != "Latn" and count > 0.1 * letters}
    script = max(others, key=others.__getitem__, default="Latn")
    if script == "Hani" and counts["Kana"] > 0.1 * counts["Hani"]:
        script = "Kana"
    if script in _ONE:
        return _ONE[script]
    identifier = identifiers()
    return str(identifier[script].classify(text)[0]) if identifier else script


def method() -> str:
    """How `language` tells languages here, for whoever reads its results."""
    return "script, py3langid within a script" if identifiers() else "script"


@cache
def identifiers() -> dict[str, Any]:
    """An identifier for each script of several languages; empty when py3langid is not installed. About 0.6 s."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]
    except ImportError:
        return {}
    whole = LanguageIdentifier.from_model_file(MODEL_FILE)
    found: dict[str, Any] = {}
    for script, codes in _SEVERAL.items():
        found[script] = copy(whole)  # the tables are shared
        found[script].set_languages(codes & set(whole.labels))
    return found
