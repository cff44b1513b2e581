"""What the GPU's own compilers say of a participant's kernel, where they are installed.

The emulator and the simulator take a little more than a GPU's compiler does: C++ that NVRTC does
not know, Python whose types Numba cannot tell.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from kernels import resources
from kernels.source import KernelCompileError
from kernels.xray import gpus

if TYPE_CHECKING:
    from kernels.numba_cuda import NumbaSource  # slow to import

# Whose compute capability, and whose bounds. The oldest there is: what it takes, all take. And so
# small that a launch which a laptop can count fills it.
GPU = gpus.find("t4")
CAPABILITY = (7, 5)


class NotHere(RuntimeError):  # noqa: N818
    """What cannot be looked at on this machine; the message says what is missing."""


class NotForGpu(RuntimeError):  # noqa: N818
    """A GPU's compiler refuses the kernel; the message says where and why."""


def cuda_usage(path: Path, kernel: str) -> resources.Usage:
    """Return what ptxas says of a kernel in a ``.cu`` file.

    Raises
    ------
    NotHere, NotForGpu
        NVRTC is not installed; or it refuses the file.
    """
    try:
        made = resources.compile_file(path, (), GPU.arch)
    except resources.NvrtcMissingError as error:
        raise NotHere(str(error)) from None
    except KernelCompileError as error:
        text = str(error).replace(str(path), path.name)
        said = next((line for line in text.splitlines() if "): error" in line), text)
        raise NotForGpu(f"NVRTC refuses it: {said}") from None
    return next(usage for usage in made.usages if usage.function == kernel)


def compile_numba(source: NumbaSource, kernel: str) -> None:
    """Compile a Numba kernel to PTX; raise `NotHere` or `NotForGpu`."""
    from kernels.numba_cuda import ptx_problem

    if problem := ptx_problem():
        raise NotHere(problem)
    name = source.path.name
    try:
        source.ptx(kernel, "float32", CAPABILITY)
    except KernelCompileError as error:
        said = str(error.__cause__)
        lines = re.findall(rf'File "[^"]*{re.escape(name)}", line (\d+)', said)
        why = [line.strip(" >") for line in said.splitlines() if line.strip()]
        call = next((line.strip(" >") for line in said.splitlines() if ">>>" in line), "")
        text = " ".join(filter(None, (why[1] if why[0].startswith("Failed") else why[0], call)))
        where = f"{name}:{lines[-1]}" if lines else name
        raise NotForGpu(f"{where}: Numba refuses it: {text}") from None
    except (KeyError, TypeError) as error:  # of what the annotations say
        raise NotForGpu(
            f"{name}: the types of {kernel}'s parameters are not known ({error}): keep the "
            "annotations of the starting file"
        ) from None
