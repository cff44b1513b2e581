"""What a kernel takes of a GPU: registers, shared memory, spills, stack. No GPU is needed.

The figures are those of ptxas, which NVRTC runs and which prints them when asked (``-v``). Dynamic
shared memory is not the compiler's to know: it is read off the launches that LeNet's layers make.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kernels import cases, operations, table
from kernels.shapes import Shape
from kernels.source import (
    SCALARS,
    CudaSource,
    KernelCompileError,
    Launched,
    nvrtc_code,
    nvrtc_options,
    recorded_launches,
    target,
)

INSTALL = "pip install 'conv-kernel-lab[test]', or make test"


class NvrtcMissingError(RuntimeError):
    """NVRTC or its Python binding is not installed; the message says how to install them."""


@dataclasses.dataclass(frozen=True)
class Usage:
    """What ptxas says of one ``__global__`` function.

    Attributes
    ----------
    function
        Its name.
    registers
        Of a thread.
    shared_bytes
        Static shared memory of a block.
    spill_stores, spill_loads
        Bytes that a thread moves to and from local memory for want of registers.
    stack_bytes
        Local memory of a thread: arrays with computed indices, spills, calls.
    """

    function: str
    registers: int
    shared_bytes: int
    spill_stores: int
    spill_loads: int
    stack_bytes: int


@dataclasses.dataclass(frozen=True)
class Resources(Usage):
    """One GPU function of a row, in one variant, as compiled for an architecture.

    Attributes
    ----------
    dtype
        Of the arrays.
    defines
        The macros it was compiled with, tile sizes above all.
    dynamic_bytes
        Dynamic shared memory of a block, for each of LeNet's layers that launches the function;
        none where a row's launches are not known .
    """

    dtype: str
    defines: dict[str, int | str]
    dynamic_bytes: dict[str, int]


class Compiled(NamedTuple):
    """What the compiler made: what it says of each ``__global__`` function, and the machine code.

    `cubin` is an ELF file, as NVIDIA's own disassembler reads it. `lowered` is the compiler's name
    of the instance that was asked for.
    """

    usages: list[Usage]
    cubin: bytes
    lowered: str | None = None


class Unit(NamedTuple):
    """Something to compile: its macros, and what compiles it for an architecture."""

    defines: dict[str, int | str]
    compile: Callable[[str], Compiled]


def of_row(row: table.Row, arch: str = "sm_90", dtype: str = "float32") -> list[Resources]:
    """Compile every GPU function of a row, in each of its variants.

    Parameters
    ----------
    row
        Of the table; one without GPU functions has none.
    arch
        Such as ``"sm_90"``.
    dtype
        ``"float32"`` or ``"float64"``.

    Raises
    ------
    ValueError
        An architecture that NVRTC does not know; the message lists those it does.
    NvrtcMissingError
        NVRTC is not installed.
    KernelCompileError
        NVRTC refused a file.
    """
    check_arch(arch)
    compiled = [
        (unit.defines, usage)
        for unit in units(row, dtype, arch)
        for usage in unit.compile(arch).usages
    ]
    lenet = {
        layer: launches(row, shape, dtype)
        for layer, shape in cases.LENET.items()
        if compiled and shape in cases.fixed(row.operation)
    }
    return [
        Resources(
            **vars(usage),
            dtype=dtype,
            defines=defines,
            dynamic_bytes={
                layer: launched.shared_bytes
                for layer, launched_by_layer in lenet.items()
                for launched in launched_by_layer
                if (launched.function, launched.defines) == (usage.function, defines)
            },
        )
        for defines, usage in compiled
    ]


def units(row: table.Row, dtype: str, arch: str) -> list[Unit]:
    """Return what is to be compiled for a row: files that take the dtype and the architecture.

    Another language joins here: anything that gives `read_log` what ptxas -v prints, and a cubin.
    """
    if row.language == "numba" and "gpu" in row.places:
        return _numba_units(row, dtype)
    return [
        Unit(defines, functools.partial(compile_file, source.path, items))
        for source in sources(row)
        if source.compiles_for(arch)
        for defines in source.variants_of(dtype)
        for items in [tuple(sorted({"SCALAR": SCALARS[dtype], **defines}.items()))]
    ]


def _numba_units(row: table.Row, dtype: str) -> list[Unit]:
    from kernels import numba_cuda

    if problem := numba_cuda.ptx_problem():
        raise NvrtcMissingError(problem)

    return [
        Unit(
            dict(defines),
            functools.partial(_compile_numba, source, name, dtype, tuple(defines.items())),
        )
        for source in numba_cuda.sources(row)
        for defines in source.variants
        for name in source.kernels()
    ]


@functools.cache
def _compile_numba(
    source: Any, name: str, dtype: str, defines: tuple[tuple[str, int], ...], arch: str
) -> Compiled:
    from kernels import numba_cuda

    major, minor = divmod(int(arch.removeprefix("sm_").rstrip("af")), 10)
    ptx = source.ptx(name, dtype, (major, minor), **dict(defines))
    log, cubin = numba_cuda.assemble(ptx, arch)
    (usage,) = read_log(log)
    # Numba's shared arrays are visible to other files, and ptxas leaves such out of its report.
    shared = sum(map(int, re.findall(r"^\.visible \.shared .*\[(\d+)\];$", ptx, re.MULTILINE)))
    # The name in the report has the types in it as well.
    return Compiled([dataclasses.replace(usage, function=name, shared_bytes=shared)], cubin)


def sources(row: table.Row) -> list[CudaSource]:
    """Return the .cu files of a row: of its module and of those its launchers are written in."""
    if row.language != "cuda_c":
        return []
    written_in = (row.launcher(direction).__module__ for direction in row.passes)
    modules = dict.fromkeys((row.launchers.__name__, *written_in))
    return [
        value
        for module in modules
        for value in vars(sys.modules[module]).values()
        if isinstance(value, CudaSource)
    ]


def launches(row: table.Row, shape: Shape, dtype: str) -> list[Launched]:
    """Return what every pass of a CUDA C row launches for a shape; nothing is launched."""
    from kernels import check, compare

    rng = np.random.default_rng(0)
    made: list[Launched] = []
    for direction in row.passes:
        if row.refuses(direction, shape, dtype):
            continue
        inputs = check.make_inputs(row.operation, direction, shape, dtype, rng)
        outputs = [
            np.empty(dims, kind or dtype)
            for dims, kind in compare.outputs(row.operation, direction, shape)
        ]
        # A matrix product between two launches gets what it finds in memory.
        with np.errstate(all="ignore"), recorded_launches() as recorded:
            operations.run(row, direction, (*inputs, *outputs), shape)
        made += recorded
    return made


def architectures() -> list[str]:
    """Return the architectures that NVRTC compiles for, ``"sm_75"`` and so on.

    Raises
    ------
    NvrtcMissingError
        NVRTC is not installed.
    """
    return [f"sm_{number}" for number in _call(_nvrtc().nvrtcGetSupportedArchs)]


def check_arch(arch: str) -> None:
    """Raise ValueError unless NVRTC compiles for `arch`."""
    if arch not in (known := architectures()):
        raise ValueError(
            f"unknown architecture {arch!r}; NVRTC {nvrtc_version()} has {', '.join(known)}"
        )


def nvrtc_version() -> str:
    """Return NVRTC's version, ``"13.0"``."""
    return "{}.{}".format(*_call(_nvrtc().nvrtcVersion))


