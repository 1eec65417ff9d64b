"""Both languages of the report: every word has its Chinese, and none is left over."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import mmlu
from pipeline.report import render_html
from pipeline.report.phrases import Phrase, count, joined, recall, say
from pipeline.report.words_zh import NOUNS, REMARKS, ZH

REPORT = Path(render_html.__file__).parent
PLACE = re.compile(r"\{\w+\}")


def called(tree: ast.AST, name: str, position: int) -> Iterator[str]:
    """Texts given to a function by that name; a call with anything but a text is a mistake."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            argument = node.args[position]
            assert isinstance(argument, ast.Constant), ast.unparse(node)
            yield argument.value


def said() -> tuple[set[str], set[str]]:
    phrases, nouns = set(), set()
    for path in REPORT.glob("*.py"):
        if path.name != "phrases.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            phrases |= set(called(tree, "say", 0))
            nouns |= set(called(tree, "count", 1))
    for path in (REPORT / "templates").glob("*.jinja"):
        text = path.read_text(encoding="utf-8")
        phrases |= set(re.findall(r'\bt\("([^"]+)"', text))
        nouns |= set(re.findall(r'\bcount\([^()]*?(?:\([^()]*\))?[^()]*?, "([^"]+)"\)', text))
        assert len(re.findall(r"\bt\(", text)) == len(re.findall(r'\bt\("', text)), path
    return phrases, nouns


def test_every_phrase_has_its_chinese_and_none_is_left_over() -> None:
    phrases, nouns = said()
    assert sorted(phrases - ZH.keys()) == []
    assert sorted(ZH.keys() - phrases) == []
    assert sorted(nouns ^ NOUNS.keys()) == []


@pytest.mark.parametrize("table", [ZH, REMARKS], ids=["phrases", "remarks"])
def test_both_languages_have_the_same_places(table: dict[str, str]) -> None:
    for english, translation in table.items():
        assert sorted(PLACE.findall(english)) == sorted(PLACE.findall(translation)), english


def test_a_phrase_is_its_english_everywhere_else() -> None:
    phrase = say("{rows} of subsets", rows=count(2, "row"))
    assert phrase == "2 rows of subsets"
    assert phrase.zh == "2 行子集"
    assert {phrase: 1}["2 rows of subsets"] == 1
    assert joined([say("wrong"), "x"], "; ").zh == "错；x"


def test_a_remark_out_of_a_file_is_known_again() -> None:
    remark = recall("not done yet: train, eval.a.b")
    assert isinstance(remark, Phrase)
    assert remark.zh == "尚未完成：train, eval.a.b"
    assert recall("something a tool said") == "something a tool said"
    assert not isinstance(recall("something a tool said"), Phrase)


def test_the_rules_of_mmlu_are_known_in_chinese() -> None:
    told = [*mmlu.RULES.values(), mmlu.SOURCES["mmlu"]]
    assert [text for text in told if not isinstance(recall(text), Phrase)] == []


def test_what_the_page_is_made_of_is_installed_with_the_package() -> None:
    project = tomllib.loads((REPORT.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    left = [p.name for p in (REPORT / "templates").iterdir() if not any(p.match(pattern) for pattern in patterns)]
    assert left == []
