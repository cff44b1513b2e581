"""RawModule of the double: NVRTC's text and options, compiled and run by the emulator."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernels import emulator
from kernels.emulator.cache import cache_directory

KNOWN = (
    "-std=c++17", "-lineinfo", "--use_fast_math", "-ftz=true", "-arch=sm_90", "-arch=sm_90a",
)  # fmt: skip
END = b"\0"  # of a cubin; nvrtc.getCUBIN cuts it off


class RawModule:
    """Takes what CuPy's takes by keyword, and nothing else."""

    def __init__(
        self, *, code: str | None = None, path: str | None = None, options: tuple[str, ...] = (),
        backend: str = "nvrtc",
    ) -> None:  # fmt: skip
        if (code is None) == (path is None):
            raise TypeError("Exactly one of `code` and `path` keyword arguments must be given.")
        for given in (code, path):
            if given is not None and not isinstance(given, str):
                raise TypeError(f"expected str, got {type(given).__name__}")
        if not isinstance(options, tuple):
            raise TypeError(f"options must be a tuple of str, not {type(options).__name__}")
        self._code, self._path, self._options, self._module = code, path, options, None

    def compile(self, log_stream: Any = None) -> None:
        """Compile; CuPy does it at the first use of a function otherwise."""
        self._module, self._options = _module(self._code, self._path, self._options)

    def get_function(self, name: str) -> RawKernel:
        """Return a kernel; CuPy compiles here when nobody did before."""
        if self._module is None:
            self.compile()
        return RawKernel(self._module.get_function(name), name, self._options)


@functools.cache
def _module(
    code: str | None, path: str | None, options: tuple[str, ...]
) -> tuple[Any, tuple[str, ...]]:
    """Return a module and what it was compiled with.

    The same text with the same options is compiled once, whatever the files that it includes are by
    then: CuPy's cache on disk does not look at them.
    """
    from cupy.cuda.compiler import CompileException
    from cupy.cuda.driver import CUDADriverError

    if path is not None:  # what nvrtc.getCUBIN gave
        image = Path(path).read_bytes()
        if not image.endswith(END):
            raise CUDADriverError("CUDA_ERROR_INVALID_IMAGE: device kernel image is invalid")
        made = json.loads(image.removesuffix(END))
        return build(made["code"], made["options"]), tuple(made["options"])
    options += ("-ftz=true", "-arch=sm_90")  # CuPy's own come behind the caller's
    try:
        return build(code, options), options
    except (BadOptionError, emulator.CompileError) as error:
        raise CompileException(str(error), code, "", options) from None


class BadOptionError(Exception):
    """An option that the lab does not use."""


def build(code: str, options: Sequence[str]) -> Any:
    """Compile for the emulator what NVRTC would be given."""
    if "warpgroup.cuh" in code and "-arch=sm_90a" not in options:
        raise emulator.CompileError("ptxas: wgmma is not supported on this .target")
    defines, includes = {}, []
    for option in options:
        if found := re.fullmatch(r"-D(\w+)=(.*)", option):
            defines[found[1]] = found[2]
        elif option.startswith("-I"):
            includes.append(option[2:])
        elif option not in KNOWN:
            raise BadOptionError(option)
    return emulator.load(_file(code), defines=defines, include_dirs=includes)


def _file(code: str) -> Path:
    """Return a file with some code: the same for the same, so that the emulator's cache has it."""
    folder = cache_directory() / "cupy-double"
    folder.mkdir(exist_ok=True)
    path = folder / f"{hashlib.sha256(code.encode()).hexdigest()[:16]}.cu"
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
        file.write(code)
    os.replace(file.name, path)
    return path


class RawKernel:
    """A kernel with CuPy's conventions for arguments."""

    def __init__(self, function: Any, name: str, options: tuple[str, ...]) -> None:
        self._function, self._name, self._options = function, name, options

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """The most that a launch may ask for: at first 48 KiB less what is static, as on a GPU."""
        return self._function.max_dynamic_shared_size_bytes

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, nbytes: int) -> None:
        self._function.max_dynamic_shared_size_bytes = nbytes

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, *, shared_mem: int = 0
    ) -> None:
        if not isinstance(grid, tuple) or not isinstance(block, tuple):
            raise TypeError("grid and block must be tuples")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        from cupy import cuda

        def work(*values: Any) -> None:
            self._function(grid, block, values, shared_mem=shared_mem)
            if cuda.captured is None:
                cuda.launched(self._name, self._options)

        cuda.run(work, *map(_argument, args))


def _argument(value: Any) -> Any:
    """Return what CuPy would send: 64 bits for an int, a double for a float, bytes for a struct."""
    import cupy

    if isinstance(value, cupy.ndarray):
        return value._host
    if isinstance(value, np.uintp) and value == 0:
        return None  # a null pointer, for the emulator
    if isinstance(value, np.generic):
        return value
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        return np.int64(value)
    if isinstance(value, float):
        return np.float64(value)
    raise TypeError(f"Unsupported type {type(value)}")
