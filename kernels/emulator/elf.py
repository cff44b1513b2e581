"""Reads from a shared library's symbol table how much static shared memory each kernel has."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

_SYMBOL_TABLE = 2  # SHT_SYMTAB
_THREAD_LOCAL = 6  # STT_TLS


def thread_local_symbols(library: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and bytes of every thread-local variable that an ELF file defines."""
    data = library.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        return
    (table,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [
        struct.unpack_from("<IIQQQQIIQQ", data, table + i * entry_size) for i in range(count)
    ]
    for section in sections:
        if section[1] != _SYMBOL_TABLE:
            continue
        offset, size = section[4:6]
        names = sections[section[6]][4]
        for at in range(offset, offset + size, 24):
            name, info, _, section_index, place, bytes_ = struct.unpack_from("<IBBHQQ", data, at)
            is_here = section_index != 0  # 0: of another library
            if is_here and info & 0xF == _THREAD_LOCAL:
                start = names + name
                yield data[start : data.index(b"\0", start)].decode(), place, bytes_


def static_shared_bytes(library: Path, kernel: str) -> int:
    """
    Return the bytes of `__shared__` variables that a kernel declares itself.

    Those of the device functions it calls are not counted: the symbol table does not say who
    calls whom. For a template's instance, the largest of its template is returned.
    """
    base = kernel.split("<")[0].split("::")[-1].strip()
    mangled = f"{len(base)}{base}"
    by_function: dict[str, int] = {}
    for name, _, size in thread_local_symbols(library):
        if name.startswith("_ZZ") and mangled in name:
            function = name[: name.rfind("E")]
            by_function[function] = by_function.get(function, 0) + size
    return max(by_function.values(), default=0)
