"""Every .cu file is CUDA: NVRTC compiles each variant, without spills, with no GPU at hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kernels import event_clock, resources, shapes, table
from kernels.conv2d_relu_pool import fused_pair
from kernels.source import (
    ROOT,
    SCALARS,
    CudaSource,
    KernelCompileError,
    nvrtc_code,
    nvrtc_options,
)
from kernels.training import (
    batch,
    linear_stack,
    nesterov_sgd,
    shuffle,
    softmax_cross_entropy,
    step_end,
)

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed (make test does)")

# Turing, Ampere, Hopper, Blackwell.
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_120")

FILES = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.rglob("*.cu")
    # The spin measures, and is compiled where that is tested; so are the exercises.
    if not any(path.is_relative_to(ROOT / folder) for folder in ("emulator", "exercises"))
    and path != event_clock.source.path
)


def all_sources() -> list[CudaSource]:
    """Return what the rows and the training load."""
    found = [source for row in table.rows() for source in resources.sources(row)]
    steps = (
        shuffle, batch, fused_pair, softmax_cross_entropy, nesterov_sgd, step_end, linear_stack
    )  # fmt: skip
    more = linear_stack.gradient_source, fused_pair.backward_source
    return [*found, *(launchers.source for launchers in steps), *more]


def variants(file: str, dtype: str) -> list[dict[str, int | str]]:
    """Return the defines a .cu file is compiled with, by the rows or the training's launchers."""
    found = [
        defines
        for source in all_sources()
        if source.path == ROOT / file
        for defines in source.variants_of(dtype)
    ]
    return [defines for i, defines in enumerate(found) if defines not in found[:i]]


def marks(file: str, defines: dict[str, int | str], scalar: str, arch: str) -> list:
    """Return when a compilation is left out."""
    source = next(source for source in all_sources() if source.path == ROOT / file)
    if not source.compiles_for(arch):
        only = "are only in" if source.is_specific else "begin with"
        return [pytest.mark.skip(reason=f"{file}'s instructions {only} {source.least_arch}")]
    # What is compiled for one layer is long, and so are products in registers: for some
    # architectures only where time is short. Doubles take registers in pairs: on the oldest and
    # the newest.
    is_slow = scalar == "double" and arch in ARCHITECTURES[1:3]
    if "LAYER" in defines or "FIRST" in defines:
        is_slow = arch != "sm_90"
    if "WARPS" in defines:
        is_slow |= arch in ARCHITECTURES[:2]
    return [pytest.mark.slow] if is_slow else []


CASES = [
    pytest.param(
        file, defines, scalar, arch,
        id=f"{file}-{_label}-{scalar}-{arch}",
        marks=marks(file, defines, scalar, arch),
    )
    for file in FILES
    for dtype, scalar in SCALARS.items()
    for defines in variants(file, dtype)
    for _label in [",".join(f"{k}={v}" for k, v in defines.items()) or "plain"]
    for arch in ARCHITECTURES
]  # fmt: skip


def compile_for(arch: str, code: str, options: tuple[str, ...], label: str) -> list[int]:
    """Compile, fail on a spill, and return the registers of each function."""
    usages = resources.compile_cuda(arch, code, options, label)
    spilt = [
        f"{usage.function} spills: {usage.spill_stores} bytes stored, {usage.spill_loads} loaded"
        for usage in usages
        if usage.spill_stores or usage.spill_loads
    ]
    assert not spilt, f"{label}, {arch}, {' '.join(options)}:\n" + "\n".join(spilt)
    return [usage.registers for usage in usages]


@pytest.mark.parametrize(("file", "defines", "scalar", "arch"), CASES)
def test_compiles_without_spills(file, defines, scalar, arch):
    options = nvrtc_options(tuple(sorted({"SCALAR": scalar, **defines}.items())))
    registers = compile_for(arch, nvrtc_code(ROOT / file)[1], options, file)
    assert all(0 < used <= 255 for used in registers)


@pytest.mark.parametrize("file", FILES)
def test_every_file_belongs_to_a_technique(file):
    assert variants(file, "float32"), (
        f"no CudaSource of a table's row (or of what it imports) loads {file}"
    )


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
    with pytest.raises(AssertionError, match=r"spills: \d+ bytes stored, \d+ loaded"):
        compile_for(arch, SPILLS, nvrtc_options(()), "spills.cu")


def test_a_kernel_that_does_not_compile_is_caught_with_file_and_line():
    with pytest.raises(
        KernelCompileError, match=re.escape('conv2d/broken.cu(3): error: class "Conv2dShape"')
    ):
        compile_for(
            "sm_90", f'#line 1 "conv2d/broken.cu"{BROKEN}', nvrtc_options(()), "conv2d/broken.cu"
        )


# The shape structs: the same layout in NumPy and in CUDA C.

SHAPES = [
    (shapes.Conv2dShape.of((2, 3, 8, 9), (4, 3, 2, 3)), "Conv2dShape"),
    (shapes.BlockShape.of((2, 3, 8, 9), (4, 3, 2, 3)), "BlockShape"),
    (shapes.PoolShape.of((2, 3, 8, 9)), "PoolShape"),
]


def layout_assertions(layout: np.dtype, name: str) -> str:
    lines = ['#include "shape.cuh"', f"static_assert(sizeof({name}) == {layout.itemsize});"]
    conv_fields = shapes.Conv2dShape._fields
    for field in layout.names:
        member = f"conv.{field}" if name == "BlockShape" and field in conv_fields else field
        offset = layout.fields[field][1]
        lines.append(f'static_assert(__builtin_offsetof({name}, {member}) == {offset}, "{field}");')
    return "\n".join([*lines, f'extern "C" __global__ void layout(const {name} shape) {{}}'])


@pytest.mark.parametrize(("shape", "name"), SHAPES)
def test_struct_has_numpys_layout(shape, name):
    compile_for("sm_90", layout_assertions(shape.struct.dtype, name), nvrtc_options(()), "layout")


@pytest.mark.parametrize(("shape", "name"), SHAPES)
def test_another_layout_is_caught(shape, name):
    fields = list(shape.struct.dtype.names)
    fields[3], fields[4] = fields[4], fields[3]
    swapped = np.dtype([(field, np.int32) for field in fields])
    with pytest.raises(KernelCompileError, match="static assertion failed"):
        compile_for("sm_90", layout_assertions(swapped, name), nvrtc_options(()), "layout")
