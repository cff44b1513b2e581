"""The GPUs' data, held against figures that the data sheets give on their own."""

from __future__ import annotations

import pytest

from kernels import resources
from kernels.xray.gpus import GPUS, MULTIPROCESSORS, find

# Float32 TFLOPS as the data sheets print them: multiprocessors x lanes x 2 x clock must give it.
PEAK_TFLOPS = {
    "t4": 8.1, "a100": 19.5, "a100-40": 19.5, "a10": 31.2, "3090": 35.6, "l4": 30.3, "l40s": 91.6,
    "4090": 82.6, "h100": 67, "h100-pcie": 51, "h200": 67, "b200": 75, "5090": 104.8,
}  # fmt: skip

# CUDA cores, in the same way.
CORES = {
    "t4": 2560, "a100": 6912, "a10": 9216, "3090": 10496, "l4": 7424, "l40s": 18176, "4090": 16384,
    "h100": 16896, "h100-pcie": 14592, "h200": 16896, "5090": 21760,
}  # fmt: skip


@pytest.mark.parametrize("key", GPUS)
def test_peak_is_the_data_sheets(key):
    assert GPUS[key].fp32_rate / 1e12 == pytest.approx(PEAK_TFLOPS[key], rel=0.01)


@pytest.mark.parametrize("key", CORES)
def test_cores_are_the_data_sheets(key):
    assert GPUS[key].sms * GPUS[key].sm.fp32_lanes == CORES[key]


@pytest.mark.parametrize("capability", MULTIPROCESSORS)
def test_shared_memory_fits_its_cache(capability):
    sm = MULTIPROCESSORS[capability]
    assert sm.shared_per_block + sm.shared_reserved <= sm.shared_bytes < sm.l1_bytes
    assert sm.shared_bytes % sm.shared_unit == 0


def test_nvrtc_compiles_for_every_gpu():
    pytest.importorskip("cuda.bindings.nvrtc")
    assert {gpu.arch for gpu in GPUS.values()} <= set(resources.architectures())


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("h200", "h200"),
        ("H100", "h100"),
        ("RTX 4090", "4090"),
        ("rtx4090", "4090"),
        ("NVIDIA GeForce RTX 3090", "3090"),
        ("Tesla T4", "t4"),
        ("h100_pcie", "h100-pcie"),
    ],
)
def test_names_as_people_write_them(typed, key):
    assert find(typed) is GPUS[key]


@pytest.mark.parametrize("typed", ["v100", "", "4090 ti", "rtx"])
def test_an_unknown_gpu_is_one_line_with_those_there_are(typed):
    with pytest.raises(ValueError, match="unknown GPU") as caught:
        find(typed)
    message = str(caught.value)
    assert repr(typed) in message
    assert all(key in message for key in GPUS)
    assert "\n" not in message
