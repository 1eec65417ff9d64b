"""Own metrics: by hand, and against the libraries the field uses."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from pipeline.bank import letters, metrics

KNOWN = "ABCDE"
SETS = ["".join(part) for n in range(1, 6) for part in itertools.combinations(KNOWN, n)]
picks = st.sampled_from(["", *SETS])
rights = st.sampled_from(SETS)


@pytest.mark.parametrize(
    ("chosen", "right", "value"),
    [
        ("AC", "AC", 1.0),
        ("A", "AC", 0.5),
        ("A", "ACD", 1 / 3),
        ("AB", "AC", 0.0),  # one wrong letter leaves nothing
        ("ACD", "AC", 0.0),
        ("", "AC", 0.0),
        ("B", "B", 1.0),
        ("A", "B", 0.0),
    ],
)
def test_elastic_accuracy(chosen, right, value):
    assert metrics.elastic_accuracy(chosen, right) == pytest.approx(value)


@given(picks, rights)
def test_elastic_accuracy_is_at_least_accuracy_and_equal_for_one_right_answer(chosen, right):
    exact, elastic = metrics.accuracy(chosen, right), metrics.elastic_accuracy(chosen, right)
    assert exact <= elastic <= 1
    if len(right) == 1:
        assert exact == elastic
    if set(chosen) - set(right):
        assert elastic == 0


def test_macro_f1_by_hand():
    # A: TP 1, FP 1, FN 0 -> 2/3; B: TP 0, FP 0, FN 1 -> 0; C: TP 1 -> 1; D is nowhere.
    assert metrics.macro_f1([("A", "A"), ("A", "B"), ("C", "C")]) == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert metrics.macro_f1([("", "A")]) == 0
    assert metrics.macro_f1([]) == 0


@given(st.lists(st.tuples(picks, rights), min_size=1, max_size=12))
def test_macro_f1_is_that_of_scikit_learn(answers):
    used = [letter for letter in KNOWN if any(letter in text for pair in answers for text in pair)]
    guessed, right = ([[int(letter in pair[side]) for letter in used] for pair in answers] for side in (0, 1))
    assert metrics.macro_f1(answers) == pytest.approx(f1_score(right, guessed, average="macro", zero_division=0))


def test_words():
    assert metrics.words("The DOG, it's 3 o'clock!", "en") == ["the", "dog", "it", "s", "3", "o", "clock"]
    assert metrics.words("患者的知情同意权，很重要。PTSD？", "zh") == [
        "患者",
        "的",
        "知情",
        "同意权",
        "很",
        "重要",
        "ptsd",
    ]


def test_rouge_by_hand():
    # answer 4 words, reference 5; 3 in common, in the order "the cat sat" -> both F are 2 * (3/4 * 3/5) / (3/4 + 3/5)
    one, longest = metrics.rouge("the cat sat down", "the cat sat on it", "en")
    assert one == longest == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    one, longest = metrics.rouge("sat cat the", "the cat sat", "en")  # the same words, the other way round
    assert (one, longest) == (1.0, pytest.approx(1 / 3))
    assert metrics.rouge("", "the cat", "en") == (0, 0)


@pytest.mark.parametrize(
    ("answer", "reference"), [("我很难过", "我今天很难过，也累"), ("请联系热线", "你现在安全吗？请拨打热线")]
)
def test_rouge_of_chinese_is_that_of_rouge_chinese(answer, reference):
    from rouge_chinese import Rouge

    spaced = [" ".join(metrics.words(text, "zh")) for text in (answer, reference)]
    [found] = Rouge().get_scores(*spaced)
    one, longest = metrics.rouge(answer, reference, "zh")
    assert one == pytest.approx(found["rouge-1"]["f"], abs=1e-6)
    assert longest == pytest.approx(found["rouge-l"]["f"], abs=1e-6)


def test_bleu_is_that_of_nltk_and_sacrebleu():
    from nltk.translate.bleu_score import corpus_bleu
    from sacrebleu import sentence_bleu

    pairs = [
        ("the cat sat on the mat today", "the cat sat on a mat today"),
        ("he reads a very long book", "he reads a very good long book"),
    ]
    split = [(answer.split(), [reference.split()]) for answer, reference in pairs]
    expected = corpus_bleu([reference for _, reference in split], [answer for answer, _ in split])
    assert metrics.corpus_bleu(pairs, "en") == pytest.approx(expected, abs=1e-9)
    assert metrics.bleu(*pairs[0], "en") == pytest.approx(
        sentence_bleu(pairs[0][0], [pairs[0][1]], tokenize="none").score / 100
    )
    assert metrics.bleu("我很难过", "我很难过", "zh") == pytest.approx(1.0)
    assert metrics.bleu("", "the cat", "en") == 0


def test_key_points():
    rate = metrics.key_point_rate
    assert rate("请您，拨打 心理 热线！", ["心理热线", "安全"]) == 0.5
    assert rate("Write  the worries DOWN, then sleep.", ["write the worries down"]) == 1
    assert rate("He is a candidate.", ["date"]) == 0, "a word is found only whole"
    assert rate("使用CBT疗法", ["CBT", "疗法"]) == 1
    assert rate("", ["x"]) == 0


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("ANSWER: B", "B"),
        ("The answer is C.", "C"),
        ("Reasoning...\n**ANSWER: A, C**", "AC"),
        ("ANSWER: B, not C", "B"),
        ("ANSWER: A and C because both hold", "AC"),
        ("答案：A、C。", "AC"),
        ("正确答案是BD", "BD"),
        ("答案是：选项B", "B"),
        ("故选 AD", "AD"),
        ("所以应该选择A和C。", "AC"),
        ("正确选项为：**B**。", "B"),
        ("The correct option is (C).", "C"),
        ("选项A不对。", ""),
        ("$\\boxed{C}$ is it. ANSWER: \\boxed{C}", "C"),
        ("B", "B"),
        ("(b)", "B"),
        ("B. Because it is so.", "B"),
        ("AC", "AC"),
        ("A, C", "AC"),
        ("First I thought of A.\nD", "D"),
        ("ANSWER: A\nNo, wait.\nANSWER: D", "D"),
        ("ANSWER: a", "A"),
        ("<think>ANSWER: A</think>ANSWER: D", "D"),
        ("green", "C"),
        ("ANSWER: LETTER", ""),
        ("ANSWER: X", ""),
        ("The answer is a matter of taste", ""),
        ("A dog barks", ""),
        ("I do not know", ""),
        ("", ""),
        ("Option B", "B"),
        ("**选项C**", "C"),
        ("So we get\n\n$\\boxed{D}$", "D"),
        ("\\[\\boxed{\\text{A}}\\]", "A"),
        ("\\boxed{4}", ""),
        ("Optional", ""),
    ],
)
def test_letters_out_of_a_text(text, right):
    assert letters.chosen(text, "ABCD", ["red", "blue", "green", "white"]) == right


def test_the_first_answer_counts_where_the_prompt_had_examples():
    text = "ANSWER: B\n\nAnother question?\nA) x\nB) y\nANSWER: A"
    assert letters.chosen(text, "ABCD", first=True) == "B"
    assert letters.chosen("C\n\nAnother question?\nANSWER: A", "ABCD", first=True) == "C"
    assert letters.chosen(text, "ABCD") == "A"


@given(
    rights,
    st.sampled_from(["ANSWER: {}", "答案：{}", "The answer is {}.", "So:\n**Answer: {}**", "{}", "({})"]),
    st.sampled_from([",", ", ", "、", "", "/", " "]),
)
def test_letters_come_back_however_they_are_written(right, form, separator):
    assert letters.chosen(form.format(separator.join(right)), KNOWN) == right


@given(st.text(max_size=80))
def test_any_text_gives_known_letters(text):
    found = letters.chosen(text, "ABC")
    assert set(found) <= set("ABC") and found == "".join(sorted(set(found)))


@given(rights, st.sampled_from([",", ", ", "、", "", "/", ";", " and ", "和"]), st.booleans())
def test_answer_column(right, separator, lower):
    text = separator.join(right)
    assert letters.answer_letters(text.lower() if lower else text, KNOWN) == right
    assert letters.answer_letters(list(right), KNOWN) == right


@pytest.mark.parametrize("value", ["", None, 2, "F", "AA", "the second", ["A", 1]])
def test_answer_column_that_is_none(value):
    with pytest.raises(ValueError, match="answer"):
        letters.answer_letters(value, KNOWN)
