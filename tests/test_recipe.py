"""Recipe files: every mistake is named with file, line, place and remedy; and what YAML could surprise with is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.errors import RecipeError
from pipeline.recipe import Recipe
from pipeline.recipe_file import dump_recipe, load_recipe

GOOD = """\
name: demo
model:
  path: model
data:
  sources:
    - path: data.json
train:
  learning_rate: 1e-4
eval:
  - harness: lm_eval
    tasks: [arc_easy]
  - harness: evalscope
    datasets: [gsm8k]
"""


def load(tmp_path: Path, text: str | bytes, *overrides: str, env: dict[str, str] | None = None) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_recipe(path, overrides, env or {})


def mistakes(tmp_path: Path, text: str | bytes, *overrides: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(tmp_path, text, *overrides, env=env)
    assert caught.value.exit_code == 2
    return [text.replace(f"{tmp_path}/", "") for text in caught.value.mistakes]


def test_the_good_recipe_is_good(tmp_path):
    recipe = load(tmp_path, GOOD)
    assert recipe.train
    assert recipe.train.learning_rate == 1e-4
    assert [suite.entry for suite in recipe.eval] == ["lm_eval", "evalscope"]


# (text replaced in GOOD, replacement, the one expected mistake)
BAD = [
    # unknown keys, with a suggestion
    ("train:", "trian:", "r.yaml:7: trian: unknown key; did you mean 'train'?"),
    ("name: demo", "name: demo\nnotes: hi", "r.yaml:2: notes: unknown key; known here: benchmarks, chat_template,"),
    ("  path: model", "  pth: model", "r.yaml:3: model.pth: unknown key; did you mean 'path'?"),
    ("  learning_rate: 1e-4", "  learning_rte: 1e-4", "r.yaml:8: train.learning_rte: unknown key; did you mean 'learning_rate'?"),
    ("  learning_rate: 1e-4", "  lora_rank: 8", "r.yaml:8: train.lora_rank: unknown key; did you mean 'rank'?"),
    ("  learning_rate: 1e-4", "  xyz: 8", "r.yaml:8: train.xyz: unknown key; known here: alpha, attention,"),
    ("  learning_rate: 1e-4", "  gpu: 1", "r.yaml:8: train.gpu: unknown key; did you mean 'gpus'?"),
    ("    - path: data.json", "    - paths: data.json", "r.yaml:6: data.sources[0].paths: unknown key; did you mean 'path'?"),
    ("data:\n", "data:\n  valfraction: 0.1\n", "r.yaml:5: data.valfraction: unknown key; did you mean 'val_fraction'?"),
    ("    tasks: [arc_easy]", "    task: [arc_easy]", "r.yaml:11: eval[0].task: unknown key; did you mean 'tasks'?"),
    ("    tasks: [arc_easy]", "    tasks: [arc_easy]\n    batchsize: 4", "r.yaml:12: eval[0].batchsize: unknown key; did you mean 'batch_size'?"),
    ("    datasets: [gsm8k]", "    datasets: [gsm8k]\n    num_fewshot: 4", "r.yaml:14: eval[1].num_fewshot: unknown key; known here:"),
    ("    tasks: [arc_easy]", "    tasks:\n      - nam: x", "r.yaml:12: eval[0].tasks[0].nam: unknown key; did you mean 'name'?"),
    # required
    ("name: demo\n", "", "r.yaml:1: name: missing"),
    ("model:\n  path: model\n", "", "r.yaml:1: model: missing"),
    ("  sources:\n    - path: data.json\n", "  split_seed: 1\n", "r.yaml:4: data.sources: missing"),
    ("    tasks: [arc_easy]\n", "", "r.yaml:10: eval[0].tasks: missing"),
    ("  - harness: lm_eval\n    tasks", "  - tasks", "r.yaml:10: eval[0].harness: missing; one of lm_eval, evalscope"),
    ("    - path: data.json", "    - format: alpaca", "r.yaml:6: data.sources[0]: give either `path` (local) or `id` (hub id)"),
    # types
    ("name: demo", "name: 12", "r.yaml:1: name: should be a valid string, not 12"),
    ("  path: model", "  path: 7", "r.yaml:3: model.path: should be a valid string, not 7"),
    ("model:\n  path: model", "model: 3", "r.yaml:2: model: should be a mapping or a list, not 3"),
    ("model:\n  path: model", "model: []", "r.yaml:2: model: should have at least one entry"),
    ("1e-4", "fast", "r.yaml:8: train.learning_rate: should be a valid number, not 'fast'"),
    ("1e-4", '"1e-4"', "r.yaml:8: train.learning_rate: should be a valid number, not '1e-4'"),
    ("1e-4", "1e999", "r.yaml:8: train.learning_rate: should be a valid number, not '1e999'"),
    ("1e-4", ".inf", "r.yaml:8: train.learning_rate: should be a valid number, not '.inf'"),
    ("1e-4", "null", "r.yaml:8: train.learning_rate: should be a valid number, not null"),
    ("learning_rate: 1e-4", "rank: 1.5", "r.yaml:8: train.rank: should be a valid integer, not 1.5"),
    ("learning_rate: 1e-4", "rank: true", "r.yaml:8: train.rank: should be a valid integer, not True"),
    ("learning_rate: 1e-4", "packing: no", "r.yaml:8: train.packing: should be 'auto' or a valid boolean, not 'no'"),
    ("learning_rate: 1e-4", "gpus: two", "r.yaml:8: train.gpus: should be 'auto' or a valid integer, not 'two'"),
    ("learning_rate: 1e-4", "target_modules: [1]", "r.yaml:8: train.target_modules[0]: should be a valid string, not 1"),
    ("learning_rate: 1e-4", "extra_args: {a: null}", "r.yaml:8: train.extra_args.a: should be a valid boolean or"),
    ("learning_rate: 1e-4", "extra_args: [a]", "r.yaml:8: train.extra_args: should be a mapping"),
    ("    - path: data.json", "    path: data.json", "r.yaml:5: data.sources: should be a list"),
    ("[arc_easy]", "arc_easy", "r.yaml:11: eval[0].tasks: should be a list, not 'arc_easy'"),
    ("[arc_easy]", "[3]", "r.yaml:11: eval[0].tasks[0]: should be a valid string or a mapping, not 3"),
    ("[arc_easy]", "[a, {name: a, path: b}]", "r.yaml:11: eval[0].tasks: 'a' is listed twice; put one of them into a second suite"),
    ("[gsm8k]", "[a, a]", "r.yaml:13: eval[1].datasets: 'a' is listed twice; put one of them into a second suite"),
    ("[arc_easy]", "[]", "r.yaml:11: eval[0].tasks: should have at least one entry"),
    ("    datasets: [gsm8k]", "    datasets: [gsm8k]\n    limit: 0.5", "r.yaml:14: eval[1].limit: should be a valid integer, not 0.5"),
    ("  - harness: lm_eval\n    tasks: [arc_easy]", "  - lm_eval", "r.yaml:10: eval[0]: should be a mapping, not 'lm_eval'"),
    ("learning_rate: 1e-4", "extra_args: {--use_rslora: true}", "r.yaml:8: train.extra_args: '--use_rslora': write the flag's name without its dashes"),
    ("learning_rate: 1e-4", "extra_args: {output_dir: x}", "r.yaml:8: train.extra_args: 'output_dir' is set by the pipeline itself"),
    ("learning_rate: 1e-4", "extra_args: {save_steps: 7}", "r.yaml:8: train.extra_args: 'save_steps' is set by the pipeline itself"),
    ("[gsm8k]", "[gsm8k]\n    extra_args: {work-dir: x}", "r.yaml:14: eval[1].extra_args: 'work-dir' is set by the pipeline itself"),
    # ranges and choices
    ("1e-4", "0", "r.yaml:8: train.learning_rate: should be greater than 0, not 0"),
    ("learning_rate: 1e-4", "dropout: 1", "r.yaml:8: train.dropout: should be less than 1, not 1"),
    ("learning_rate: 1e-4", "gpus: -1", "r.yaml:8: train.gpus: should be `auto`, 0 (CPU) or a number of GPUs, not -1"),
    ("learning_rate: 1e-4", "precision: bf16", "r.yaml:8: train.precision: should be 'auto' or 'float32', 'bfloat16' or 'float16', not 'bf16'; did you mean 'bfloat16'?"),
    ("learning_rate: 1e-4", "deepspeed: zero4", "r.yaml:8: train.deepspeed: should be 'auto' or 'none', 'zero1',"),
    ("learning_rate: 1e-4", "attention: flash_attn_2", "did you mean 'flash_attention_2'?"),
    ("learning_rate: 1e-4", "truncation: righ", "r.yaml:8: train.truncation: should be 'right', 'left' or 'delete', not 'righ'; did you mean 'right'?"),
    ("data:\n", "data:\n  val_fraction: 1\n", "r.yaml:5: data.val_fraction: should be less than 1, not 1"),
    ("data.json", "data.json\n      format: alpacca", "r.yaml:7: data.sources[0].format: should be 'auto', 'alpaca', 'sharegpt', 'messages', 'query' or 'xtuner', not 'alpacca'; did you mean 'alpaca'?"),
    ("data.json", "data.json\n      weight: 0", "r.yaml:7: data.sources[0].weight: should be greater than 0, not 0"),
    ("data.json", "data.json\n      limit: 0", "r.yaml:7: data.sources[0].limit: should be greater than or equal to 1, not 0"),
    ("data.json", "data.json\n      file: ''", "r.yaml:7: data.sources[0].file: string should have at least 1 character"),
    ("data.json", "data.json\n      columns: {output: 'a,b'}", "r.yaml:7: data.sources[0].columns: 'output': 'a,b': names of fields and columns have neither '=' nor ','"),
    ("data.json", "data.json\n      columns: [output]", "r.yaml:7: data.sources[0].columns: should be a mapping"),
    ("data:\n", "data:\n  dedup: fuzzy\n", "r.yaml:5: data.dedup: should be 'none', 'exact' or 'near', not 'fuzzy'"),
    ("data:\n", "data:\n  near_threshold: 1.1\n", "r.yaml:5: data.near_threshold: should be less than or equal to 1, not 1.1"),
    ("data:\n", "data:\n  think: drop\n", "r.yaml:5: data.think: should be 'keep', 'strip' or 'require', not 'drop'"),
    ("data:\n", "data:\n  max_tokens: 1\n", "r.yaml:5: data.max_tokens: should be greater than or equal to 8, not 1"),
    ("data:\n", "data:\n  contamination: drop\n", "r.yaml:5: data.contamination: should be a mapping, not 'drop'"),
    ("data:\n", "data:\n  contamination: {actoin: drop}\n", "r.yaml:5: data.contamination.actoin: unknown key; did you mean 'action'?"),
    ("data:\n", "data:\n  contamination: {benchmarks: all}\n", "r.yaml:5: data.contamination.benchmarks: should be 'auto' or a list, not 'all'"),
    ("data:\n", "data:\n  contamination: {benchmarks: [{name: a, path: b}, {name: a, path: c}]}\n", "r.yaml:5: data.contamination.benchmarks: two benchmarks are called 'a': give each its own `name`"),
    ("data:\n", "data:\n  contamination: {benchmarks: [{name: a=b, path: b}]}\n", "r.yaml:5: data.contamination.benchmarks[0].name: string should match pattern"),
    ("data:\n", "data:\n  contamination: {benchmarks: [{nam: a, path: b}]}\n", "r.yaml:5: data.contamination.benchmarks[0].nam: unknown key; did you mean 'name'?"),
    ("train:", "export: {max_shard_size: 5 GB}\ntrain:", "r.yaml:7: export.max_shard_size: string should match pattern"),
    ("train:", "compare: {confidence: 95}\ntrain:", "r.yaml:7: compare.confidence: should be less than 1, not 95"),
    ("train:", "runtime: {log_level: all}\ntrain:", "r.yaml:7: runtime.log_level: should be 'progress' or 'full', not 'all'"),
    ("train:", "tracking: {mode: cloud}\ntrain:", "r.yaml:7: tracking.mode: should be 'auto' or 'online', 'local',"),
    ("harness: lm_eval", "harness: lmeval", "r.yaml:10: eval[0].harness: 'lmeval' is not one of lm_eval, evalscope; did you mean 'lm_eval'?"),
    ("harness: lm_eval", "harness: helm", "r.yaml:10: eval[0].harness: 'helm' is not one of lm_eval, evalscope"),
    ("  path: model", "  id: Qwen3", "r.yaml:3: model.id: should be owner/name, not 'Qwen3'"),
    ("  path: model", "  id: a/b\n  hub: huggingfce", "r.yaml:4: model.hub: should be 'modelscope' or 'huggingface', not 'huggingfce'; did you mean 'huggingface'?"),
    ("  path: model", "  path: model\n  id: a/b", "r.yaml:2: model: give either `path` (local) or `id` (hub id)"),
    ("name: demo", "name: ../demo", "r.yaml:1: name: should be letters, digits, '.', '_', '-' (at most 64)"),
    ("name: demo", "name: stages", "r.yaml:1: name: should be letters"),
    ("    tasks: [arc_easy]", "    tasks: [arc_easy]\n    name: a b", "r.yaml:12: eval[0].name: should be letters"),
    # what does not go together
    ("learning_rate: 1e-4", "epochs: 1\n  max_steps: 3", "r.yaml:7: train: give either `epochs` or `max_steps`"),
    ("data:\n  sources:\n    - path: data.json\n", "", "recipe: `train` needs a `data` section"),
    ("model:\n  path: model", "model: [{path: a}, {path: b}]", "recipe: `train` needs exactly one model"),
    ("harness: evalscope\n    datasets", "harness: lm_eval\n    tasks", "two `eval` entries are called 'lm_eval': give each its own `name`"),
    # YAML itself
    ("name: demo", "name: [demo", "r.yaml:2: not valid YAML"),
    ("name: demo", "name: demo\n\tx: 1", "r.yaml:2: not valid YAML"),
    ("name: demo", "name: demo\nname: other", "r.yaml:2: 'name' is given twice"),
    ("learning_rate: 1e-4", "rank: 1\n  rank: 2", "r.yaml:9: 'rank' is given twice"),
    ("learning_rate: 1e-4", "extra_args: {a: 1, a: 2}", "r.yaml:8: 'a' is given twice"),
    ("name: demo", "name: &n demo", "r.yaml:1: anchors and aliases (&, *) are not allowed"),
    ("train:\n", "train:\n  <<: *x\n", "r.yaml:8: anchors and aliases (&, *) are not allowed"),
    ("name: demo", "name: !!python/object/apply:os.system [id]", "r.yaml:1: tags (tag:yaml.org,2002:python/object/apply:os.system) are not allowed"),
    ("name: demo", "name: !!str demo", "r.yaml:1: tags (tag:yaml.org,2002:str) are not allowed"),
    ("name: demo", "name: !include x", "r.yaml:1: tags (!include) are not allowed"),
    ("name: demo", "name: demo\n? [a]\n: 1", "r.yaml:2: a key must be a plain word"),
    ("name: demo", "name: demo\n---\nname: b", "r.yaml:2: not valid YAML: but found another document"),
    ("name: demo", 'name: demo\ndescription: "\\ud800"', "holds text that is not Unicode"),
    ("name: demo", "name: demo\ndescription: \x07", "r.yaml:2: a character (code 7) that YAML does not allow"),
    # secrets
    ("name: demo", "name: demo\ndescription: hf_abcdefghijklmnopqrstuvwx", "r.yaml:2: description: looks like a key or token; secrets belong in"),
    ("name: demo", "name: demo\ndescription: ${HF_TOKEN}", "r.yaml:2: description: ${HF_TOKEN} is a secret"),
    ("learning_rate: 1e-4", "extra_args: {hub_token: abc}", "r.yaml:8: train.extra_args.hub_token: secrets belong in"),
    ("datasets: [gsm8k]", "datasets: [gsm8k]\n    model_args: {api_key: x}", "r.yaml:14: eval[1].model_args.api_key: secrets belong in"),
    # ${NAME}
    ("  path: model", "  path: ${MODEL}", "r.yaml:3: model.path: ${MODEL} is not set; set it in .env or write ${MODEL:-default}"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), BAD, ids=[f"{i}-{b[1][:24]!r}" for i, b in enumerate(BAD)])
def test_a_mistake_is_named(tmp_path, old, new, expected):
    assert GOOD.count(old) == 1
    found = mistakes(tmp_path, GOOD.replace(old, new))
    assert any(expected in mistake for mistake in found), found
    assert all(mistake.startswith("r.yaml:") for mistake in found), found
    # One mistake, one line; a renamed required key is two: what is missing, and what was meant by the other.
    extra = [mistake for mistake in found if expected not in mistake]
    assert all(mistake.endswith((": missing", "needs a `data` section", "(hub id)")) for mistake in extra), found


def test_tokens_are_counted_by_one_model(tmp_path):
    text = (
        GOOD.replace("model:\n  path: model", "model: [{path: a}, {path: b}]").split("train:")[0] + "  max_tokens: 9\n"
    )
    [found] = mistakes(tmp_path, text)
    assert (
        found == "r.yaml:1: recipe: `data.max_tokens` counts with the model's tokenizer, so it needs exactly one model"
    )


def test_the_table_is_long_enough():
    assert len(BAD) >= 60


def test_all_mistakes_at_once_in_the_order_of_the_file(tmp_path):
    text = GOOD.replace("name: demo", "nmae: demo").replace("1e-4", "-1").replace("[gsm8k]", "gsm8k")
    assert mistakes(tmp_path, text.replace("path: data.json", "path: ${DATA}")) == [
        "r.yaml:1: name: missing",
        "r.yaml:1: nmae: unknown key; did you mean 'name'?",
        "r.yaml:6: data.sources[0].path: ${DATA} is not set; set it in .env or write ${DATA:-default}",
        "r.yaml:8: train.learning_rate: should be greater than 0, not -1",
        "r.yaml:13: eval[1].datasets: should be a list, not 'gsm8k'",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "r.yaml:1: the file is empty"),
        (b"# nothing\n", "r.yaml:1: the file is empty"),
        (b"- a\n", "r.yaml:1: a recipe is a mapping of sections"),
        (b"just text\n", "r.yaml:1: a recipe is a mapping of sections"),
        (b"name: a\n\xff\xfe\n", "r.yaml:2: not UTF-8 text"),
        (b"name: a\n\x00\n", "r.yaml:2: a character (code 0)"),
        (b"\x80\x04\x95pickle", "r.yaml:1: not UTF-8 text"),
        (b"name: a\n#" + b"x" * (1 << 20), "r.yaml: 1048585 bytes; a recipe has at most 1048576"),
        (b"a: " + b"[" * 100_000, "r.yaml:1: nested deeper than 20 levels"),
        (b"a: " + b"{a: " * 25 + b"1" + b"}" * 25, "r.yaml:1: nested deeper than 20 levels"),
        (b"a: &a [x]\nb: &b [*a, *a]\n", "r.yaml:1: anchors and aliases"),
    ],
    ids=str,
)
def test_files_that_are_no_recipe(tmp_path, content, expected):
    (found,) = mistakes(tmp_path, content)
    assert found.startswith(expected)


def test_no_file(tmp_path):
    with pytest.raises(RecipeError, match="cannot read the recipe: No such file"):
        load_recipe(tmp_path / "none.yaml")


def test_a_byte_order_mark_and_windows_lines_are_fine(tmp_path):
    assert load(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()).name == "demo"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"), ("off", "off"), ("yes", "yes"), ("on", "on"), ("true", True), ("False", False),
        ("1e-4", 1e-4), ("1.10", 1.1), ('"1.10"', "1.10"), ("12:30:45", "12:30:45"), ("0o17", "0o17"),
        ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("0x1F", "0x1F"), ("-3", -3), (".5", 0.5),
        ("12e4567", "12e4567"), ("1" * 40, "1" * 40), ("nan", "nan"), ("=", "="), ("'5'", "5"),
    ],
)  # fmt: skip
def test_scalars_are_what_they_look_like(tmp_path, written, value):
    recipe = load(tmp_path, GOOD.replace("learning_rate: 1e-4", f"extra_args: {{a: {written}}}"))
    assert recipe.train
    found = recipe.train.extra_args["a"]
    assert (type(found), found) == (type(value), value)


def test_dates_stay_strings_where_a_revision_is_wanted(tmp_path):
    recipe = load(tmp_path, GOOD.replace("path: model", "id: a/b\n  revision: 2024-01-01"))
    assert recipe.models[0].revision == "2024-01-01"


def test_variables(tmp_path):
    text = GOOD.replace("path: model", "path: ${ROOT}/m-${SIZE:-small}").replace("name: demo", "name: ${NAME:-demo}")
    recipe = load(tmp_path, text, env={"ROOT": "/models", "SIZE": ""})
    assert recipe.models[0].path == Path("/models/m-small")  # an empty variable counts as absent, as in the shell's :-
    assert recipe.name == "demo"
    assert load(tmp_path, text, env={"ROOT": "r", "NAME": "other"}).name == "other"


def test_a_value_from_the_environment_is_not_expanded_again(tmp_path):
    recipe = load(tmp_path, GOOD + "description: ${TEXT}\n", env={"TEXT": "${HOME} and $PATH"})
    assert recipe.description == "${HOME} and $PATH"


def test_a_secret_does_not_come_in_by_an_innocent_variable(tmp_path):
    env = {"TEXT": "hf_abcdefghijklmnopqrstuvwx"}
    (found,) = mistakes(tmp_path, GOOD + "description: ${TEXT}\n", env=env)
    assert found == "r.yaml:14: description: looks like a key or token; secrets belong in the environment or .env"


def test_the_environment_of_the_process_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_MODEL", "x")
    assert "${MY_MODEL} is not set" in mistakes(tmp_path, GOOD.replace("path: model", "path: ${MY_MODEL}"))[0]


def test_paths_are_relative_to_the_file(tmp_path):
    recipe = load(tmp_path, GOOD.replace("data.json", "../up/data.json"))
    assert recipe.models[0].path == tmp_path / "model"
    assert recipe.data
    assert recipe.data.sources[0].path == tmp_path.parent / "up/data.json"


@pytest.mark.parametrize(
    ("override", "at", "value"),
    [
        ("train.learning_rate=2e-4", ("train", "learning_rate"), 2e-4),
        ("train.packing=false", ("train", "packing"), False),
        ("train.learning_rate=", None, None),
        ("eval.0.limit=5", ("eval", 0, "limit"), 5),
        ("eval.lm_eval.limit=7", ("eval", 0, "limit"), 7),
        ("eval.evalscope.generation.max_tokens=9", ("eval", 1, "generation", "max_tokens"), 9),
        ("eval.lm_eval.tasks=[a, b]", ("eval", 0, "tasks"), ("a", "b")),
        ("runtime.offline=true", ("runtime", "offline"), True),
        ("name=2024-01-01", ("name",), "2024-01-01"),
        ("description=a=b", ("description",), "a=b"),
        ("data.sources.0.format=alpaca", ("data", "sources", 0, "format"), "alpaca"),
    ],
)
def test_overrides(tmp_path, override, at, value):
    if at is None:  # nothing after `=` is null, which this setting refuses
        assert mistakes(tmp_path, GOOD, override) == [
            "r.yaml:8: train.learning_rate: should be a valid number, not null"
        ]
        return
    found: object = load(tmp_path, GOOD, override).model_dump()
    for part in at:
        found = found[part]
    assert found == value


def test_an_override_finds_an_entry_by_its_name(tmp_path):
    text = GOOD.replace("  - harness: lm_eval", "  - name: knowledge\n    harness: lm_eval")
    assert load(tmp_path, text, "eval.knowledge.limit=3").eval[0].limit == 3


def test_overridden_paths_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    recipe = load(tmp_path, GOOD, "model.path=here", "data.sources.0.path=../d.json", "eval.lm_eval.include_path=tasks")
    assert recipe.models[0].path == tmp_path / "work/here"
    assert recipe.data
    assert recipe.data.sources[0].path == tmp_path / "d.json"
    assert recipe.eval[0].include_path == tmp_path / "work/tasks"


def test_later_overrides_win_and_sections_are_made(tmp_path):
    recipe = load(tmp_path, GOOD, "compare.confidence=0.9", "compare.confidence=0.99")
    assert recipe.compare.confidence == 0.99


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.learning_rate", "--set train.learning_rate: should be key.path=value"),
        ("=3", "--set =3: should be key.path=value"),
        ("train..x=3", "--set train..x=3: should be key.path=value"),
        ("eval.9.limit=3", "--set eval.9.limit=3: no entry '9' in a list of 2"),
        (
            "eval.helm.limit=3",
            "--set eval.helm.limit=3: no entry 'helm' in a list of 2 (count from 0, or use its name)",
        ),
        ("name.first=x", "--set name.first=x: 'name' is a single value, it has no parts"),
        ("name=[", "--set:1: not valid YAML"),
        ("name=&x y", "--set:1: anchors and aliases"),
        ("name=!!python/name:os.system x", "--set:1: tags"),
        ("train.learning_rat=1", "train.learning_rat: unknown key; did you mean 'learning_rate'?"),
        ("train.learning_rate=${LR}", "train.learning_rate: ${LR} is not set"),
        ("train.extra_args.hub_token=x", "train.extra_args.hub_token: secrets belong in"),
    ],
)
def test_wrong_overrides(tmp_path, override, expected):
    assert expected in mistakes(tmp_path, GOOD, override)[0]


def test_a_dumped_recipe_reads_back_the_same(tmp_path):
    recipe = load(tmp_path, GOOD, "train.extra_args={a: [1, 2], b: 'no', c: '1e-4'}", "tracking.tags=[x, 'yes']")
    text = dump_recipe(recipe)
    assert yaml.safe_load(text)["name"] == "demo"
    assert load(tmp_path, text) == recipe


def test_recipes_are_frozen(tmp_path):
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path, GOOD).name = "other"
