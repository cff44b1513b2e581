"""cupy.cuda.nvrtc of the double: its "cubin" is the text and the options, for the emulator."""

from __future__ import annotations

import json
from typing import Any

from kernels import emulator

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
    """Compile for the emulator, so that what it refuses is NVRTC's to say."""
    from cupy import _raw

    made = _programs[program]
    if sum(option.startswith("-arch=") for option in options) != 1:
        raise NVRTCError("NVRTC_ERROR_INVALID_OPTION (5)")
    try:
        _raw.build(made["code"], options)
    except _raw.BadOptionError as error:
        made["log"] = f"nvrtc: error: unrecognized option {error} found"
        raise NVRTCError("NVRTC_ERROR_INVALID_OPTION (5)") from None
    except emulator.CompileError as error:
        made["log"] = str(error)
        raise NVRTCError("NVRTC_ERROR_COMPILATION (6)") from None
    made["options"] = list(options)


def getCUBIN(program: int) -> bytes:  # noqa: N802
    """Return what `cupy.RawModule` loads from a file, but for its last byte, as CuPy does."""
    from cupy import _raw

    made = _programs[program]
    if made["options"] is None:
        raise NVRTCError("NVRTC_ERROR_INVALID_PROGRAM (4)")
    whole = json.dumps({"code": made["code"], "options": made["options"]}).encode() + _raw.END
    return whole[:-1]


def getVersion() -> tuple[int, int]:  # noqa: N802
    """Return a version that nobody released."""
    return 0, 0


def getProgramLog(program: int) -> str:  # noqa: N802
    """Return what the compiler said."""
    return _programs[program]["log"]


def destroyProgram(program: int) -> None:  # noqa: N802
    """Forget it; twice is an error."""
    del _programs[program]
