"""cupy.cuda.compiler of the double."""

from __future__ import annotations

from typing import Any


class CompileException(Exception):  # noqa: N818 (CuPy's name)
    """What NVRTC said."""

    def __init__(self, msg: str, source: str, name: str, options: Any, backend: str = "nvrtc"):
        super().__init__(msg)
        self.source, self.name, self.options, self.backend = source, name, options, backend
