"""NVRTC without a GPU: compile CUDA C for an architecture and read what ptxas says of it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

nvrtc = pytest.importorskip(
    "cuda.bindings.nvrtc", reason="cuda-bindings is not installed (make test does)"
)


class RefusedError(Exception):
    """NVRTC's or ptxas's log, which names file and line, or the functions that spill."""


def compile_for(arch: str, code: str, options: Sequence[str], label: str) -> dict[str, int]:
    """Compile `code` to machine code for `arch` ("sm_90").

    Returns
    -------
    dict
        Registers a thread of each kernel.

    Raises
    ------
    RefusedError
        When it does not compile, or when registers spill to local memory.
    """
    flags = [*options, f"-arch={arch}", "--ptxas-options=-v"]
    program = _call(nvrtc.nvrtcCreateProgram, code.encode(), label.encode(), 0, [], [])
    try:
        status, *_ = nvrtc.nvrtcCompileProgram(program, len(flags), [f.encode() for f in flags])
        log = b" " * (_call(nvrtc.nvrtcGetProgramLogSize, program) + 1)
        _call(nvrtc.nvrtcGetProgramLog, program, log)  # writes into it
        text = log.rstrip(b"\0 \n").decode()
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise RefusedError(f"{label}, {arch}:\n{text}")
        assert _call(nvrtc.nvrtcGetCUBINSize, program) > 0
    finally:
        _call(nvrtc.nvrtcDestroyProgram, program)
    kernels = re.findall(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers",
        text,
        re.DOTALL,
    )
    # A change in ptxas's wording must not look like "no spills".
    assert len(kernels) == code.count("__global__") > 0, text
    spilt = [
        f"{name} spills: {stores} bytes stored, {loads} loaded"
        for name, stores, loads, _ in kernels
        if int(stores) or int(loads)
    ]
    if spilt:
        raise RefusedError(f"{label}, {arch}, {' '.join(options)}:\n" + "\n".join(spilt))
    return {name: int(registers) for name, _, _, registers in kernels}


def _call(function, *args):
    status, *values = function(*args)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"{function.__name__}: {status.name}")
    return values[0] if values else None
