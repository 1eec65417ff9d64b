"""Loads and encodes rows as ``swift sft --strict true`` does; run as a program, prints one JSON object.

``python swift_loader.py load FILE...``: per file, the rows that swift's loader makes of it, or the error it stops with.
``python swift_loader.py encode MODEL TEMPLATE FILE``: per row, the whole text and the text that is learned.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def load(path: str) -> list[Any]:
    from swift.dataset import load_dataset

    dataset, _ = load_dataset(path, strict=True, num_proc=1)
    return [{key: row[key] for key in ("messages", "tools") if row.get(key) is not None} for row in dataset]


def tried(path: str) -> Any:
    try:
        return load(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def encode(model: str, template_type: str, path: str) -> list[dict[str, str]]:
    from swift.model import get_processor
    from swift.template import get_template

    template = get_template(get_processor(model, model_type="llama"), template_type=template_type, max_length=100_000)
    template.set_mode("train")
    rows = []
    for row in load(path):
        encoded = template.encode(row)
        learned = [token for token in encoded["labels"] if token != -100]
        rows.append(
            {"all": template.tokenizer.decode(encoded["input_ids"]), "learned": template.tokenizer.decode(learned)}
        )
    return rows


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    result = {path: tried(path) for path in rest} if command == "load" else encode(*rest)
    print("\n" + json.dumps(result))
