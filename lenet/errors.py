"""What can be wrong outside the code: each is one clear line and exit status 2 in the CLI."""

from __future__ import annotations

from kernels.one_line import one_line


class LenetError(ValueError):
    """Something the user can put right; the message, one line, says how."""

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


class OptionError(LenetError):
    """An option, or a combination of options, that cannot be used."""


class DataError(LenetError):
    """A data file or an image that is missing, damaged or not what it should be."""


class CheckpointError(LenetError):
    """A run folder that cannot be read, written or continued."""


class KernelError(LenetError):
    """A kernel that could not be built or started here."""


class DivergedError(LenetError):
    """The loss is no longer a number."""
