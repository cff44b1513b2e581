"""The doctor's probes of the GPU, with a driver, an NVML and a CuPy that are none."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from profiling import doctor, doctor_driver, doctor_gpu, doctor_nvml, doctor_system
from profiling.doctor_driver import Device, DriverError
from profiling.doctor_probe import Finding, ask

ROOT = Path(__file__).parents[2]
A_DEVICE = Device("Fake GPU", (9, 0), 80 << 30, "0000:1B:00.0")


def check(findings: list[Finding]) -> dict[str, Finding]:
    for finding in findings:
        assert bool(finding.mend) == (finding.status != "OK"), finding
    return {finding.name: finding for finding in findings}


def answers(function: str, **environment: str) -> dict[str, Finding]:
    """Return what a probe finds in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "profiling.doctor_probe", function],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return check([Finding(**finding) for finding in json.loads(done.stdout)])


# The driver: a libcuda.so.1 that answers from the environment.

LIBCUDA = r"""
#include <stdlib.h>
#include <string.h>
static int number(const char* name) { const char* s = getenv(name); return s ? atoi(s) : 0; }
int cuDriverGetVersion(int* version) { *version = number("FAKE_VERSION"); return 0; }
int cuInit(unsigned flags) { return number("FAKE_INIT"); }
int cuGetErrorName(int code, const char** name) { *name = "CUDA_ERROR_FAKE"; return 0; }
int cuDeviceGetCount(int* count) { *count = number("FAKE_COUNT"); return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = 100 + ordinal; return 0; }
int cuDeviceGetName(char* name, int size, int device) {
    strncpy(name, device == 100 ? "Fake GPU" : "Other GPU", size);
    return 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = (size_t)80 << 30; return 0; }
int cuDeviceGetPCIBusId(char* id, int size, int device) {
    strncpy(id, "0000:1B:00.0", size);
    return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : -1;
    return 0;
}
"""


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("libcuda")
    (folder / "fake.c").write_text(LIBCUDA)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "fake.c"], check=True
    )

    def environment(version: int = 13000, init: int = 0, count: int = 1) -> dict[str, str]:
        figures = {"FAKE_VERSION": version, "FAKE_INIT": init, "FAKE_COUNT": count}
        return {"LD_LIBRARY_PATH": str(folder), **{k: str(v) for k, v in figures.items()}}

    return environment


def test_a_driver_and_its_device(fake_driver):
    found = answers("profiling.doctor_driver:probe", **fake_driver(count=2))
    assert found["driver"].found.endswith("CUDA 13.0 at most")
    assert found["device"].status == "OK"
    assert found["device"].found == ("Fake GPU, compute capability 9.0, 80.0 GiB; the first of 2")


