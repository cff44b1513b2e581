"""Nsight Compute for one launch of one kernel: print the line, or run it.

The profiled program is `profiling.launch_once`; cudaProfilerStart and cudaProfilerStop stand round
one pass of it, so that exactly its launches are profiled (for im2col_gemm: unfold, cuBLAS, fold).
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from kernels import place
from kernels.one_line import one_line
from kernels.source import ROOT
from profiling import launch_once

MISSING = (
    "ncu is not on PATH; it comes with the CUDA toolkit and from "
    "https://developer.nvidia.com/nsight-compute"
)
FORBIDDEN = "ERR_NVGPUCTRPERM"
ALLOW = (
    "the driver lets only administrators read the GPU's counters. Either run the line with sudo, "
    "or allow all users: put `options nvidia NVreg_RestrictProfilingToAdminUsers=0` into "
    "/etc/modprobe.d/nvidia-profiling.conf, rebuild the initramfs and reboot. A container wants "
    "--cap-add=SYS_ADMIN. On a rented machine only its owner can."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    launch_once.add_arguments(parser)
    parser.add_argument(
        "--run", dest="execute", action="store_true", help="run the line instead of printing it"
    )
    parser.add_argument("--set", default="full", help="ncu's set of sections (full)")
    parser.add_argument("--metrics", help="ncu's metrics, beside the set")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="keep a report")
    parser.add_argument(
        "--options", default="", metavar="TEXT", help="more for ncu: --options='--launch-count 1'"
    )


def run(args: argparse.Namespace) -> int:
    """Print the line, or run it; return 0, ncu's exit code, or 2."""
    try:
        launch_once.find(args)
        words = line(args)
    except ValueError as error:  # TargetError, or quotes that do not close
        print(f"ncu: {one_line(str(error))}", file=sys.stderr)
        return 2
    if not args.execute:
        print(shlex.join(words))
        return 0
    problem = MISSING if shutil.which("ncu") is None else place.gpu_problem()
    if problem:
        print(f"ncu: --run: {problem}; without --run the line is printed", file=sys.stderr)
        return 2
    return profile(words)


def line(args: argparse.Namespace) -> list[str]:
    """Return ncu's command line for what was asked.

    Raises
    ------
    ValueError
        ``--options`` cannot be split into words.
    """
    words = [
        "ncu", "--profile-from-start", "off", "--set", args.set, "--nvtx",
        "--import-source", "yes", "--source-folders", str(ROOT),
    ]  # fmt: skip
    if args.metrics:
        words += ["--metrics", args.metrics]
    if args.output:
        words += ["--force-overwrite", "--export", str(args.output)]
    words += shlex.split(args.options)
    words += [sys.executable, "-m", "profiling.launch_once", args.kernel, args.shape]
    if args.plugin:
        words += ["--plugin", str(args.plugin)]
    return [*words, "--pass", args.direction, "--warm-up", str(args.warm_up)]


def profile(words: list[str]) -> int:
    """Run ncu, show what it prints, and explain what it is not allowed."""
    forbidden = False
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for text in process.stdout or ():
            forbidden = forbidden or FORBIDDEN in text
            print(text, end="", flush=True)
    if forbidden:
        print(f"ncu: {FORBIDDEN}: {ALLOW}", file=sys.stderr)
    return process.returncode
