"""Probes of what works without a GPU: Python, NumPy, Numba, the emulator, NVRTC."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from profiling import doctor_kernel, prerequisites
from profiling.doctor_probe import Finding

# What the lab imports beside NumPy and Numba, and what installs it.
PACKAGES = {
    "PIL": "pillow",
    "msgspec": "msgspec",
    "numba_cuda": "numba-cuda",
    "nvtx": "nvtx",
    "plotly": "plotly",
    "pooch": "pooch",
    "pynvml": "nvidia-ml-py",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "threadpoolctl": "threadpoolctl",
}
LEAST_DISK = 200 << 20  # bytes; a compiled kernel takes about a hundred thousand


def python() -> list[Finding]:
    """Look at the interpreter and the packages."""
    version = f"{platform.python_version()} at {sys.executable}"
    if prerequisites.python_problem():
        interpreter = Finding(
            "Python", "broken", f"{version}; expected 3.11 to 3.14", "make PYTHON=python3.12 test"
        )
    else:
        interpreter = Finding("Python", "OK", version)
    absent = [name for module, name in PACKAGES.items() if not importlib.util.find_spec(module)]
    if absent:
        missing = ", ".join(absent)
        packages = Finding("packages", "missing", missing, f"pip install {' '.join(absent)}")
    else:
        packages = Finding("packages", "OK", f"all {len(PACKAGES)} that the lab imports")
    return [interpreter, packages, *_nvtx()]


def _nvtx() -> list[Finding]:
    if importlib.util.find_spec("nvtx") is None:
        return []  # among the packages that are missing
    from kernels import ranges

    with ranges.span("doctor"):
        return [Finding("NVTX", "OK", f"nvtx {importlib.metadata.version('nvtx')}, ranges open")]


def numpy() -> list[Finding]:
    """Multiply matrices, and say by which BLAS."""
    import numpy as np

    a = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) % 7  # small integers: exact sums
    if not np.array_equal(a @ a, np.einsum("ik,kj->ij", a, a)):
        return [
            Finding("NumPy", "broken", "a matrix product is wrong",
                    "pip install --force-reinstall numpy")
        ]  # fmt: skip
    found = f"numpy {np.__version__}"
    if importlib.util.find_spec("threadpoolctl"):
        from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

        found += "".join(
            f", {pool['internal_api']} {pool['version']} on {pool['num_threads']} threads"
            for pool in threadpool_info()
            if pool["user_api"] == "blas"
        )
    return [Finding("NumPy", "OK", found)]


def numba() -> list[Finding]:
    """Compile a parallel loop and run it."""
    import numba
    import numpy as np

    began = time.perf_counter()

    @numba.njit(parallel=True)  # not cached, or nothing would be compiled the second time
    def total(x: np.ndarray) -> float:
        found = 0.0
        for i in numba.prange(len(x)):
            found += x[i]
        return found

    if total(np.arange(1000.0)) != 499500.0:
        return [
            Finding("Numba", "broken", "a compiled loop gives a wrong sum",
                    "pip install --force-reinstall numba llvmlite")
        ]  # fmt: skip
    took = time.perf_counter() - began
    found = f"numba {numba.__version__} compiled and ran a parallel loop in {took:.1f} s"
    return [Finding("Numba", "OK", f"{found}, threads by {numba.threading_layer()}")]


def emulator() -> list[Finding]:
    """Compile a kernel with the C++ compiler, run it on the emulator, and look at its cache."""
    import numpy as np

    from kernels import emulator
    from kernels.emulator.cache import cache_directory
    from kernels.emulator.compiler import find_compiler

    install = "unset CXX, or: apt install g++" if os.environ.get("CXX") else "apt install g++"
    if problem := emulator.problem():
        # What comes after the colon is advice, of which there is some already.
        compiler = Finding(
            "C++ compiler",
            "missing" if prerequisites.compiler_problem() else "broken",
            problem.partition(": ")[0],
            install,
        )
        return [compiler, Finding("emulator", "missing", "it needs the C++ compiler", install)]
    found = find_compiler()
    # After the command and the time of its last change: what --version said.
    _, _, version = found.identity.removeprefix(f"{shlex.join(found.command)} ").partition(" ")
    text = f"{found.command[0]}: {version.partition(chr(10))[0]}"
    compiler = Finding("C++ compiler", "OK", text)
    cache = _cache(cache_directory())
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, _empty_cache(folder):
        file = Path(folder) / "doctor.cu"
        file.write_text(doctor_kernel.SOURCE)
        try:
            function = emulator.load(file).get_function(doctor_kernel.NAME)
            wrong = "" if doctor_kernel.launch(function, np) else "a kernel's answer is wrong"
        except emulator.EmulatorError as error:
            wrong = str(error).splitlines()[0]
    if wrong:
        return [compiler, Finding("emulator", "broken", wrong, install), cache]
    took = time.perf_counter() - began
    done = f"compiled itself and a kernel in {took:.1f} s; the answer is right"
    return [compiler, Finding("emulator", "OK", done), cache]


@contextlib.contextmanager
def _empty_cache(folder: str) -> Iterator[None]:
    """Let the emulator compile, whatever it has compiled before."""
    kept = os.environ.get("CONV_KERNEL_LAB_CACHE")
    os.environ["CONV_KERNEL_LAB_CACHE"] = folder
    try:
        yield
    finally:
        del os.environ["CONV_KERNEL_LAB_CACHE"]
        if kept is not None:
            os.environ["CONV_KERNEL_LAB_CACHE"] = kept


def _cache(directory: Path) -> Finding:
    if directory.name.startswith("conv-kernel-lab-"):  # the emulator's way out, gone at exit
        return Finding(
            "emulator's cache", "note", "not writable: every process compiles its kernels anew",
            "export CONV_KERNEL_LAB_CACHE=/a/directory/to/write/to",
        )  # fmt: skip
    free = shutil.disk_usage(directory).free
    found = f"{directory}, {free / 2**30:.1f} GiB free"
    if free < LEAST_DISK:
        return Finding("emulator's cache", "note", found, f"rm -r {shlex.quote(str(directory))}")
    return Finding("emulator's cache", "OK", found)


def nvrtc() -> list[Finding]:
    """Compile a kernel to machine code, for a GPU that need not be here."""
    from kernels import resources
    from kernels.source import nvrtc_options

    try:
        known = resources.architectures()
    except resources.NvrtcMissingError as error:
        return [Finding("NVRTC", "missing", str(error).partition(" (")[0], resources.INSTALL)]
    for arch in (known[0], known[-1]):
        resources.compile_cuda(arch, doctor_kernel.SOURCE, nvrtc_options(()), "doctor.cu")
    found = f"NVRTC {resources.nvrtc_version()} compiled a kernel for {known[0]} and {known[-1]}"
    return [Finding("NVRTC", "OK", found)]


def ptx() -> list[Finding]:
    """Compile a Numba kernel to PTX, for a GPU that need not be here."""
    install = "pip install 'conv-kernel-lab[offline]', or make test"
    if importlib.util.find_spec("numba_cuda") is None:
        return []  # among the packages that are missing
    from numba import cuda, float32, void

    from kernels import numba_cuda

    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") != "0":
        found = "NUMBA_ENABLE_CUDASIM makes numba.cuda the simulator"
        return [Finding("Numba to PTX", "note", found, "unset NUMBA_ENABLE_CUDASIM")]
    if problem := numba_cuda.ptx_problem():
        return [Finding("Numba to PTX", "missing", problem.partition(" (")[0], install)]

    def double(y):  # type: ignore[no-untyped-def]
        y[cuda.grid(1)] *= float32(2)

    cuda.compile(double, void(float32[::1]), device=False, abi="numba", cc=(9, 0))
    version = importlib.metadata.version("numba-cuda")
    return [Finding("Numba to PTX", "OK", f"numba-cuda {version} compiled a kernel for sm_90")]
