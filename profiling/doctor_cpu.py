"""A probe of what makes times on the CPU unsteady: load, quotas, frequency, shared cores."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath

from profiling import doctor_system, machine
from profiling.doctor_probe import Finding

BUSY = 0.25  # of the cores, over a minute
CPU = "sys/devices/system/cpu"


def probe() -> list[Finding]:
    """Look at the processor and at who shares it."""
    cores = len(os.sched_getaffinity(0))
    processor = Finding("CPU", "OK", f"{machine.describe('cpu')['name']}, {cores} cores")
    lines = (load(cores), quota(cores), governor(), turbo(), hyper_threads(), virtual())
    return [processor, *(line for line in lines if line is not None)]


def load(cores: int) -> Finding | None:
    """Say how busy the machine was before the doctor came."""
    text = doctor_system.read("proc/loadavg")
    if text is None:
        return None
    minute = float(text.split()[0])
    found = f"{minute:.2f} of {cores} cores busy over the last minute"
    if minute <= BUSY * cores:
        return Finding("load", "OK", found)
    return Finding(
        "load", "note", found, "ps -eo pcpu,pid,args --sort=-pcpu | head (and stop them)"
    )


def quota(cores: int) -> Finding | None:
    """Say how much processor time the control group may use; no line where it is all."""
    limits = [limit for text in _quotas() if (limit := _cpus(text)) is not None]
    if not limits or min(limits) >= cores:
        return None
    found = f"{min(limits):g} CPUs of processor time for threads on {cores} cores"
    return Finding("CPU quota", "note", found, f"docker run --cpus={cores} ... (or fewer threads)")


def _quotas() -> list[str]:
    """Return "QUOTA PERIOD" of this control group and those above it, versions 2 and 1."""
    groups = doctor_system.read("proc/self/cgroup") or ""
    own = re.search(r"^0::/(.*)$", groups, re.MULTILINE)
    group = PurePosixPath(own[1] if own else "")
    texts = [doctor_system.read(f"sys/fs/cgroup/{g}/cpu.max") for g in (group, *group.parents)]
    old = [
        doctor_system.read(f"sys/fs/cgroup/cpu/cpu.cfs_{what}_us") for what in ("quota", "period")
    ]
    if None not in old:
        texts.append(f"{old[0]} {old[1]}")
    return [text for text in texts if text]


def _cpus(text: str) -> float | None:
    allowed, _, period = text.partition(" ")
    return int(allowed) / int(period) if allowed.isdigit() else None  # "max", or -1


def governor() -> Finding | None:
    """Say who sets the frequency; no line where this is hidden."""
    files = sorted((doctor_system.ROOT / CPU).glob("cpu[0-9]*/cpufreq/scaling_governor"))
    found = sorted({file.read_text().strip() for file in files})
    if not found:
        return None
    if found == ["performance"]:
        return Finding("frequency governor", "OK", "performance")
    mend = "sudo cpupower frequency-set -g performance"
    return Finding("frequency governor", "note", ", ".join(found), mend)


def turbo() -> Finding | None:
    """Say whether cores may run above their rated frequency; no line where this is hidden."""
    for file, on, off in (("intel_pstate/no_turbo", "0", "1"), ("cpufreq/boost", "1", "0")):
        value = doctor_system.read(f"{CPU}/{file}")
        if value == on:
            found = "on: the frequency depends on heat and on how many cores work"
            return Finding("turbo", "note", found, f"echo {off} | sudo tee /{CPU}/{file}")
        if value == off:
            return Finding("turbo", "OK", "off")
    return None


def hyper_threads() -> Finding | None:
    """Say whether two logical cores share a real one; no line where this is hidden."""
    active = doctor_system.read(f"{CPU}/smt/active")
    if active is None:
        return None
    if active == "0":
        return Finding("hyper-threads", "OK", "off, or hidden")
    found = "on: two threads may share a core"
    return Finding("hyper-threads", "note", found, f"echo off | sudo tee /{CPU}/smt/control")


def virtual() -> Finding | None:
    """Say that this is a virtual machine; no line where it is not."""
    flags = re.search(r"^flags\s*:(.*)$", doctor_system.read("proc/cpuinfo") or "", re.MULTILINE)
    if flags is None or "hypervisor" not in flags[1].split():
        return None
    found = "the host sets the frequency, and others may share the cores"
    mend = "measure twice and compare: python -m profiling compare FIRST SECOND"
    return Finding("virtual machine", "note", found, mend)
