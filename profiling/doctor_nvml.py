"""A probe of the GPU's state by NVML: what makes a measured time no one else's."""

from __future__ import annotations

import os
from typing import Any

from profiling import doctor_driver, prerequisites
from profiling.doctor_probe import Finding

# Bits of the reasons that hold clocks down; idleness (1) is none of ours.
SET_CLOCKS, POWER_CAP = 0x2, 0x4
REASONS = {
    POWER_CAP: "the power cap",
    0x8: "a hardware slowdown",
    0x10: "sync boost with another GPU",
    0x20: "heat, by the driver",
    0x40: "heat, by the hardware",
    0x80: "the power supply's brake",
    0x100: "the display's clocks",
    0x200: "the board's limit",
    0x400: "reliability",
}
NEAR_SLOWDOWN = 10  # degrees Celsius
MIB = 2**20


def probe() -> list[Finding]:
    """Look at the first CUDA device's clocks, heat, modes and other users."""
    if prerequisites.driver_cuda_version() is None:
        return []
    try:
        import pynvml
    except ImportError:
        found = "nvidia-ml-py is not installed: clocks, heat and sharing are not seen"
        return [Finding("NVML", "missing", found, "pip install nvidia-ml-py")]
    try:
        pynvml.nvmlInit()
        gpu = Gpu(pynvml, _handle(pynvml))
    except pynvml.NVMLError as error:
        mend = "sudo reboot (after an update of the driver), or: nvidia-smi"
        return [Finding("NVML", "broken", str(error), mend)]
    lines = (
        gpu.persistence(), gpu.clocks(), gpu.throttling(), gpu.temperature(), gpu.ecc(), gpu.mig(),
        gpu.sharing(), gpu.display(), gpu.compute_mode(),
    )  # fmt: skip
    return [line for line in lines if line is not None]


def _handle(nvml: Any) -> Any:
    """Return NVML's handle of CUDA's first device: the two may number devices differently."""
    try:
        bus_id = doctor_driver.devices()[0].bus_id
    except (OSError, doctor_driver.DriverError, IndexError):
        return nvml.nvmlDeviceGetHandleByIndex(0)
    return nvml.nvmlDeviceGetHandleByPciBusId(bus_id)