def compile_cuda(arch: str, code: str, options: tuple[str, ...], label: str) -> list[Usage]:
    """Compile CUDA C and return what `compile_cubin` says of its functions."""
    return compile_cubin(arch, code, options, label).usages


def compile_cubin(
    arch: str, code: str, options: tuple[str, ...], label: str, instance: str | None = None
) -> Compiled:
    """Compile CUDA C to machine code.

    Parameters
    ----------
    arch
        Such as ``"sm_90"``; `target` says what that means for this text.
    code
        The text.
    options
        NVRTC's, from `nvrtc_options`.
    label
        Names the code in messages.
    instance
        A kernel that is to be compiled besides, as C++ writes it: ``"scale<float, 3>"``.

    Returns
    -------
    Compiled
        One `Usage` for each ``__global__`` function, in the text's order, and the cubin.

    Raises
    ------
    KernelCompileError
        With NVRTC's log, which names file and line.
    NvrtcMissingError
        NVRTC is not installed.
    """
    nvrtc = _nvrtc()
    flags = [*options, f"-arch={target(code, arch)}", "--ptxas-options=-v"]
    program = _call(nvrtc.nvrtcCreateProgram, code.encode(), label.encode(), 0, [], [])
    expression = None if instance is None else instance.encode()
    lowered = None
    try:
        if expression is not None:
            _call(nvrtc.nvrtcAddNameExpression, program, expression)
        status, *_ = nvrtc.nvrtcCompileProgram(program, len(flags), [f.encode() for f in flags])
        log = b" " * (_call(nvrtc.nvrtcGetProgramLogSize, program) + 1)
        _call(nvrtc.nvrtcGetProgramLog, program, log)  # writes into it
        text = log.rstrip(b"\0 \n").decode()
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise KernelCompileError(f"{label}, {arch}: NVRTC refused it:\n{text}")
        cubin = b" " * _call(nvrtc.nvrtcGetCUBINSize, program)
        _call(nvrtc.nvrtcGetCUBIN, program, cubin)  # writes into it
        if expression is not None:
            lowered = _call(nvrtc.nvrtcGetLoweredName, program, expression).decode()
    finally:
        _call(nvrtc.nvrtcDestroyProgram, program)
    usages = sorted(read_log(text), key=lambda usage: code.find(usage.function))
    if {usage.function for usage in usages} != kernel_names(cubin):
        # ptxas's wording must not change unnoticed.
        raise RuntimeError(f"{label}, {arch}: ptxas's report has another form:\n{text}")
    return Compiled(usages, cubin, lowered)


