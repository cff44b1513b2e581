"""A .cu file and its defines -> functions to launch, where the arrays live.

CuPy arrays get the file compiled by NVRTC and launched on their GPU; NumPy arrays get the same
file compiled by the host's C++ compiler and run by the emulator. Both have CuPy's calling form,
``fn(grid, block, args, shared_mem=0)``.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kernels import emulator, observe, place, ranges
from kernels.emulator import scan
from kernels.emulator.cache import cache_directory

ROOT = Path(__file__).parent
SCALARS = {"float32": "float", "float64": "double"}

# Whoever includes this needs instructions that sm_90a alone has: neither sm_90 nor a later one.
SPECIFIC_HEADER, SPECIFIC_ARCH = "warpgroup.cuh", "sm_90a"

NULL = np.uintp(0)  # CuPy takes no None for a pointer

Launch = Callable[..., None]


class KernelCompileError(RuntimeError):
    """NVRTC refused a .cu file; the message names the file and the line."""


class CudaSource:
    """One .cu file.

    Parameters
    ----------
    file
        Path below ``kernels/``, ``"conv2d/tiled.cu"``; elsewhere, the whole path.
    tiles
        Where `kernel` is asked for one of several tiles: the macros of each.
    least_arch
        The oldest architecture that has its instructions; ``"sm_90a"``, the only one.
    **defines
        Macros for every function of it.

    Attributes
    ----------
    variants
        Every set of macros that the file is compiled with, beside ``SCALAR``; one that has it is
        for that type alone.
    """

    def __init__(
        self,
        file: str | Path,
        tiles: Sequence[Mapping[str, int | str]] = ({},),
        *,
        least_arch: str = "sm_75",
        **defines: int | str,
    ) -> None:
        self.path = ROOT / file
        self.least_arch = least_arch
        self.defines = defines
        self.variants: list[dict[str, int | str]] = [{**defines, **tile} for tile in tiles]

    def variants_of(self, dtype: str) -> list[dict[str, int | str]]:
        """Return the `variants` for arrays of ``"float32"`` or ``"float64"``."""
        scalar = SCALARS[dtype]
        return [defines for defines in self.variants if defines.get("SCALAR", scalar) == scalar]

    def compiles_for(self, arch: str) -> bool:
        """Whether an architecture (``"sm_90"``) has the file's instructions."""
        if self.is_specific:
            return _number(arch) == _number(self.least_arch)
        return _number(arch) >= _number(self.least_arch)

    @property
    def is_specific(self) -> bool:
        """Whether the file is for one architecture alone, ``"sm_90a"``."""
        return self.least_arch.endswith("a")

    def kernel(self, name: str, like: Any, **defines: int | str) -> Launch:
        """Return the function `name`, compiled for where and what the array `like` is.

        Parameters
        ----------
        name
            The ``__global__`` function's.
        like
            A float32 or float64 array: its dtype becomes the macro ``SCALAR``, its place decides
            between GPU and emulator.
        **defines
            More macros: one of the `tiles`.

        Raises
        ------
        TypeError
            On a GPU that has not the file's instructions.
        """
        if recorder := launch_recorder(name, self.defines | defines):
            return recorder
        merged = {"SCALAR": SCALARS[like.dtype.name], **self.defines, **defines}
        items = tuple(sorted(merged.items()))
        if place.on_gpu(like):
            arch = f"sm_{like.device.compute_capability}"
            if not self.compiles_for(arch):
                newer = " and no other" if self.is_specific else " or newer"
                raise TypeError(
                    f"{self.path.name} needs a GPU of compute capability "
                    f"{_number(self.least_arch) / 10}{newer}, but this one has "
                    f"{int(like.device.compute_capability) / 10}; choose another kernel"
                )
            function = _on_gpu(self.path, items, name, arch, like.device.id)
            null, where = NULL, "gpu"
        else:
            function, null, where = _on_emulator(self.path, items, name), None, "emulator"
        return observe.kernel(functools.partial(_launch, function, null), name, where, merged)


def _number(arch: str) -> int:
    return int(arch.removeprefix("sm_").rstrip("af"))


class Launched(NamedTuple):
    """A launch that `recorded_launches` noted; `shared_bytes` is dynamic shared memory."""

    function: str
    defines: dict[str, int | str]
    shared_bytes: int


_recording: contextvars.ContextVar[list[Launched] | None] = contextvars.ContextVar(
    "recording", default=None
)


@contextlib.contextmanager
def recorded_launches() -> Iterator[list[Launched]]:
    """Note what is launched inside a ``with`` block instead of compiling and launching it."""
    launches: list[Launched] = []
    token = _recording.set(launches)
    try:
        yield launches
    finally:
        _recording.reset(token)


