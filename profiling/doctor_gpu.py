"""Probes of what runs kernels on a GPU: CuPy, NVRTC, cuBLAS, Numba; and PyTorch, the peer.

Those that need a GPU find nothing to say where there is none.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np

from kernels import place
from profiling import doctor_driver, doctor_kernel, machine, prerequisites
from profiling.doctor_probe import Finding, Status

DOUBLE = "by the tests' double of CuPy, which is no GPU"
NO_DOUBLE = "unset PYTHONPATH"  # what puts the double in CuPy's place


def cupy() -> list[Finding]:
    """Look at CuPy: which wheel, for which CUDA, and whether it reaches the GPU."""
    driver = prerequisites.driver_cuda_version()
    install = f"pip install 'conv-kernel-lab[{prerequisites.cuda_extra(driver) or 'cuda12'}]'"
    if importlib.util.find_spec("cupy") is None:
        use = "not installed" if driver else "not installed; of use with a GPU only"
        return [Finding("CuPy", "missing", use, install)]
    wheels = sorted(
        name
        for package in importlib.metadata.distributions()
        if re.fullmatch(r"cupy(-cuda\w+)?", name := package.metadata["Name"] or "")
    )
    install = f"pip uninstall -y {' '.join(wheels) or 'cupy'} && {install}"
    if len(wheels) > 1:
        found = f"{' and '.join(wheels)} overwrite each other's files"
        return [Finding("CuPy", "broken", found, install)]
    built_for = re.search(r"cuda(\d+)x", wheels[0]) if wheels else None
    if driver and built_for and int(built_for[1]) > driver[0]:
        found = (
            f"{wheels[0]} needs CUDA {built_for[1]}, and the driver runs {driver[0]}.{driver[1]}"
        )
        return [Finding("CuPy", "broken", found, install)]
    if problem := place.gpu_problem():
        if _device_is_there():
            return [Finding("CuPy", "broken", problem, install)]
        return [Finding("CuPy", "OK", f"{', '.join(wheels)}; no GPU for it to run on")]
    if machine.is_test_double():
        return [Finding("CuPy", "note", f"answered {DOUBLE}", NO_DOUBLE)]
    about = machine.describe("gpu")
    return [Finding("CuPy", "OK", f"cupy {about['cupy']}, CUDA {about['runtime_cuda']}")]


def cuda_c() -> list[Finding]:
    """Compile CUDA C by CuPy and NVRTC, launch it, and hold the answer against the right one."""
    os.environ["CUPY_CACHE_IN_MEMORY"] = "1"  # or nothing would be compiled the second time
    if place.gpu_problem():
        return []
    import cupy

    from kernels.source import nvrtc_options

    module = cupy.RawModule(code=doctor_kernel.SOURCE, options=nvrtc_options(()))
    right = doctor_kernel.launch(module.get_function(doctor_kernel.NAME), cupy)
    return [_verdict("CUDA C on the GPU", right, "compiled by NVRTC and launched")]


def cublas() -> list[Finding]:
    """Multiply matrices on the GPU."""
    if place.gpu_problem():
        return []
    import cupy

    a = (np.arange(64 * 64) % 7).astype(np.float32).reshape(64, 64)  # small integers: exact sums
    got = cupy.matmul(cupy.asarray(a), cupy.asarray(a)).get()
    return [
        _verdict("cuBLAS", np.array_equal(got, np.einsum("ik,kj->ij", a, a)), "multiplied matrices")
    ]


def numba() -> list[Finding]:
    """Compile a kernel by Numba and launch it on the GPU."""
    if place.gpu_problem() or machine.is_test_double():  # its launches go past CuPy
        return []
    from numba import cuda

    from kernels import numba_cuda

    name = "Numba on the GPU"
    if problem := numba_cuda.gpu_problem():
        found = problem.partition("; ")[0]
        return [Finding(name, "note", found, "unset NUMBA_ENABLE_CUDASIM")]

    @cuda.jit
    def double(y: Any) -> None:
        i = cuda.grid(1)
        if i < y.size:
            y[i] *= 2

    y = cuda.to_device(np.arange(100, dtype=np.int32))
    double[128, 1](y)  # of fewer blocks Numba would warn
    right = np.array_equal(y.copy_to_host(), 2 * np.arange(100))
    version = importlib.metadata.version("numba-cuda")
    return [_verdict(name, right, f"compiled by numba-cuda {version} and launched")]


def torch() -> list[Finding]:
    """Look at PyTorch without importing it, which takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        found = "not installed; only comparisons with it need it"
        return [Finding("PyTorch", "missing", found, "make compare-torch")]
    about = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    version, cuda = about["__version__"], about.get("cuda")
    if cuda:
        return [Finding("PyTorch", "OK", f"torch {version}, built for CUDA {cuda}")]
    status: Status = "note" if _device_is_there() else "OK"
    mend = "pip install --force-reinstall torch==2.13.0" if status == "note" else ""
    return [Finding("PyTorch", status, f"torch {version}, built without CUDA", mend)]


def _verdict(name: str, right: bool, how: str) -> Finding:
    if not right:
        return Finding(name, "broken", f"{how}, and the answer is wrong", doctor_driver.LOG)
    if machine.is_test_double():
        return Finding(name, "note", f"answered {DOUBLE}", NO_DOUBLE)
    return Finding(name, "OK", f"{how}; the answer is right")


def _device_is_there() -> bool:
    try:
        return bool(doctor_driver.devices())
    except (OSError, doctor_driver.DriverError):
        return False
