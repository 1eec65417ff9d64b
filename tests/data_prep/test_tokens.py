"""Token counts of the model's own chat template, statistics of lengths, and that both agree with the trainer."""

from __future__ import annotations

import json
import math
import pickle
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep import lengths, measure
from data_prep.chat_template import template_messages, template_tools
from data_prep.conversation import Conversation, Message
from data_prep.errors import InputError
from data_prep.languages import language
from data_prep.lengths import epoch_of, histogram, mean_of, quantile, share_of, trained_length
from data_prep.line_sample import lines, records, sample
from data_prep.token_count import TokenCounter, byte_level_expansion
from data_prep.tokens import main
from tests.tiny_model import CHATML, make

SETTINGS = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CALLS = (
    "{% if tools %}{{ tools | tojson }}\n{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.tool_calls %}"
    "{% for c in m.tool_calls %}<{{ c.id }} {{ c.function.name }} {{ c.function.arguments | tojson }}>{% endfor %}"
    "{% endif %}{% if m.tool_call_id %}({{ m.name }} {{ m.tool_call_id }}){% endif %}{{ eos_token }}{% endfor %}"
)
TOOLED = Conversation(
    (
        Message("user", "问"),
        Message("assistant", "wait"),
        Message("tool_call", '{"name":"f","arguments":{"x":"<&>"}}'),
        Message("tool_call", '{"name":"g","arguments":{}}'),
        Message("tool_response", "1"),
        Message("tool_response", "2"),
        Message("assistant", "done"),
    ),
    '[{"name":"f","parameters":{}}]',
)


