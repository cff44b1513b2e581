"""Occupancy: cases worked by hand, NVIDIA's own calculator where it is at hand, and what must hold.

The calculator is a C header, ``cuda_occupancy.h``, which CUDA toolkits and the wheel
nvidia-cuda-runtime bring along.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.xray.gpus import GPUS, MULTIPROCESSORS, Gpu
from kernels.xray.occupancy import occupancy

KIB = 1024
EVERY_CAPABILITY = [Gpu(c, c, 1, 1e9, 0, 1e9) for c in MULTIPROCESSORS]


@pytest.mark.parametrize(
    ("gpu", "threads", "registers", "shared", "blocks", "binds"),
    [
        # 2,048 resident threads are 8 blocks of 256; 32 registers of 2,048 threads are all 65,536.
        ("h200", 256, 32, 0, 8, ["warps", "registers"]),
        # 33 registers: 1,056 a warp, given out by 256, so 1,280; 12 such warps in each quarter's
        # 16,384, 48 in all; blocks of 8 warps.
        ("h200", 256, 33, 0, 6, ["registers"]),
        # 255 registers: 8,160 a warp becomes 8,192; 2 in each quarter, 8 in all; blocks of 3 warps.
        ("h200", 96, 255, 0, 2, ["registers"]),
        # The quarters cut it short: 3,072 registers a warp, 5 warps in each quarter (15,360 of
        # 16,384), 20 in all, though 65,536 registers are 21 times as many. Blocks of 7 warps.
        ("a100", 224, 96, 0, 2, ["registers"]),
        # 49,152 bytes and CUDA's 1,024: 50,176; 167,936 of them make 3.
        ("a100", 128, 32, 48 * KIB, 3, ["shared"]),
        # On a T4 nothing is kept back: 65,536 / 32,768.
        ("t4", 128, 32, 32 * KIB, 2, ["shared"]),
        # 227 KiB is the most that a block can have, and then it is alone.
        ("h200", 1024, 64, 227 * KIB, 1, ["registers", "shared"]),
        # One warp a block: the count of blocks, 24, not the room for 48 warps.
        ("4090", 32, 32, 0, 24, ["blocks"]),
        # 1,024 threads do not go twice into 1,536.
        ("4090", 1024, 32, 0, 1, ["warps"]),
        # 33 threads are 2 warps.
        ("t4", 33, 16, 0, 16, ["warps", "blocks"]),
        # 100 KiB = 102,400; 1 byte is 1,025 with CUDA's, 1,152 in units of 128; 88 such.
        ("4090", 64, 32, 1, 24, ["warps", "blocks"]),
    ],
)
def test_worked_by_hand(gpu, threads, registers, shared, blocks, binds):
    found = occupancy(GPUS[gpu], threads, registers, shared)
    assert (found.blocks, found.binds) == (blocks, binds)


def test_fraction_and_warps():
    found = occupancy(GPUS["h200"], 96, 255)
    assert (found.warps_per_block, found.warps, found.max_warps) == (3, 6, 64)
    assert found.fraction == 6 / 64


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "binds"),
    [
        (64, 32, 227 * KIB + 1, ["shared"]),
        # 66 registers: 2,304 a warp for 32 warps are 73,728.
        (1024, 66, 0, ["registers"]),
    ],
)
def test_what_cannot_be_launched_fits_no_time(threads, registers, shared, binds):
    found = occupancy(GPUS["h200"], threads, registers, shared)
    assert (found.blocks, found.fraction, found.binds) == (0, 0, binds)


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "said"),
    [
        (0, 32, 0, "got 0 threads a block; expected 1 to 1024"),
        (1025, 32, 0, "got 1025 threads a block; expected 1 to 1024"),
        (32, 256, 0, "got 256 registers a thread; expected 0 to 255"),
        (32, 32, -1, "got -1 bytes of shared memory; expected 0 or up"),
    ],
)
def test_figures_that_no_kernel_can_have(threads, registers, shared, said):
    with pytest.raises(ValueError, match=said):
        occupancy(GPUS["h200"], threads, registers, shared)


ASKED = {
    "gpu": st.sampled_from(EVERY_CAPABILITY),
    "threads": st.integers(1, 1024),
    "registers": st.integers(0, 255),
    "shared": st.integers(0, 230 * KIB),
}


@given(**ASKED, more=st.integers(0, 4096))
def test_asking_for_more_never_fits_more(gpu, threads, registers, shared, more):
    blocks = occupancy(gpu, threads, registers, shared).blocks
    assert occupancy(gpu, threads, registers, shared + more).blocks <= blocks
    assert occupancy(gpu, threads, min(registers + more, 255), shared).blocks <= blocks
    assert occupancy(gpu, min(threads + more, 1024), registers, shared).blocks <= blocks


@given(**ASKED)
def test_what_is_resident_fits(gpu, threads, registers, shared):
    found = occupancy(gpu, threads, registers, shared)
    assert found.blocks * threads <= gpu.sm.threads
    assert found.blocks * threads * registers <= 65536
    assert found.blocks * (shared + gpu.sm.shared_reserved) <= gpu.sm.shared_bytes
    assert 0 <= found.fraction <= 1
    assert found.binds


# NVIDIA's calculator.

HEADER = "cuda_occupancy.h"
CALL = f"""
#include "{HEADER}"

