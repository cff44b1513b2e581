"""Registers, shared memory, spills and stack: known answers, and what the command says of them."""

from __future__ import annotations

import json
import re
import struct
import sys
from importlib import metadata

import pytest

from kernels import __main__ as cli
from kernels import cases, resources, table
from kernels.source import SCALARS, KernelCompileError, nvrtc_code, nvrtc_options
from lenet.choice import Choice
from lenet.layers import Conv2d
from lenet.model import lenet5

nvrtc = pytest.importorskip(
    "cuda.bindings.nvrtc", reason="cuda-bindings is not installed (make test does)"
)

CUDA_C = [row for row in table.rows() if row.language == "cuda_c"]
ON_GPU = [row for row in table.rows() if "gpu" in row.places]
LONG = (
    "register_tiled", "implicit_gemm", "implicit_gemm_tf32", "implicit_gemm_bf16",
    "implicit_gemm_wgmma", "fused",
)  # fmt: skip

KNOWN = """
extern "C" __global__ void shared_4000(float* x) {
    __shared__ float tile[1000];
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = tile[999 - threadIdx.x];
}

extern "C" __global__ void nothing() {}

// A local array of 800 bytes whose indices the compiler cannot know.
extern "C" __global__ void stack_800(float* x, int n) {
    float a[200];
    for (int i = 0; i < n; i++) a[(i * n) % 200] = x[i];
    for (int i = 0; i < n; i++) x[i] = a[(i * 7 + n) % 200];
}
"""

SPILLS = """
extern "C" __global__ void __launch_bounds__(1024) spills(float* x) {
    float a[70];
    for (int i = 0; i < 70; i++) a[i] = x[threadIdx.x * 70 + i];
    __syncthreads();
    for (int k = 0; k < 70; k++)
        for (int i = 0; i < 70; i++) a[i] = a[i] * a[(i + 7) % 70] + x[k];
    for (int i = 0; i < 70; i++) x[threadIdx.x * 70 + i] = a[i];
}
"""

