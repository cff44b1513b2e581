"""Checks a kernel's arguments against its signature and lays them out as the kernel reads them."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .binding import Parameter
from .errors import LaunchError


@dataclass(frozen=True)
class Expected:
    """A parameter of a kernel: its type as written, and what NumPy value fits it."""

    type: str
    is_pointer: bool
    is_const: bool
    size: int
    align: int
    kind: str
    scalar_size: int

    @classmethod
    def of(cls, raw: Parameter) -> Expected:
        """Read the compiled description."""
        spelled = re.search(r"\[(?:with )?T = (.*?)[\];]", raw.type.decode())
        return cls(
            spelled[1].replace(" *", "*") if spelled else "?",
            bool(raw.is_pointer),
            bool(raw.is_const),
            raw.size,
            raw.align,
            chr(raw.scalar_kind),
            raw.scalar_size,
        )

    @property
    def wanted(self) -> str:
        """What to pass, in words."""
        bits = self.scalar_size * 8
        name = {"f": f"float{bits}", "i": f"int{bits}", "u": f"uint{bits}", "b": "bool"}
        element = name.get(self.kind)
        if self.is_pointer:
            array = f"an array of {element}" if element else "an array"
            return f"{self.type}: {array}{'' if self.is_const else ', writeable'}"
        if element and self.scalar_size == self.size:
            return f"{self.type}: np.{element if self.kind != 'b' else 'bool_'}"
        return f"{self.type}: a NumPy structured scalar (np.void) of {self.size} bytes"

    def pack(self, value: Any) -> bytes:
        """
        Return the bytes the kernel reads.

        Raises
        ------
        LaunchError
            Saying what was got; the caller adds where.
        """
        return self._pointer(value) if self.is_pointer else self._value(value)

    def _pointer(self, value: Any) -> bytes:
        if value is None:
            return bytes(8)
        if not isinstance(value, np.ndarray):
            raise LaunchError(f"got {_named(value)}")
        got = f"an array of {value.dtype}"
        if not value.flags.c_contiguous:
            raise LaunchError(f"got {got} that is not C-contiguous (np.ascontiguousarray)")
        if not self._element_fits(value.dtype):
            raise LaunchError(f"got {got}")
        if not self.is_const and not value.flags.writeable:
            raise LaunchError(f"got {got} that is read-only")
        if value.nbytes % self.size:
            raise LaunchError(f"got {value.nbytes} bytes, no multiple of its {self.size}")
        address: int = value.ctypes.data
        if value.size and address % self.align:
            raise LaunchError(f"got an array at an address that is no multiple of {self.align}")
        return address.to_bytes(8, "little")

    def _element_fits(self, dtype: np.dtype[Any]) -> bool:
        if self.kind == "V":
            return True
        if self.kind == "S":
            return dtype.kind == "V" and dtype.itemsize == self.size
        if dtype.kind == "V":
            return dtype.itemsize == self.size != self.scalar_size
        return dtype.isnative and dtype.kind == self.kind and dtype.itemsize == self.scalar_size

    def _value(self, value: Any) -> bytes:
        if isinstance(value, np.void):
            if value.dtype.itemsize != self.size:
                raise LaunchError(f"got a structured scalar of {value.dtype.itemsize} bytes")
            return value.tobytes()
        scalar = _as_numpy(value)
        if scalar is None:
            raise LaunchError(f"got {_named(value)}")
        simple = self.kind in "fiub" and self.scalar_size == self.size
        kinds = "iu" if self.kind in "iu" else self.kind
        if not simple or scalar.dtype.kind not in kinds or scalar.dtype.itemsize != self.size:
            raise LaunchError(f"got {_named(value)}")
        if scalar.dtype.kind != self.kind and int(scalar) != int(
            scalar.astype(f"{self.kind}{self.size}")
        ):
            raise LaunchError(f"got {_named(value)} of value {scalar}")
        return scalar.tobytes()


def _as_numpy(value: Any) -> np.generic | None:
    if isinstance(value, np.generic):
        return value
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, int):
        try:
            return np.int64(value)
        except OverflowError:
            return np.uint64(value) if 0 <= value < 2**64 else None
    return np.float64(value) if isinstance(value, float) else None


def _named(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    if isinstance(value, np.generic):
        return f"np.{type(value).__name__}"
    sent = {bool: "", int: " (sent as 64 bits)", float: " (sent as double)"}.get(type(value), "")
    return f"a Python {type(value).__name__}{sent}"


class Packed:
    """
    Arguments in memory, as a kernel reads them: an array of pointers to aligned values.

    Parameters
    ----------
    kernel : str
        For messages.
    expected : sequence of Expected
        The signature.
    values : sequence
        The arguments; they are kept alive.
    """

    def __init__(self, kernel: str, expected: Sequence[Expected], values: Sequence[Any]) -> None:
        if len(values) != len(expected):
            wanted = ", ".join(parameter.type for parameter in expected)
            raise LaunchError(
                f"{kernel}: got {len(values)} arguments; it takes {len(expected)} ({wanted})"
            )
        self.values = tuple(values)
        slots: list[tuple[int, bytes]] = []
        end = 8 * len(expected)
        for number, (parameter, value) in enumerate(zip(expected, values, strict=True), 1):
            try:
                packed = parameter.pack(value)
            except LaunchError as error:
                raise LaunchError(
                    f"{kernel}: argument {number}: {error}; wanted {parameter.wanted}"
                ) from None
            align = 8 if parameter.is_pointer else parameter.align
            end = -(-end // align) * align
            slots.append((end, packed))
            end += len(packed)
        memory = bytearray(end)
        self._buffer = ctypes.create_string_buffer(end + 128)
        self.address = -(-ctypes.addressof(self._buffer) // 128) * 128
        for number, (offset, packed) in enumerate(slots):
            memory[8 * number : 8 * number + 8] = (self.address + offset).to_bytes(8, "little")
            memory[offset : offset + len(packed)] = packed
        ctypes.memmove(self.address, bytes(memory), end)
