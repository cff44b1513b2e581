"""
Runs unchanged CUDA C on the CPU, on NumPy arrays: no GPU is needed to write or test a kernel.

The C++ compiler of the machine compiles the ``.cu`` file as it is, behind headers that define
CUDA's names. A thread of a block is a fiber, which is switched only where it waits for others;
blocks run in parallel on the machine's cores.

What is told: barriers and warp primitives that not all threads reach, endless loops, wild
pointers, arguments that do not fit. What a changed ``order`` of threads shows: races. What is not
seen: a read or write a little outside of an array, as long as the memory there is the process's.

Other than on a GPU: ``__activemask`` names the lanes that have not returned; shared memory starts
as NaN; a block that waits for another block to start may wait for ever (and times out).
"""

from .compiler import find_compiler
from .errors import (
    BarrierDivergence,
    CompileError,
    CompilerNotFound,
    EmulatorError,
    IllegalAddress,
    KernelTimeout,
    LaunchError,
)
from .module import Function, Module, load
from .options import Settings, settings

__all__ = [
    "BarrierDivergence",
    "CompileError",
    "CompilerNotFound",
    "EmulatorError",
    "Function",
    "IllegalAddress",
    "KernelTimeout",
    "LaunchError",
    "Module",
    "Settings",
    "load",
    "problem",
    "settings",
]


def problem() -> str | None:
    """Return why nothing can be emulated here (no C++ compiler), or None when it can."""
    try:
        find_compiler()
    except CompilerNotFound as error:
        return str(error)
    return None
