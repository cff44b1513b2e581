"""A whole CUDA program without its host code: the kernels alone, each line where it was."""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path

from kernels.emulator.cache import cache_directory
from kernels.xray.excerpt import code_alone, outermost

_DEVICE = re.compile(r"\b__(global|device|constant|shared)__\b")
_HOST = re.compile(
    r"<<<|\b(main|printf|fprintf)\s*\(|\bcuda[A-Z]\w*|\bcu(blas|dnn|rand|fft)\w*|\b(std|thrust|vector)\b"
)
# Headers of the host's that no kernel needs: CUDA's names and the mathematics are there without.
_HEADERS = re.compile(
    r"^[ \t]*#[ \t]*include[ \t]*<(cuda(_runtime(_api)?)?\.h|device_launch_parameters\.h|"
    r"(std(io|lib)|string|time|math|sys/time)\.h|c(stdio|stdlib|string|time|math)|iostream|fstream|"
    r"sstream|iomanip|vector|string|chrono|random|algorithm|numeric|memory|thread|functional|map)>",
    re.MULTILINE,
)
_INCLUDE = re.compile(r'^([ \t]*#[ \t]*include[ \t]*)"([^"\n]+)"', re.MULTILINE)


def kernels_alone(text: str) -> str:
    """Return a file with its host code blanked; the lines stay where they are.

    What is blanked: outermost functions, types and variables that name CUDA's host side or the
    standard library and have no ``__global__`` or ``__device__`` in them, and the host's headers.
    """
    code = code_alone(text)
    for begin, end, _ in outermost(code):
        part = code[begin:end]
        if _HOST.search(part) and not _DEVICE.search(part):
            text = text[:begin] + re.sub(r"[^\n]", " ", text[begin:end]) + text[end:]
    return _HEADERS.sub(lambda found: " " * len(found[0]), text)


def stand_in(path: Path) -> Path:
    """Return a file in the cache with the kernels alone; `path` itself if it has nothing else.

    Parameters
    ----------
    path
        A ``.cu`` file; it stays as it is.
    """
    text = path.read_text(errors="replace")
    alone = kernels_alone(text)
    if alone == text:
        return path
    key = hashlib.sha256(f"{path.resolve()}\0{alone}".encode()).hexdigest()[:32]
    alone = _INCLUDE.sub(functools.partial(_found_beside, path.resolve().parent), alone)
    copy = cache_directory() / f"kernels-{key}" / path.name
    copy.parent.mkdir(exist_ok=True)
    if not copy.exists() or copy.read_text(errors="replace") != alone:
        copy.write_text(alone)
    return copy


def _found_beside(directory: Path, found: re.Match[str]) -> str:
    """Return an include that the copy finds as well as the file itself."""
    beside = directory / found[2]
    return f'{found[1]}"{beside}"' if beside.is_file() else found[0]
