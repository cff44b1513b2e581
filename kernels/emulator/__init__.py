"""Runs unchanged CUDA C on the CPU, on NumPy arrays: no GPU is needed to write or test a kernel."""

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
