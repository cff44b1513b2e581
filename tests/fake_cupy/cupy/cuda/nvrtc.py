"""cupy.cuda.nvrtc of the double: its "cubin" is the text and the options, for the emulator."""

from __future__ import annotations

import json
from typing import Any

_programs: dict[int, dict[str, Any]] = {}


class NVRTCError(RuntimeError):
    """What NVRTC said."""


def createProgram(src: str, name: str, headers: Any, include_names: Any) -> int:  # noqa: N802
    """Return a program's handle."""
    if not (isinstance(src, str) and isinstance(name, str)):
        raise TypeError("src and name must be str")
    if len(headers) or len(include_names):
        raise NotImplementedError("the double has no headers in memory")
    handle = max(_programs, default=0) + 1
    _programs[handle] = {"code": src, "options": None, "log": ""}
    return handle


def compileProgram(program: int, options: Any) -> None:  # noqa: N802
    """Check what the emulator cannot: the architecture. It compiles when the cubin is loaded."""
    archs = [option for option in options if option.startswith("-arch=")]
    if len(archs) != 1:
        raise NVRTCError("NVRTC_ERROR_INVALID_OPTION (5)")
    if "warpgroup.cuh" in _programs[program]["code"] and archs != ["-arch=sm_90a"]:
        _programs[program]["log"] = "ptxas: wgmma is not supported on this .target"
        raise NVRTCError("NVRTC_ERROR_COMPILATION (6)")
    _programs[program]["options"] = list(options)


def getCUBIN(program: int) -> bytes:  # noqa: N802
    """Return what `cupy.RawModule` loads from a file."""
    made = _programs[program]
    if made["options"] is None:
        raise NVRTCError("NVRTC_ERROR_INVALID_PROGRAM (4)")
    return json.dumps({"code": made["code"], "options": made["options"]}).encode()


def getProgramLog(program: int) -> str:  # noqa: N802
    """Return what the compiler said."""
    return _programs[program]["log"]


def destroyProgram(program: int) -> None:  # noqa: N802
    """Forget it; twice is an error."""
    del _programs[program]
