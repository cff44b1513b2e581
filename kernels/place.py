"""Where an array lives: host memory (NumPy) or a GPU (CuPy)."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from contextlib import AbstractContextManager
from typing import Any

import numpy as np


def array_module(array: Any) -> Any:
    """Return the module an array belongs to, numpy or cupy; None for anything else."""
    if isinstance(array, np.ndarray):
        return np
    if type(array).__module__.partition(".")[0] == "cupy":
        import cupy

        if isinstance(array, cupy.ndarray):
            return cupy
    return None


def on_gpu(array: Any) -> bool:
    """Tell whether the array is CuPy's."""
    return not isinstance(array, np.ndarray)


def describe(array: Any) -> str:
    """Return where the array lives, for a person."""
    return f"GPU {array.device.id} (CuPy)" if on_gpu(array) else "host memory (NumPy)"


def current(array: Any) -> AbstractContextManager[Any]:
    """Return a context manager in which the array's GPU is the current device."""
    return array.device if on_gpu(array) else contextlib.nullcontext()


@functools.cache
def gpu_identity(device: int) -> dict[str, str]:
    """Return what a time measured on a GPU depends on: the GPU and its driver."""
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(device)
    return {
        "name": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "cuda_driver": str(runtime.driverGetVersion()),
    }


@functools.cache
def gpu_problem() -> str | None:
    """Return why no GPU can be used here, or None when one can."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed (pip install 'conv-kernel-lab[cuda12]')"
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() > 0:
            return None
        return "CuPy sees no CUDA device"
    except Exception as error:  # whatever a broken driver or wheel raises, there is no GPU
        return f"CuPy finds no usable GPU: {error}".splitlines()[0]
