"""Settings from the environment and .env, and which of them are secrets. The environment wins over .env."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from dotenv import dotenv_values

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LAUNCH = {"NPROC_PER_NODE", "NNODES", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}
"""What makes `swift` start several processes, or believe that it is one of several: a stage says so, or nobody."""
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_PATTERN = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|ms-[0-9a-f]{8}-[0-9a-f-]{20,})|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def load(folder: Path | None = None) -> dict[str, str]:
    """The process environment, completed by `.env` in `folder` (the working directory by default)."""
    file = (folder or Path.cwd()) / ".env"
    values = {k: v for k, v in dotenv_values(file).items() if v} if file.is_file() else {}
    return {**values, **os.environ}


def cache_dir(env: Mapping[str, str]) -> Path:
    """Where this project keeps what it can make again."""
    return Path(env.get("XDG_CACHE_HOME") or Path(env.get("HOME") or "~").expanduser() / ".cache") / "finetune-pipeline"


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret."""
    return bool(_SECRET.search(name))


def secrets(env: Mapping[str, str]) -> dict[str, str]:
    """The settings whose values must reach no argv, log, file or tracker."""
    return {name: value for name, value in env.items() if is_secret(name) and len(value) >= 6}


def keys(env: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Variables a tool reads keys from -> values of the variables of ours that hold them; EMPTY where there is none."""
    return {name: env.get(ours) or "EMPTY" for name, ours in wanted.items()}


def child_env(env: Mapping[str, str], allowed: Iterable[str] = ()) -> dict[str, str]:
    """What a tool is started with: no secrets but the allowed ones, UTF-8, loopback past any proxy, no buffering.

    Nor what a shell in which others were trained, or a cluster's launcher, says of the number of processes.
    """
    hidden = set(secrets(env)) - set(allowed) | _LAUNCH
    result = {name: value for name, value in env.items() if name not in hidden}
    # An empty lower-case no_proxy overrides NO_PROXY in httpx and aiohttp, so both are set, with the user's hosts.
    hosts = [h for name in ("NO_PROXY", "no_proxy") for h in env.get(name, "").split(",") if h]
    result["NO_PROXY"] = result["no_proxy"] = ",".join(dict.fromkeys([*hosts, *LOOPBACK]))
    locale = env.get("LC_ALL") or env.get("LC_CTYPE") or env.get("LANG") or ""
    if not re.search(r"UTF-?8", locale, re.IGNORECASE):
        result["LC_ALL"] = "C.UTF-8"
    result["PYTHONUTF8"] = "1"
    result["PYTHONUNBUFFERED"] = "1"
    return result


def redact(text: str, hidden: Iterable[str]) -> str:
    """The text with known secret values, and whatever looks like a key, blotted out."""
    for value in sorted(hidden, key=len, reverse=True):  # one may be a part of another
        text = text.replace(value, "***")
    return _PATTERN.sub("***", text)
