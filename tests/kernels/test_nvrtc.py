"""Every .cu file is CUDA: NVRTC compiles each variant, without spills, with no GPU at hand."""

from __future__ import annotations

import itertools
import re
import sys

import numpy as np
import pytest
from nvrtc_compile import RefusedError, compile_for

from kernels import shapes, table
from kernels.source import ROOT, SCALARS, CudaSource, nvrtc_options

# Turing, Ampere, Hopper, Blackwell.
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_120")

FILES = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.rglob("*.cu")
    if not path.is_relative_to(ROOT / "emulator")
)


def variants(file: str) -> list[dict[str, int | str]]:
    """Return the defines a .cu file is compiled with: its sources' own, for each of their tiles."""
    for row in table.rows():
        _ = row.launchers
    found = []
    for name, module in sorted(sys.modules.items()):
        sources = [s for s in vars(module).values() if isinstance(s, CudaSource)]
        if not name.startswith("kernels.") or not sources:
            continue
        for source in sources:
            if source.path == ROOT / file:
                tiles = getattr(module, "TILES", None)
                found += (
                    [{**source.defines, "TILE_P": p, "TILE_Q": q} for p, q in tiles]
                    if tiles
                    else [source.defines]
                )
    return found


CASES = [
    pytest.param(file, defines, scalar, arch, id=f"{file}-{_label}-{scalar}-{arch}")
    for file in FILES
    for defines in variants(file)
    for _label in [",".join(f"{k}={v}" for k, v in defines.items()) or "plain"]
    for scalar, arch in itertools.product(SCALARS.values(), ARCHITECTURES)
]


def read(file: str) -> str:
    return f'#line 1 "{file}"\n{(ROOT / file).read_text()}'


@pytest.mark.parametrize(("file", "defines", "scalar", "arch"), CASES)
def test_compiles_without_spills(file, defines, scalar, arch):
    options = nvrtc_options(tuple(sorted({"SCALAR": scalar, **defines}.items())))
    registers = compile_for(arch, read(file), options, file)
    assert all(0 < used <= 255 for used in registers.values())


@pytest.mark.parametrize("file", FILES)
def test_every_file_belongs_to_a_technique(file):
    assert variants(file), f"no CudaSource of a table's row (or of what it imports) loads {file}"


# What the test above must catch.

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

BROKEN = """
#include "shape.cuh"
extern "C" __global__ void broken(float* x, Conv2dShape shape) {
    x[0] = shape.no_such_field;
}
"""


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_spilling_kernel_is_caught(arch):
    with pytest.raises(RefusedError, match=r"spills: \d+ bytes stored, \d+ loaded"):
        compile_for(arch, SPILLS, nvrtc_options(()), "spills.cu")


def test_a_kernel_that_does_not_compile_is_caught_with_file_and_line():
    with pytest.raises(
        RefusedError, match=re.escape('conv2d/broken.cu(3): error: class "Conv2dShape"')
    ):
        compile_for(
            "sm_90", f'#line 1 "conv2d/broken.cu"{BROKEN}', nvrtc_options(()), "conv2d/broken.cu"
        )


# The shape structs: the same layout in NumPy and in CUDA C.

SHAPES = [
    (shapes.Conv2dShape.of((2, 3, 8, 9), (4, 3, 2, 3)), "Conv2dShape"),
    (shapes.PoolShape.of((2, 3, 8, 9)), "PoolShape"),
]


def layout_assertions(layout: np.dtype, name: str) -> str:
    lines = ['#include "shape.cuh"', f"static_assert(sizeof({name}) == {layout.itemsize});"]
    for field in layout.names:
        offset = layout.fields[field][1]
        lines.append(f'static_assert(__builtin_offsetof({name}, {field}) == {offset}, "{field}");')
    return "\n".join([*lines, f'extern "C" __global__ void layout(const {name} shape) {{}}'])


@pytest.mark.parametrize(("shape", "name"), SHAPES)
def test_struct_has_numpys_layout(shape, name):
    compile_for("sm_90", layout_assertions(shape.struct.dtype, name), nvrtc_options(()), "layout")


@pytest.mark.parametrize(("shape", "name"), SHAPES)
def test_another_layout_is_caught(shape, name):
    fields = list(shape.struct.dtype.names)
    fields[3], fields[4] = fields[4], fields[3]
    swapped = np.dtype([(field, np.int32) for field in fields])
    with pytest.raises(RefusedError, match="static assertion failed"):
        compile_for("sm_90", layout_assertions(swapped, name), nvrtc_options(()), "layout")
