"""The tracing runtime's C interface: `emulator/runtime/trace_abi.hpp`, as ctypes sees it."""

from __future__ import annotations

import ctypes
import functools
from ctypes import (
    POINTER,
    Structure,
    c_int32,
    c_int64,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)

from kernels.emulator import binding

OPERATIONS = ("read", "write", "atomic")
SPACES = ("global", "shared", "local", "ignored")
FAULTS = ("bounds", "foreign", "misaligned", "race", "uninitialised")


class Array(Structure):
    """One array a kernel is given."""

    _fields_ = (
        ("begin", c_uint64),
        ("end", c_uint64),
        ("guard_begin", c_uint64),
        ("guard_end", c_uint64),
        ("initialised", c_void_p),
        ("is_const", c_uint32),
        ("has_cells", c_uint32),
    )


class Shared(Structure):
    """One shared array."""

    _fields_ = (("offset", c_uint64), ("bytes", c_uint64))


class Request(Structure):
    """What is to be traced."""

    _fields_ = (
        ("pen", c_void_p),
        ("arrays", POINTER(Array)),
        ("shared", POINTER(Shared)),
        ("blocks", POINTER(c_uint64)),
        ("copies", c_void_p),
        ("array_count", c_uint64),
        ("shared_count", c_uint64),
        ("block_count", c_uint64),
        ("copy_count", c_uint64),
        ("most_events", c_uint64),
        ("local_arrays", c_uint64),
    )


class Access(Structure):
    """One access of the code to one array."""

    _fields_ = (
        ("pc", c_uint32),
        ("operation", c_uint8),
        ("bytes", c_uint32),
        ("space", c_uint32),
        ("array", c_int32),
        ("next", c_int32),
        ("begin", c_uint64),
        ("end", c_uint64),
        ("requests", c_uint64),
        ("lanes", c_uint64),
        ("unique_bytes", c_uint64),
        ("sectors", c_uint64),
        ("ideal_sectors", c_uint64),
        ("wavefronts", c_uint64),
        ("ideal_wavefronts", c_uint64),
        ("conflicts", c_uint64),
        ("example_cost", c_uint64),
        ("example_block", c_uint64),
        ("example_mask", c_uint32),
        ("example_warp", c_uint32),
        ("example", c_uint64 * 32),
    )


class Block(Structure):
    """One basic block."""

    _fields_ = (
        ("pc", c_uint32),
        ("first_successor", c_uint32),
        ("is_branch", c_uint32),
        ("spare", c_uint32),
        ("executions", c_uint64),
        ("lanes", c_uint64),
        ("divergent", c_uint64),
    )


class Finding(Structure):
    """One fault."""

    _fields_ = (
        ("kind", c_uint32),
        ("pc", c_uint32),
        ("array", c_int32),
        ("operation", c_uint8),
        ("bytes", c_uint32),
        ("thread", c_uint32),
        ("block", c_uint64),
        ("address", c_uint64),
        ("count", c_uint64),
        ("offset", c_int64),
        ("other_pc", c_uint32),
        ("other_thread", c_uint32),
        ("other_operation", c_uint8),
        ("spare", c_uint32),
        ("other_block", c_uint64),
    )


class Use(Structure):
    """What became of one array."""

    _fields_ = (
        ("read_bytes", c_uint64),
        ("written_bytes", c_uint64),
        ("read_sectors", c_uint64),
        ("written_sectors", c_uint64),
    )


class Result(Structure):
    """All that was seen."""

    _fields_ = (
        ("accesses", POINTER(Access)),
        ("blocks", POINTER(Block)),
        ("findings", POINTER(Finding)),
        ("uses", POINTER(Use)),
        ("access_count", c_uint64),
        ("block_count", c_uint64),
        ("finding_count", c_uint64),
        ("blocks_traced", c_uint64),
        ("cut", c_uint64),
        ("tf32_flops", c_uint64),
        ("bf16_flops", c_uint64),
    )


@functools.cache
def runtime() -> ctypes.CDLL:
    """Load the tracing runtime."""
    library = binding.runtime(traced=True)
    library.emulator_trace_begin.argtypes = (POINTER(Request),)
    library.emulator_trace_begin.restype = None
    library.emulator_trace_result.argtypes = (POINTER(Result),)
    library.emulator_trace_result.restype = None
    library.emulator_trace_end.argtypes = ()
    library.emulator_trace_end.restype = None
    return library