# As ptxas of CUDA 13 printed it: the entry function, then one that it calls; then another.
LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'caller' for 'sm_90'
ptxas info    : Function properties for caller
ptxas         .     400 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers, 416 bytes cumulative stack size
ptxas info    : Compile time = 60.051 ms
ptxas info    : Function properties for _Z4deepPfi
ptxas         .     16 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
ptxas info    : Compiling entry function 'tile' for 'sm_90'
ptxas info    : Function properties for tile
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 1 barriers, 4000 bytes smem, 360 bytes cmem[0]
"""


# Attributes of a cubin's .nv.info. From sm_90 on its shared section has CUDA's own 1 KiB as well.
REGCOUNT, MIN_STACK_SIZE = 0x2F, 0x12
CUBIN_ARCH = "sm_80"


def usages(code: str, arch: str = "sm_90") -> dict[str, resources.Usage]:
    found = resources.compile_cuda(arch, code, nvrtc_options(()), "known.cu")
    return {usage.function: usage for usage in found}


@pytest.mark.parametrize("arch", ["sm_75", "sm_90", "sm_120"])
def test_known_answers(arch):
    found = usages(KNOWN, arch)
    assert list(found) == ["shared_4000", "nothing", "stack_800"], "in the text's order"
    assert found["shared_4000"].shared_bytes == 4000
    assert found["nothing"].shared_bytes == found["nothing"].stack_bytes == 0
    assert found["stack_800"].stack_bytes == 800
    assert all(one.spill_stores == one.spill_loads == 0 for one in found.values())


def test_a_spilling_kernel():
    found = usages(SPILLS)["spills"]
    assert found.registers == 64, "65,536 registers for 1,024 threads"
    assert found.spill_stores > 0
    assert found.spill_loads > 0
    assert found.stack_bytes > 0


def test_reading_what_ptxas_printed():
    assert resources.read_log(LOG) == [
        resources.Usage("caller", 40, 0, 12, 16, 416),
        resources.Usage("tile", 10, 4000, 0, 0, 0),
    ]


def test_a_report_in_other_words_is_an_error_not_zero():
    with pytest.raises(RuntimeError, match=r"lacks.*spill stores"):
        resources.read_log(LOG.replace("spill stores", "spilt"))


@pytest.mark.parametrize(
    ("row", "dtype"),
    [
        pytest.param(row, dtype, id=f"{dtype}-{row.operation}-{row.name}", marks=slow)
        for row in CUDA_C
        for dtype in SCALARS
        for slow in [pytest.mark.slow if dtype == "float64" or row.name in LONG else ()]
    ],
)
def test_agrees_with_the_machine_code(row, dtype):
    """Registers, static shared memory and stack stand in the cubin as well, beside the log."""
    found = resources.of_row(row, CUBIN_ARCH, dtype)
    assert found
    read = {}
    for source in resources.sources(row):
        for defines in source.variants_of(dtype) if source.compiles_for(CUBIN_ARCH) else ():
            macros = tuple(sorted({"SCALAR": SCALARS[dtype], **defines}.items()))
            cubin = _cubin(nvrtc_code(source.path)[1], nvrtc_options(macros))
            for function, figures in _figures(cubin).items():
                read[function, json.dumps(defines)] = figures
    assert read == {
        (one.function, json.dumps(one.defines)): (
            one.registers,
            one.shared_bytes,
            one.stack_bytes,
        )
        for one in found
    }


def _cubin(code: str, options: tuple[str, ...]) -> bytes:
    flags = [option.encode() for option in (*options, f"-arch={CUBIN_ARCH}")]
    _, program = nvrtc.nvrtcCreateProgram(code.encode(), b"x.cu", 0, [], [])
    nvrtc.nvrtcCompileProgram(program, len(flags), flags)
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    cubin = b" " * size
    nvrtc.nvrtcGetCUBIN(program, cubin)  # writes into it
    nvrtc.nvrtcDestroyProgram(program)
    return cubin


def _figures(cubin: bytes) -> dict[str, tuple[int, int, int]]:
    """Read (registers, static shared bytes, stack bytes) of each function from a cubin."""
    (table_at,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQII", cubin, table_at + i * size) for i in range(count)]
    sections = {}
    for header in headers:
        at = headers[names][4] + header[0]
        sections[cubin[at : cubin.index(b"\0", at)].decode()] = header
    # Records of the general section: format, attribute, bytes; of a function: symbol, figure.
    at, end = sections[".nv.info"][4], sum(sections[".nv.info"][4:6])
    noted = {}
    while at < end:
        kind, attribute, length = struct.unpack_from("<BBH", cubin, at)
        if attribute in (REGCOUNT, MIN_STACK_SIZE):
            symbol, figure = struct.unpack_from("<II", cubin, at + 4)
            noted[attribute, symbol] = figure
        at += 4 + (length if kind == 4 else 0)
    found = {}
    for name, header in sections.items():
        if name.startswith(".text."):
            function, symbol = name.removeprefix(".text."), header[7] & 0xFFFFFF
            shared = sections.get(f".nv.shared.{function}", (0,) * 8)[5]
            found[function] = noted[REGCOUNT, symbol], shared, noted[MIN_STACK_SIZE, symbol]
    return found


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            id=f"{row.operation}-{row.name}",
            marks=pytest.mark.slow if row.name in LONG else (),
        )
        for row in CUDA_C
    ],
)
def test_whatever_is_launched_was_listed(row):
    listed = [(one.function, one.defines) for one in resources.of_row(row)]
    for shape in cases.fixed(row.operation):
        made = resources.launches(row, shape, "float32")
        assert made
        assert [one for one in made if (one.function, one.defines) not in listed] == []


def test_dynamic_shared_memory_of_lenets_layers():
    (tiled,) = (row for row in CUDA_C if row.name == "tiled")
    forward = {
        (one.defines["TILE_P"], one.defines["TILE_Q"]): one.dynamic_bytes
        for one in resources.of_row(tiled, dtype="float64")
        if one.function == "conv2d_tiled_forward"
    }
    # A tile and its halo for 5x5 taps, in doubles: conv1 is 28 wide, conv2 is 10.
    assert forward[8, 32] == {"conv1": (8 + 4) * (32 + 4) * 8}
    assert forward[16, 16] == {"conv2": (16 + 4) * (16 + 4) * 8}
    assert forward[4, 8] == forward[1, 1] == {}


def test_lenets_layers_are_lenets():
    layers = lenet5(10, Choice("cpu", "max_pool2d", "cpu"))
    convolutions = {layer.name: layer for layer in layers if isinstance(layer, Conv2d)}
    of_cases = {name: shape for name, shape in cases.LENET.items() if name.startswith("conv")}
    assert convolutions.keys() == of_cases.keys()
    extent = 28
    for name, layer in convolutions.items():
        shape, pad = of_cases[name], layer.how["padding"]
        assert shape.filter_shape == layer.shapes["w"]
        assert (shape.h, shape.w, shape.padding) == (extent, extent, ((pad, pad), (pad, pad)))
        pooled = cases.LENET[name.replace("conv", "pool")]
        assert pooled.input_shape[1:] == shape.output_shape[1:]
        extent = pooled.p


def test_rows_without_gpu_functions_have_none():
    assert [resources.of_row(row) for row in table.rows("conv2d")[:2]] == [[], []]


# The command.


def said(capsys, *options):
    assert cli.main(["list", "--resources", *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def refused(capsys, *words):
    assert cli.main(["list", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, "one line"
    return captured.err


# Compiling every row takes half a minute; what is said of them can be seen on these.
FEW = [r for r in ON_GPU if r.name in ("naive", "register_tiled", "naive_numba", "max_numba")]


@pytest.mark.parametrize("options", [(), ("--arch", "sm_80", "--dtype", "float64")])
def test_one_line_a_function_in_100_columns(capsys, monkeypatch, options):
    monkeypatch.setattr(table, "rows", lambda operation=None: FEW)
    lines = said(capsys, *options).splitlines()
    assert max(map(len, lines)) <= 100
    arch, dtype = options[1::2] or ("sm_90", "float32")
    functions = [one for row in FEW for one in resources.of_row(row, arch, dtype)]
    shown = [line.split() for line in lines if line.startswith("   ")]
    assert [(one[0], one[2]) for one in shown] == [
        (one.function, str(one.registers)) for one in functions
    ]
    most, version = max(one.registers for one in functions), resources.nvrtc_version()
    assert (
        f"{len(functions)} compiled functions for {arch}, {dtype}: "
        f"at most {most} registers; spilling: none." in lines
    )
    numba = metadata.version("numba-cuda")
    assert f"Compiled by NVRTC {version} and numba-cuda {numba}." in lines


def test_spills_show(capsys, monkeypatch):
    spilling = resources.Resources("f", 64, 0, 1048, 2096, 136, "float32", {}, {})
    monkeypatch.setattr(resources, "of_row", lambda row, *_: [spilling] * (row.name == "naive"))
    out = said(capsys)
    assert re.search(r"^ +f +- +64 +0 +- +1048/2096 +136 *$", out, re.MULTILINE)
    assert "at most 64 registers; spilling: 1." in out


def test_json(capsys, monkeypatch):
    monkeypatch.setattr(table, "rows", lambda operation=None: FEW)
    records = json.loads(said(capsys, "--json", "--arch", "sm_80"))
    assert {(r["operation"], r["name"]) for r in records} == {(r.operation, r.name) for r in FEW}
    first = records[0]
    assert first.pop("compiler").startswith("NVRTC ")
    in_numba = [r["compiler"] for r in records if r["language"] == "numba"]
    assert in_numba
    assert all(compiler.startswith("numba-cuda ") for compiler in in_numba)
    assert 0 < first.pop("registers") <= 255
    assert first == {
        "operation": "conv2d",
        "name": "naive",
        "language": "cuda_c",
        "arch": "sm_80",
        "function": "conv2d_naive_forward",
        "dtype": "float32",
        "defines": {},
        "shared_bytes": 0,
        "dynamic_bytes": {"conv1": 0, "conv2": 0},
        "spill_stores": 0,
        "spill_loads": 0,
        "stack_bytes": 0,
    }


@pytest.mark.parametrize("arch", ["sm_12", "hopper", "", "90"])
def test_an_unknown_architecture(capsys, arch):
    line = refused(capsys, "--resources", "--arch", arch)
    assert line.startswith(f"list: unknown architecture {arch!r}; NVRTC ")
    assert line.rstrip().endswith(", ".join(resources.architectures()))


@pytest.mark.parametrize("option", [("--arch", "sm_90"), ("--dtype", "float64")])
def test_options_that_go_with_resources(capsys, option):
    assert refused(capsys, *option) == f"list: {option[0]} goes with --resources only\n"


def test_without_cuda_bindings(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert refused(capsys, "--resources") == (
        "list: cuda-bindings is not installed (pip install 'conv-kernel-lab[test]', or make test)\n"
    )


def test_without_nvrtc(capsys, monkeypatch):
    def not_found():
        raise RuntimeError('Failure finding "libnvrtc.so.13"\nin many places')

    monkeypatch.setattr(nvrtc, "nvrtcVersion", not_found)
    assert refused(capsys, "--resources") == (
        "list: NVRTC is not installed (pip install 'conv-kernel-lab[test]', or make test): "
        'Failure finding "libnvrtc.so.13"\n'
    )


def test_a_file_that_does_not_compile(capsys, monkeypatch):
    def broken(row, *_):
        raise KernelCompileError("conv2d/naive.cu, sm_90: NVRTC refused it:\nnaive.cu(3): error")

    monkeypatch.setattr(resources, "of_row", broken)
    assert cli.main(["list", "--resources"]) == 1
    assert "naive.cu(3): error" in capsys.readouterr().err
