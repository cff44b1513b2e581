"""The C++ compiler: which one, with which flags, and what its errors mean."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import CompileError, CompilerNotFound

FLAGS = (
    "-std=gnu++17",
    "-O3",
    "-march=native",
    "-g",
    "-fPIC",
    "-ffp-contract=fast",  # as nvcc's -fmad=true; all else stays IEEE
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-strict-aliasing",
    "-fno-finite-loops",  # a spin loop stays one
    "-fno-exceptions",
    "-fno-stack-protector",
    "-fno-optimize-sibling-calls",  # a fault in memset or expf shows where it was called
)
WARNINGS = (
    "-Wall",
    "-Wno-unknown-pragmas",
    "-Wno-unused",
    "-Wno-attributes",
    "-Wno-ignored-attributes",
    "-Wno-unknown-attributes",
)

# Names that only a GPU has, and what they belong to.
UNSUPPORTED = {
    "cooperative_groups": "cooperative groups",
    "mma.h": "tensor cores (wmma)",
    "nvcuda": "tensor cores (wmma)",
    "cuda_fp16": "half precision",
    "__half": "half precision",
    "cuda_bf16": "bfloat16",
    "__nv_bfloat16": "bfloat16",
    "cuda_fp8": "8-bit floats",
    "cuda_pipeline": "asynchronous copies",
    "cuda/": "libcu++",
    "cub/": "CUB",
    "curand": "cuRAND",
    "tex1D": "textures",
    "tex2D": "textures",
    "tex3D": "textures",
    "cudaTextureObject_t": "textures",
    "cudaSurfaceObject_t": "surfaces",
    "surf2D": "surfaces",
    "<<<": "launches from the device",
}


@dataclass(frozen=True)
class Compiler:
    """A compiler: the command's words, and all that tells one version of it from another."""

    command: tuple[str, ...]
    identity: str

    @property
    def is_clang(self) -> bool:
        """Whether it takes clang's flags."""
        return "clang" in self.identity


def find_compiler() -> Compiler:
    """
    Return ``$CXX`` if set, else g++, else clang++.

    Raises
    ------
    CompilerNotFound
        If none of them is there.
    """
    named = os.environ.get("CXX")
    words = shlex.split(named) if named else []
    for candidate in [words] if words else [["g++"], ["clang++"]]:
        path = shutil.which(candidate[0])
        if path:
            return _identify((path, *candidate[1:]), os.stat(path).st_mtime_ns)
    what = f"CXX names {named!r}, which is not there" if words else "no C++ compiler was found"
    raise CompilerNotFound(
        f"{what}: running CUDA C on the CPU needs g++ or clang++ "
        "(Debian: apt install g++; Fedora: dnf install gcc-c++), or CXX set to one"
    )


@functools.cache
def _identify(command: tuple[str, ...], changed: int) -> Compiler:
    try:
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CompilerNotFound(f"{shlex.join(command)} --version fails: {error}") from None
    return Compiler(command, f"{shlex.join(command)} {changed} {done.stdout}")


@functools.cache
def without_o2(compiler: Compiler) -> tuple[str, ...]:
    """Return the flags that switch off, one by one, what g++ does at -O2 and not at -O1."""
    first, second = (
        set(re.findall(r"^\s*(-f\S+)\s+\[enabled\]", done.stdout, re.MULTILINE))
        for done in (
            subprocess.run(
                [*compiler.command, level, "-Q", "--help=optimizers"],
                capture_output=True,
                text=True,
                env={**os.environ, "LC_ALL": "C"},
            )
            for level in ("-O1", "-O2")
        )
    )
    return tuple(f"-fno-{flag.removeprefix('-f')}" for flag in sorted(second - first))


@functools.cache
def machine() -> str:
    """Return what -march=native depends on: the processor's features."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    kept = {
        line for line in lines if re.match(r"(flags|Features|model|vendor_id|cpu family)", line)
    }
    return platform.machine() + hashlib.sha256("\n".join(sorted(kept)).encode()).hexdigest()


def run(compiler: Compiler, arguments: Sequence[str], user_files: Iterable[Path]) -> None:
    """
    Run the compiler.

    Parameters
    ----------
    compiler : Compiler
        Which one.
    arguments : sequence of str
        What to do.
    user_files : iterable of Path
        The files whose lines an error should name; other lines are ours.

    Raises
    ------
    CompileError
        Naming file, line and the first error.
    """
    done = subprocess.run(
        [*compiler.command, *arguments],
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode:
        files = list(user_files)
        raise CompileError(_first_error(done.stderr, files), done.stderr)


def _first_error(log: str, user_files: Sequence[Path]) -> str:
    located = re.findall(r"^(.*?):(\d+):(?:\d+:)? (?:fatal )?error: (.*)$", log, re.MULTILINE)
    ours = {str(path) for path in user_files}
    name = user_files[0].name if user_files else "the emulator"
    best = next((found for found in located if found[0] in ours), located[0] if located else None)
    if best is None:
        lines = [line for line in log.splitlines() if line.strip()]
        return f"{name}: the compiler fails: {lines[0] if lines else 'it says nothing'}"
    path, line, text = best
    for word, feature in UNSUPPORTED.items():
        if word in text:
            text = f"the emulator does not support {feature} ({text})"
            break
    if path in ours:
        return f"{Path(path).name}:{line}: {text}"
    # An error in a header or in what is generated: name the nearest place in the user's files.
    for path, line in re.findall(r"(\S+?\.cuh?):(\d+)", log):
        if path in ours:
            return f"{Path(path).name}:{line}: {text}"
    return f"{name}: {text}"
