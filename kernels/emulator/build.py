"""Compiles the runtime and kernel files, and keeps what is compiled."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import compiler as cxx
from .assembly import drop_marks, keep_apart, list_copies
from .cache import cache_directory
from .errors import CompileError, CompilerNotFound
from .local_arrays import give_away
from .scan import Found, followed, refuse_assembly, scan
from .unrolling import unrolled

HERE = Path(__file__).resolve().parent
DYNAMIC_BYTES = (227 << 10) + 1024  # CUDA's most, and the runtime's canary behind it

# The compiler calls a function at every access (`__tsan_read4` and its kin) and basic block; they
# are ours. And the code stays in the order of the source: by that the lanes are put together again.
# From -O2 only loops are unrolled before the calls are put in; of what else it adds to -O1 nothing
# is wanted (`compiler.without_o2`).
TRACING_FLAGS = (
    "-DEMULATOR_TRACED",
    "-O2",
    "-fsanitize=thread",
    "-fsanitize-coverage=trace-pc",
    "-fexpensive-optimizations",  # products and sums are fused, as in the plain build
    "-fno-tree-vectorize",
    "-fno-tree-slp-vectorize",
    "-fno-tree-ch",
    "-fno-tree-sra",  # a float4 is read and written in one piece
    "-fno-ipa-sra",
    "-fno-reorder-blocks",
    "-fno-thread-jumps",
    "-fno-if-conversion",
    "-fno-if-conversion2",
    "-fno-shrink-wrap",
    "--param=max-completely-peel-times=0",  # no loop is unrolled that does not ask for it
    "-fdisable-rtl-loop2_unroll",  # none in part either: g++ would make 65534 turns one
)
TRACING_LINK_FLAGS = ("-Wl,--wrap=memcpy", "-Wl,--wrap=memmove", "-Wl,--wrap=memset")
TRACING_HOOK_FLAGS = ("-fvisibility=hidden", "-foptimize-sibling-calls", "-c")
TRACING_RUNTIME_FLAGS = ("-DEMULATOR_TRACED", "-fno-gnu-unique")

# Headers of CUDA that a kernel file may include though all they hold is there already.
_EMPTY_HEADERS = (
    "cuda.h",
    "cuda_runtime.h",
    "cuda_runtime_api.h",
    "device_launch_parameters.h",
    "math_constants.h",
    "vector_types.h",
    "vector_functions.h",
    "device_functions.h",
    "sm_20_intrinsics.h",
)


@functools.cache
def _own_files() -> bytes:
    own = hashlib.sha256(str(HERE).encode())  # the line tables of what is built name it
    for path in sorted([*HERE.rglob("*.hpp"), *HERE.glob("runtime/*.cpp"), *HERE.glob("*.py")]):
        own.update(path.read_bytes())
    return own.digest()


def _key(compiler: cxx.Compiler, *parts: object) -> str:
    key = hashlib.sha256(_own_files())
    for part in (compiler.identity, cxx.machine(), cxx.FLAGS, *parts):
        key.update(repr(part).encode())
        key.update(b"\0")
    return key.hexdigest()


def _keep(target: Path, make: Callable[[Path, Path], None]) -> Path:
    """Let `make` build a file in a directory of its own, then put it in place in one step."""
    with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as directory:
        built = Path(directory) / target.name
        make(built, Path(directory))
        with built.open("ab") as file:  # a library may have more behind its end
            file.write(hashlib.sha256(built.read_bytes()).digest())
        os.replace(built, target)
    return target


def _intact(target: Path) -> bool:
    """Whether a cache entry is there and whole: to load half a library can end the process."""
    try:
        data = target.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(data[:-32]).digest() == data[-32:]


def build_runtime(traced: bool = False) -> Path:
    """Return the runtime's shared library, built if need be; `traced`: the one that traces."""
    compiler = cxx.find_compiler()
    extra = TRACING_RUNTIME_FLAGS if traced else ()
    target = cache_directory() / f"runtime-{_key(compiler, extra)[:32]}.so"
    if _intact(target):
        return target
    source = HERE / "runtime" / "runtime.cpp"

    def make(built: Path, directory: Path) -> None:
        flags = [*cxx.FLAGS, *cxx.WARNINGS, *extra, "-shared", "-Wl,-Bsymbolic", "-pthread"]
        flags += ["-o", str(built)]
        cxx.run(compiler, [*flags, str(source)], [source])

    return _keep(target, make)


def _build_hooks() -> Path:
    """Return what is linked into every traced module, built if need be."""
    compiler = cxx.find_compiler()
    target = cache_directory() / f"hooks-{_key(compiler)[:32]}.o"
    if _intact(target):
        return target
    source = HERE / "runtime" / "trace_hooks.cpp"

    def make(built: Path, directory: Path) -> None:
        flags = [*cxx.FLAGS, *cxx.WARNINGS, *TRACING_HOOK_FLAGS, "-o", str(built)]
        cxx.run(compiler, [*flags, str(source)], [source])

    return _keep(target, make)


