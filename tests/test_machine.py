"""What NVML says of GPUs, as the plan takes it. NVML itself is a stand-in: there is no GPU where the tests run."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import machine
from pipeline.errors import PreflightError

GIB = 2**30


class NVMLError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Two cards of 24 GiB, of which the driver keeps 0.4."""

    def memory(_handle: int, version: object = None) -> SimpleNamespace:
        assert version == "v2", "only the newer call says what the driver keeps"
        return SimpleNamespace(total=24 * GIB, reserved=round(0.4 * GIB), free=GIB, used=23 * GIB)

    fake = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlMemory_v2="v2",
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda index: f"GPU-{'ab'[index]}{index}",
        nvmlDeviceGetCudaComputeCapability=lambda _: (8, 9),
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetName=lambda index: f"card {index}".encode(),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ({}, ["card 0", "card 1"]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["card 1"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-b,0"}, ["card 1", "card 0"]),
        ({"CUDA_VISIBLE_DEVICES": "1,7,0"}, ["card 1"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
    ],
)
def test_the_visible_ones_with_the_memory_that_programs_can_have(
    nvml: SimpleNamespace, visible: dict[str, str], names: list[str]
) -> None:
    found = machine._gpus(visible)
    assert [gpu.name for gpu in found] == names
    assert all((gpu.memory_gb, gpu.compute_capability) == (23.6, (8, 9)) for gpu in found)


def test_a_gpu_that_does_not_answer_has_a_name_and_a_remedy(nvml: SimpleNamespace) -> None:
    def lost(_index: int) -> Any:
        raise NVMLError("GPU is lost")

    nvml.nvmlDeviceGetHandleByIndex = lost
    with pytest.raises(PreflightError, match=r"GPU is lost.*nvidia-smi.*--machine"):
        machine._gpus({})


def test_a_broken_gpu_that_nobody_asked_for_is_left_alone(nvml: SimpleNamespace) -> None:
    def lost(index: int) -> int:
        if index == 0:
            raise NVMLError("GPU is lost")
        return index

    nvml.nvmlDeviceGetHandleByIndex = lost
    assert [gpu.name for gpu in machine._gpus({"CUDA_VISIBLE_DEVICES": "1"})] == ["card 1"]
    assert machine._gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    with pytest.raises(PreflightError, match="GPU is lost"):
        machine._gpus({"CUDA_VISIBLE_DEVICES": "1,0"})


def test_parts_of_a_gpu_are_not_taken_for_no_gpu(nvml: SimpleNamespace) -> None:
    """With `gpus: auto` that would be a training on the CPU."""
    with pytest.raises(PreflightError, match=r"CUDA_VISIBLE_DEVICES=MIG-1234: .*--machine"):
        machine._gpus({"CUDA_VISIBLE_DEVICES": "MIG-1234"})


def test_without_a_driver_there_is_none(nvml: SimpleNamespace) -> None:
    def absent() -> None:
        raise NVMLError("driver not loaded")

    nvml.nvmlInit = absent
    assert machine._gpus({}) == ()
