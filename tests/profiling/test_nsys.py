"""`profiling trace --nsys`, against a stand-in that prints what nsys documents."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from profiling.__main__ import main

COLUMNS = "Time (%),Total Time (ns),Instances,Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns)"
RANGES = f"""Processing [trace.sqlite] with [nvtx_sum.py]...
{COLUMNS},Style,Range
75.0,3000000,2,1500000.0,1500000.0,1000000,2000000,707106.8,PushPop,conv-kernel-lab:step
25.0,1000000,1,1000000.0,1000000.0,1000000,1000000,0.0,PushPop,"a, b"
"""
KERNELS = f"""{COLUMNS},Name
100.0,500000,4,125000.0,125000.0,100000,150000,20000.0,"conv2d_tiled_forward(const float *, int)"
"""
SKIPPED = "SKIPPED: trace.sqlite does not contain CUDA kernel data.\n"
# $2 is --output=... for `profile`, and `stats` is asked for --report $3.
NSYS = """#!/bin/sh
if [ "$1" = profile ]; then
    for word; do case "$word" in --output=*) touch "${word#--output=}.nsys-rep";; esac; done
    while [ "$1" != true ] && [ "$1" != sh ]; do shift; done
    exec "$@"
fi
case "$3" in
    NVTX) cat FOLDER/ranges.csv;;
    KERNELS) cat FOLDER/kernels.csv;;
    *) echo "ERROR: Report '$3' could not be found." >&2; exit 1;;
esac
"""


@pytest.fixture
def nsys(tmp_path, monkeypatch):
    """Put an nsys on PATH; return what does so, for a version's report names."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)

    def put(ranges: str, kernels: str, kernel_csv: str = KERNELS) -> None:
        (folder / "ranges.csv").write_text(RANGES)
        (folder / "kernels.csv").write_text(kernel_csv)
        text = NSYS.replace("NVTX", ranges).replace("KERNELS", kernels)
        (folder / "nsys").write_text(text.replace("FOLDER", str(folder)))
        (folder / "nsys").chmod(0o755)

    return put


@pytest.mark.parametrize("names", [("nvtx_sum", "cuda_gpu_kern_sum"), ("nvtxsum", "gpukernsum")])
def test_ranges_and_kernels_come_in_one_table(names, nsys, capsys):
    nsys(*names)
    assert main(["trace", "--nsys", "--json", "--", "sh", "-c", "exit 3"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == "trace.nsys-rep"
    assert found["range"] == [
        {"name": "conv-kernel-lab:step", "count": 2, "total_s": 0.003, "mean_s": 0.0015},
        {"name": "a, b", "count": 1, "total_s": 0.001, "mean_s": 0.001},
    ]
    (kernel,) = found["kernel"]
    assert kernel["name"] == "conv2d_tiled_forward(const float *, int)"
    assert kernel["mean_s"] == pytest.approx(125e-6)
    assert main(["trace", "--nsys", "--", "true"]) == 0
    table = capsys.readouterr().out
    assert "conv-kernel-lab:step" in table
    assert "conv2d_tiled_forward" in table


def test_a_run_without_kernels_says_so(nsys, capsys):
    nsys("nvtx_sum", "cuda_gpu_kern_sum", SKIPPED)
    assert main(["trace", "--nsys", "--", "true"]) == 0
    assert "nsys saw no kernel" in capsys.readouterr().out


def test_an_nsys_that_knows_neither_name_is_quoted(nsys, capsys):
    nsys("something_else", "cuda_gpu_kern_sum")
    assert main(["trace", "--nsys", "--", "true"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Report 'nvtx_sum' could not be found" in error


def test_without_nsys_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["trace", "--nsys", "--", "python", "-c", "1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "https://developer.nvidia.com/nsight-systems" in error