def build_module(
    path: Path,
    defines: Mapping[str, object],
    include_dirs: Sequence[Path] = (),
    name_expressions: Sequence[str] = (),
    *,
    traced: bool = False,
    local_arrays: bool = False,
) -> Path:
    """
    Return the shared library of a ``.cu`` file, built if need be.

    Parameters
    ----------
    path : Path
        The file.
    defines : mapping
        Macros, as ``-D`` would give them.
    include_dirs : sequence of Path
        Where its includes are searched, beside its own directory.
    name_expressions : sequence of str
        Instances of templates to make, such as ``"conv<float, 5>"``.
    traced : bool
        Whether it tells the tracing runtime of each access and basic block.
    local_arrays : bool
        Whether of those to all of a kernel's own arrays too, which takes longer.

    Returns
    -------
    Path
        The library.

    Raises
    ------
    CompileError
        Naming file and line.
    CompilerNotFound
        If there is no compiler, or none that can trace.
    """
    compiler = cxx.find_compiler()
    if traced and compiler.is_clang:
        raise CompilerNotFound(f"CXX is {compiler.command[0]}; tracing needs g++: unset CXX")
    user_files = followed(path, include_dirs)
    options = [f"-D{name}={_text(value)}" for name, value in sorted(defines.items())]
    options += [f"-I{directory}" for directory in include_dirs]
    contents = [(str(file), file.read_bytes()) for file in user_files]
    key = _key(compiler, contents, options, list(name_expressions), traced, local_arrays)
    target = cache_directory() / f"{path.stem}-{key[:32]}.so"
    if _intact(target):
        return target

    def make(built: Path, directory: Path) -> None:
        for name in _EMPTY_HEADERS:
            (directory / name).write_text("#pragma once\n")
        wrapper, expanded = directory / "wrapper.cpp", directory / "expanded.ii"
        device = HERE / "device" / "cuda.hpp"
        wrapper.write_text(f'#include "{device}"\n#include "{path}"\n')
        flags = [*cxx.FLAGS, *cxx.WARNINGS]
        if traced:
            flags += [*cxx.without_o2(compiler), *TRACING_FLAGS]
        if not compiler.is_clang:
            flags.append("-fno-extern-tls-init")  # shared memory has no constructors
            # Else the process would have one `__shared__ tile` for all files with a conv<float>.
            flags.append("-fno-gnu-unique")
        search = [*options, f"-I{directory}"]
        cxx.run(compiler, [*flags, *search, "-E", "-o", str(expanded), str(wrapper)], user_files)
        text = expanded.read_text(errors="replace")
        refuse_assembly(text, user_files)
        found = scan(text)
        if not found.kernels and not name_expressions:
            raise CompileError(
                f"{path.name}: there is no kernel in it (an instance of a template is asked for "
                "by name_expressions)"
            )
        if local_arrays:
            text = give_away(text, user_files)
        if traced:
            text = unrolled(text)
        expanded.write_text(text + _registration(found, name_expressions, traced))
        link = ["-shared", "-Wl,-Bsymbolic", "-Wl,-z,now", "-o", str(built)]
        compiled = [*flags, "-x", "c++-cpp-output", str(expanded)]
        if traced:
            # In two steps: the linker must not add the sanitizer's own runtime.
            assembly = directory / "traced.s"
            cxx.run(compiler, [*compiled, "-S", "-o", str(assembly)], user_files)
            text = drop_marks(keep_apart(assembly.read_text()))
            assembly.write_text(list_copies(text, user_files))
            compiled = ["-fPIC", str(assembly), str(_build_hooks()), *TRACING_LINK_FLAGS]
        cxx.run(compiler, [*compiled, *link], user_files)

    return _keep(target, make)


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _registration(found: Found, name_expressions: Sequence[str], traced: bool) -> str:
    entries = [(name, f"&::{name}", bounds) for name, bounds in found.kernels]
    entries += [(name, f"&{name}", "") for name in name_expressions]
    lines = ['\n# 1 "registration"', "namespace emulator {", "static const Kernel kernels[] = {"]
    for name, function, bounds in entries:
        lines.append(f'    Entry<{function}>::kernel("{name}", bounds({bounds})),')
    lines += ["};", "}"]
    dynamic = static = "nullptr"
    if found.dynamic_arrays or traced:
        # As in CUDA, all dynamic arrays are the same memory: one symbol each, one place.
        dynamic = "+[]() -> char* { return emulator_dynamic_shared; }"
        lines.append('extern "C" {')
        lines.append(f"alignas(128) thread_local char emulator_dynamic_shared[{DYNAMIC_BYTES}];")
        lines.append("}")
        for name in found.dynamic_arrays:
            lines.append(f'asm(".globl {name}\\n.set {name}, emulator_dynamic_shared\\n");')
    elif found.has_shared:
        # The memory is there for an OS thread from when it first asks for any of it.
        static = "+[]() -> char* { return &emulator_static_shared; }"
        lines.append('extern "C" { thread_local char emulator_static_shared; }')
    count = "sizeof emulator::kernels / sizeof emulator::kernels[0]"
    lines.append(
        'extern "C" const emulator::Module emulator_module = '
        f"{{emulator::kernels, {count}, {dynamic}, {static}}};\n"
    )
    return "\n".join(lines)
