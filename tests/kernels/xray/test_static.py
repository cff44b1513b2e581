"""The static report: a user's own file, what is said where something is missing, the terminal."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from invented_launch import access, array, launch
from rich.console import Console

from kernels.source import KernelCompileError
from kernels.xray import session, static
from kernels.xray.disassembly import DisassemblerMissingError
from kernels.xray.gpus import find
from kernels.xray.static_view import render

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed (make test does)")

MINE = """\
#include "factor.cuh"

namespace mine {
__global__ void scale(float* x, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] *= FACTOR;
}
}

__global__ void scale2(float* x) { x[threadIdx.x] *= 2; }

template <typename T>
__global__ void filled(T* x) { x[0] = 0; }

extern "C" __global__ void plain(float* x) { x[0] = 0; }

__global__ void sums(const float* x, float* y, int n) {
    __shared__ float tile[256];
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += 256) sum += x[i] * x[i];
    tile[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x == 0) for (int i = 1; i < 256; i++) sum += tile[i];
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
}
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.cu"
    path.write_text(MINE)
    (tmp_path / "factor.cuh").write_text("#define FACTOR 3.0f\n")
    return path


def made(path, kernel="sums", gpu="h200", **options):
    work = launch(
        access(requests=8000, sectors=32_000),
        access("shared", requests=8000, wavefronts=8000),
        flops=64_000_000,
        arrays=(array(read=32_000), array(written=1000)),
        file=path,
        kernel=kernel,
        shared_bytes=options.pop("shared_bytes", 0),
    )
    return static.of_recording(work, find(gpu), **options)


def printed(report, width=100) -> str:
    console = Console(file=io.StringIO(), width=width)
    render(console, report)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("mine::scale", "_ZN4mine5scaleEPfi"),
        ("scale2", "_Z6scale2Pf"),
        ("sums", "_Z4sumsPKfPfi"),
        ("filled<float>", "_Z6filledIfEvPT_"),
        ("plain", "plain"),
    ],
)
def test_kernels_are_found_by_their_name_in_the_source(mine, asked, found):
    assert static.compiled(mine, asked, "sm_90", {}).usage.function == found


@pytest.mark.parametrize("asked", ["scale", "scal", "mine", "filled", ""])
def test_no_such_kernel(mine, asked):
    with pytest.raises(ValueError, match="NVRTC compiled") as caught:
        static.compiled(mine, asked, "sm_90", {})
    assert repr(asked) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_nvrtc_does_not_know(mine):
    with pytest.raises(ValueError, match=r"unknown architecture 'sm_10'; NVRTC .* has sm_"):
        static.compiled(mine, "sums", "sm_10", {})


def test_a_file_that_does_not_compile_names_its_line(tmp_path):
    path = tmp_path / "broken.cu"
    path.write_text("__global__ void f(float* x) {\n    x[0] = y;\n}\n")
    with pytest.raises(KernelCompileError, match=r"broken.cu\(2\)"):
        static.compiled(path, "f", "sm_90", {})


def test_the_report_of_a_launch(mine):
    report = made(mine, shared_bytes=100)
    assert report.occupancy.shared_bytes == 256 * 4 + 100, "static and dynamic"
    assert report.occupancy.registers == report.kernel.usage.registers
    assert report.kernel.arch == "sm_90"
    if report.kernel.code:
        assert {term.name for term in report.bound.terms} == {"fp32", "issue", "lsu", "dram"}


def test_a_copy_on_the_emulator(tmp_path):
    """16 bytes a thread: a warp's 512 are 16 sectors, 4 wavefronts; all of it read and written."""
    path = tmp_path / "copy.cu"
    path.write_text(
        "__global__ void copy(const float4* x, float4* y) {\n"
        "    const int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
        "    y[i] = x[i];\n"
        "}\n"
    )
    x, y = np.ones(64 * 128 * 4, np.float32), np.empty(64 * 128 * 4, np.float32)
    work = session.record(path, (64,), (128,), (x, y), kernel="copy", outputs=[y])
    report = static.of_recording(work, find("a100"))
    found = {term.name: term.work for term in report.bound.terms}
    assert found["dram"] == found["l2"] == 2 * x.nbytes
    assert found["lsu"] == 2 * 64 * 4 * 4, "read and write, 64 blocks of 4 warps"
    assert found["fp32"] == 0
    assert report.occupancy.blocks == 16, "of 128 threads in room for 2,048"
    assert report.kernel.code is None or report.kernel.code.mix.wide_loads == 1