extern "C" int blocks(int major, int minor, int warps, long shared, long shared_block,
                      long reserved, int threads, int registers, long dynamic, int limits[4]) {{
    cudaOccDeviceProp device;
    device.computeMajor = major;
    device.computeMinor = minor;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = 32 * warps;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 49152;
    device.sharedMemPerMultiprocessor = shared;
    device.numSms = 1;
    device.sharedMemPerBlockOptin = shared_block;
    device.reservedSharedMemPerBlock = reserved;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = registers;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = dynamic;
    kernel.numBlockBarriers = 1;
    cudaOccDeviceState state;
    cudaOccResult result;
    const int status = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state,
                                                               threads, dynamic);
    limits[0] = result.blockLimitWarps;
    limits[1] = result.blockLimitBlocks;
    limits[2] = result.blockLimitRegs;
    limits[3] = result.blockLimitSharedMem;
    return status ? -status : result.activeBlocksPerMultiprocessor;
}}
"""


def _header() -> Path | None:
    places = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include" / HEADER]
    for package in importlib.metadata.distributions():
        if "cuda" in (package.metadata["Name"] or "") and "runtime" in package.metadata["Name"]:
            places += [
                Path(package.locate_file(f)) for f in package.files or [] if f.name == HEADER
            ]
    return next((place for place in places if place.is_file()), None)


@pytest.fixture(scope="module")
def calculator(tmp_path_factory):
    header = _header()
    if header is None:
        pytest.skip(f"no {HEADER} here (pip install nvidia-cuda-runtime has it)")
    folder = tmp_path_factory.mktemp("calculator")
    (folder / "call.cpp").write_text(CALL)
    command = ["c++", "-shared", "-fPIC", "-w", f"-I{header.parent}", "call.cpp", "-o", "call.so"]
    subprocess.run(command, cwd=folder, check=True)
    function = ctypes.CDLL(str(folder / "call.so")).blocks
    long = ctypes.c_long
    function.argtypes = [ctypes.c_int] * 3 + [long] * 3 + [ctypes.c_int] * 2 + [long]
    function.argtypes += [ctypes.POINTER(ctypes.c_int)]
    return function


@pytest.mark.parametrize("gpu", EVERY_CAPABILITY, ids=list(MULTIPROCESSORS))
def test_agrees_with_nvidias_calculator(calculator, gpu):
    rng, sm = random.Random(0), gpu.sm
    major, minor = map(int, gpu.capability.split("."))
    limits = (ctypes.c_int * 4)()
    for _ in range(3000):
        threads, registers = rng.randint(1, 1024), rng.randint(1, 255)
        shared = rng.choice([0, rng.randint(0, sm.shared_per_block + 999), rng.randint(0, 16384)])
        found = occupancy(gpu, threads, registers, shared)
        theirs = calculator(
            major, minor, sm.warps, sm.shared_bytes, sm.shared_per_block, sm.shared_reserved,
            threads, registers, shared, limits,
        )  # fmt: skip
        assert theirs >= 0, "the calculator refuses the question"
        asked = (gpu.capability, threads, registers, shared)
        assert (found.blocks, asked) == (theirs, asked)
        names = ("warps", "blocks", "registers", "shared")
        each = dict(zip(names, limits, strict=True))
        assert (found.limits, asked) == ({name: each[name] for name in found.limits}, asked)