def launch_recorder(name: str, defines: dict[str, int | str]) -> Launch | None:
    """Return what notes the launches of a function, inside `recorded_launches`; else None."""
    launches = _recording.get()
    return None if launches is None else functools.partial(_record, launches, name, defines)


def _record(
    launches: list[Launched],
    name: str,
    defines: dict[str, int | str],
    grid: tuple[int, ...],
    block: tuple[int, ...],
    args: tuple[Any, ...],
    shared_mem: int = 0,
) -> None:
    del grid, block, args
    launches.append(Launched(name, defines, shared_mem))


_most_shared: dict[Any, int] = {}


def _launch(
    function: Any,
    null: Any,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    args: tuple[Any, ...],
    shared_mem: int = 0,
) -> None:
    # More than 48 KiB of shared memory, static and dynamic, is an attribute of the function first.
    # The driver is asked for it once a function, not at every launch.
    if shared_mem > _most_shared.get(function, 0):
        most = max(shared_mem, function.max_dynamic_shared_size_bytes)
        function.max_dynamic_shared_size_bytes = most
        _most_shared[function] = most
    # A shape goes as the struct of shape.cuh, an absent array as a null pointer.
    values = tuple(null if arg is None else getattr(arg, "struct", arg) for arg in args)
    function(grid, block, values, shared_mem=shared_mem)


@functools.cache
def _on_emulator(path: Path, defines: tuple[tuple[str, Any], ...], name: str) -> Any:
    with ranges.span(f"load {path.name} (emulator)"):  # compiled where the cache lacks it
        module = emulator.load(path, defines=dict(defines), include_dirs=[ROOT])
    return module.get_function(name)


@functools.cache
def _on_gpu(
    path: Path, defines: tuple[tuple[str, Any], ...], name: str, arch: str, device: int
) -> Any:
    del device  # a CUDA function belongs to one device's context
    return _gpu_module(path, defines, arch).get_function(name)


@functools.cache
def _gpu_module(path: Path, defines: tuple[tuple[str, Any], ...], arch: str) -> Any:
    import cupy

    label, code = nvrtc_code(path)
    with ranges.span(f"load {label} (NVRTC)"):  # compiled where the cache lacks it
        module = cupy.RawModule(path=str(_cubin(path, label, code, defines, arch)))
        module.compile()
    return module


def _cubin(
    path: Path, label: str, code: str, defines: tuple[tuple[str, Any], ...], arch: str
) -> Path:
    """Return the file with an architecture's machine code, compiled where the cache lacks it.

    CuPy would compile it too, but flushes subnormal numbers to zero, has no `SPECIFIC_ARCH`, and
    its cache does not look at the files that are included.
    """
    from cupy.cuda import nvrtc

    options = (*nvrtc_options(defines), f"-I{path.parent}", f"-arch={target(code, arch)}")
    key = hashlib.sha256(repr((code, options, nvrtc.getVersion())).encode())
    for file in scan.followed(path, [ROOT]):
        key.update(file.read_bytes())
    folder = cache_directory() / "nvrtc"
    cached = folder / f"{key.hexdigest()[:32]}.cubin"
    if not cached.exists():
        cubin = _compiled(label, code, options)
        folder.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as beside:
            beside.write(cubin)
        os.replace(beside.name, cached)
    return cached


def _compiled(label: str, code: str, options: tuple[str, ...]) -> bytes:
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(code, label, (), ())
    try:
        nvrtc.compileProgram(program, options)
        cubin: bytes = nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program)
        raise KernelCompileError(f"{label}: NVRTC refused it:\n{log}") from error
    finally:
        nvrtc.destroyProgram(program)
    return cubin + b"\0"  # CuPy takes the last byte for a string's end and cuts it off


def is_specific(code: str) -> bool:
    """Whether a .cu file's text has to be compiled for `SPECIFIC_ARCH`."""
    return f'#include "{SPECIFIC_HEADER}"' in code


def target(code: str, arch: str) -> str:
    """Return the architecture to compile a text for where a GPU of architecture `arch` is meant."""
    return SPECIFIC_ARCH if is_specific(code) and arch + "a" == SPECIFIC_ARCH else arch


def nvrtc_code(path: Path) -> tuple[str, str]:
    """Return a file's name for a person, and its text for NVRTC, whose messages name it so."""
    label = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    return label, f'#line 1 "{label}"\n{path.read_text()}'


def nvrtc_options(defines: tuple[tuple[str, Any], ...]) -> tuple[str, ...]:
    """Return the options every .cu file of the lab is compiled with."""
    return (
        "-std=c++17",
        "-lineinfo",
        f"-I{ROOT}",
        *(f"-D{name}={value}" for name, value in defines),
    )


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up, for positive b."""
    return -(-a // b)
