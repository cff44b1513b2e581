"""cupy.cuda.runtime of the double."""

from __future__ import annotations

import os
from typing import Any


class CUDARuntimeError(RuntimeError):
    """What the runtime refuses."""


# GPUs of this machine, one after the other; a test of several processes says how many.
devices = int(os.environ.get("CUPY_DOUBLE_DEVICES", "1"))
current = 0


def getDeviceCount() -> int:  # noqa: N802
    """Return how many there are."""
    return devices


def getDeviceProperties(device: int) -> dict[str, Any]:  # noqa: N802
    """Say what this device is not."""
    return {
        "name": b"test double, not a GPU",
        "major": 9,
        "minor": 0,
        "multiProcessorCount": 1,
        "totalGlobalMem": 1 << 30,
        "l2CacheSize": 1 << 20,
        "sharedMemPerBlock": 48 << 10,
    }


def getDevice() -> int:  # noqa: N802
    """Return the current one."""
    return current


def deviceGetPCIBusId(device: int) -> str:  # noqa: N802
    """Return what tells it from the others."""
    return f"0000:{device:02X}:00.0"


def runtimeGetVersion() -> int:  # noqa: N802
    """Return a version that nobody released."""
    return 0


def driverGetVersion() -> int:  # noqa: N802
    """Return a version that nobody released."""
    return 0


def deviceSynchronize() -> None:  # noqa: N802
    """Do nothing: a launch has ended when it returns."""


# Whether a profiler would see what is launched now; CuPy keeps no such thing.
profiling = False


def profilerStart() -> None:  # noqa: N802
    """Note it."""
    globals()["profiling"] = True


def profilerStop() -> None:  # noqa: N802
    """Note it."""
    globals()["profiling"] = False
