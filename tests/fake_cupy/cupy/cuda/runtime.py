"""cupy.cuda.runtime of the double."""

from __future__ import annotations

from typing import Any


class CUDARuntimeError(RuntimeError):
    """What the runtime refuses."""


def getDeviceCount() -> int:  # noqa: N802
    """Return 1."""
    return 1


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
    """Return 0."""
    return 0


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
