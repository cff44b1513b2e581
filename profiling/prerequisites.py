"""What must be there before anything is installed; run by the Makefile with the bare interpreter.

Standard library only, and no syntax newer than Python 3.7, so that an old interpreter reaches its
own error message. Prints the extra that suits the machine's driver (``cuda12``, ``cuda13`` or
nothing); what is missing goes to stderr, one line, with exit status 2.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys

OLDEST, PAST_NEWEST = (3, 11), (3, 15)


def python_problem(version: tuple[int, ...] = sys.version_info[:2]) -> str | None:
    """Return why this interpreter will not do, or None."""
    if OLDEST <= tuple(version) < PAST_NEWEST:
        return None
    age = "old" if version < OLDEST else "new"
    return (
        f"Python {version[0]}.{version[1]} at {sys.executable} is too {age}; conv-kernel-lab needs "
        "3.11 to 3.14: make PYTHON=python3.12 ..."
    )


def venv_problem() -> str | None:
    """Return why no virtual environment can be made, or None."""
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            return (
                f"{sys.executable} has no module {module}: apt install python3-venv "
                "(or choose PYTHON=...)"
            )
    return None


def compiler_problem() -> str | None:
    """Return why the emulator could not compile, or None."""
    named = os.environ.get("CXX")
    if named:
        found = shutil.which(named.split()[0])
        return None if found else f"CXX={named}: no such compiler on the PATH"
    if shutil.which("g++") or shutil.which("clang++") or shutil.which("c++"):
        return None
    return "no C++ compiler, which the CPU emulator needs: apt install g++ (or CXX=...)"


def driver_cuda_version() -> tuple[int, int] | None:
    """Return (major, minor) of the newest CUDA the NVIDIA driver runs, or None without a driver."""
    version = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value:
            return version.value // 1000, version.value % 1000 // 10
    except (OSError, AttributeError):
        pass  # no driver library: nvidia-smi may still know
    try:
        listing = subprocess.run(
            ["nvidia-smi"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(rb"CUDA Version:\s*(\d+)\.(\d+)", listing.stdout)
    if listing.returncode or not found:
        return None
    return int(found.group(1)), int(found.group(2))


def cuda_extra(version: tuple[int, int] | None) -> str:
    """Return the extra for a driver of this CUDA version: ``cuda12``, ``cuda13`` or ``""``."""
    if version is None:
        return ""
    if version < (12, 0):
        print(
            f"The NVIDIA driver runs CUDA {version[0]}.{version[1]} at most, the lab needs 12.0: "
            "going on without the GPU.",
            file=sys.stderr,
        )
        return ""
    return "cuda13" if version >= (13, 0) else "cuda12"


def main() -> int:
    """Print the extra, or what is missing."""
    extra = cuda_extra(driver_cuda_version())
    problem = python_problem() or venv_problem() or (None if extra else compiler_problem())
    if problem:
        print(problem, file=sys.stderr)
        return 2
    print(extra)
    return 0


if __name__ == "__main__":
    sys.exit(main())