def kernel_names(cubin: bytes) -> set[str]:
    """Return the names of a cubin's ``__global__`` functions: each has its section of constants."""
    return {name.decode() for name in re.findall(rb"\.nv\.constant0\.(\w+)\0", cubin)}


def read_log(text: str) -> list[Usage]:
    """Read what ``ptxas -v`` printed: one `Usage` for each entry function, in its order."""
    return [
        Usage(
            found[1],
            registers=_figure(r"Used (\d+) registers", found[2]),
            shared_bytes=_figure(r"(\d+) bytes smem", found[2], 0),
            # The functions it calls, where they are not inlined, are listed after it.
            spill_stores=_figure(r"(\d+) bytes spill stores", found[2]),
            spill_loads=_figure(r"(\d+) bytes spill loads", found[2]),
            stack_bytes=_figure(r"(\d+) bytes cumulative stack size", found[2], 0)
            or _figure(r"(\d+) bytes stack frame", found[2]),
        )
        for found in re.finditer(
            r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry function|\Z)", text, re.DOTALL
        )
    ]


def _figure(pattern: str, text: str, absent: int | None = None) -> int:
    """Return the sum of what a figure's mentions say, or `absent` where there are none."""
    figures = re.findall(pattern, text)
    if not figures and absent is None:
        raise RuntimeError(f"ptxas's report lacks {pattern!r}:\n{text}")
    return sum(map(int, figures)) if figures else absent or 0


@functools.cache
def compile_file(
    path: Path,
    defines: tuple[tuple[str, Any], ...],
    arch: str,
    instance: str | None = None,
    include_dirs: tuple[Path, ...] = (),
) -> Compiled:
    """Compile a .cu file with some macros as `compile_cubin` does, once."""
    label, code = nvrtc_code(path)
    search = [f"-I{folder}" for folder in (path.parent, *include_dirs)]
    options = (*nvrtc_options(defines), *search)
    return compile_cubin(arch, code, options, label, instance)


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()  # loads the library
    except ImportError:
        raise NvrtcMissingError(f"cuda-bindings is not installed ({INSTALL})") from None
    except RuntimeError as error:
        said = str(error).splitlines()[0]
        raise NvrtcMissingError(f"NVRTC is not installed ({INSTALL}): {said}") from None
    return nvrtc


def _call(function: Any, *args: Any) -> Any:
    """Call an NVRTC function: its value, or its values where there are several."""
    status, *values = function(*args)
    if int(status) != 0:
        raise RuntimeError(f"{function.__name__}: {status.name}")
    return values[0] if len(values) == 1 else values