@pytest.mark.parametrize(
    ("how", "line", "status", "mend"),
    [
        ({"version": 11080}, "driver", "broken", "sudo apt install nvidia-driver"),
        ({"init": 803}, "driver", "broken", "sudo reboot"),
        ({"init": 999}, "driver", "broken", "sudo modprobe nvidia_uvm"),
        ({"init": 123}, "driver", "broken", "sudo dmesg"),
        ({"init": 100}, "device", "missing", "unset CUDA_VISIBLE_DEVICES"),
        ({"count": 0}, "device", "missing", "unset CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_driver_that_is_old_or_broken_or_sees_nothing(fake_driver, how, line, status, mend):
    environment = {**fake_driver(**how), "CUDA_VISIBLE_DEVICES": ""}
    found = answers("profiling.doctor_driver:probe", **environment)[line]
    assert found.status == status
    assert found.mend.startswith(mend)


@pytest.mark.parametrize(
    ("how", "ok", "words"),
    [
        ({}, True, "its driver works, CuPy does not reach it"),
        ({"init": 803}, False, "mend this first: driver."),
    ],
)
def test_a_gpu_without_cupy_is_no_failure_and_a_broken_driver_is_one(
    fake_driver, how, ok, words, monkeypatch
):
    if doctor_gpu.importlib.util.find_spec("cupy"):
        pytest.skip("the real wheel is installed, and would meet the fake driver")
    for name, value in fake_driver(**how).items():
        monkeypatch.setenv(name, value)
    (driver, *device), (cupy,) = ask([p for p in doctor.BUSY if p.name in ("driver", "CuPy")])
    host = [Finding(name, "OK", "") for name in ("Python", "NumPy", "Numba", "emulator")]
    verdict = doctor.judge([*host, driver, *device, cupy])
    assert (verdict.ok, verdict.gpu) == (ok, False)
    assert words in verdict.sentence
    assert cupy.mend == "pip install 'conv-kernel-lab[cuda13]'"


@pytest.mark.parametrize(
    ("files", "mend"),
    [
        ({}, "nothing to mend for the emulator"),
        ({"sys/bus/pci/devices/0000:1b:00.0/vendor": "0x10de"}, "sudo apt install nvidia-driver"),
        ({"sys/bus/pci/devices/0000:00:01.0/vendor": "0x8086"}, "nothing to mend"),
        (
            {"proc/driver/nvidia/version": "NVRM version: x86_64  580.95.05"},
            "sudo apt install libcuda1",
        ),
    ],
)
def test_no_driver(files, mend, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_system, "ROOT", tmp_path)
    monkeypatch.setattr(doctor_driver.prerequisites, "driver_cuda_version", lambda: None)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text + "\n")
    driver = check(doctor_driver.probe())["driver"]
    assert driver.status == "missing"
    assert driver.mend.startswith(mend)


@pytest.mark.parametrize(
    ("container", "mend"), [(True, "docker run --gpus all"), (False, "sudo apt install libcuda1")]
)
def test_a_driver_without_its_library(container, mend, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_system, "ROOT", tmp_path)
    monkeypatch.setattr(doctor_driver.prerequisites, "driver_cuda_version", lambda: (12, 8))
    monkeypatch.setattr(doctor_driver, "devices", raises(OSError("libcuda.so.1")))
    if container:
        (tmp_path / ".dockerenv").touch()
    driver = check(doctor_driver.probe())["driver"]
    assert driver.status == "broken"
    assert driver.mend.startswith(mend)


def raises(error: Exception):
    def function(*_):
        raise error

    return function


# CuPy.


def test_the_double_is_never_taken_for_a_gpu():
    double = {"PYTHONPATH": f"{ROOT / 'tests' / 'fake_cupy'}{os.pathsep}{ROOT}"}
    for name, line in (("cuda_c", "CUDA C on the GPU"), ("cublas", "cuBLAS"), ("cupy", "CuPy")):
        found = answers(f"profiling.doctor_gpu:{name}", **double)[line]
        assert found.status == "note", found
        assert "double" in found.found
    assert answers("profiling.doctor_gpu:numba", **double) == {}


WRONG = """
import cupy
from profiling import doctor_gpu, doctor_kernel
cupy.TEST_DOUBLE = False
cupy.matmul = lambda a, b: a
(line,) = doctor_gpu.cublas()
assert line.status == "broken" and line.mend, line
(line,) = doctor_gpu.cuda_c()
assert line.status == "OK" and not line.mend, line
doctor_kernel.SOURCE = doctor_kernel.SOURCE.replace("tile[63 - ", "tile[")
(line,) = doctor_gpu.cuda_c()
assert line.status == "broken" and line.mend, line
"""


def test_a_wrong_answer_is_broken():
    double = f"{ROOT / 'tests' / 'fake_cupy'}{os.pathsep}{ROOT}"
    subprocess.run(
        [sys.executable, "-c", WRONG], env={**os.environ, "PYTHONPATH": double}, check=True
    )


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return what puts a package with its metadata where Python finds it first."""
    monkeypatch.syspath_prepend(tmp_path)
    only_here = functools.partial(importlib.metadata.distributions, path=[str(tmp_path)])
    monkeypatch.setattr(importlib.metadata, "distributions", only_here)

    def put(distribution: str, module: str, **files: str) -> None:
        about = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info" / "METADATA"
        about.parent.mkdir()
        about.write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (tmp_path / module).mkdir(exist_ok=True)
        monkeypatch.delitem(sys.modules, module, raising=False)
        for name, text in {"__init__": "", **files}.items():
            (tmp_path / module / f"{name}.py").write_text(text)

    return put


def test_a_cupy_wheel_for_a_newer_driver(install, monkeypatch):
    install("cupy-cuda13x", "cupy")
    monkeypatch.setattr(doctor_gpu.prerequisites, "driver_cuda_version", lambda: (12, 4))
    cupy = check(doctor_gpu.cupy())["CuPy"]
    assert cupy.status == "broken"
    assert cupy.found == "cupy-cuda13x needs CUDA 13, and the driver runs 12.4"
    assert cupy.mend == ("pip uninstall -y cupy-cuda13x && pip install 'conv-kernel-lab[cuda12]'")


def test_two_cupy_wheels(install, monkeypatch):
    install("cupy-cuda13x", "cupy")
    install("cupy-cuda12x", "cupy")
    monkeypatch.setattr(doctor_gpu.prerequisites, "driver_cuda_version", lambda: (13, 0))
    cupy = check(doctor_gpu.cupy())["CuPy"]
    assert cupy.status == "broken"
    assert cupy.mend == (
        "pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install 'conv-kernel-lab[cuda13]'"
    )


@pytest.mark.parametrize("there", [True, False])
def test_a_cupy_that_does_not_reach_the_gpu(there, install, monkeypatch):
    install("cupy-cuda12x", "cupy")
    monkeypatch.setattr(doctor_gpu.prerequisites, "driver_cuda_version", lambda: (12, 4))
    monkeypatch.setattr(doctor_gpu.place, "gpu_problem", lambda: "CuPy finds no usable GPU: x")
    devices = (lambda: [A_DEVICE]) if there else raises(DriverError(100, "NO_DEVICE"))
    monkeypatch.setattr(doctor_driver, "devices", devices)
    assert check(doctor_gpu.cupy())["CuPy"].status == ("broken" if there else "OK")


@pytest.mark.parametrize(
    ("cuda", "there", "status"),
    [("'12.8'", True, "OK"), ("None", True, "note"), ("None", False, "OK")],
)
def test_pytorch_is_read_and_not_imported(cuda, there, status, install, monkeypatch):
    version = f"__version__ = '2.13.0'\ncuda = {cuda}\n"
    install("torch", "torch", __init__="raise SystemExit('imported')", version=version)
    devices = (lambda: [A_DEVICE]) if there else raises(OSError("libcuda"))
    monkeypatch.setattr(doctor_driver, "devices", devices)
    torch = check(doctor_gpu.torch())["PyTorch"]
    assert torch.status == status
    assert "2.13.0" in torch.found


# NVML.


class NVMLError(Exception):
    """What pynvml raises."""


def nvml(**changes):
    """Return a pynvml whose GPU is in order, but for the changes."""
    calls = {
        "Index": lambda _: 3,
        "PersistenceMode": lambda _: 1,
        "ClockInfo": lambda _, clock: {1: 1200, 2: 2619}[clock],
        "MaxClockInfo": lambda _, clock: 1980,
        "Clock": lambda _, clock, which: 1590,
        "CurrentClocksEventReasons": lambda _: 0x2,
        "Temperature": lambda _, sensor: 41,
        "TemperatureThreshold": lambda _, threshold: 90,
        "EccMode": lambda _: [1, 1],
        "MigMode": lambda _: [0, 0],
        "ComputeRunningProcesses": lambda _: [],
        "GraphicsRunningProcesses": lambda _: [],
        "UtilizationRates": lambda _: SimpleNamespace(gpu=0, memory=0),
        "DisplayActive": lambda _: 0,
        "ComputeMode": lambda _: 0,
        "PowerManagementLimit": lambda _: 300_000,
        "PowerManagementLimitConstraints": lambda _: [100_000, 350_000],
    }
    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2, NVML_CLOCK_ID_APP_CLOCK_DEFAULT=2,
        NVML_TEMPERATURE_GPU=0, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN=1,
        NVML_COMPUTEMODE_PROHIBITED=2,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: f"GPU {index}",
        **{f"nvmlDeviceGet{name}": call for name, call in (calls | changes).items()},
    )  # fmt: skip


@pytest.fixture
def state(monkeypatch):
    """Return what the doctor says of a pynvml."""
    monkeypatch.setattr(doctor_nvml.prerequisites, "driver_cuda_version", lambda: (13, 0))
    monkeypatch.setattr(doctor_driver, "devices", raises(OSError("libcuda")))

    def look(module) -> dict[str, Finding]:
        monkeypatch.setitem(sys.modules, "pynvml", module)
        return check(doctor_nvml.probe())

    return look


def test_a_gpu_in_order(state):
    found = state(nvml())
    assert {finding.status for finding in found.values()} == {"OK"}
    assert found["clocks"].found == "SM 1200 of 1980 MHz now, memory 2619 MHz; held by a setting"
    assert found["temperature"].found == "41 °C, slows down at 90 °C"
    assert "display" not in found


def processes(*pairs):
    return lambda _: [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in pairs]


@pytest.mark.parametrize(
    ("changes", "line", "status", "found", "mend"),
    [
        ({"MigMode": lambda _: [1, 1]}, "MIG", "note", "on:", "sudo nvidia-smi -i 3 -mig 0"),
        ({"PersistenceMode": lambda _: 0}, "persistence mode", "note", "off", "-i 3 -pm 1"),
        ({"CurrentClocksEventReasons": lambda _: 0x1}, "clocks", "note", "locked", "-lgc 1590"),
        ({"CurrentClocksEventReasons": lambda _: 0x60}, "throttling", "note",
         "heat, by the driver, heat, by the hardware", "let it cool"),
        ({"CurrentClocksEventReasons": lambda _: 0x4}, "throttling", "note", "power cap",
         "sudo nvidia-smi -i 3 -pl 350"),
        ({"CurrentClocksEventReasons": lambda _: 0x4, "PowerManagementLimit": lambda _: 350_000},
         "throttling", "note", "power cap", "-lgc"),
        ({"Temperature": lambda *_: 85}, "temperature", "note", "85 °C", "let it cool"),
        ({"ComputeRunningProcesses": processes((7, 512 << 20), (os.getpid(), 1)),
          "GraphicsRunningProcesses": processes((8, None))},
         "shared use", "note", "other processes: 7 (512 MiB), 8", "nvidia-smi -i 3 -q -d PIDS"),
        ({"UtilizationRates": lambda _: SimpleNamespace(gpu=37, memory=1)}, "shared use", "note",
         "busy 37 %", "nvidia-smi"),
        ({"DisplayActive": lambda _: 1}, "display", "note", "screen", "multi-user.target"),
        ({"ComputeMode": lambda _: 2}, "compute mode", "broken", "prohibited", "-c DEFAULT"),
        ({"ComputeMode": lambda _: 3}, "compute mode", "note", "exclusive", "-c DEFAULT"),
    ],
)  # fmt: skip
def test_a_gpu_out_of_order(state, changes, line, status, found, mend):
    findings = state(nvml(**changes))
    assert findings[line].status == status
    assert found in findings[line].found
    assert mend in findings[line].mend
    assert str(os.getpid()) not in findings[line].found
    others = {f.status for name, f in findings.items() if name not in (line, "clocks")}
    assert others == {"OK"}


def test_a_gpu_that_does_not_answer_everything(state):
    refused = raises(NVMLError("Not Supported"))
    found = state(nvml(**dict.fromkeys(("MigMode", "EccMode", "Temperature", "Index"), refused)))
    assert {"MIG", "ECC", "temperature"}.isdisjoint(found)
    module = nvml(MigMode=lambda _: [1, 1], Index=refused)
    del module.nvmlDeviceGetCurrentClocksEventReasons  # an older pynvml
    module.nvmlDeviceGetCurrentClocksThrottleReasons = lambda _: 0x8
    found = state(module)
    assert found["MIG"].mend == "sudo nvidia-smi -i 0 -mig 0"
    assert "a hardware slowdown" in found["throttling"].found


def test_nvml_is_asked_about_cudas_first_device(state, monkeypatch):
    monkeypatch.setattr(doctor_driver, "devices", lambda: [A_DEVICE])
    asked = []
    module = nvml(HandleByPciBusId=asked.append)
    assert state(module)["MIG"].status == "OK"
    assert asked == [A_DEVICE.bus_id]


def test_nvml_broken_missing_or_not_wanted(state, monkeypatch):
    module = nvml()
    module.nvmlInit = raises(NVMLError("Driver/library version mismatch"))
    broken = state(module)["NVML"]
    assert (broken.status, broken.found) == ("broken", "Driver/library version mismatch")
    assert broken.mend.startswith("sudo reboot")
    missing = state(None)["NVML"]  # None in sys.modules: the import fails
    assert (missing.status, missing.mend) == ("missing", "pip install nvidia-ml-py")
    monkeypatch.setattr(doctor_nvml.prerequisites, "driver_cuda_version", lambda: None)
    assert state(None) == {}
