"""Launches one kernel and waits for it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import time
from pathlib import Path

from . import binding
from .arguments import Packed
from .errors import BarrierDivergence, EmulatorError, IllegalAddress, KernelTimeout
from .options import ORDERS, Settings

_ERRORS = {
    binding.DIVERGENCE: BarrierDivergence,
    binding.TIMEOUT: KernelTimeout,
    binding.ILLEGAL_ADDRESS: IllegalAddress,
}
_HERE = Path(__file__).resolve().parent
_SLICE = 0.02  # seconds between looks at the clock and at Python's signals


def launch(
    library: ctypes.CDLL,
    path: Path,
    kernel: binding.Kernel,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    packed: Packed,
    shared_bytes: int,
    settings: Settings,
    traced: bool = False,
) -> None:
    """Run a kernel whose arguments have been checked; raise what ended it early."""
    request = binding.Request(
        module=ctypes.pointer(binding.Module.in_dll(library, "emulator_module")),
        kernel=ctypes.pointer(kernel),
        arguments=packed.address,
        grid=grid,
        block=block,
        shared_bytes=shared_bytes,
        order=ORDERS.index(settings.order),
        seed=settings.seed % 2**64,
        workers=settings.worker_count,
    )
    runtime = binding.runtime(traced)
    handle = ctypes.c_void_p()
    try:
        if not runtime.emulator_start(ctypes.byref(request), ctypes.byref(handle)):
            raise EmulatorError("the machine gives no thread to run the kernel on")
        _wait(runtime, handle, settings.time_limit)
        failure, printed = _result(runtime, handle)
    finally:
        runtime.emulator_finish(handle)  # Ctrl-C: the kernel must end before its arrays may
    if printed:
        sys.stdout.write(printed)
    if failure.ending != binding.DONE:
        raise _error(failure, kernel.name.decode(), path, settings)


def _wait(runtime: ctypes.CDLL, handle: ctypes.c_void_p, time_limit: float | None) -> None:
    end = None if time_limit is None else time.monotonic() + time_limit
    while not runtime.emulator_wait(handle, _SLICE):
        if end is not None and time.monotonic() > end:
            runtime.emulator_stop(handle, binding.TIMEOUT)


def _result(runtime: ctypes.CDLL, handle: ctypes.c_void_p) -> tuple[binding.Failure, str]:
    failure = binding.Failure()
    text, size = ctypes.c_void_p(), ctypes.c_uint64()
    runtime.emulator_result(handle, ctypes.byref(failure), ctypes.byref(text), ctypes.byref(size))
    printed = ctypes.string_at(text.value, size.value) if text.value else b""
    return failure, printed.decode(errors="replace")


def _error(failure: binding.Failure, kernel: str, path: Path, settings: Settings) -> EmulatorError:
    place = f"{kernel}: block {tuple(failure.block)}"
    if failure.in_thread:
        place += f", thread {tuple(failure.thread)}"
    text = failure.text.decode(errors="replace")
    if failure.ending == binding.TIMEOUT:
        text += f" after the time limit of {settings.time_limit:g} s"
    line = _line_of(list(failure.code), path)
    if line:
        text += f" at {line}"
    return _ERRORS.get(failure.ending, EmulatorError)(f"{place}: {text}")


def _line_of(code: list[int], path: Path) -> str | None:
    """Return file:line of the first address that is in the kernel's own source."""
    tool = shutil.which("addr2line")
    if tool is None or not any(code):
        return None
    for number, address in enumerate(code):
        offset = _offset_in(path, address - (number > 0))  # a return address is one behind
        if offset is None:
            continue
        done = subprocess.run(
            [tool, "-i", "-e", str(path), hex(offset)], capture_output=True, text=True, check=False
        )
        for found in done.stdout.splitlines():  # from the innermost inlined function outwards
            name, _, line = found.partition(":")
            line = line.split(" ")[0]
            ours = Path(name).is_relative_to(_HERE)
            if line.isdigit() and line != "0" and not ours:
                return f"{Path(name).name}:{line}"
    return None


def _offset_in(path: Path, address: int) -> int | None:
    """Return an address of code relative to where the library was loaded; None outside of it."""
    loaded, first = str(path.resolve()), None
    for mapping in Path("/proc/self/maps").read_text().splitlines():
        fields = mapping.split(maxsplit=5)
        if len(fields) < 6 or fields[5] != loaded:
            continue
        low, high = (int(part, 16) for part in fields[0].split("-"))
        first = low if first is None else first
        if low <= address < high and "x" in fields[1]:
            return address - first
    return None
