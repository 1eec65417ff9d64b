"""A model behind an OpenAI-compatible URL: what stages know of it, whether it answers, and asking it conversations.

As a program: `python -m pipeline.endpoint URL NAME --asked asked.jsonl --out answers.jsonl --max-tokens N`, with the
key in OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline import settings
from pipeline.errors import OutputError

ANSWER_S = 600.0
"""Longest wait for one answer; a large model on a small machine is slow."""
READY_S = 10.0
"""Longest wait for the list of models."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served. Nothing tells which weights run there, so its names are all the identity there is."""

    url: str
    """Base URL, ending in /v1."""
    model: str
    """Its name on that server."""
    revision: str | None = None
    """What the recipe calls the weights; another revision is another model."""
    key_env: str = "OPENAI_API_KEY"
    tokenizer: Path | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What enters a stage's args: the key and its variable do not."""
        return {"url": self.url, "model": self.model, "revision": self.revision}


def problem(endpoint: Endpoint, env: Mapping[str, str]) -> str | None:
    """Why the endpoint cannot be used, with the remedy; None if it answers and knows the model."""
    import httpx

    where = f"{endpoint.url}: "
    key = env.get(endpoint.key_env)
    try:
        with _client(endpoint.url, key, READY_S) as client:
            response = client.get(f"{endpoint.url}/models")
    except httpx.TimeoutException:
        return where + f"no answer within {READY_S:.0f} s; is the server still loading the model?"
    except httpx.HTTPError as error:
        start = f"swift deploy --model DIR --served_model_name {endpoint.model} --host 127.0.0.1 --port PORT"
        return where + f"nothing answers ({error}); start the server (`{start}`), or correct model.url"
    if response.status_code in (401, 403):
        told = (
            f"the key in {endpoint.key_env} was refused" if key else f"a key is wanted: set {endpoint.key_env} in .env"
        )
        return where + told
    try:
        names = [str(entry["id"]) for entry in response.raise_for_status().json()["data"]]
    except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
        return where + f"/models gives status {response.status_code} and no list of models; model.url should end in /v1"
    if endpoint.model not in names:
        return where + f"serves no {endpoint.model!r}, but {', '.join(names) or 'nothing'}; correct model.served_as"
    return None


def answer(client: Any, endpoint: Endpoint, messages: Sequence[Mapping[str, str]], max_tokens: int) -> str:
    """The model's greedy answer; OutputError if the server gives none."""
    body = {"model": endpoint.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
    response = client.post(f"{endpoint.url}/chat/completions", json=body)
    try:
        text = response.raise_for_status().json()["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        raise OutputError(f"{endpoint.url}: no answer in {response.text[:300]!r}") from error
    return str(text or "")


def _client(url: str, key: str | None, timeout: float) -> Any:
    import httpx

    # What the environment says of proxies holds for the network, never for this machine itself.
    remote = urlsplit(url).hostname not in settings.LOOPBACK
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(headers=headers, timeout=timeout, trust_env=remote)


def main(argv: Sequence[str] | None = None) -> int:
    import httpx

    parser = argparse.ArgumentParser(prog="python -m pipeline.endpoint", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("--asked", type=Path, required=True, help="JSONL of {messages: [...]}")
    parser.add_argument("--out", type=Path, required=True, help="JSONL of {response: ...}, a line for each")
    parser.add_argument("--max-tokens", type=int, required=True)
    words = parser.parse_args(argv)
    endpoint = Endpoint(words.url, words.model)
    rows = [json.loads(line) for line in words.asked.read_text(encoding="utf-8").split("\n") if line]
    with (
        _client(endpoint.url, settings.load().get("OPENAI_API_KEY"), ANSWER_S) as client,
        words.out.open("w", encoding="utf-8") as stream,
    ):
        for done, row in enumerate(rows, 1):
            try:
                text = answer(client, endpoint, row["messages"], words.max_tokens)
            except (httpx.HTTPError, OutputError) as error:
                print(f"{endpoint.url}: {error}", file=sys.stderr)
                return 1
            stream.write(json.dumps({"response": text}, ensure_ascii=False) + "\n")
            print(f"{done}/{len(rows)} answered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
