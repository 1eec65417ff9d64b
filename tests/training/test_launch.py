"""How many processes are started, and that two trainings on one machine do not meet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.training import launch, plugins
from pipeline.training.spec import TrainSpec


def spec(**fields: Any) -> TrainSpec:
    return TrainSpec.model_validate({"gpus": 0, "deepspeed": "none", **fields})


def test_one_process_is_started_without_a_launcher() -> None:
    for gpus in (0, 1):
        env = launch.environment(spec(gpus=gpus))
        assert not {"NPROC_PER_NODE", "PET_STANDALONE", "OMP_NUM_THREADS"} & env.keys()
        assert "ddp_backend" not in launch.plumbing(spec(gpus=gpus))


def test_under_deepspeed_one_process_has_a_launcher_too() -> None:
    assert launch.environment(spec(gpus=1, deepspeed="zero3_offload"))["NPROC_PER_NODE"] == "1"


def test_processes_on_the_cpu_talk_by_gloo_and_share_the_cores() -> None:
    train = spec(cpu_processes=3)
    env = launch.environment(train)
    assert env["NPROC_PER_NODE"] == "3"
    assert env["OMP_NUM_THREADS"] == "1"
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert "DS_ACCELERATOR" not in env
    assert launch.plumbing(train) | {"use_cpu": True, "ddp_backend": "gloo"} == launch.plumbing(train)


def test_gpus_are_left_to_whoever_hands_them_out() -> None:
    """`cpu_processes` counts only where there is no GPU; which GPUs are seen is the executor's business."""
    train = spec(gpus=4, cpu_processes=2, deepspeed="zero2")
    env = launch.environment(train)
    assert env["NPROC_PER_NODE"] == "4"
    assert not {"CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "OMP_NUM_THREADS"} & env.keys()
    assert not {"ddp_backend", "external_plugins", "dataloader_num_workers"} & launch.plumbing(train).keys()


def test_offloaded_optimizers_have_more_than_one_thread() -> None:
    """torchrun allows 1 to each of several processes; a single one takes all cores."""
    for kind in ("zero2_offload", "zero3_offload"):
        assert int(launch.environment(spec(gpus=8, deepspeed=kind))["OMP_NUM_THREADS"]) > 1
        assert "OMP_NUM_THREADS" not in launch.environment(spec(gpus=1, deepspeed=kind))


def test_several_nodes_meet_where_their_environment_says() -> None:
    env = launch.environment(spec(gpus=8, nodes=2, deepspeed="zero3"))
    assert (env["NNODES"], env["NPROC_PER_NODE"]) == ("2", "8")
    assert not {name for name in env if name.startswith("PET_")}


@pytest.mark.parametrize("train", [{}, {"cpu_processes": 2, "deepspeed": "zero2"}, {"gpus": 2, "deepspeed": "zero2"}])
def test_our_plugins_are_files_of_the_attempt_behind_those_of_the_recipe(train: dict[str, Any]) -> None:
    out = Path("attempt")
    own = [plugins.LEARNABLE, *([plugins.NO_KERNELS] if "cpu_processes" in train else [])]
    told, files = plugins.with_plugins(out, {"external_plugins": ["a.py", own[0]]}, launch.plumbing(spec(**train)))
    assert told["external_plugins"] == ["a.py", *(str(out / name) for name in own)]
    assert files == {out / name: plugins.PLUGINS[name] for name in own}


@pytest.mark.parametrize("name", plugins.PLUGINS)
def test_a_plugin_is_python(name: str) -> None:
    compile(plugins.PLUGINS[name], name, "exec")


WORKER = """
import os, sys, time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
time.sleep(3)  # both trainings are up
mine = torch.tensor([float(sys.argv[1])])
dist.all_reduce(mine)
sys.stdout.write(f"SUM {mine.item()} {os.environ['MASTER_ADDR']}\\n")  # at once: the other process writes there, too
sys.stdout.flush()
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_trainings_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    """swift makes of its variables the words below; the port is one that lies about in the user's environment."""
    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    env = os.environ | launch.environment(spec(cpu_processes=2)) | {"MASTER_PORT": "29511"}
    words = ["-m", "torch.distributed.run", "--nproc_per_node", env["NPROC_PER_NODE"], "--master_port", "29511"]
    both = [
        subprocess.Popen(
            [sys.executable, *words, str(tmp_path / "worker.py"), str(number)], env=env, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for number in (1, 10)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=120) for process in both]
    finally:
        for process in both:
            process.terminate()  # torchrun ends its workers
    assert [process.returncode for process in both] == [0, 0], "\n".join(err[-2000:] for _, err in said)
    sums = [[line for line in out.splitlines() if line.startswith("SUM")] for out, _ in said]
    assert sums == [["SUM 2.0 127.0.0.1"] * 2, ["SUM 20.0 127.0.0.1"] * 2]


def test_an_adapter_does_not_ask_for_them_once_it_is_trained(tmp_path: Path) -> None:
    """ms-swift loads what args.json names whenever it loads the adapter."""
    (tmp_path / "checkpoint-4").mkdir()
    for folder in (tmp_path, tmp_path / "checkpoint-4"):
        mine = [str(folder / name) for name in plugins.PLUGINS]
        (folder / "args.json").write_text(json.dumps({"external_plugins": ["own/rows.py", *mine], "lora_rank": 8}))
    plugins.forget(tmp_path)
    for folder in (tmp_path, tmp_path / "checkpoint-4"):
        assert json.loads((folder / "args.json").read_text()) == {"external_plugins": ["own/rows.py"], "lora_rank": 8}
