"""Probes of the profilers: which are here, and whether the GPU's counters may be read."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from profiling import doctor_system
from profiling.doctor_probe import Finding

ADMIN, PERFMON = 21, 38  # Linux capabilities
PERFMON_SINCE = 565  # the release of the driver that takes it for the counters
PERF_OWN_CODE = 2  # the highest perf_event_paranoid that lets a user profile his own code
LIMIT_S = 20.0


class Tool(NamedTuple):
    """A program.

    Attributes
    ----------
    name
        The command.
    places
        Patterns below the root, where it lies when it is not on the PATH.
    package
        What installs it.
    """

    name: str
    places: tuple[str, ...]
    package: str


TOOLS = (
    Tool(
        "nsys",
        ("opt/nvidia/nsight-systems/*/bin/nsys", "usr/local/cuda*/bin/nsys"),
        "apt install nsight-systems (Debian non-free, Ubuntu multiverse, or NVIDIA's repository)",
    ),
    Tool(
        "ncu",
        ("opt/nvidia/nsight-compute/*/ncu", "usr/local/cuda*/bin/ncu"),
        "apt install nsight-compute (Debian non-free, Ubuntu multiverse, or NVIDIA's repository)",
    ),
    Tool(
        "compute-sanitizer",
        ("usr/local/cuda*/bin/compute-sanitizer",),
        "apt install nvidia-cuda-toolkit",
    ),
    Tool("perf", (), "apt install linux-perf (Ubuntu: apt install linux-tools-$(uname -r))"),
)


def probe() -> list[Finding]:
    """Look for every tool, and at the permission to read the GPU's counters."""
    found = [_tool(tool) for tool in TOOLS]
    return [found[0], found[1], *_counters(), *found[2:]]


def _tool(tool: Tool) -> Finding:
    path = shutil.which(tool.name)
    elsewhere = [p for pattern in tool.places for p in sorted(doctor_system.ROOT.glob(pattern))]
    if path is None and not elsewhere:
        return Finding(tool.name, "missing", "not found", tool.package)
    command = path or str(elsewhere[-1])
    try:
        done = subprocess.run(
            [command, "--version"], capture_output=True, text=True, errors="replace",
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(tool.name, "broken", f"{command}: {error}", tool.package)
    version = re.search(r"\d+\.\d+[\w.-]*", done.stdout)
    if done.returncode or not version:
        said = next(iter((done.stderr + done.stdout).strip().splitlines()), "it says nothing")
        return Finding(tool.name, "broken", f"{command} --version fails: {said}", tool.package)
    text = f"{version[0]} at {command}"
    if path is None:
        mend = f'export PATH="{Path(command).parent}:$PATH"'
        return Finding(tool.name, "note", f"{text}, which is not on the PATH", mend)
    level = int(doctor_system.read("proc/sys/kernel/perf_event_paranoid") or 0)
    if (
        tool.name == "perf"
        and level > PERF_OWN_CODE
        and not doctor_system.has_capability(ADMIN, PERFMON)
    ):
        mend = f"sudo sysctl kernel.perf_event_paranoid={PERF_OWN_CODE}"
        return Finding(tool.name, "note", f"{text}; perf_event_paranoid is {level}", mend)
    return Finding(tool.name, "OK", text)


def _counters() -> list[Finding]:
    """Say whether ncu may read the GPU's counters (its error: ERR_NVGPUCTRPERM)."""
    release = doctor_system.driver_release()
    if release is None:
        return []
    name = "GPU counters"
    parameters = doctor_system.read("proc/driver/nvidia/params") or ""
    found = re.search(r"^RmProfilingAdminOnly:\s*(\d+)", parameters, re.MULTILINE)
    if found is None:
        mend = "grep RmProfilingAdminOnly /proc/driver/nvidia/params (on the host)"
        return [Finding(name, "note", "the driver does not say who may read them", mend)]
    if found[1] == "0":
        return [Finding(name, "OK", "open to every user")]
    capabilities = (ADMIN, PERFMON) if int(release.split(".")[0]) >= PERFMON_SINCE else (ADMIN,)
    if doctor_system.has_capability(*capabilities):
        return [Finding(name, "OK", "for administrators only, as this process is one")]
    if doctor_system.in_container():
        mend = "docker run --cap-add=SYS_ADMIN ..."
    else:
        mend = (
            "echo options nvidia NVreg_RestrictProfilingToAdminUsers=0 | "
            "sudo tee /etc/modprobe.d/nvidia-counters.conf && sudo update-initramfs -u && "
            "sudo reboot"
        )
    text = "for administrators only: ncu ends with ERR_NVGPUCTRPERM"
    return [Finding(name, "broken", text, mend)]
