"""How a suite's settings reach each harness, what a harness cannot do, and models behind a URL."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from pipeline import endpoint as served
from pipeline.command import Command
from pipeline.console import Console
from pipeline.endpoint import Endpoint
from pipeline.errors import PreflightError
from pipeline.execute import Executor, Work
from pipeline.harnesses import HARNESSES, lm_eval_read
from pipeline.machine import Gpu, Machine
from pipeline.plan import plan
from pipeline.preflight import check
from pipeline.recipe import ModelSpec, Recipe
from pipeline.resolve import _placed, resolve
from pipeline.results import Sample
from pipeline.signals import Halt
from pipeline.sources import digest
from pipeline.stage import Source, Stage
from pipeline.stages import evaluate
from pipeline.store import Store
from pipeline.suites import EvalScopeSpec, LmEvalSpec

ROOT = Path(__file__).parents[1]
SERVER = Endpoint("http://127.0.0.1:8000/v1", "tuned", key_env="MY_KEY")
FOLDER = Source(Path("m"))
FIELDS: dict[str, Any] = {"precision": "float32", "device": "cpu"}


def lm_eval(**fields: Any) -> LmEvalSpec:
    return LmEvalSpec(harness="lm_eval", tasks=("gsm8k",), **FIELDS | fields)


def evalscope(**fields: Any) -> EvalScopeSpec:
    return EvalScopeSpec(harness="evalscope", datasets=("gsm8k",), **FIELDS | fields)


def argv(spec: Any, *, model: Any = FOLDER, chat_template: bool = True, **plumbing: Any) -> list[str]:
    """The words after the program, as the harness would get them."""
    stage = evaluate.stage(spec, model=model, chat_template=chat_template, offline=True)
    return list(command(stage, **plumbing).argv[len(stage.program) :])


def command(stage: Stage, **plumbing: Any) -> Command:
    places = {role: Path("in") / role for role in stage.deps}
    return stage.command(replace(stage, plumbing={**stage.plumbing, **plumbing}), Path("out"), places)


def value(words: list[str], flag: str) -> Any:
    text = words[words.index(f"--{flag}") + 1]
    return json.loads(text) if text.startswith("{") else text


@pytest.mark.parametrize(
    ("fields", "flag", "expected"),
    [
        ({}, "model_args", {"pretrained": "in/model", "dtype": "float32"}),
        ({"attention": "sdpa"}, "model_args", {"pretrained": "in/model", "dtype": "float32", "attn_implementation": "sdpa"}),
        ({"enable_thinking": False}, "model_args", {"pretrained": "in/model", "dtype": "float32", "enable_thinking": False}),
        ({"enable_thinking": True}, "model_args",
         {"pretrained": "in/model", "dtype": "float32", "enable_thinking": True, "think_end_token": "</think>"}),
        ({"enable_thinking": True, "model_args": {"think_end_token": "<end>"}}, "model_args",
         {"pretrained": "in/model", "dtype": "float32", "enable_thinking": True, "think_end_token": "<end>"}),
        ({"max_tokens": 64}, "gen_kwargs", {"max_gen_toks": 64}),
        ({"max_tokens": 64, "gen_kwargs": {"temperature": 0.5}}, "gen_kwargs", {"max_gen_toks": 64, "temperature": 0.5}),
        ({"system_prompt": "Be brief."}, "system_instruction", "Be brief."),
        ({"batch_size": 4}, "batch_size", "4"),
        ({"batch_size": "auto"}, "batch_size", "16"),
        ({"seed": 7}, "seed", "7"),
        ({"precision": "bfloat16"}, "model_args",
         {"pretrained": "in/model", "dtype": "bfloat16", "softmax_dtype": "float32"}),
        ({"precision": "float16", "model_args": {"softmax_dtype": "float16"}}, "model_args",
         {"pretrained": "in/model", "dtype": "float16", "softmax_dtype": "float16"}),
    ],
)  # fmt: skip
def test_a_setting_reaches_lm_eval(fields: dict[str, Any], flag: str, expected: Any) -> None:
    assert value(argv(lm_eval(**fields)), flag) == expected


@pytest.mark.parametrize(
    ("fields", "flag", "expected"),
    [
        ({}, "model-args", {"device_map": "cpu", "precision": "torch.float32"}),
        ({"attention": "eager"}, "model-args",
         {"device_map": "cpu", "precision": "torch.float32", "attn_implementation": "eager"}),
        ({"enable_thinking": False}, "model-args",
         {"device_map": "cpu", "precision": "torch.float32", "enable_thinking": False}),
        ({"max_tokens": 64}, "generation-config", {"do_sample": False, "max_tokens": 64}),
        ({"system_prompt": "Be brief."}, "dataset-args", {"gsm8k": {"system_prompt": "Be brief."}}),
        ({"batch_size": 4}, "eval-batch-size", "4"),
        ({"batch_size": "auto"}, "eval-batch-size", "16"),
        ({"seed": 7}, "seed", "7"),
        ({"device": "cuda"}, "model-args", {"device_map": "cuda:0", "precision": "torch.float32"}),
        ({"device": "cuda", "gpus": 2}, "model-args", {"device_map": "auto", "precision": "torch.float32"}),
        ({"judge": {"url": "https://judge/v1", "model": "j"}}, "judge",
         {"models": [{"model_id": "j", "api_url": "https://judge/v1"}]}),
    ],
)  # fmt: skip
def test_a_setting_reaches_evalscope(fields: dict[str, Any], flag: str, expected: Any) -> None:
    assert value(argv(evalscope(**fields)), flag) == expected


@pytest.mark.parametrize("make", [lm_eval, evalscope])
def test_the_batch_size_of_a_retry_is_used_and_is_no_other_score(make: Any) -> None:
    flag = "batch_size" if make is lm_eval else "eval-batch-size"
    assert value(argv(make(batch_size="auto"), batch_size=2), flag) == "2"
    assert argv(make(batch_size=16)) == argv(make(batch_size="auto"))
    stages = [
        evaluate.stage(make(batch_size=size), model=SERVER, chat_template=True, offline=True) for size in (1, "auto")
    ]
    assert stages[0].args == stages[1].args, "over an API there is no batch"


@pytest.mark.parametrize("make", [lm_eval, evalscope])
def test_a_suite_overrides_the_recipes_chat_template(make: Any) -> None:
    with_it, without = argv(make()), argv(make(), chat_template=False)
    assert with_it != without
    assert argv(make(chat_template=True), chat_template=False) == with_it
    assert argv(make(chat_template=False)) == without


@pytest.mark.parametrize(("fields", "size"), [({}, "auto"), ({"batch_size": "auto"}, "auto"), ({"batch_size": 9}, "9")])
def test_vllm_gets_neither_device_nor_a_batch_of_ours(fields: dict[str, Any], size: str) -> None:
    words = argv(lm_eval(backend="vllm", device="cuda", precision="bfloat16", **fields))
    assert value(words, "model") == "vllm"
    assert value(words, "batch_size") == size
    assert value(words, "model_args") == {"pretrained": "in/model", "dtype": "bfloat16", "seed": 42}
    assert "--device" not in words


@pytest.mark.parametrize("make", [lm_eval, evalscope])
def test_only_a_batch_that_the_recipe_names_is_kept_when_memory_runs_out(make: Any) -> None:
    for fields, sizes in (({}, [8, 4, 2, 1]), ({"batch_size": "auto"}, [16, 8, 4, 2, 1]), ({"batch_size": 8}, [])):
        stage = evaluate.stage(make(**fields), model=FOLDER, chat_template=True, offline=True)
        plumbing, tried = stage.plumbing, []
        while plumbing is not None and "batch_size" in plumbing:
            tried.append(plumbing["batch_size"])
            plumbing = stage.retry("memory", plumbing)
        assert tried == sizes
    unnamed, named = (
        evaluate.stage(make(**f), model=FOLDER, chat_template=True, offline=True) for f in ({}, {"batch_size": 8})
    )
    assert unnamed.args == named.args


@pytest.mark.parametrize(("make", "off"), [
    (lm_eval, {"gen_kwargs": {"repetition_penalty": 1.0}}),
    (evalscope, {"generation": {"extra_body": {"repetition_penalty": 1.0}}}),
])  # fmt: skip
def test_a_penalty_that_the_model_brings_along_is_told_with_what_turns_it_off(
    tmp_path: Path, make: Any, off: Any
) -> None:
    def told(text: str, **fields: Any) -> list[str]:
        (tmp_path / "generation_config.json").write_text(text)
        stage = evaluate.stage(make(**fields), model=FOLDER, chat_template=True, offline=True)
        return list(evaluate._penalised(stage, tmp_path))

    assert told("{}") == told('{"repetition_penalty": 1.0}') == told("no JSON") == []
    [remark] = told('{"repetition_penalty": 1.05}')
    assert "(1.05)" in remark
    assert yaml.safe_load(re.findall(r"; (.*) turns it off", remark)[0]) == off
    assert told('{"repetition_penalty": 1.05}', **off) == []
    assert told('{"repetition_penalty": 1.05}', generation={"repetition_penalty": 1.0}) if make is evalscope else True


@pytest.mark.parametrize(("here", "fields", "words"), [
    ((), {"device": "cuda"}, "does not import or run on this machine"),
    (("flash_attention_2",), {"device": "cpu"}, "does not import or run on this machine"),
    (("flash_attention_2",), {"device": "cuda", "precision": "float32"}, "computes in 16 bit"),
    (("flash_attention_2",), {"device": "cuda", "precision": "bfloat16"}, None),
])  # fmt: skip
def test_flash_attention_of_a_suite_is_looked_for(
    here: tuple[str, ...], fields: dict[str, Any], words: str | None
) -> None:
    gpu = Gpu(name="A100", memory_gb=80, compute_capability=(8, 0))
    machine = Machine(system="Linux", cpus=8, memory_gb=64, gpus=(gpu,), flash_attention=here)
    spec, problems = lm_eval(attention="flash_attention_2", **fields), list[str]()
    _placed(spec, "eval[0]", machine, [], problems)
    assert [words in problem for problem in problems] == [True] if words else problems == []


PROBLEMS = [
    ("lm_eval", {"backend": "vllm"}, {}, ["needs a GPU; use backend: hf", "not installed"]),
    ("lm_eval", {"backend": "vllm", "device": "cuda", "attention": "sdpa"}, {}, ["vLLM chooses its own", "not installed"]),
    ("lm_eval", {"max_tokens": 5, "gen_kwargs": {"max_tokens": 6}}, {}, ["max_tokens and gen_kwargs.max_tokens"]),
    ("lm_eval", {"model_args": {"dtype": "float16"}}, {}, ["precision and model_args.dtype"]),
    ("lm_eval", {"enable_thinking": True}, {"chat_template": False}, ["speaks to the chat template"]),
    ("lm_eval", {"attention": "eager"}, {"endpoint": SERVER}, ["the server decides"]),
    ("lm_eval", {"system_prompt": "s", "extra_args": {"system_instruction": "t"}}, {}, ["say the same thing"]),
    ("evalscope", {"backend": "vllm"}, {}, ["serve the model .* give it by `url`"]),
    ("evalscope", {"backend": "vllm"}, {"endpoint": SERVER}, []),
    ("evalscope", {}, {"endpoint": SERVER, "chat_template": False}, ["use lm_eval"]),
    ("evalscope", {"system_prompt": "s"}, {"chat_template": False}, ["put it into prompt_template"]),
    ("evalscope", {"max_tokens": 5, "generation": {"max_tokens": 6}}, {}, ["max_tokens and generation.max_tokens"]),
    ("evalscope", {"enable_thinking": False, "generation": {"extra_body": {}}}, {"endpoint": SERVER}, ["extra_body"]),
    ("lm_eval", {"attention": "sdpa", "enable_thinking": True, "max_tokens": 9, "system_prompt": "s"}, {}, []),
    ("evalscope", {"attention": "sdpa", "enable_thinking": True, "max_tokens": 9, "system_prompt": "s"}, {}, []),
]  # fmt: skip


@pytest.mark.parametrize(("harness", "fields", "words", "expected"), PROBLEMS)
def test_what_a_harness_cannot_do_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, harness: str, fields: Any, words: Any, expected: list[str]
) -> None:
    monkeypatch.setattr("pipeline.harnesses.lm_eval.version", lambda name: None if name == "vllm" else "1")
    spec = (lm_eval if harness == "lm_eval" else evalscope)(**fields)
    found = HARNESSES[harness].problems(spec, **{"chat_template": True, **words})
    assert len(found) == len(expected), found
    assert all(any(re.search(pattern, text) for text in found) for pattern in expected), found


def test_lm_eval_without_its_client_for_apis_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.harnesses.lm_eval.version", lambda _: None)
    [found] = HARNESSES["lm_eval"].problems(lm_eval(), chat_template=True, endpoint=SERVER)
    assert "make setup" in found


def test_lm_eval_asks_a_server_by_chat_or_by_plain_completions() -> None:
    words = argv(lm_eval(enable_thinking=False, concurrency=2), model=SERVER)
    assert value(words, "model") == "local-chat-completions"
    assert value(words, "model_args") | {"timeout": 0} == {
        "model": "tuned", "base_url": "http://127.0.0.1:8000/v1/chat/completions", "tokenized_requests": False,
        "num_concurrent": 2, "timeout": 0,
    }  # fmt: skip
    assert value(words, "gen_kwargs") == {"chat_template_kwargs": {"enable_thinking": False}}
    assert "--device" not in words
    plain = argv(lm_eval(), model=SERVER, chat_template=False)
    assert value(plain, "model") == "local-completions"
    assert value(plain, "model_args")["base_url"] == "http://127.0.0.1:8000/v1/completions"
    assert value(plain, "model_args")["tokenizer_backend"] == "none"
    tokenizer = Endpoint(SERVER.url, "tuned", tokenizer=Path("tok"))
    plain = argv(lm_eval(), model=tokenizer, chat_template=False)
    assert value(plain, "model_args")["tokenizer"] == "in/tokenizer"
    assert value(plain, "model_args")["tokenizer_backend"] == "huggingface"


def test_evalscope_asks_a_server_greedily_and_with_a_limit() -> None:
    words = argv(evalscope(enable_thinking=True, concurrency=2), model=SERVER)
    expected = {
        "model": "tuned",
        "eval-type": "openai_api",
        "api-url": SERVER.url,
        "api-key": "",
        "eval-batch-size": "2",
    }
    assert {flag: value(words, flag) for flag in expected} == expected
    assert value(words, "generation-config") == {
        "temperature": 0.0, "max_tokens": 2048, "extra_body": {"chat_template_kwargs": {"enable_thinking": True}},
    }  # fmt: skip
    assert "--model-args" not in words
    assert value(argv(evalscope(max_tokens=9), model=SERVER), "generation-config")["max_tokens"] == 9


@pytest.mark.parametrize("make", [lm_eval, evalscope])
def test_a_servers_score_is_of_its_names_and_not_of_key_or_concurrency(make: Any) -> None:
    def mark(spec: Any, model: Endpoint) -> str:
        return evaluate.stage(spec, model=model, chat_template=True, offline=True).fingerprint(digest)

    first = mark(make(), SERVER)
    assert first == mark(make(concurrency=9), Endpoint(SERVER.url, "tuned", key_env="OTHER_KEY"))
    others = [
        Endpoint("http://127.0.0.1:8001/v1", "tuned"),
        Endpoint(SERVER.url, "base"),
        Endpoint(SERVER.url, "tuned", revision="2"),
    ]
    assert len({first, *(mark(make(), other) for other in others)}) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give either"),
        ({"url": "http://h/v1", "path": "m", "served_as": "x"}, "give either"),
        ({"url": "http://h:1/v1"}, "needs `served_as`"),
        ({"url": "http://h:1", "served_as": "x"}, "should be a base URL"),
        ({"url": "http://user:pass@h/v1", "served_as": "x"}, "without a key"),
        ({"url": "http://h/v1?key=1", "served_as": "x"}, "without a key"),
        ({"url": "http://h/v1", "served_as": "x", "key_env": "MY_VARIABLE"}, "should end in KEY"),
        ({"path": "m", "served_as": "x"}, "`served_as` is for a model given by `url`"),
    ],
)
def test_a_model_has_one_origin_and_no_key(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSpec.model_validate_json(json.dumps(fields))


def recipe(**fields: Any) -> dict[str, Any]:
    suite = {"harness": "evalscope", "datasets": ["gsm8k"]}
    return {"name": "r", "model": {"url": SERVER.url, "served_as": "org/tuned"}, "eval": [suite], **fields}


def test_a_served_model_is_not_trained() -> None:
    data = {"sources": [{"path": "d"}]}
    for more, message in (({"train": {}}, "`train` needs the model's files"), ({}, "`data.max_tokens` counts")):
        text = json.dumps(recipe(data=data | ({} if more else {"max_tokens": 9}), **more))
        with pytest.raises(ValidationError, match=message):
            Recipe.model_validate_json(text)
    model = Recipe.model_validate_json(json.dumps(recipe(data=data))).models[0]
    assert model.label == "tuned"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.reply(200 if self.path == "/v1/models" else 404, {"data": [{"id": "tuned"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.headers["Authorization"], body))  # type: ignore[attr-defined]
        content = body["messages"][-1]["content"]
        if content == "break":
            self.reply(500, {"error": "broken"})
        else:
            self.reply(
                200, {"choices": [{"message": {"content": f"to {content}"}}]} if content != "odd" else {"message": "no"}
            )

    def reply(self, status: int, value: Any) -> None:
        wanted = self.server.key  # type: ignore[attr-defined]
        if wanted and self.headers["Authorization"] != f"Bearer {wanted}":
            status, value = 401, {"error": "key"}
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.seen, found.key = [], ""  # type: ignore[attr-defined]
        found.url = f"http://127.0.0.1:{found.server_address[1]}/v1"  # type: ignore[attr-defined]
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_an_endpoint_is_asked_before_anything_starts(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy in the environment must not get between us and this machine.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert served.problem(Endpoint(server.url, "tuned"), {}) is None
    assert "serves no 'base', but tuned; correct model.served_as" in str(
        served.problem(Endpoint(server.url, "base"), {})
    )
    wrong = server.url.replace("/v1", "/x/v1")
    assert "status 404" in str(served.problem(Endpoint(wrong, "tuned"), {}))
    server.key = "geheim-123"
    assert "set MY_KEY in .env" in str(served.problem(Endpoint(server.url, "tuned", key_env="MY_KEY"), {}))
    refused = served.problem(Endpoint(server.url, "tuned", key_env="MY_KEY"), {"MY_KEY": "other-key"})
    assert "the key in MY_KEY was refused" in str(refused)
    assert "other-key" not in str(refused)
    assert served.problem(Endpoint(server.url, "tuned", key_env="MY_KEY"), {"MY_KEY": "geheim-123"}) is None


def test_a_server_that_is_not_there_is_named_with_the_way_to_start_it() -> None:
    text = str(served.problem(Endpoint("http://127.0.0.1:9/v1", "tuned"), {}))
    assert text.startswith("http://127.0.0.1:9/v1: nothing answers")
    assert "swift deploy" in text


def test_preflight_asks_the_server_and_the_harness(tmp_path: Path) -> None:
    data = recipe(
        eval=[{"harness": "evalscope", "datasets": [{"name": "gsm8k", "path": str(tmp_path)}], "chat_template": False}]
    )
    data["model"]["url"] = "http://127.0.0.1:9/v1"
    found, _ = resolve(
        Recipe.model_validate_json(json.dumps(data)), Machine(system="Linux", cpus=2, memory_gb=8, gpus=())
    )
    stages = plan(found).stages.values()
    with pytest.raises(PreflightError) as error:
        check(
            found, stages, Store(tmp_path / "runs", digest), {"PATH": "", "PIPELINE_TOOLS": str(ROOT / "tests" / "bin")}
        )
    assert "model.url: http://127.0.0.1:9/v1: nothing answers" in str(error.value)
    assert "eval.evalscope.chat_template: false is impossible over a chat endpoint" in str(error.value)


def test_a_key_reaches_the_tool_and_nothing_else(tmp_path: Path) -> None:
    """By environment, under the tool's own name for it; not in argv, log, stage.json or the text to be pasted."""
    code = "import os, sys; print('got', os.environ['THEIR_KEY']); open(sys.argv[1], 'w').write(os.environ['THEIR_KEY'][::-1])"
    keys = {"THEIR_KEY": "OUR_KEY"}

    def render(stage: Stage, out: Path, _: Any) -> Command:
        return Command((*stage.program, "-c", code, str(out / "seen")), keys=keys)

    stage = Stage("key", ("python",), {}, {}, render, lambda out, *_: {"seen": (out / "seen").read_text()})
    store = Store(tmp_path, digest)
    record = made(stage, store, {"PATH": "", "OUR_KEY": "geheim-4711", "THEIR_KEY": "wrong-one"})
    assert record["result"]["seen"] == "geheim-4711"[::-1]
    text = "".join(path.read_text() for path in store.folder(stage).rglob("*") if path.is_file())
    assert "geheim-4711" not in text
    assert "got ***" in text
    assert 'THEIR_KEY="${OUR_KEY:-EMPTY}"' in str(render(stage, tmp_path, {}))
    without = made(stage, Store(tmp_path / "2", digest), {"PATH": ""})
    assert without["result"]["seen"] == "EMPTY"[::-1]


