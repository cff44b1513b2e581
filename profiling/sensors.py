"""Clocks, temperature and throttling: NVML on a GPU, /proc and /sys on a CPU."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import Any

from profiling.result_file import Sensors

# Reasons of NVML that say nothing is wrong: an idle GPU, clocks that an application chose.
_HARMLESS = ("None", "GpuIdle", "ApplicationsClocksSetting", "All")
_PREFIXES = ("nvmlClocksEventReason", "nvmlClocksThrottleReason")


def read(place: str) -> Sensors:
    """Return what the sensors of a place say now; what cannot be read is None."""
    return _gpu() if place == "gpu" else _cpu()


def max_sm_clock_mhz() -> float | None:
    """Return the highest clock of the current GPU's multiprocessors, or None where not known."""
    found = _nvml()
    if found is None:
        return None
    nvml, handle = found
    try:
        return float(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM))
    except nvml.NVMLError:
        return None


def gpu_identity() -> tuple[int, str]:
    """Return the current GPU's number on its host and its UUID.

    What NVML does not say, CuPy does: its own number, and where the GPU sits on the PCI bus.
    """
    import cupy

    runtime = cupy.cuda.runtime
    index = runtime.getDevice()
    found = _nvml()
    if found is not None:
        nvml, handle = found
        with contextlib.suppress(nvml.NVMLError):
            return nvml.nvmlDeviceGetIndex(handle), str(nvml.nvmlDeviceGetUUID(handle))
    return index, str(runtime.deviceGetPCIBusId(index))


def _gpu() -> Sensors:
    found = _nvml()
    if found is None:
        return Sensors()
    nvml, handle = found

    def ask(name: str, *args: Any) -> Any:
        try:
            return getattr(nvml, name)(handle, *args)
        except (AttributeError, nvml.NVMLError):
            return None

    reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:  # its name before driver 535
        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons") or 0
    return Sensors(
        ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        _named(nvml, reasons),
    )


def _named(nvml: Any, reasons: int) -> list[str]:
    names: dict[int, str] = {}
    for constant in sorted(vars(nvml)):
        for prefix in _PREFIXES:
            name = constant.removeprefix(prefix)
            if name != constant and name not in _HARMLESS and isinstance(vars(nvml)[constant], int):
                names.setdefault(vars(nvml)[constant], name)
    return [name for bit, name in sorted(names.items()) if bit & reasons]


@functools.cache
def _nvml() -> tuple[Any, Any] | None:
    """Return NVML and the handle of CuPy's current GPU, or None."""
    try:
        import cupy
        import pynvml

        pynvml.nvmlInit()
        bus = cupy.cuda.runtime.deviceGetPCIBusId(cupy.cuda.runtime.getDevice())
        return pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(bus)
    except Exception:  # no library, no driver, no such device: no sensors
        return None


def _cpu() -> Sensors:
    """Return the mean clock over the cores; virtual machines mostly report a nominal one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return Sensors()
    clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return Sensors(round(sum(clocks) / len(clocks), 1) if clocks else None, None, _cpu_celsius())


def _cpu_celsius() -> float | None:
    for zone in sorted(Path("/sys/class/thermal").glob("thermal_zone*")):
        try:
            if "pkg" in (zone / "type").read_text() or "cpu" in (zone / "type").read_text():
                return int((zone / "temp").read_text()) / 1000
        except (OSError, ValueError):
            continue
    return None
