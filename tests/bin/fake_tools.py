"""What the stand-ins for swift, lm_eval and evalscope share: their call log, their ways to misbehave, tiny weights.

Switches, all by environment:
  FAKE_CALLS        file that gets one JSON line per start: tool, argv, names of variables, canaries seen
  FAKE_FAIL         tools that end with status 1, e.g. "sft,lm_eval"; FAKE_FAIL_TEXT is what they say before
  FAKE_FAIL_WORD    word of the command line with which any tool fails
  FAKE_OOM_ABOVE    batch size above which an evaluation runs out of memory
  FAKE_TIMES        file that gets one JSON line per tool that has ended: tool, argv, gpus, start, end
  FAKE_NO_OUTPUT    tools that end well and write nothing
  FAKE_SAY_FILE     file whose text is printed
  FAKE_SLEEP_PER_STEP, FAKE_EVAL_SLEEP   seconds
  FAKE_EVAL_SLEEP_BUT   "seconds:word,..." for evaluations with one of these words in the command line
  FAKE_HANG_AT      step before which training hangs
  FAKE_DIE_AT       step before which training gets SIGKILL
  FAKE_HANG_ONCE_AT, FAKE_DIE_ONCE_AT   as these, but not in an attempt that goes on from a checkpoint
  FAKE_END_AT       step before which training ends, as if it had made them all; it has to be one behind a checkpoint
  FAKE_SLEEP_EARLIER, FAKE_SLEEP_LATER   seconds per step in the first and the second half
  FAKE_LOSS         JSON: step -> loss from there on, instead of one that falls
  FAKE_OVERFLOWS    steps at the beginning whose grad_norm is infinite, as under fp16
  FAKE_NAN          step at which grad_norm is NaN
  FAKE_UNTRAINED    lora_B stays zero
  FAKE_EVAL_LOSS    JSON: step -> eval_loss, instead of one that falls
  FAKE_WORKERS      sft: number of workers, each in a session of its own as under torchrun; the first one trains
  FAKE_PIDS         file that gets the pid of every process
"""

from __future__ import annotations

import atexit
import json
import os
import struct
import sys
import time
import zipfile
from pathlib import Path

CANARY = "canary-"


def say(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:  # nobody reads any more; a worker that was left behind goes on all the same
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115


def append(variable: str, text: str) -> None:
    if os.environ.get(variable):
        with Path(os.environ[variable]).open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")


def parse(argv: list[str]) -> dict[str, list[str]]:
    """--flag value ... and --flag=value; a flag without a value gets []."""
    found: dict[str, list[str]] = {}
    key = ""
    for word in argv:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            found[key] = [value] if equals else []
        else:
            found[key].append(word)
    return found


def begin(tool: str) -> None:
    """Log the start, then misbehave as asked."""
    seen = sorted(name for name, value in os.environ.items() if CANARY in value)
    proxies = {name: os.environ.get(name) for name in ("NO_PROXY", "no_proxy")}
    append("FAKE_CALLS", json.dumps({"tool": tool, "argv": sys.argv, "canaries": seen, "proxies": proxies}))
    append("FAKE_PIDS", str(os.getpid()))
    start, gpus = time.time(), os.environ.get("CUDA_VISIBLE_DEVICES")
    row = {"tool": tool, "argv": sys.argv, "gpus": gpus, "start": start}
    atexit.register(lambda: append("FAKE_TIMES", json.dumps(row | {"end": time.time()})))
    if os.environ.get("FAKE_SAY_FILE"):
        say(Path(os.environ["FAKE_SAY_FILE"]).read_text(encoding="utf-8"))
    if tool in os.environ.get("FAKE_FAIL", "").split(",") or os.environ.get("FAKE_FAIL_WORD") in sys.argv:
        say("Traceback (most recent call last):")
        say(os.environ.get("FAKE_FAIL_TEXT", "RuntimeError: the fake was told to fail"))
        sys.exit(1)
    if tool in os.environ.get("FAKE_NO_OUTPUT", "").split(","):
        sys.exit(0)


def out_of_memory(batch_size: str) -> None:
    if int(batch_size) > int(os.environ.get("FAKE_OOM_ABOVE", "1000")):
        say("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
        sys.exit(1)


def save(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)


def save_json(path: Path, value: object) -> None:
    save(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def safetensors(path: Path, tensors: dict[str, list[float]]) -> None:
    """Valid float32 safetensors, written by hand."""
    header, body = {}, b""
    for name, values in tensors.items():
        raw = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": [len(values)], "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text + body)


def archive(path: Path) -> None:
    """What torch.save writes is a zip file, here with next to nothing in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as stream:
        for name in ("data.pkl", "data/0", "version"):
            stream.writestr(f"{path.stem}/{name}", f"{name} of {path.name}")


def model(folder: Path, quality: float = 0.3) -> Path:
    """A folder that passes for a model. `fake_quality` is the share of questions the fake harnesses let it answer."""
    save_json(folder / "config.json", {"model_type": "llama", "dtype": "float32", "fake_quality": quality})
    save_json(folder / "tokenizer.json", {"version": "1.0"})
    save_json(folder / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    safetensors(folder / "model.safetensors", {"w": [quality, 1.0, 2.0]})
    return folder


def answers_right(folder: Path, question: str) -> bool:
    """Better models answer all that worse ones do, and more."""
    quality = float(json.loads((folder / "config.json").read_text(encoding="utf-8"))["fake_quality"])
    return (sum(map(ord, question)) * 37 % 100) / 100 < quality


def pause(variable: str) -> None:
    seconds, _, words = os.environ.get(f"{variable}_BUT", "").partition(":")
    chosen = bool(set(words.split(",")) & set(sys.argv))
    time.sleep(float(seconds if chosen else os.environ.get(variable, "0")))