def made(stage: Stage, store: Store, env: dict[str, str]) -> dict[str, Any]:
    executor = Executor(store, env, Console())
    with executor.claim(stage):
        return executor.make(Work(stage, "key", Halt()))


def ask(server: Any, folder: Path, *contents: str) -> subprocess.CompletedProcess[str]:
    rows = [{"messages": [{"role": "user", "content": content}]} for content in contents]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    words = ["--asked", "asked.jsonl", "--out", "answers.jsonl", "--max-tokens", "7"]
    return subprocess.run(
        [sys.executable, "-m", "pipeline.endpoint", server.url, "tuned", *words], cwd=folder, text=True,
        env={"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "geheim-123"}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_server_answers_conversations(server: Any, tmp_path: Path) -> None:
    server.key = "geheim-123"
    done = ask(server, tmp_path, "Hello", "Grüße\u2028dir")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "answers.jsonl").read_text().split("\n")[:-1]
    assert [json.loads(line) for line in lines] == [{"response": "to Hello"}, {"response": "to Grüße\u2028dir"}]
    assert server.seen[0][1] == {
        "model": "tuned", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 7, "temperature": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("content", "message"), [("break", "500"), ("odd", "no answer in")])
def test_an_answer_that_is_none_ends_the_asking(server: Any, tmp_path: Path, content: str, message: str) -> None:
    done = ask(server, tmp_path, "Hello", content)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_stop_words_that_a_server_leaves_in_are_told() -> None:
    data = {
        "configs": {
            "a": {"generation_kwargs": {"until": ["\n\n", "Q:"]}},
            "b": {"generation_kwargs": None},
            "c": {"generation_kwargs": {"until": "yx"}},
        }
    }
    outputs = [("a", "x\n\n"), ("a", "y"), ("a", "Q:"), ("b", "x\n\n"), ("c", "x")]
    samples = [Sample(task=task, doc_key=str(at), scores={}, output=text) for at, (task, text) in enumerate(outputs)]
    [remark] = lm_eval_read._stop_words(data, samples)
    assert remark.startswith("a: 2 answers end in a stop word")
