"""The runtime's C interface: `runtime/launch.hpp`, `device/abi.hpp`, as ctypes sees them."""

from __future__ import annotations

import ctypes
import functools
import os
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_double,
    c_int32,
    c_uint32,
    c_uint64,
    c_void_p,
)

from . import build
from .errors import CompileError

DONE, DIVERGENCE, TIMEOUT, ILLEGAL_ADDRESS, TRAP, CANCELLED, SYSTEM = range(7)


class Parameter(Structure):
    """One parameter of a kernel."""

    _fields_ = (
        ("type", c_char_p),
        ("is_pointer", c_int32),
        ("is_const", c_int32),
        ("size", c_uint32),
        ("align", c_uint32),
        ("scalar_kind", c_int32),
        ("scalar_size", c_uint32),
    )


class Kernel(Structure):
    """One kernel of a module."""

    _fields_ = (
        ("name", c_char_p),
        ("run", c_void_p),
        ("parameters", POINTER(Parameter)),
        ("parameter_count", c_uint32),
        ("max_threads", c_uint32),
    )


class Module(Structure):
    """A compiled file's table of kernels."""

    _fields_ = (
        ("kernels", POINTER(Kernel)),
        ("kernel_count", c_uint32),
        ("dynamic_shared", c_void_p),
        ("static_shared", c_void_p),
    )


class Request(Structure):
    """A launch that is asked for."""

    _fields_ = (
        ("module", POINTER(Module)),
        ("kernel", POINTER(Kernel)),
        ("arguments", c_void_p),
        ("grid", c_uint32 * 3),
        ("block", c_uint32 * 3),
        ("shared_bytes", c_uint32),
        ("order", c_int32),
        ("seed", c_uint64),
        ("workers", c_int32),
    )


class Failure(Structure):
    """How a launch ended."""

    _fields_ = (
        ("ending", c_int32),
        ("block", c_uint32 * 3),
        ("thread", c_uint32 * 3),
        ("in_thread", c_int32),
        ("code", c_uint64 * 16),
        ("text", c_char * 2048),
    )


@functools.cache
def runtime(traced: bool = False) -> ctypes.CDLL:
    """Load the runtime, or the one that traces, where kernels find its names."""
    built = build.build_runtime(traced)
    library = ctypes.CDLL(str(built), mode=ctypes.RTLD_GLOBAL | os.RTLD_NOW)
    library.emulator_start.argtypes = (POINTER(Request), POINTER(c_void_p))
    library.emulator_wait.argtypes = (c_void_p, c_double)
    library.emulator_stop.argtypes = (c_void_p, c_int32)
    library.emulator_stop.restype = None
    library.emulator_result.argtypes = (
        c_void_p,
        POINTER(Failure),
        POINTER(c_void_p),
        POINTER(c_uint64),
    )
    library.emulator_result.restype = None
    library.emulator_finish.argtypes = (c_void_p,)
    library.emulator_finish.restype = None
    return library


def load_module(path: os.PathLike[str], traced: bool = False) -> ctypes.CDLL:
    """Load a compiled file; CompileError where it needs a function that is nowhere."""
    runtime(traced)
    try:
        return ctypes.CDLL(str(path), mode=ctypes.RTLD_LOCAL | os.RTLD_NOW)
    except OSError as error:
        _, undefined, name = str(error).partition("undefined symbol:")
        what = f"{name.split(',')[0].strip()} is declared but nowhere defined"
        raise CompileError(what if undefined else str(error), str(error)) from None
