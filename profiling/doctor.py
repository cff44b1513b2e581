"""What this machine has, what it lacks or has broken, and the line that mends each."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from profiling.doctor_probe import Finding, Probe, ask

REINSTALL = "pip install --force-reinstall conv-kernel-lab"
CUPY = "pip install --force-reinstall 'conv-kernel-lab[cuda12]' (or [cuda13], as the driver)"

HOST, GPU, PROFILERS, MEASURING = "without a GPU", "GPU", "profilers", "measuring"
GROUPS = (HOST, GPU, PROFILERS, MEASURING)

# These look at how busy the machine is: before the others make it so.
QUIET = [
    Probe(MEASURING, "NVML", "profiling.doctor_nvml:probe", "nvidia-smi"),
    Probe(MEASURING, "CPU", "profiling.doctor_cpu:probe", REINSTALL),
]
# In the table's order.
BUSY = [
    Probe(HOST, "Python", "profiling.doctor_host:python", REINSTALL),
    Probe(HOST, "NumPy", "profiling.doctor_host:numpy", "pip install --force-reinstall numpy"),
    Probe(HOST, "Numba", "profiling.doctor_host:numba", "pip install --force-reinstall numba"),
    Probe(HOST, "emulator", "profiling.doctor_host:emulator", "apt install --reinstall g++"),
    Probe(
        HOST, "NVRTC", "profiling.doctor_host:nvrtc",
        "pip install --force-reinstall 'conv-kernel-lab[test]'",
    ),
    Probe(
        HOST, "Numba to PTX", "profiling.doctor_host:ptx",
        "pip install --force-reinstall 'conv-kernel-lab[offline]'",
    ),
    Probe(GPU, "driver", "profiling.doctor_driver:probe", "sudo dmesg | grep -i nvrm"),
    Probe(GPU, "CuPy", "profiling.doctor_gpu:cupy", CUPY),
    Probe(GPU, "CUDA C on the GPU", "profiling.doctor_gpu:cuda_c", CUPY),
    Probe(GPU, "cuBLAS", "profiling.doctor_gpu:cublas", CUPY),
    Probe(GPU, "Numba on the GPU", "profiling.doctor_gpu:numba", CUPY),
    Probe(GPU, "PyTorch", "profiling.doctor_gpu:torch", "make compare-torch"),
    Probe(PROFILERS, "profilers", "profiling.doctor_profilers:probe", "nsys --version"),
]  # fmt: skip

COLOURS = {"OK": "green", "missing": "yellow", "broken": "bold red", "note": "cyan"}


class Verdict(NamedTuple):
    """What the findings come to.

    Attributes
    ----------
    ok
        Whether the lab can work here: at least one place to run kernels, and nothing broken that
        it would use.
    gpu
        Whether kernels run on a GPU.
    sentence
        What can be done here.
    """

    ok: bool
    gpu: bool
    sentence: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--require-gpu", action="store_true", help="a missing GPU is a failure")
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(args: argparse.Namespace) -> int:
    """Look, print, and return the exit code: 0 the lab can work here, 1 it cannot."""
    probes = [*QUIET, *BUSY]
    with _progress():
        answers = [*ask(QUIET), *ask(BUSY)]
    table = {
        group: [
            finding
            for probe, findings in zip(probes, answers, strict=True)
            if probe.group == group
            for finding in findings
        ]
        for group in GROUPS
    }
    verdict = judge([finding for findings in table.values() for finding in findings])
    if args.json:
        lines = [
            {"group": group, **finding._asdict()}
            for group, findings in table.items()
            for finding in findings
        ]
        print(json.dumps({**verdict._asdict(), "findings": lines}, indent=1))
    else:
        _print(table, verdict)
    if args.require_gpu and not verdict.gpu:
        print("doctor: --require-gpu, and no GPU works here", file=sys.stderr)
        return 1
    return 0 if verdict.ok else 1


def judge(findings: list[Finding]) -> Verdict:
    """Say what can be done on a machine with these findings."""
    status = {finding.name: finding.status for finding in findings}

    def works(name: str) -> bool:
        return status.get(name) in ("OK", "note")

    on_gpu = ("device", "CUDA C on the GPU", "cuBLAS")
    gpu = all(status.get(name) == "OK" for name in on_gpu)
    places = [
        name
        for name, there in (
            ("the emulator", works("emulator")),
            ("the CPU kernels", works("NumPy") and works("Numba")),
            ("the GPU", gpu),
        )
        if there
    ]
    needed = [name for name in ("Python", "NumPy", "Numba") if not works(name)]
    if not gpu and not works("emulator"):
        needed.append("C++ compiler" if not works("C++ compiler") else "emulator")
    users = ("driver", *on_gpu, "CuPy", "Numba on the GPU", "compute mode")
    needed += [name for name in users if status.get(name) == "broken"]
    listed = " and ".join(filter(None, [", ".join(places[:-1]), *places[-1:]]))
    one = places in (["the emulator"], ["the GPU"])
    able = f"{listed[:1].upper()}{listed[1:]} {'works' if one else 'work'}"
    if not places:
        able = "Nothing works here"
    if needed:
        return Verdict(False, gpu, f"{able}; mend this first: {', '.join(needed)}.")
    if gpu:
        return Verdict(True, True, f"{able}: write, check, train and measure here.")
    why = "its driver works, CuPy does not reach it" if works("device") else "none here"
    return Verdict(
        True, False,
        f"{able}; no GPU ({why}): write, check and train here, measure GPU kernels elsewhere.",
    )  # fmt: skip


def _print(table: dict[str, list[Finding]], verdict: Verdict) -> None:
    """Print a line for each finding, and below it the line that mends it, whole, to be copied."""
    write = _writer()
    width = max(len(finding.name) for findings in table.values() for finding in findings)
    for group, findings in table.items():
        write(group if findings else "", "bold", "")
        for finding in findings:
            write(
                f"  {finding.status:9}", COLOURS[finding.status],
                f"{finding.name:{width}}  {finding.found}",
            )  # fmt: skip
            if finding.mend:
                write("", "", f"{'':{width + 13}}> {finding.mend}")
        write("", "", "")
    write(verdict.sentence, "bold" if verdict.ok else "bold red", "")


def _writer() -> Callable[[str, str, str], None]:
    """Return what prints a text in a style and the rest of the line, without wrapping it."""
    if not _has_rich():
        return lambda text, _, rest: print(text + rest)
    from rich.console import Console
    from rich.text import Text

    console = Console()
    return lambda text, style, rest: console.print(
        Text.assemble((text, style), rest), soft_wrap=True
    )


def _progress() -> AbstractContextManager[object]:
    if not (_has_rich() and sys.stderr.isatty()):
        return contextlib.nullcontext()
    from rich.console import Console

    return Console(stderr=True).status("looking, and compiling a kernel or two")


def _has_rich() -> bool:  # the doctor is for where things are missing, too
    return importlib.util.find_spec("rich") is not None
