"""Settings: where they come from, what is secret, and what a tool gets to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.settings import LOOPBACK, child_env, load, redact, secrets

SECRETS = {
    "SWANLAB_API_KEY": "swan-123456", "HF_TOKEN": "hf-123456", "MODELSCOPE_API_TOKEN": "ms-123456",
    "AWS_SECRET": "aws-123456", "DB_PASSWORD": "db-123456", "OPENAI_API_KEY": "oa-123456",
}  # fmt: skip


def test_environment_wins_over_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("A_SETTING=file\nB_SETTING=file\nEMPTY_SETTING=\n# SWANLAB_API_KEY=x\n")
    monkeypatch.setenv("B_SETTING", "environment")
    monkeypatch.delenv("A_SETTING", raising=False)
    found = load(tmp_path)
    assert (found["A_SETTING"], found["B_SETTING"]) == ("file", "environment")
    assert "EMPTY_SETTING" not in found
    assert "A_SETTING" not in load(tmp_path / "elsewhere")


def test_secrets_are_known_by_name() -> None:
    plain = {"PATH": "/usr/bin", "TOKENIZERS_PARALLELISM": "false", "KEYBOARD": "de-latin1", "HF_ENDPOINT": "https://x"}
    assert secrets({**SECRETS, **plain}) == SECRETS
    assert secrets({"EMPTY_KEY": "", "SHORT_KEY": "1"}) == {}


def test_a_tool_gets_no_secret_but_the_allowed_ones() -> None:
    env = {**SECRETS, "PATH": "/bin"}
    assert not set(SECRETS) & set(child_env(env))
    assert set(SECRETS) & set(child_env(env, ("HF_TOKEN",))) == {"HF_TOKEN"}
    assert child_env(env)["PATH"] == "/bin"


def test_a_shell_for_eight_gpus_does_not_start_eight_processes() -> None:
    """swift reads these; where there are to be several processes, the stage says how many."""
    shell = {"NPROC_PER_NODE": "8", "NNODES": "2", "RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "16"}
    meeting = {"NODE_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
    env = child_env({**shell, **meeting})
    assert not shell.keys() & env.keys()
    assert meeting.items() <= env.items()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ",".join(LOOPBACK)),
        ({"NO_PROXY": "a.example", "no_proxy": ""}, ",".join(("a.example", *LOOPBACK))),
        ({"no_proxy": "b.example,localhost"}, "b.example,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "a", "no_proxy": "a,b"}, ",".join(("a", "b", *LOOPBACK))),
    ],
)
def test_loopback_goes_past_proxies_in_both_spellings(given: dict[str, str], expected: str) -> None:
    env = child_env({"http_proxy": "http://proxy:1", **given})
    assert env["NO_PROXY"] == env["no_proxy"] == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "C.UTF-8"), ({"LANG": "C"}, "C.UTF-8"), ({"LC_ALL": "POSIX", "LANG": "de_DE.UTF-8"}, "C.UTF-8"),
        ({"LANG": "de_DE.UTF-8"}, None), ({"LANG": "en_US.utf8"}, None), ({"LC_ALL": "zh_CN.UTF-8"}, "zh_CN.UTF-8"),
    ],
)  # fmt: skip
def test_text_is_utf8_whatever_the_locale(given: dict[str, str], expected: str | None) -> None:
    env = child_env(given)
    assert env.get("LC_ALL") == expected
    assert env["PYTHONUTF8"] == "1"


def test_redact_blots_out_values_and_whatever_looks_like_a_key() -> None:
    text = redact("--token swan-123456 x=swan-123456;", ["swan-123456"])
    assert text == "--token *** x=***;"
    for key in ("hf_" + "a" * 34, "sk-" + "b" * 40, "ms-" + "0" * 8 + "-" + "1" * 28):
        assert redact(f"key={key}.", []) == "key=***."
    assert redact("https://user:pass@host/x", []) == "https://***@host/x"
    for harmless in ("step 5/10", "hf_hub", "sk-learn", "https://host/a:b", "2026-01-01 12:30:45"):
        assert redact(harmless, []) == harmless


def test_a_secret_that_is_part_of_another_leaves_nothing_behind() -> None:
    values = ["abcdef", "abcdef-ghijkl"]
    assert "ghijkl" not in redact("key abcdef-ghijkl", values)
