"""The doctor's probes of profilers and of the CPU, on a file system made for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiling import doctor_cpu, doctor_profilers, doctor_system
from profiling.doctor_probe import Finding

NSYS = "echo NVIDIA Nsight Systems version 2025.1.1.103-251135427971v0"
NCU = "echo 'NVIDIA (R) Nsight Compute'; echo 'Copyright (c) 2018-2025'; echo Version 2025.1.1.0"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return what writes a file below the root; a PATH with nothing on it but what is written."""
    monkeypatch.setattr(doctor_system, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")

    def write(path: str, text: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
        file.chmod(0o755)
        return file

    return write


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    for finding in findings:
        assert bool(finding.mend) == (finding.status != "OK"), finding
    return {finding.name: finding for finding in findings}


# Profilers.


def test_no_profilers_at_all(machine):
    found = by_name(doctor_profilers.probe())
    assert list(found) == ["nsys", "ncu", "compute-sanitizer", "perf"]
    assert {finding.status for finding in found.values()} == {"missing"}
    assert found["nsys"].mend.startswith("apt install nsight-systems")
    assert found["ncu"].mend.startswith("apt install nsight-compute")
    assert found["perf"].mend.startswith("apt install linux-perf")


def test_profilers_found_failing_and_off_the_path(machine, tmp_path):
    machine("bin/nsys", f"#!/bin/sh\n{NSYS}")
    machine("bin/compute-sanitizer", "#!/bin/sh\necho 'library not found' >&2; exit 3")
    old = machine("opt/nvidia/nsight-compute/2024.3.0/ncu", "#!/bin/sh\necho Version 2024.3.0.0")
    ncu = machine("opt/nvidia/nsight-compute/2025.1.1/ncu", f"#!/bin/sh\n{NCU}")
    assert old < ncu
    found = by_name(doctor_profilers.probe())
    assert found["nsys"].status == "OK"
    assert found["nsys"].found.startswith("2025.1.1.103-")
    assert found["ncu"].status == "note"
    assert found["ncu"].found.startswith("2025.1.1.0 at ")
    assert found["ncu"].mend == f'export PATH="{ncu.parent}:$PATH"'
    assert found["compute-sanitizer"].status == "broken"
    assert found["compute-sanitizer"].found.endswith("--version fails: library not found")


def test_a_profiler_that_hangs(machine, monkeypatch):
    machine("bin/nsys", "#!/bin/sh\nexec /bin/sleep 60")
    monkeypatch.setattr(doctor_profilers, "LIMIT_S", 0.2)
    assert by_name(doctor_profilers.probe())["nsys"].status == "broken"


@pytest.mark.parametrize(("level", "status"), [("2", "OK"), ("3", "note")])
def test_perf_for_a_user(machine, level, status):
    machine("bin/perf", "#!/bin/sh\necho perf version 6.1.187")
    machine("proc/sys/kernel/perf_event_paranoid", level)
    machine("proc/self/status", "CapEff:\t0000000000000000")
    perf = by_name(doctor_profilers.probe())["perf"]
    assert perf.status == status
    assert perf.mend == ("" if status == "OK" else "sudo sysctl kernel.perf_event_paranoid=2")


HOST = "NVreg_RestrictProfilingToAdminUsers=0"


@pytest.mark.parametrize(
    ("only_admins", "capabilities", "release", "container", "status", "mend"),
    [
        ("0", 0, "580.95.05", False, "OK", ""),
        ("1", 0, "580.95.05", False, "broken", HOST),
        ("1", 0, "580.95.05", True, "broken", "--cap-add=SYS_ADMIN"),
        ("1", 1 << 21, "535.54", True, "OK", ""),
        ("1", 1 << 38, "580.95.05", False, "OK", ""),
        ("1", 1 << 38, "535.54", False, "broken", HOST),  # the driver took it from 565 on
        (None, 1 << 21, "580.95.05", False, "note", "RmProfilingAdminOnly"),
    ],
)
def test_who_may_read_the_counters(
    machine, only_admins, capabilities, release, container, status, mend
):
    machine(
        "proc/driver/nvidia/version", f"NVRM version: NVIDIA UNIX x86_64  {release}  Tue Sep 23"
    )
    machine("proc/self/status", f"Name:\tpython\nCapEff:\t{capabilities:016x}\nCapBnd:\t0")
    if only_admins is not None:
        machine("proc/driver/nvidia/params", f"EnableMSI: 1\nRmProfilingAdminOnly: {only_admins}")
    if container:
        machine(".dockerenv", "")
    counters = by_name(doctor_profilers.probe())["GPU counters"]
    assert counters.status == status
    assert mend in counters.mend


# The CPU.


def test_an_idle_and_steady_machine(machine):
    machine("proc/loadavg", "0.10 0.20 0.30 1/100 1")
    machine("proc/cpuinfo", "flags\t\t: fpu sse avx2")
    machine("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance")
    machine("sys/devices/system/cpu/intel_pstate/no_turbo", "1")
    machine("sys/devices/system/cpu/smt/active", "0")
    machine("proc/self/cgroup", "0::/box")
    machine("sys/fs/cgroup/box/cpu.max", "max 100000")
    found = by_name(doctor_cpu.probe())
    assert {finding.status for finding in found.values()} == {"OK"}
    assert set(found) == {"CPU", "load", "frequency governor", "turbo", "hyper-threads"}


def test_a_busy_and_unsteady_machine(machine, monkeypatch):
    monkeypatch.setattr(doctor_cpu.os, "sched_getaffinity", lambda _: set(range(8)))
    machine("proc/loadavg", "2.10 0.20 0.30 1/100 1")
    machine("proc/cpuinfo", "flags\t\t: fpu hypervisor avx2")
    machine("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance")
    machine("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave")
    machine("sys/devices/system/cpu/cpufreq/boost", "1")
    machine("sys/devices/system/cpu/smt/active", "1")
    machine("proc/self/cgroup", "0::/box/job")
    machine("sys/fs/cgroup/box/cpu.max", "250000 100000")  # of the group above counts as well
    machine("sys/fs/cgroup/box/job/cpu.max", "400000 100000")
    found = by_name(doctor_cpu.probe())
    assert {name for name, finding in found.items() if finding.status == "note"} == {
        "load", "CPU quota", "frequency governor", "turbo", "hyper-threads", "virtual machine",
    }  # fmt: skip
    assert found["load"].found.startswith("2.10 of 8 cores")
    assert found["CPU quota"].found.startswith("2.5 CPUs")
    assert "--cpus=8" in found["CPU quota"].mend
    assert found["frequency governor"].mend == "sudo cpupower frequency-set -g performance"
    assert found["turbo"].mend == "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost"
    assert found["hyper-threads"].mend == "echo off | sudo tee /sys/devices/system/cpu/smt/control"


@pytest.mark.parametrize(("allowed", "found"), [("150000", "1.5 CPUs"), ("-1", None)])
def test_a_quota_of_control_groups_version_1(machine, allowed, found):
    machine("sys/fs/cgroup/cpu/cpu.cfs_quota_us", allowed)
    machine("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    line = doctor_cpu.quota(4)
    assert line is None if found is None else line.found.startswith(found)


def test_a_machine_that_tells_nothing(machine):
    assert list(by_name(doctor_cpu.probe())) == ["CPU"]