def test_a_loop_on_the_emulator(tmp_path):
    """7 turns: each warp issues all up to the end once, and the loop 6 times more."""
    path = tmp_path / "turns.cu"
    path.write_text(
        "__global__ void turns(float* x, int n, float b) {\n"
        "    float a = x[blockIdx.x * 64 + threadIdx.x];\n"
        "    #pragma unroll 1\n"
        "    do {\n"
        "        for (int j = 0; j < 16; j++) a = a * b + 1.5f;\n"
        "    } while (--n > 0);\n"
        "    x[blockIdx.x * 64 + threadIdx.x] = a;\n"
        "}\n"
    )
    x = np.ones(64 * 100, np.float32)
    work = session.record(path, (100,), (64,), (x, np.int32(7), np.float32(0.5)), outputs=[x])
    report = static.of_recording(work, find("h200"))
    if (code := report.kernel.code) is None:
        pytest.skip(report.kernel.why_no_code)
    (loop,) = code.loops
    once = [one.base for one in code.instructions].index("EXIT") + 1
    (issue,) = (term for term in report.bound.terms if term.name == "issue")
    assert issue.work == 200 * (once + 6 * loop.mix.instructions)
    assert f"200 warps x {once + 6 * loop.mix.instructions}.0 instructions" in issue.formula


def test_as_json_has_it(mine):
    read = json.loads(json.dumps(made(mine, measured=1e-3).to_dict()))
    assert read["gpu"]["name"] == "H200 SXM"
    assert read["resources"]["registers"] > 0
    assert 0 < read["occupancy"]["fraction"] <= 1
    assert read["bound"]["seconds"] < read["measured_seconds"] == 1e-3
    if read["sass"]:
        assert read["sass"]["hot_loop"]["mix"]["fma"] > 0
        assert read["sass_missing"] is None


def test_the_terminal(mine):
    report = made(mine, measured=1e-3)
    if report.kernel.code is None:
        pytest.skip(report.kernel.why_no_code)
    text = printed(report)
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "H200 SXM (sm_90, 132 SMs, 1.98 GHz): worked out, not measured" in text
    assert f"{report.kernel.usage.registers} a thread; spills: none" in text
    assert "hot loop" in text
    assert "mine.cu:" in text
    assert "bound: " in text
    assert "measured: 1 ms" in text
    assert "no peak rate is published for the L2 of H200" in text
    rows = [line.split() for line in text.splitlines() if line.rstrip().endswith("/s")]
    assert len(rows) == len(report.bound.terms)
    assert "4.8 TB/s" in text


def test_a_launch_that_does_not_fit_is_said(mine):
    text = printed(made(mine, gpu="t4", shared_bytes=70_000))
    assert "0%: it cannot be launched: too much for the shared memory" in text


def test_without_the_disassembler_the_rest_is_there(mine, monkeypatch):
    def missing(*_):
        raise DisassemblerMissingError("nvdisasm is not installed (pip install it)")

    monkeypatch.setattr(static, "disassemble", missing)
    static._functions.cache_clear()
    report = made(mine)
    text = printed(report)
    assert report.kernel.code is None
    assert report.to_dict()["sass_missing"] == "nvdisasm is not installed (pip install it)"
    assert "nvdisasm is not installed (pip install it)" in text
    assert "registers" in text
    assert "bound: " in text
    assert "not in it: instruction issue" in text


def test_without_a_recording_there_is_no_bound(mine):
    kernel = static.compiled(mine, "sums", "sm_80", {})
    report = static.report(kernel, find("a100"), threads=256)
    assert report.bound is None
    assert report.to_dict()["bound"] is None
    assert "bound" not in printed(report)
