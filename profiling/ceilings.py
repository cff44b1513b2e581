"""What this device can do, measured on it: a large copy, a large read, a large matrix product.

A share of a data sheet's figure says little about a kernel: no program reaches the data sheet. The
ceilings are what simple programs reach here, today, with these clocks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kernels.xray import gpus
from profiling import peers, sensors
from profiling.clock_cpu import CpuClock, last_cache_bytes
from profiling.result_file import Ceilings
from profiling.timing import Clock, Policy, Subject, measure

POLICY = Policy(min_seconds=0.3, max_seconds=3.0)
GEMM_CPU, GEMM_GPU = 2048, 8192
# Arrays of several times the last cache, and no more of the memory than that.
CACHES = 4
LARGEST_ARRAY = 2 << 30
BLOCK = 256
# A ceiling is this quantile of its times.
UNDISTURBED = 0.1

# Float32 operations of one x86 core in a clock: two multiply-adds as wide as its vectors.
CPU_FLOPS_PER_CLOCK = {"avx512f": 64, "avx2": 32, "avx": 16, "sse2": 8}
# Above the clock of any processor sold: a limit must not be missed for want of a data sheet.
CPU_CLOCK_LIMIT = 6.5e9


def measure_cpu() -> Ceilings:
    """Return the host's ceilings with the threads that Numba and BLAS are set to now."""
    import numba

    cache = last_cache_bytes()
    count = min(max(CACHES * cache, 64 << 20), LARGEST_ARRAY) // 4
    source, target = np.ones(count, np.float32), np.zeros(count, np.float32)
    parts = numba.get_num_threads()

    @numba.njit(parallel=True)
    def copy(source: Any, target: Any) -> None:
        for part in numba.prange(parts):
            begin, end = part * source.size // parts, (part + 1) * source.size // parts
            target[begin:end] = source[begin:end]

    @numba.njit(parallel=True, fastmath=True)
    def read(source: Any, sums: Any) -> None:
        for part in numba.prange(parts):
            begin, end = part * source.size // parts, (part + 1) * source.size // parts
            total = np.float32(0)
            for i in range(begin, end):
                total += source[i]
            sums[part] = total

    @numba.njit(parallel=True)
    def empty(sums: Any) -> None:
        for part in numba.prange(parts):
            sums[part] = 0

    sums = np.zeros(parts, np.float32)
    a, b, c = _matrices(np, GEMM_CPU)
    subjects = [
        Subject("copy", lambda _: copy(source, target)),
        Subject("read", lambda _: read(source, sums)),
        Subject("gemm", lambda _: np.matmul(a, b, out=c)),
        Subject("empty", lambda _: empty(sums)),
    ]
    return _ceilings(subjects, CpuClock(), source.nbytes, GEMM_CPU, cpu_peak_flops(parts), cache)


def measure_gpu() -> Ceilings:
    """Return the ceilings of CuPy's current GPU."""
    import cupy

    from profiling.clock_gpu import GpuClock, l2_bytes, source

    cache = l2_bytes()
    free, _ = cupy.cuda.Device().mem_info
    count = min(LARGEST_ARRAY, free // 8) // 16 * 4
    values, target = cupy.ones(count, np.float32), cupy.zeros(count, np.float32)
    blocks = 16 * _properties()["multiProcessorCount"]
    sums = cupy.zeros(blocks, np.float32)
    size = GEMM_GPU if free > 16 * GEMM_GPU**2 else GEMM_CPU
    a, b, c = _matrices(cupy, size)
    read, empty = source.kernel("read_all", like=values), source.kernel("empty", like=values)
    vectors = np.int64(count // 4)
    subjects = [
        Subject("copy", lambda _: cupy.copyto(target, values)),
        Subject("read", lambda _: read((blocks,), (BLOCK,), (values, sums, vectors))),
        Subject("gemm", lambda _: cupy.matmul(a, b, out=c), capturable=False),
        Subject("empty", lambda _: empty((1,), (1,), ())),
    ]
    clock = GpuClock()
    found = _ceilings(subjects, clock, values.nbytes, size, peak_flops(), cache)
    return msgspec.structs.replace(found, tensor_gemm=_tensor_gemm(clock, size))


def _tensor_gemm(clock: Any, size: int) -> dict[str, float]:
    """Return the rates of products on tensor cores, by PyTorch: CuPy has no bfloat16."""
    if peers.problem("torch", "gpu"):
        return {}
    import torch

    peers.use_stream(clock.stream)
    if torch.cuda.get_device_capability() < (8, 0):
        return {}
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        kinds = (("tf32", torch.float32), ("bf16", torch.bfloat16))
        subjects = [_torch_product(torch, name, dtype, size) for name, dtype in kinds]
        timings = [by_state["hot"] for by_state in measure(subjects, clock, POLICY, ("hot",))]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    seconds = [float(np.quantile(timing.samples_s, UNDISTURBED)) for timing in timings]
    return {s.name: 2 * size**3 / t for s, t in zip(subjects, seconds, strict=True)}


def _torch_product(torch: Any, name: str, dtype: Any, size: int) -> Subject:
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return Subject(name, lambda _: torch.mm(a, b, out=out), capturable=False)


def cpu_peak_flops(threads: int) -> float | None:
    """Return what threads on as many x86 cores cannot exceed in float32, or None elsewhere.

    The clock under load is nobody's to know, above all in a virtual machine: the limit is
    `CPU_CLOCK_LIMIT`, and real peaks are about half of it.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    widest = next((flops for name, flops in CPU_FLOPS_PER_CLOCK.items() if name in flags), None)
    return widest and threads * widest * CPU_CLOCK_LIMIT


def peak_flops() -> float | None:
    """Return the current GPU's float32 rate at its highest clock, or None where not known.

    Lanes of a multiprocessor (`kernels.xray.gpus`), a multiply-add each a clock, times the
    multiprocessors, times the highest clock that NVML gives.
    """
    properties = _properties()
    multiprocessor = gpus.MULTIPROCESSORS.get(f"{properties['major']}.{properties['minor']}")
    clock = sensors.max_sm_clock_mhz()
    if multiprocessor is None or clock is None:
        return None
    return 2.0 * multiprocessor.fp32_lanes * properties["multiProcessorCount"] * clock * 1e6


def _ceilings(
    subjects: list[Subject],
    clock: Clock,
    nbytes: int,
    size: int,
    peak: float | None,
    cache: int,
) -> Ceilings:
    # Arrays of several caches are cold whatever was there before.
    timings = [by_state["hot"] for by_state in measure(subjects, clock, POLICY, ("hot",))]
    # What the device reaches when nothing disturbs it; an empty launch is a time like others.
    copy, read, gemm = (float(np.quantile(t.samples_s, UNDISTURBED)) for t in timings[:3])
    empty = timings[3].median_s
    return Ceilings(2 * nbytes / copy, nbytes / read, 2 * size**3 / gemm, peak, empty, cache)


def _matrices(xp: Any, size: int) -> tuple[Any, Any, Any]:
    # Random, not zeros: a product of zeros draws less power, and runs faster.
    rng = np.random.default_rng(0)
    a, b = (xp.asarray(rng.standard_normal((size, size), dtype=np.float32)) for _ in range(2))
    return a, b, xp.empty((size, size), np.float32)


def _properties() -> dict[str, Any]:
    import cupy

    runtime = cupy.cuda.runtime
    return dict(runtime.getDeviceProperties(runtime.getDevice()))