class Gpu:
    """One GPU; each method is one line of the table, or None where NVML has nothing to say.

    Parameters
    ----------
    nvml
        The module pynvml.
    handle
        The GPU's.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self.nvml, self.handle = nvml, handle
        self.smi = f"nvidia-smi -i {self.ask('nvmlDeviceGetIndex') or 0}"

    def ask(self, function: str, *args: Any) -> Any:
        """Call an NVML function; None where this GPU or this NVML does not have it."""
        try:
            return getattr(self.nvml, function)(self.handle, *args)
        except (self.nvml.NVMLError, AttributeError):
            return None

    def persistence(self) -> Finding | None:
        """Whether the driver stays loaded between two processes."""
        mode = self.ask("nvmlDeviceGetPersistenceMode")
        if mode is None:
            return None
        if mode:
            return Finding("persistence mode", "OK", "on")
        found = "off: the GPU is set up anew for every process"
        return Finding("persistence mode", "note", found, f"sudo {self.smi} -pm 1")

    def clocks(self) -> Finding | None:
        """Clocks now and at most; NVML locks clocks, but does not say whether they are locked."""
        nvml = self.nvml
        now = self.ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM)
        most = self.ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM)
        if now is None or most is None:
            return None
        memory = self.ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM)
        found = f"SM {now} of {most} MHz now" + (f", memory {memory} MHz" if memory else "")
        if self._reasons() & SET_CLOCKS:
            return Finding("clocks", "OK", f"{found}; held by a setting")
        rated = self.ask(
            "nvmlDeviceGetClock", nvml.NVML_CLOCK_SM, nvml.NVML_CLOCK_ID_APP_CLOCK_DEFAULT
        )
        mend = (
            f"sudo {self.smi} -lgc {rated or most},{rated or most} (undo it: sudo {self.smi} -rgc)"
        )
        return Finding("clocks", "note", f"{found}; NVML does not say whether locked", mend)

    def throttling(self) -> Finding:
        """Reasons that hold the clocks down at this moment."""
        reasons = self._reasons()
        named = [text for bit, text in REASONS.items() if reasons & bit]
        if not named:
            return Finding("throttling", "OK", "nothing holds the clocks down now")
        mend = f"let it cool, and look: {self.smi} -q -d TEMPERATURE,POWER,PERFORMANCE"
        limits = self.ask("nvmlDeviceGetPowerManagementLimitConstraints")
        if reasons & POWER_CAP and limits:
            mend = f"sudo {self.smi} -pl {limits[1] // 1000}"
            if self.ask("nvmlDeviceGetPowerManagementLimit") == limits[1]:
                mend = f"sudo {self.smi} -lgc MHZ (lower, so that the power suffices)"
        return Finding("throttling", "note", f"clocks held down by {', '.join(named)}", mend)

    def _reasons(self) -> int:
        reasons = self.ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:  # before driver 535
            reasons = self.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return int(reasons or 0)

    def temperature(self) -> Finding | None:
        """How far from the temperature at which it slows down."""
        nvml = self.nvml
        now = self.ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU)
        if now is None:
            return None
        limit = self.ask(
            "nvmlDeviceGetTemperatureThreshold", nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
        )
        found = f"{now} °C" + (f", slows down at {limit} °C" if limit else "")
        if limit and now > limit - NEAR_SLOWDOWN:
            return Finding(
                "temperature", "note", found, f"let it cool: {self.smi} -q -d TEMPERATURE"
            )
        return Finding("temperature", "OK", found)

    def ecc(self) -> Finding | None:
        """Whether memory corrects errors, which costs some GPUs bandwidth."""
        mode = self.ask("nvmlDeviceGetEccMode")
        return None if mode is None else Finding("ECC", "OK", "on" if mode[0] else "off")

    def mig(self) -> Finding | None:
        """Whether the GPU is cut into instances."""
        mode = self.ask("nvmlDeviceGetMigMode")
        if mode is None:
            return None
        if not mode[0]:
            return Finding("MIG", "OK", "off")
        found = "on: an instance has a part of the GPU, and shares its clocks and power"
        return Finding("MIG", "note", found, f"sudo {self.smi} -mig 0")

    def sharing(self) -> Finding:
        """Who else computes or draws on the GPU."""
        others = {
            process.pid: process.usedGpuMemory
            for kind in ("Compute", "Graphics")
            for process in self.ask(f"nvmlDeviceGet{kind}RunningProcesses") or []
            if process.pid != os.getpid()
        }
        use = self.ask("nvmlDeviceGetUtilizationRates")
        busy = f"; busy {use.gpu} % of the last second" if use and use.gpu else ""
        if not others and not busy:
            return Finding("shared use", "OK", "no other process on the GPU")
        listed = ", ".join(
            f"{pid} ({memory // MIB} MiB)" if memory else str(pid)
            for pid, memory in sorted(others.items())
        )
        found = f"other processes: {listed}" if others else "no process to be seen from here"
        mend = (
            f"{self.smi} -q -d PIDS,UTILIZATION (and wait, or take another: CUDA_VISIBLE_DEVICES)"
        )
        return Finding("shared use", "note", f"{found}{busy}", mend)

    def display(self) -> Finding | None:
        """Whether a screen is drawn by it; no line where none is."""
        if not self.ask("nvmlDeviceGetDisplayActive"):
            return None
        found = "a screen is drawn by this GPU"
        return Finding("display", "note", found, "sudo systemctl isolate multi-user.target")

    def compute_mode(self) -> Finding | None:
        """Who may open the GPU; no line where everybody may."""
        mode = self.ask("nvmlDeviceGetComputeMode")
        if not mode:
            return None
        mend = f"sudo {self.smi} -c DEFAULT"
        if mode == self.nvml.NVML_COMPUTEMODE_PROHIBITED:
            return Finding("compute mode", "broken", "prohibited: no process may compute", mend)
        return Finding("compute mode", "note", "exclusive: one process at a time", mend)
