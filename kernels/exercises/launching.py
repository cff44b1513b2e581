"""A participant's file on the laptop: its kernel, launched under watch, for either language."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import linecache
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from kernels import emulator
from kernels.emulator.scan import followed
from kernels.exercises.exercise import COMMAND, Case, Exercise
from kernels.exercises.for_gpu import GPU, compile_numba, cuda_usage
from kernels.source import ROOT
from kernels.xray import launch, names, recording, unsupported
from kernels.xray.record import Recording

TIME_LIMIT = 5.0  # seconds for a launch that takes a fraction of one


class NotAccepted(Exception):  # noqa: N818
    """A file that cannot be launched: it does not compile, or has not the kernel asked for."""


class NotEnded(Exception):  # noqa: N818
    """A launch that was refused, or ended early, or not at all."""


@dataclasses.dataclass(frozen=True)
class Launched:
    """What a launch did: its recording, and the arrays that it was given, afterwards."""

    recording: Recording
    args: dict[str, Any]


class Kernel(Protocol):
    """The participant's kernel, in one of the languages."""

    def launch(self, case: Case) -> Launched:
        """Launch it; raise `NotEnded`."""
        ...

    def for_gpu(self) -> str:
        """Return what a GPU's compiler says; raise `for_gpu.NotHere` or `for_gpu.NotForGpu`."""
        ...


class CudaKernel:
    """A kernel in a ``.cu`` file, recorded by the X-ray.

    Parameters
    ----------
    path
        The file; it may include the lab's headers.
    exercise
        Whose kernel it has to have.
    parameters
        The names that the kernel's parameters must have.

    Raises
    ------
    NotAccepted
        It does not compile, or the kernel or one of its parameters is called otherwise.
    """

    def __init__(self, path: Path, exercise: Exercise, parameters: Sequence[str]) -> None:
        try:
            module = emulator.load(path, include_dirs=[ROOT], traced=True)
        except emulator.CompileError as error:
            if "there is no kernel in it" in str(error):
                raise NotAccepted(_wrong_kernel(path, exercise, parameters, ())) from None
            raise NotAccepted(unsupported.with_advice(str(error))) from None
        if exercise.kernel not in module.kernels:
            raise NotAccepted(_wrong_kernel(path, exercise, parameters, module.kernels))
        self._path = path
        self._function = module.get_function(exercise.kernel)
        build = module.build
        files = followed(build.path, build.include_dirs)
        _, line, found = names.declaration(exercise.kernel, files)
        if len(found) == len(self._function.parameters) and list(found) != list(parameters):
            raise NotAccepted(_wrong_parameters(f"{path.name}:{line}", exercise, found, parameters))

    def launch(self, case: Case) -> Launched:
        """Launch it under the X-ray; raise `NotEnded`."""
        args = case.fresh_args()
        arrays = {name: value for name, value in args.items() if isinstance(value, np.ndarray)}
        known = [name for name in arrays if name not in case.scratch]
        outputs = [arrays[name] for name in known if name in case.want and case.is_empty(name)]
        inputs = [arrays[name] for name in known if not any(arrays[name] is o for o in outputs)]
        values = [getattr(value, "struct", value) for value in args.values()]
        # The X-ray takes a limit as one of an untraced launch, and stretches it.
        limit = emulator.settings(time_limit=TIME_LIMIT / launch.SLOWER)
        try:
            with limit, recording(outputs=outputs, inputs=inputs) as recordings:
                self._function(case.grid, case.block, values)
        except emulator.KernelTimeout as error:
            said, _, place = str(error).partition(" at ")  # which may be a place in the emulator
            where = f" at {place}" if place.startswith(self._path.name) else ""
            raise NotEnded(f"{said}{where}: a loop that does not end?") from None
        except emulator.EmulatorError as error:
            raise NotEnded(str(error)) from None
        return Launched(recordings[0], args)

    def for_gpu(self) -> str:
        """Return the registers that NVRTC gives it."""
        usage = cuda_usage(self._path, self._function.name)
        return f"NVRTC compiles it for {GPU.arch}: {usage.registers} registers a thread"


def _wrong_kernel(
    path: Path, exercise: Exercise, wanted: Sequence[str], found: Sequence[str]
) -> str:
    """Return what to say of a file without the kernel that is asked for."""
    missing = f"{path.name}: there is no kernel {exercise.kernel!r}; it has"
    if found:
        return f"{missing} {', '.join(found)}: keep the name"
    numba = " --numba" if path.suffix == ".py" else ""
    return (
        f"{missing} none: the grader launches {exercise.kernel}({', '.join(wanted)}); "
        f"to begin again: {COMMAND} start {exercise.number}{numba}"
    )


def _wrong_parameters(
    where: str, exercise: Exercise, found: Sequence[str], wanted: Sequence[str]
) -> str:
    """Return what to say of a kernel whose parameters are not those of the text."""
    return (
        f"{where}: {exercise.kernel}({', '.join(found)}) was found; the grader launches "
        f"{exercise.kernel}({', '.join(wanted)}): keep names and order"
    )


class NumbaKernel:
    """A kernel in a file of Numba CUDA, run by Numba's simulator with watched arrays.

    The file's code runs in this process: `grade.in_child` has one to spare.

    Parameters
    ----------
    path
        The file; it may import the lab's index helpers.
    exercise, parameters
        As for `CudaKernel`.

    Raises
    ------
    NotAccepted
        It is no Python, raises when it is imported, or has not the kernel asked for.
    """

    def __init__(self, path: Path, exercise: Exercise, parameters: Sequence[str]) -> None:
        from kernels.numba_cuda import NumbaSource  # slow to import

        self._path = path
        name = f"exercise_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise NotAccepted(f"{path.name}: no file of Python; expected NAME.py")
        module = importlib.util.module_from_spec(spec)
        linecache.checkcache(str(path))
        sys.modules[name] = module
        try:
            # From the text, not from a cached .pyc: its time stamp may be the edited file's too.
            exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), vars(module))
        except (Exception, SystemExit) as error:
            raise NotAccepted(_python_error(error, path)) from None
        self._source = source = NumbaSource(name)
        if exercise.kernel not in source.kernels():
            raise NotAccepted(_wrong_kernel(path, exercise, parameters, source.kernels()))
        self._function = source.namespace("float32", (), simulated=True)[exercise.kernel]
        found = list(inspect.signature(self._function).parameters)
        if found != list(parameters):
            line = self._function.__code__.co_firstlineno
            raise NotAccepted(_wrong_parameters(f"{path.name}:{line}", exercise, found, parameters))

    def launch(self, case: Case) -> Launched:
        """Launch it on the simulator; raise `NotEnded`."""
        from kernels.exercises import watched

        args = case.fresh_args()
        outputs = [name for name in case.want if case.is_empty(name)]
        try:
            seen = watched.record(
                self._function, case.grid, case.block, args, (*outputs, *case.scratch), outputs
            )
        except Exception as error:  # whatever a participant's code does is its result
            raise NotEnded(_python_error(error, self._path)) from None
        return Launched(seen, args)

    def for_gpu(self) -> str:
        """Return that Numba compiles it."""
        compile_numba(self._source, self._function.__name__)
        return f"Numba compiles it for {GPU.arch}"


def _python_error(error: BaseException, path: Path) -> str:
    """Return an error of a participant's code with the line of it that is to blame."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return f"{path.name}:{error.lineno}: {type(error).__name__}: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    return f"{path.name}:{lines[-1]}: {text}" if lines else f"{path.name}: {text}"
