"""The X-ray's static side in one report: what the compiler made, what fits on a GPU, the bound."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kernels import resources, table
from kernels.source import KernelCompileError, nvrtc_code, target
from kernels.xray.bound import Bound, bound
from kernels.xray.disassembly import DisassemblerMissingError, disassemble
from kernels.xray.gpus import Gpu
from kernels.xray.local_memory import LocalMemory, local_memory
from kernels.xray.occupancy import Occupancy, occupancy
from kernels.xray.record import Recording
from kernels.xray.sass import Function


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One ``__global__`` function, compiled for an architecture.

    Attributes
    ----------
    usage
        What it takes: registers, shared memory, spills.
    arch
        ``"sm_90"``, or ``"sm_90a"`` of a file that needs it.
    defines
        The macros it was compiled with.
    code
        Its machine code; None where it could not be disassembled.
    why_no_code
        What is missing for that; None where nothing is.
    """

    usage: resources.Usage
    arch: str
    defines: dict[str, int | str]
    code: Function | None
    why_no_code: str | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What is known of a launch without running it on a GPU.

    Attributes
    ----------
    gpu
        It is about this one.
    kernel
        The function.
    occupancy
        Of the launch's blocks.
    bound
        The least time; None where there is no recording.
    local
        Traffic with local memory; None where it is not known, for want of a recording with
        `local_arrays` or of the machine code.
    measured
        Seconds that the launch took on such a GPU, where somebody measured it.
    """

    gpu: Gpu
    kernel: Kernel
    occupancy: Occupancy
    bound: Bound | None
    local: LocalMemory | None = None
    measured: float | None = None

    @property
    def has_local_memory(self) -> bool:
        """Whether the compiler put anything into local memory: an array, a spill."""
        usage, code = self.kernel.usage, self.kernel.code
        return usage.stack_bytes > 0 or (code is not None and code.mix.local > 0)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        fits, code = self.occupancy, self.kernel.code
        return {
            "gpu": dataclasses.asdict(self.gpu),
            "arch": self.kernel.arch,
            "defines": self.kernel.defines,
            "resources": dataclasses.asdict(self.kernel.usage),
            "occupancy": dataclasses.asdict(fits)
            | {"blocks": fits.blocks, "warps": fits.warps}
            | {"fraction": fits.fraction, "binds": fits.binds},
            "sass": code.to_dict() if code else None,
            "sass_missing": self.kernel.why_no_code,
            "bound": self.bound.to_dict() if self.bound else None,
            "local_memory": self.local.to_dict() if self.local else None,
            "measured_seconds": self.measured,
        }


def of_recording(
    recording: Recording,
    gpu: Gpu,
    measured: float | None = None,
    include_dirs: tuple[Path, ...] = (),
) -> Report:
    """Compile a recorded launch's kernel for a GPU and report on it.

    Parameters
    ----------
    recording
        Of a .cu file's kernel.
    gpu
        Of `gpus`.
    measured
        Seconds that the launch took on it, to be shown beside the bound.
    include_dirs
        Where the file's includes are, beside its own folder.

    Raises
    ------
    NvrtcMissingError
        NVRTC is not installed.
    KernelCompileError
        NVRTC refused the file.
    ValueError
        The file has no such kernel.
    """
    kernel = compiled(
        Path(recording.file), recording.kernel, gpu.arch, recording.defines, include_dirs
    )
    return report(
        kernel,
        gpu,
        threads=recording.block[0] * recording.block[1] * recording.block[2],
        dynamic_bytes=recording.dynamic_shared_bytes,
        recording=recording,
        measured=measured,
    )


def report(
    kernel: Kernel,
    gpu: Gpu,
    threads: int,
    dynamic_bytes: int = 0,
    recording: Recording | None = None,
    measured: float | None = None,
) -> Report:
    """Report on a compiled kernel.

    Parameters
    ----------
    kernel
        Compiled for the GPU's architecture.
    gpu
        Of `gpus`.
    threads
        Of a block, 1 to 1024.
    dynamic_bytes
        Dynamic shared memory of a block.
    recording
        Of the launch; without it there is no bound.
    measured
        Seconds that the launch took.
    """
    fits = occupancy(
        gpu, threads, kernel.usage.registers, kernel.usage.shared_bytes + dynamic_bytes
    )
    instructions = kernel.code.least_instructions if kernel.code else None
    least = bound(recording, gpu, instructions) if recording else None
    local = None
    if recording and recording.local_arrays and kernel.code:
        local = local_memory(recording, kernel.code, kernel.usage)
    return Report(gpu, kernel, fits, least, local, measured)


def compiled(
    path: Path,
    name: str,
    arch: str,
    defines: Mapping[str, int | str],
    include_dirs: tuple[Path, ...] = (),
) -> Kernel:
    """Compile a .cu file and return one of its kernels.

    Parameters
    ----------
    path
        The file.
    name
        The kernel's, as C++ writes it: ``"tiled"``, ``"mine::tiled"``, ``"tiled<float, 3>"``.
    arch
        ``"sm_90"``.
    defines
        Macros.
    include_dirs
        Where includes are, beside the file's own folder.

    Raises
    ------
    NvrtcMissingError
        NVRTC is not installed.
    KernelCompileError
        NVRTC refused the file.
    ValueError
        NVRTC does not know the architecture, or the file has no such kernel; the message lists
        those there are.
    """
    resources.check_arch(arch)
    items = tuple(sorted(defines.items()))
    made = resources.compile_file(path, items, arch, include_dirs=include_dirs)
    names = [usage.function for usage in made.usages]
    lowered: str | None = name
    if name not in names:
        try:
            made = resources.compile_file(path, items, arch, name, include_dirs)
        except KernelCompileError:
            listed = ", ".join(names) or "no kernel"
            raise ValueError(
                f"{path}: got the kernel name {name!r}; NVRTC compiled {listed} (an instance of a "
                "template is named as C++ writes it: 'scale<float>')"
            ) from None
        lowered = made.lowered
    usage = next(one for one in made.usages if one.function == lowered)
    label, code = nvrtc_code(path)
    return _with_code(
        made.cubin, ((label, path),), usage, target(code, arch), dict(defines), usage.function
    )


def of_row(row: table.Row, arch: str, dtype: str = "float32") -> list[Kernel]:
    """Compile every GPU function of a row, CUDA C or Numba, in each of its variants.

    Parameters and errors are those of `resources.of_row`.
    """
    resources.check_arch(arch)
    files = tuple((nvrtc_code(source.path)[0], source.path) for source in resources.sources(row))
    found = []
    for unit in resources.units(row, dtype, arch):
        made = unit.compile(arch)
        for usage in made.usages:
            name = usage.function
            if row.language == "numba":  # one kernel a cubin, its name with the types in it
                (name,) = resources.kernel_names(made.cubin)
            found.append(_with_code(made.cubin, files, usage, arch, unit.defines, name))
    return found


def _with_code(
    cubin: bytes,
    files: tuple[tuple[str, Path], ...],
    usage: resources.Usage,
    arch: str,
    defines: dict[str, int | str],
    name: str,
) -> Kernel:
    try:
        functions = _functions(cubin, files)
    except (DisassemblerMissingError, RuntimeError) as error:
        return Kernel(usage, arch, defines, None, str(error))
    return Kernel(usage, arch, defines, functions[name])


@functools.lru_cache(maxsize=64)
def _functions(cubin: bytes, files: tuple[tuple[str, Path], ...]) -> dict[str, Function]:
    read = disassemble(cubin, dict(files))
    return {name: Function(name, instructions) for name, instructions in read.items()}
