"""Where a model trains: host memory and NumPy, or a GPU and CuPy. Copies are always explicit."""

from __future__ import annotations

import functools
import os
import platform
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kernels import place
from lenet.errors import OptionError

Array = Any  # numpy.ndarray or cupy.ndarray


class Device(NamedTuple):
    """A place to compute.

    Attributes
    ----------
    name
        ``"cpu"`` or ``"gpu"``.
    xp
        Its array module, numpy or cupy.
    """

    name: str
    xp: Any

    def put(self, array: np.ndarray) -> Array:
        """Copy a NumPy array to the device (nothing to do on the CPU)."""
        return self.xp.asarray(array)

    def fetch(self, array: Array) -> np.ndarray:
        """Copy an array of the device to host memory (nothing to do on the CPU)."""
        return array if self.xp is np else self.xp.asnumpy(array)

    def synchronize(self) -> None:
        """Wait until the device has done what it was asked."""
        if self.xp is not np:
            self.xp.cuda.get_current_stream().synchronize()


CPU = Device("cpu", np)


def describe(device: Device) -> dict[str, Any]:
    """Return what one needs to know of the machine to read a time taken on it."""
    about: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
    }
    if device.name == "gpu":
        runtime = device.xp.cuda.runtime
        properties = runtime.getDeviceProperties(runtime.getDevice())
        about["gpu"] = properties["name"].decode()
    return about


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Return a context in which NumPy's BLAS works in one thread.

    LeNet's matrix products take a fraction of a millisecond: BLAS threads that wait for the next
    one take the cores from the convolutions, several times what they gain. And with one thread the
    sums do not depend on the number of cores.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(1, user_api="blas")


def choose(name: str) -> Device:
    """Return the device that ``"auto"``, ``"cpu"`` or ``"gpu"`` means here.

    Raises
    ------
    OptionError
        An unknown name, or ``"gpu"`` where there is none; the message says why.
    """
    if name not in ("auto", "cpu", "gpu"):
        raise OptionError(f"device is {name!r}; expected 'auto', 'cpu' or 'gpu'")
    problem = None if name == "cpu" else place.gpu_problem()
    if name == "gpu" and problem:
        raise OptionError(f"--device gpu: {problem}; use --device cpu")
    if name == "cpu" or problem:
        return CPU
    import cupy

    return Device("gpu", cupy)
