"""What can go wrong between a ``.cu`` file and its result."""

from __future__ import annotations


class EmulatorError(RuntimeError):
    """Anything the emulator refuses or ends; the text says what, where and how to go on."""


class CompilerNotFound(EmulatorError):  # noqa: N818
    """There is no C++ compiler."""


class CompileError(EmulatorError):
    """
    The compiler rejects a ``.cu`` file.

    Parameters
    ----------
    message : str
        The file, the line and the compiler's first error.
    log : str
        All that the compiler wrote.
    """

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class LaunchError(EmulatorError, ValueError):
    """A kernel is given what it does not take, or a grid or block that CUDA does not allow."""


class BarrierDivergence(EmulatorError):  # noqa: N818
    """A barrier or warp primitive that not every thread it waits for reaches."""


class KernelTimeout(EmulatorError):  # noqa: N818
    """A launch ran longer than its time limit."""


class IllegalAddress(EmulatorError):  # noqa: N818
    """A thread touched memory that is not there."""