def tokenizer(folder: Path, template: str | None = CHATML, **config: Any) -> Path:
    """A byte-level tokenizer, as `tests.tiny_model` has it, without a model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["the quick brown fox asks a question and gives an answer"] * 4, trainer)
    made.enable_truncation(5)  # tokenizer files of models that were trained with it have this in them
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    chat = {} if template is None else {"chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>", **chat, **config}))
    return folder


def chat(*turns: str, system: str | None = None, tools: str | None = None) -> Conversation:
    head = [] if system is None else [Message("system", system)]
    roles = ("user", "assistant")
    return Conversation((*head, *(Message(roles[at % 2], turn) for at, turn in enumerate(turns))), tools)


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path


def test_the_text_that_is_counted(tmp_path: Path) -> None:
    counter = TokenCounter(tokenizer(tmp_path))
    text = "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
    assert counter.render(chat("q", "a", system="s")) == text
    marks = text.count("<|")
    plain = text.replace("<|im_start|>", "").replace("<|im_end|>", "")
    assert marks < counter.count(chat("q", "a", system="s")) <= marks + len(plain)
    assert counter.special_tokens == tuple(sorted(SPECIAL))


@SETTINGS
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=2, max_size=4))
def test_fitting_is_counting(tmp_path: Path, turns: list[str]) -> None:
    counter = TokenCounter(tokenizer(tmp_path) if not (tmp_path / "tokenizer.json").exists() else tmp_path)
    row = chat(*turns)
    count = counter.count(row)
    assert counter.fits(row, count) and not counter.fits(row, count - 1)
    assert count <= len(counter.render(row).encode())


def test_short_rows_are_not_tokenized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = TokenCounter(tokenizer(tmp_path))
    monkeypatch.setattr(TokenCounter, "_length", lambda *_: pytest.fail("was tokenized"))
    assert counter.fits(chat("q", "a"), 100)


def test_a_counter_goes_to_other_processes(tmp_path: Path) -> None:
    counter = TokenCounter(tokenizer(tmp_path))
    assert pickle.loads(pickle.dumps(counter)).count(chat("q", "a")) == counter.count(chat("q", "a"))


def test_tool_turns_in_the_words_of_templates(tmp_path: Path) -> None:
    counter = TokenCounter(tokenizer(tmp_path, CALLS))
    assert counter.render(TOOLED) == (
        '[{"type": "function", "function": {"name": "f", "parameters": {}}}]\n'
        '[user]问<|im_end|>[assistant]wait<call00002 f {"x": "<&>"}><call00003 g {}><|im_end|>'
        "[tool]1(f call00002)<|im_end|>[tool]2(g call00003)<|im_end|>[assistant]done<|im_end|>"
    )
    without = TokenCounter(tokenizer(tmp_path / "b"))
    text = without.render(TOOLED)
    for part in (TOOLED.tools, *(message.content for message in TOOLED.messages)):
        assert part is not None and part in text


def test_calls_without_text_before_them() -> None:
    row = Conversation((Message("user", "q"), Message("tool_call", '{"name":"f","arguments":{}}')))
    assert [message["role"] for message in template_messages(row, calls=True)] == ["user", "assistant"]


def test_templates_by_name_and_in_files(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T {{ tools | length }}"}]
    counter = TokenCounter(tokenizer(tmp_path, None, chat_template=named))
    assert (counter.render(chat("q", "a")), counter.render(TOOLED)) == ("D", "T 1")
    (tmp_path / "chat_template.jinja").write_text("F")
    assert TokenCounter(tmp_path).render(chat("q", "a")) == "F"


def test_what_transformers_gives_templates(tmp_path: Path) -> None:
    source = (
        "{%- generation -%}{{ strftime_now('%Y') }}{%- endgeneration -%}"
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}\n    {{ m.content | tojson }}{% endfor %}"
    )
    counter = TokenCounter(tokenizer(tmp_path, source))
    assert counter.render(chat("<问>", "a")) == '2024    "<问>"'


def test_a_template_is_held_in_a_sandbox(tmp_path: Path) -> None:
    escape = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    assert "class" not in TokenCounter(tokenizer(tmp_path, escape)).render(chat("q", "a"))


def test_a_row_that_the_template_refuses_is_counted_plainly(tmp_path: Path) -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x"
    counter = TokenCounter(tokenizer(tmp_path, source))
    assert counter.render(chat("q", "a")) == "x"
    assert counter.render(chat("q", "a", system="s")) == "s\nq\na<|im_end|>"


def test_a_model_without_a_template(tmp_path: Path) -> None:
    counter = TokenCounter(tokenizer(tmp_path, None))
    assert (counter.has_template, counter.render(chat("q", "a"))) == (False, "q\na<|im_end|>")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("tokenizer.json", None, "there is no tokenizer.json"),
        ("tokenizer.json", "{", r"tokenizer\.json: this is not JSON"),
        ("tokenizer_config.json", "[]", "no JSON object"),
        ("chat_template.jinja", "{% if %}", "chat template cannot be read"),
    ],
)
def test_folders_that_are_no_good(tmp_path: Path, name: str, data: str | None, words: str) -> None:
    tokenizer(tmp_path)
    (tmp_path / name).unlink(missing_ok=True) if data is None else (tmp_path / name).write_text(data)
    with pytest.raises(InputError, match=words):
        TokenCounter(tmp_path)


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({}, 1),
        ({"normalizer": {"type": "NFC"}}, 3),
        ({"normalizer": {"type": "NFKC"}}, None),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}}, None),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split"}, {"type": "ByteLevel"}]}}, 1),
        ({"pre_tokenizer": {"type": "Metaspace"}}, None),
        ({"pre_tokenizer": None}, None),
        ({"model": {"type": "Unigram"}}, None),
    ],
)
def test_when_a_byte_bounds_the_tokens(changes: dict[str, Any], bound: int | None) -> None:
    tokenizer_json = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel"}, "normalizer": None}
    assert byte_level_expansion({**tokenizer_json, **changes}) == bound


def test_a_sample_is_a_matter_of_content(tmp_path: Path) -> None:
    rows = [{"messages": [], "n": number} for number in range(300)]
    path = write(tmp_path / "a.jsonl", *rows)

    def picked(path: Path, size: int | None, seed: int = 1) -> list[int]:
        count, chosen = sample(path, size, seed)
        assert count == 300
        numbers = [row["n"] for _, row in records(path, chosen)]
        assert all(isinstance(number, int) for number in numbers)
        return numbers  # type: ignore[return-value]

    first = picked(path, 50)
    assert first == sorted(first) and len(set(first)) == 50
    assert set(picked(path, 20)) < set(first)
    assert picked(path, 50, seed=2) != first
    assert picked(path, None) == picked(path, 300) == picked(path, 999) == list(range(300))
    random.Random(0).shuffle(rows)
    assert sorted(picked(write(tmp_path / "b.jsonl", *rows), 50)) == first
    assert abs(sum(first) / 50 - 149.5) < 4 * 87 / math.sqrt(50)


def test_lines_know_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes('\n{"messages":[],"n":"问"}\r\n  \n{"messages":[],"n":"b"}'.encode())
    chosen = [line for line, _ in lines(path)]
    assert [line.number for line in chosen] == [2, 4]
    assert [row["n"] for _, row in records(path, reversed(chosen))] == ["b", "问"]
    path.write_text('{"a":1}\n{')
    for line, _ in lines(path):
        with pytest.raises(InputError, match=f"line {line.number}"):
            list(records(path, [line]))


def test_the_mean_of_a_sample() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    made = mean_of(values, 100)
    error = math.sqrt(5 / 3) / 2 * math.sqrt(0.96)  # s / sqrt(n) * sqrt(1 - n/N)
    assert made.standard_error == pytest.approx(error, abs=1e-4)
    assert (made.low, made.high) == pytest.approx((2.5 - 1.96 * error, 2.5 + 1.96 * error), abs=1e-3)
    assert mean_of(values, 4) == mean_of(values, 3) == type(made)(2.5, 0.0, 2.5, 2.5)
    assert mean_of([], 0).mean == 0


def test_the_interval_covers_what_it_should() -> None:
    random_ = random.Random(3)
    population = [random_.lognormvariate(5, 1) for _ in range(3000)]
    truth, over = sum(population) / 3000, sum(value > 400 for value in population) / 3000
    hits = shares = 0
    for _ in range(300):
        values = random_.sample(population, 1000)
        made = mean_of(values, 3000)
        hits += made.low <= truth <= made.high
        share = share_of(sum(value > 400 for value in values), 1000, 3000)
        shares += share.low <= over <= share.high
    assert 0.91 <= hits / 300 <= 0.985 and 0.91 <= shares / 300 <= 0.985


@pytest.mark.parametrize("hits", [0, 3, 20])
def test_shares_have_wilsons_interval(hits: int) -> None:
    from statsmodels.stats.proportion import proportion_confint

    made = share_of(hits, 20, 10**12)
    assert (made.low, made.high) == pytest.approx(proportion_confint(hits, 20, method="wilson"), abs=1e-5)
    assert share_of(hits, 20, 20).low == share_of(hits, 20, 20).high == hits / 20
    assert share_of(hits, 20, 40).high - share_of(hits, 20, 40).low < made.high - made.low


@SETTINGS
@given(st.lists(st.integers(0, 5000), max_size=50))
def test_histograms_hold_every_length_once(values: list[int]) -> None:
    made = histogram(values)
    assert len(made.edges) == len(made.counts) + 1 and sum(made.counts) == len(values)
    assert made.edges == sorted(set(made.edges))
    for low, high, count in zip(made.edges, made.edges[1:], made.counts, strict=False):
        assert count == sum(low <= value < high for value in values)
    ordered = sorted(values)
    for share in (0.5, 0.99, 1.0):
        value = quantile(ordered, share)
        assert not values or sum(other <= value for other in values) >= share * len(values)
    assert quantile(ordered, 1.0) == max(values, default=0)


@SETTINGS
@given(
    st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 30), st.sampled_from(["delete", "left", "right"])
)
def test_what_the_trainer_makes_of_rows(learned: list[bool], limit: int, truncation: Any) -> None:
    """The first token of what is left is predicted by nothing, so no loss is taken of it."""
    places = [place for place, one in enumerate(learned) if one and place] or [0]
    seen = trained_length(len(learned), places[0], places[-1], limit, truncation)
    if len(learned) <= limit:
        rest = learned
    else:
        rest = {"delete": [], "left": learned[-limit:], "right": learned[:limit]}[truncation]
    assert seen == (len(rest) if any(rest[1:]) else 0)


def test_an_epoch() -> None:
    def pairs(rows: Any) -> list[int]:
        return [sum(rows[at : at + 2]) for at in range(0, len(rows), 2)]

    made = epoch_of([10, 0, 20, 10], 400, global_batch_size=32, packs=pairs, max_length=40, seed=1)
    assert (made.rows, made.tokens, made.packed_rows) == (300, 4000, 150)
    assert made.tokens_low < 4000 < made.tokens_high
    assert (made.steps, made.steps_without_packing) == (5, 10)
    assert made.packed_fill == pytest.approx(40 / 3 * 2 / 40, abs=0.03)
    plain = epoch_of([10, 0, 20, 10], 4, global_batch_size=None, packs=None, max_length=40, seed=1)
    assert (plain.rows, plain.tokens, plain.tokens_low, plain.packed_rows, plain.steps) == (3, 40, 40, None, None)
    assert epoch_of([0, 0], 2, global_batch_size=2, packs=pairs, max_length=4, seed=1).steps == 0


def test_of_very_many_rows_some_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lengths, "PACKED_ROWS", 30)
    made = epoch_of([10] * 100, 1000, global_batch_size=None, packs=lambda rows: rows[::3], max_length=30, seed=1)
    assert made.packed_rows == 333


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Describe how a bill becomes a law in your country, step by step.", "en"),
        ("Beschreibe, wie in deinem Land ein Gesetz entsteht, Schritt für Schritt.", "de"),
        ("Décrivez étape par étape comment une loi est adoptée dans votre pays.", "fr"),
        ("写一首关于大海的诗", "zh"),
        ("请把这段代码 for i in range(10): print(i) 翻译成中文说明", "zh"),
        ("海についての詩を書いてください", "ja"),
        ("바다에 관한 시를 써 주세요", "ko"),
        ("Напиши небольшое стихотворение о том, как весной просыпается море", "ru"),
        ("اكتب قصيدة قصيرة عن البحر والسماء", "ar"),
        ("2 + 2 = ?", "und"),
        ("", "und"),
    ],
)
def test_languages(text: str, code: str) -> None:
    pytest.importorskip("py3langid")
    assert language(text) == code


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-length", "0"], "--max-length is 0"),
        (["--max-length", "9", "--sample", "5"], "--sample is 5, but must be at least 100"),
        (["--max-length", "9", "--set", "external_plugins=x.py"], "--set external_plugins=x.py"),
        (["--max-length", "9"], "train.jsonl: no such file"),
    ],
)
def test_arguments_that_are_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main([str(tmp_path), str(tmp_path / "out"), "--model", "m", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("tiny"))


def conversations(count: int) -> list[Conversation]:
    random_ = random.Random(5)
    words = "the quick brown fox asks a question 问题 答案 and \n gives an answer ! {} é".split(" ")

    def text() -> str:
        return " ".join(random_.choices(words, k=random_.randint(1, 40))) + "."

    return [
        chat(*(text() for _ in range(random_.choice((2, 4)))), system=random_.choice((None, "s"))) for _ in range(count)
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_counts_are_those_of_the_trainer(model: Path, tmp_path: Path) -> None:
    from swift.dataset import AddLengthPreprocessor, PackingDataset, load_dataset
    from swift.template import get_template

    from data_prep.template import RowTemplate, TemplateSpec, packs

    rows = conversations(300)
    path = write(tmp_path / "train.jsonl", *rows)
    template = RowTemplate(TemplateSpec(model, "llama", "chatml"))
    expected = [len(template.encode(row).ids) for _, row in records(path, [line for line, _ in lines(path)])]
    assert expected == [TokenCounter(model).count(row) for row in rows]

    data, _ = load_dataset(str(path), split_dataset_ratio=0, strict=True, num_proc=1)
    its = get_template(template._template.processor, template_type="chatml", max_length=100_000)
    its.set_mode("train")
    data = AddLengthPreprocessor(template=its)(data, num_proc=1, strict=True)
    assert [length for (length,) in data["lengths"]] == expected

    packed = PackingDataset(its, data, packing_length=400)
    assert sorted(packed.packed_length) == sorted(packs(expected, 400))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_templates_are_rendered_as_transformers_renders_them(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    for number, source in enumerate(
        (CALLS, CHATML, "  {% for m in messages %}\n  {{- m.content | trim }}\n{% endfor %}\n")
    ):
        counter = TokenCounter(folder := tokenizer(tmp_path / str(number), source, bos_token="<|im_start|>"))
        theirs = PreTrainedTokenizerFast.from_pretrained(folder)
        for row in (TOOLED, chat("<q>", " a\n", system="s")) if number == 0 else (chat("<q>", " a\n", system="s"),):
            messages = template_messages(row, calls=True)
            tools = template_tools(row.tools)
            text = theirs.apply_chat_template(messages, tools=tools, tokenize=False)
            assert counter.render(row) == text
            made = theirs.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=True)
            assert counter.count(row) == len(made["input_ids"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_command(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = conversations(260)
    write(tmp_path / "train.jsonl", *rows[:240], TOOLED)
    write(tmp_path / "val.jsonl", *rows[240:])
    base = [str(tmp_path), str(tmp_path / "out"), f"--model={model}", "--model-type=llama", "--template=chatml"]
    base += ["--max-length=90", "--global-batch-size=4", "--packing"]

    def tokens(*words: str) -> Any:
        assert main([*base, *words]) == 0
        return json.loads((tmp_path / "out" / "tokens.json").read_bytes())

    exact = tokens("--exact")
    counter = TokenCounter(model)
    expected = [counter.count(row) for row in rows[:240]]
    train = exact["train"]
    assert (train["rows"], train["sampled"], train["exact"]) == (241, 241, True)
    assert train["tokens"]["mean"] == pytest.approx(sum(expected) / 240, abs=0.01)
    assert train["quantiles"]["max"] == max(expected)
    assert train["over_max_length"]["sampled_rows"] == sum(length > 90 for length in expected) > 10
    # chatml has no form for tools, so swift would leave that row out without a word.
    assert train["failed"]["line"] == 241 and "agent_template" in train["failed"]["error"]
    assert train["unlearned"]["sampled_rows"] == 0
    assert 0.2 < train["trained_share"] < 0.8
    kept = [length for length in expected if length <= 90]
    epoch = train["epoch"]
    assert (epoch["rows"], epoch["tokens"]) == (len(kept), sum(kept))
    assert sum(kept) / 90 <= epoch["packed_rows"] < len(kept)
    assert (epoch["steps"], epoch["steps_without_packing"]) == (
        math.ceil(epoch["packed_rows"] / 4),
        math.ceil(len(kept) / 4),
    )
    assert exact["val"]["rows"] == 20 and exact["val"]["epoch"] is None

    monkeypatch.setattr(measure, "SPREAD", 100)
    assert tokens("--exact", "--processes=2") == exact

    monkeypatch.undo()
    sampled = tokens("--sample=150")["train"]
    assert sampled["sampled"] == 150 and sampled["tokens"]["standard_error"] > 0
    assert abs(sampled["tokens"]["mean"] - train["tokens"]["mean"]) < 4 * sampled["tokens"]["standard_error"]
    with_tools = tokens("--exact", "--set", "agent_template=hermes")
    assert with_tools["train"]["failed"] is None and with_tools["settings"] == {"agent_template": "hermes"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_template_that_swift_does_not_have(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "train.jsonl", chat("q", "a"))
    words = [str(tmp_path), str(tmp_path), f"--model={model}", "--max-length=9"]
    assert main([*words, "--model-type=llama", "--template=nope"]) == 2
    assert "swift finds no template for it" in capsys.readouterr().err
    assert main([*words]) == 2  # several of swift's model types share this form
    assert "Name --model-type and --template" in capsys.readouterr().err
