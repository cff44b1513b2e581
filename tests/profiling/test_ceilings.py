"""What the ceilings are computed from, and the kernels that measure a GPU."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

from kernels import emulator, resources
from kernels.source import nvrtc_code, nvrtc_options
from profiling import ceilings, sensors
from profiling.timing import Subject


class Known:
    """A clock for which everything takes a known time."""

    SECONDS = types.MappingProxyType({"copy": 0.02, "read": 0.01, "gemm": 0.1, "empty": 3e-6})

    def prepare(self, subject: Subject) -> None:
        subject.launch(0)  # it runs, at the size it is measured at

    def method(self, subject: Subject, state: str) -> tuple[str, int]:
        return "known", 1000

    def samples(self, subject: Subject, state: str) -> list[float]:
        return [self.SECONDS[subject.name]]


def test_rates_follow_from_the_times(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ceilings, "CpuClock", Known)
    monkeypatch.setattr(ceilings, "last_cache_bytes", lambda: 1 << 20)
    monkeypatch.setattr(ceilings, "GEMM_CPU", 64)
    found = ceilings.measure_cpu()
    nbytes = 64 << 20
    assert found.copy == pytest.approx(2 * nbytes / 0.02)
    assert found.read == pytest.approx(nbytes / 0.01)
    assert found.gemm == pytest.approx(2 * 64**3 / 0.1)
    assert (found.launch_s, found.cache_bytes) == (3e-6, 1 << 20)
    assert found.peak is None or found.peak > 10 * found.gemm


@pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))
def test_the_read_kernel_reads_every_vector():
    """A NaN anywhere is seen in the sums; nothing else is written."""
    from profiling.clock_gpu import source

    values = np.ones(4 * 1000, np.float32)
    read = source.kernel("read_all", like=values)
    for at in (0, 1, 1777, 3998, 3999, None):
        sums, noted = np.full(3, -1, np.float32), values.copy()
        if at is not None:
            noted[at] = np.nan
        read((3,), (32,), (noted, sums, np.int64(1000)))
        assert np.isnan(sums).sum() == (at is not None)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
def test_the_measuring_kernels_compile(arch: str):
    pytest.importorskip("cuda.bindings.nvrtc")
    from kernels import event_clock
    from profiling import clock_gpu

    found = []
    for source in (event_clock.source, clock_gpu.source):
        label, code = nvrtc_code(source.path)
        found += resources.compile_cuda(arch, code, nvrtc_options((("SCALAR", "float"),)), label)
    assert {one.function for one in found} == {"spin", "empty", "read_all"}
    assert all(one.spill_loads == one.spill_stores == 0 for one in found)


def test_the_peak_is_the_data_sheets(monkeypatch: pytest.MonkeyPatch):
    """An H100 SXM: 132 multiprocessors, 1980 MHz, 66.9 TFLOP/s in float32 by its data sheet."""
    monkeypatch.setattr(
        ceilings, "_properties", lambda: {"major": 9, "minor": 0, "multiProcessorCount": 132}
    )
    monkeypatch.setattr(sensors, "max_sm_clock_mhz", lambda: 1980.0)
    assert ceilings.peak_flops() == pytest.approx(66.9e12, rel=1e-3)
    monkeypatch.setattr(sensors, "max_sm_clock_mhz", lambda: None)
    assert ceilings.peak_flops() is None


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """NVML of a GPU that runs hot and slow."""
    fake = types.ModuleType("pynvml")
    fake.NVMLError = type("NVMLError", (Exception,), {})
    fake.NVML_CLOCK_SM, fake.NVML_CLOCK_MEM, fake.NVML_TEMPERATURE_GPU = 1, 2, 0
    fake.nvmlClocksEventReasonGpuIdle = 1
    fake.nvmlClocksEventReasonSwPowerCap = 4
    fake.nvmlClocksThrottleReasonSwPowerCap = 4
    fake.nvmlClocksEventReasonSwThermalSlowdown = 0x20
    fake.nvmlClocksEventReasonAll = 0xFF
    fake.nvmlInit = lambda: None
    fake.nvmlDeviceGetHandleByPciBusId = lambda bus: bus
    fake.nvmlDeviceGetClockInfo = lambda handle, kind: {1: 1410, 2: 2619}[kind]
    fake.nvmlDeviceGetTemperature = lambda handle, kind: 83
    fake.nvmlDeviceGetCurrentClocksEventReasons = lambda handle: 0x24
    runtime = types.SimpleNamespace(
        getDevice=lambda: 0, deviceGetPCIBusId=lambda device: "0000:01:00.0"
    )
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    sensors._nvml.cache_clear()
    yield fake
    sensors._nvml.cache_clear()


def test_sensors_say_what_holds_a_gpu_down(nvml: types.ModuleType):
    found = sensors.read("gpu")
    assert (found.sm_clock_mhz, found.memory_clock_mhz, found.temperature_c) == (1410, 2619, 83)
    assert found.throttled == ["SwPowerCap", "SwThermalSlowdown"]


def test_an_older_driver_has_the_older_name(nvml: types.ModuleType):
    del nvml.nvmlDeviceGetCurrentClocksEventReasons
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 4
    assert sensors.read("gpu").throttled == ["SwPowerCap"]


def test_a_sensor_that_is_not_there_is_none(nvml: types.ModuleType):
    def refuse(*_: object) -> None:
        raise nvml.NVMLError

    nvml.nvmlDeviceGetTemperature = refuse
    found = sensors.read("gpu")
    assert (found.temperature_c, found.sm_clock_mhz) == (None, 1410)
