"""On what a result was obtained: the machine, the software, the commit."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def describe(where: str) -> dict[str, Any]:
    """Return what a result file says of the machine.

    Parameters
    ----------
    where
        ``"gpu"`` adds the GPU, its driver and CuPy.
    """
    about: dict[str, Any] = {
        "name": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": _version("numpy"),
        "numba": _version("numba"),
    }
    return about | _gpu() if where == "gpu" else about


def commit() -> tuple[str | None, bool]:
    """Return the commit checked out (None outside a repository), and whether files differ from it.

    Result files do not count: writing one must not make the next one doubtful.
    """
    try:
        head = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", ".", ":!profiling/results")
    except (OSError, subprocess.CalledProcessError):
        return None, False
    return head, bool(changes)


def today() -> str:
    """Return the date, UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def is_test_double() -> bool:
    """Tell whether CuPy is the tests' double, whose results are never a GPU's."""
    import cupy

    return getattr(cupy, "TEST_DOUBLE", False)


def _gpu() -> dict[str, Any]:
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    return {
        "name": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "memory_bytes": int(properties["totalGlobalMem"]),
        "driver": _driver(),
        "driver_cuda": _cuda(runtime.driverGetVersion()),
        "runtime_cuda": _cuda(runtime.runtimeGetVersion()),
        "cupy": cupy.__version__,
    }


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*args: str) -> str:
    done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
