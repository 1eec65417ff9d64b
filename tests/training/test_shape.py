from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.recipe import ModelSpec
from pipeline.training import families, known_shapes, lora, memory, shape
from pipeline.training.shape import Linear, ModelShape
from pipeline.training.spec import TrainSpec

# As the model cards and the safetensors metadata of the hub state them.
PUBLISHED = {
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B-Base": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen2.5-32B-Instruct": 32_763_876_352,
    "Qwen/Qwen2.5-72B": 72_706_203_648,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "LLM-Research/Llama-3.2-3B-Instruct": 3_212_749_824,
    "LLM-Research/Meta-Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
}


def known(hub_id: str) -> ModelShape:
    found = shape.of(ModelSpec(id=hub_id))
    assert found is not None
    return found


def write_model(folder: Path, config: dict[str, Any], tensors: shape.Tensors, files: int = 1) -> Path:
    """A model folder whose safetensors have headers and no data: more is never read."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    names = sorted(tensors)
    for index in range(files):
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        for name in names[index::files]:
            header[name] = {"dtype": "BF16", "shape": list(tensors[name]), "data_offsets": [0, 0]}
        raw = json.dumps(header).encode()
        (folder / f"model-{index}.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    return folder


@pytest.mark.parametrize(("hub_id", "total"), PUBLISHED.items())
def test_known_models_have_their_published_size(hub_id: str, total: int) -> None:
    assert known(hub_id).parameters == total


def test_every_known_model_is_checked() -> None:
    checked = {known_shapes._plain(name.split("/")[1]) for name in PUBLISHED}
    assert checked == set(known_shapes._ROWS)


@pytest.mark.parametrize(
    "hub_id", ["someone/Qwen3-8B", "Qwen/Qwen3-9B", "Qwen/Qwen3-8B-AWQ", "Qwen/Qwen2.5-7B-Instruct-GGUF"]
)
def test_what_is_not_known_is_not_guessed(hub_id: str) -> None:
    assert shape.of(ModelSpec(id=hub_id)) is None


def test_active_weights_of_experts_are_those_a_token_meets() -> None:
    model = known("Qwen/Qwen3-30B-A3B")
    assert model.experts == 128
    assert model.active == 3_353_032_704  # "3.3B activated" on its card
    assert [linear.name.rsplit(".", 1)[1] for linear in model.linears] == ["q_proj", "k_proj", "v_proj", "o_proj"]


def test_headers_in_several_files_say_the_same_as_the_config(tmp_path: Path) -> None:
    config = known_shapes.config("Qwen/Qwen2.5-7B")
    assert config
    tensors = families.tensors(config)
    found = shape.read(write_model(tmp_path, config, tensors, files=3))
    assert found
    expected = shape.shape(config, tensors)
    assert expected
    assert found.parameters == expected.parameters
    assert set(found.linears) == set(expected.linears)
    assert found.dtype == "bfloat16"


def test_headers_win_over_the_config(tmp_path: Path) -> None:
    config = known_shapes.config("Qwen/Qwen3-0.6B")
    assert config
    tensors = {**families.tensors(config), "model.extra.weight": (7, 11)}
    found = shape.read(write_model(tmp_path, config, tensors))
    assert found and found.parameters == 596_049_920 + 77


def test_a_tied_head_that_was_saved_counts_once(tmp_path: Path) -> None:
    config = known_shapes.config("Qwen/Qwen3-0.6B")
    assert config
    tensors = {**families.tensors(config), "lm_head.weight": (151936, 1024)}
    found = shape.read(write_model(tmp_path, config, tensors))
    assert found and found.parameters == 596_049_920
    assert all("lm_head" not in linear.name for linear in found.linears)


def test_experts_saved_one_by_one_are_no_linears(tmp_path: Path) -> None:
    config = {**(known_shapes.config("Qwen/Qwen3-30B-A3B") or {}), "num_hidden_layers": 2, "num_experts": 4}
    fused = families.tensors(config)
    tensors = {name: size for name, size in fused.items() if ".experts." not in name}
    for layer in range(2):
        for expert in range(4):
            for part, size in (("gate", (768, 2048)), ("up", (768, 2048)), ("down", (2048, 768))):
                tensors[f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"] = size
    found = shape.read(write_model(tmp_path, config, tensors))
    expected = shape.shape(config, fused)
    assert found and expected
    assert (found.parameters, found.expert_parameters) == (expected.parameters, expected.expert_parameters)
    assert set(found.linears) == set(expected.linears)


def test_a_folder_without_weights_goes_by_its_config(tmp_path: Path) -> None:
    config = known_shapes.config("Qwen/Qwen2.5-7B")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    found = shape.read(tmp_path)
    assert found and found.parameters == 7_615_616_512


def test_own_files_come_before_the_table(tmp_path: Path) -> None:
    config = known_shapes.config("Qwen/Qwen3-0.6B")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    found = shape.of(ModelSpec(id="Qwen/Qwen3-8B"), tmp_path)
    assert found and found.parameters == 596_049_920


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"model_type": "llama"}',
        '{"model_type": "made_up", "hidden_size": 8}',
        '{"model_type": "llama", "hidden_size": "x"}',
    ],
)
def test_what_cannot_be_understood_is_none(tmp_path: Path, content: str) -> None:
    assert shape.read(tmp_path) is None
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    assert shape.read(tmp_path) is None


@pytest.mark.parametrize(
    "raw", [b"", b"abc", struct.pack("<Q", 10**12), struct.pack("<Q", 4) + b"{{{{", b"<!doctype html>"]
)
def test_a_cut_weight_file_is_none(tmp_path: Path, raw: bytes) -> None:
    config = known_shapes.config("Qwen/Qwen3-0.6B")
    (tmp_path / "config.json").write_text(json.dumps({**(config or {}), "model_type": "other"}), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(raw)
    assert shape.read(tmp_path) is None


def test_the_linears_of_one_block() -> None:
    model = known("Qwen/Qwen2.5-7B")
    sizes = {linear.name.rsplit(".", 1)[1]: (linear.inputs, linear.outputs, linear.count) for linear in model.linears}
    assert sizes == {
        "q_proj": (3584, 3584, 28), "k_proj": (3584, 512, 28), "v_proj": (3584, 512, 28), "o_proj": (3584, 3584, 28),
        "gate_proj": (3584, 18944, 28), "up_proj": (3584, 18944, 28), "down_proj": (18944, 3584, 28),
    }  # fmt: skip


def test_trained_weights_by_hand() -> None:
    model = known("Qwen/Qwen2.5-7B")
    # Rank 16 on all linear layers of this model: what everybody's log says.
    assert memory.trainable(model, TrainSpec(rank=16)) == 40_370_176
    assert memory.trainable(model, TrainSpec(tuner="full")) == model.parameters
    queries = memory.trainable(model, TrainSpec(rank=8, target_modules=("q_proj",)))
    assert queries == 28 * 8 * (3584 + 3584)
    assert memory.trainable(model, TrainSpec(rank=8, target_modules=("q_proj",), dora=True)) == queries + 28 * 3584
    assert memory.trainable(model, TrainSpec(rank=8, target_modules=("q_proj",), rslora=True)) == queries


def test_targets_are_names_or_ends_of_names_or_a_regex() -> None:
    model = known("Qwen/Qwen3-0.6B")

    def count(target: str | tuple[str, ...]) -> int:
        return sum(linear.count for linear in lora.targets(model, TrainSpec(target_modules=target)))

    assert count("all-linear") == count(("all-linear",)) == 7 * 28
    assert count(("q_proj", "v_proj")) == 56
    assert count("q_proj") == 28
    assert count(("_proj",)) == 0  # the end of a name is meant, from a dot on
    assert count(("layers.3.self_attn.q_proj",)) == 1
    assert count(r"model\.layers\.(0|1|13)\.mlp\..*") == 9
    assert count(r"layers\.0\..*") == 0  # the whole name has to match


def test_linears_by_hand_have_names() -> None:
    assert Linear("model.layers.{}.q", 1, 2, 3).names == ["model.layers.0.q", "model.layers.1.q", "model.layers.2.q"]
    assert Linear("model.layers.{}.q", 1, 2, 2, (4, 7)).names == ["model.layers.4.q", "model.layers.7.q"]
    assert Linear("proj", 1, 2).names == ["proj"]


def test_experts_that_are_named_get_a_rank_each() -> None:
    model = known("Qwen/Qwen3-30B-A3B")
    named = TrainSpec(rank=8, dropout=0.0, target_modules=("gate_proj", "up_proj", "down_proj"))
    one_block = 8 * 128 * (2 * (2048 + 2 * 768) + (768 + 2048))
    assert memory.trainable(model, named) == 48 * one_block
    attention = 8 * (2048 + 4096) * 2 + 8 * (2048 + 512) * 2
    assert memory.trainable(model, TrainSpec(rank=8)) == 48 * attention


@pytest.mark.slow
def test_real_models_of_transformers_and_peft_agree() -> None:
    """Parameters, linear layers and trained weights of the real classes, on torch's meta device."""
    program = Path(__file__).with_name("shape_check.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("agrees") >= 14
