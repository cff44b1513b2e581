"""The fingerprint of a kernel's source: equal fingerprints, equal code."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

from kernels import resources, table
from kernels.source import ROOT

# Modules of the lab that hold a kernel's code; the rest of the package launches it.
_CODE = re.compile(r"kernels\.(conv2d|conv2d_relu_pool|pool2d|index_numba)\b")
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def of_row(row: table.Row) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of all files a row is written in.

    Those are its module and the modules of kernels that it imports, its .cu files and the headers
    they include, in the order of their names. Of a plug-in they are all in its module's folder.
    """
    digest = hashlib.sha256()
    files = {*_modules(row.module), *(f for s in resources.sources(row) for f in _headers(s.path))}
    if not row.module.startswith("kernels."):
        beside = (
            folder.glob(pattern)
            for folder in {f.parent for f in files} - {ROOT}
            for pattern in ("*.py", "*.cu", "*.cuh")
        )
        files.update(file for found in beside for file in found)
    for path in sorted(files):
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
        digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _modules(name: str, seen: set[str] | None = None) -> Iterator[Path]:
    seen = set() if seen is None else seen
    spec = importlib.util.find_spec(name)
    if name in seen or spec is None or spec.origin is None:
        return
    seen.add(name)
    path = Path(spec.origin)
    yield path
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kernels"):
            for found in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                if _CODE.match(found) and _is_module(found):
                    yield from _modules(found, seen)


def _is_module(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # a name inside a module
        return False
    return spec is not None and spec.submodule_search_locations is None


def _headers(path: Path) -> Iterator[Path]:
    yield path
    for name in _INCLUDE.findall(path.read_text()):
        for folder in (path.parent, ROOT):
            if (folder / name).exists():
                yield from _headers(folder / name)
                break
