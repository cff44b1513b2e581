"""Builds `nvtx_listener.c`, the library that hears the NVTX ranges of a traced command."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from kernels.emulator import CompileError, CompilerNotFound
from kernels.emulator.cache import cache_directory
from kernels.emulator.compiler import find_compiler, run

SOURCE = Path(__file__).with_name("nvtx_listener.c")
# As C and without the C++ library, which the traced program may have in another version.
FLAGS = ("-x", "c", "-std=gnu11", "-O2", "-shared", "-fPIC", "-fvisibility=hidden")
LINK = ("-Wl,--as-needed",)


class ListenerError(RuntimeError):
    """The library cannot be built here; the message says why."""


def build() -> Path:
    """Return the library, from the cache or compiled now.

    Raises
    ------
    ListenerError
        No compiler, or one that refuses the file.
    """
    try:
        compiler = find_compiler()
        parts = (SOURCE.read_bytes(), repr((FLAGS, LINK, compiler.identity)).encode())
        key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
        target = cache_directory() / f"nvtx_listener-{key}.so"
        if not target.exists():
            with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as folder:
                built = Path(folder) / target.name
                run(compiler, [*LINK, *FLAGS, str(SOURCE), "-o", str(built)], [SOURCE])
                os.replace(built, target)
    except (CompilerNotFound, CompileError, OSError) as error:
        raise ListenerError(str(error)) from error
    return target
