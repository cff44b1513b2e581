"""A file of Numba kernels -> functions to launch, where the arrays live: `source.py` for Numba.

CuPy arrays get the kernels compiled for their GPU, without a copy; NumPy arrays get the same
functions run by Numba's simulator. Both targets serve one process: the simulator is called as a
class of its own, not through ``NUMBA_ENABLE_CUDASIM``, which would settle the matter for the whole
process when numba.cuda is first imported. Where that variable is set the GPU is out of reach, and
asking for it says so.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import cuda
from numba.cuda.simulator.kernel import FakeCUDAKernel

from kernels import index_numba, observe, place, ranges
from kernels.emulator.cache import cache_directory
from kernels.shapes import Conv2dShape, PoolShape
from kernels.source import ROOT, KernelCompileError, Launch, launch_recorder

if "numba_cuda" not in str(cuda.__spec__.origin):
    raise ImportError(
        "numba.cuda is the deprecated target inside numba; "
        "expected NVIDIA's: pip install numba-cuda"
    )

SLOW_COMPILATION = 1.0  # seconds until a terminal is told

# The simulator keeps the kernel that runs in a global of its own.
_one_simulation = threading.Lock()
_one_compilation = threading.RLock()

# Python's integers for the simulator: they are faster than NumPy's scalars, and mean the same.
_SIMULATED_TYPES = {"int32": int, "uint32": int}


class Signature(NamedTuple):
    """A kernel's name and the Numba types of its parameters."""

    name: str
    types: tuple[Any, ...]


class NumbaSource:
    """The kernels of one technique's module.

    Its ``@cuda.jit`` functions are compiled anew for each element type and set of tile constants:
    as a ``#define`` would, these take the place of the module's globals of the same name.

    Parameters
    ----------
    module
        The module's name, ``__name__``.
    tiles
        Where `kernel` is asked for one of several tiles: the constants of each.
    launch_bounds
        By kernel, as for ``cuda.jit`` (whose simulated namesake does not know them).

    Attributes
    ----------
    variants
        Every set of constants that the kernels are compiled with, beside the element type.
    """

    def __init__(
        self,
        module: str,
        tiles: Sequence[Mapping[str, int]] = ({},),
        launch_bounds: Mapping[str, Any] | None = None,
    ) -> None:
        self.module_name = module
        self.variants = [dict(tile) for tile in tiles]
        self.launch_bounds = launch_bounds or {}

    @property
    def path(self) -> Path:
        """The file of the kernels."""
        return Path(inspect.getfile(self._module))

    @property
    def _module(self) -> ModuleType:
        return sys.modules[self.module_name]

    def kernel(self, name: str, like: Any, **defines: int) -> Launch:
        """Return the kernel `name`, for where and what the array `like` is.

        Parameters
        ----------
        name
            The function's.
        like
            A float32 or float64 array: its dtype becomes `scalar`, its place decides between GPU
            and simulator.
        **defines
            Tile constants.

        Raises
        ------
        RuntimeError
            A CuPy array in a process whose numba.cuda is the simulator.
        KernelCompileError
            At the launch: Numba refused the kernel.
        """
        if recorder := launch_recorder(name, dict(defines)):
            return recorder
        items = tuple(sorted(defines.items()))
        if place.on_gpu(like):
            if problem := gpu_problem():
                raise RuntimeError(f"{name}: got a CuPy array but {problem}")
            function = _on_gpu(self, name, like.dtype.name, items, like.device.id)
            return observe.kernel(
                functools.partial(_launch_on_gpu, function), name, "gpu", dict(items)
            )
        function = _simulated(self, name, like.dtype.name, items)
        return observe.kernel(
            functools.partial(_simulate, function), name, "simulator", dict(items)
        )

    def kernels(self) -> list[str]:
        """Return the names of the file's kernels, in its order."""
        return [
            name
            for name, value in vars(self._module).items()
            if (function := getattr(value, "py_func", None)) is not None
            and function.__module__ == self.module_name
            and not _is_device_function(value)
        ]

    def signature(self, name: str, dtype: str) -> Signature:
        """Return the types a kernel is compiled for, float32 or float64."""
        return Signature(name, _types(getattr(self._module, name).py_func, dtype))

    def ptx(self, name: str, dtype: str, capability: tuple[int, int], **defines: int) -> str:
        """Compile a kernel to PTX; no GPU is needed, but libNVVM is.

        Parameters
        ----------
        name, **defines
            As for `kernel`.
        dtype
            ``"float32"`` or ``"float64"``.
        capability
            The GPU's, (9, 0) for sm_90.
        """
        if problem := _switched_to_simulator():
            raise RuntimeError(f"{name}: cannot be compiled: {problem}")
        jitted = self.namespace(dtype, tuple(sorted(defines.items())))[name]
        types = self.signature(name, dtype).types
        with _compilation(self, name), _as_if_on(capability):
            text, _ = cuda.compile(
                jitted.py_func, numba.void(*types), device=False, abi="numba", cc=capability,
                launch_bounds=self.launch_bounds.get(name), lineinfo=True,
            )  # fmt: skip
        return str(text)

    def namespace(
        self, dtype: str, defines: tuple[tuple[str, int], ...], simulated: bool = False
    ) -> dict[str, Any]:
        """Return the module's globals with `defines` in force and every kernel bound to them.

        The index helpers are copied along with the file's own functions, as ``#include`` does.
        """
        space = {**vars(index_numba), **vars(self._module), **dict(defines)}
        space["scalar"] = numba.from_dtype(np.dtype(dtype))
        if simulated:
            space |= _SIMULATED_TYPES
        for name, value in list(space.items()):
            function = getattr(value, "py_func", None)
            if function is None:
                continue
            copy = FunctionType(function.__code__, space, name)
            space[name] = (
                copy
                if simulated
                else cuda.jit(
                    copy,
                    device=_is_device_function(value),
                    launch_bounds=self.launch_bounds.get(name),
                    lineinfo=True,
                )
            )
        return space


def gpu_problem() -> str | None:
    """Return why Numba's kernels cannot reach a GPU from this process, or None."""
    return _switched_to_simulator() or place.gpu_problem()


def ptx_problem() -> str | None:
    """Return why kernels cannot be compiled to PTX and assembled here, or None."""
    if problem := _switched_to_simulator():
        return problem
    pathfinder: Any = importlib.import_module("cuda.pathfinder")
    for library in ("nvvm", "nvJitLink"):
        try:
            pathfinder.load_nvidia_dynamic_lib(library)
        except pathfinder.DynamicLibNotFoundError:
            return f"lib{library} is not installed (pip install 'conv-kernel-lab[offline]')"
    return None


def _switched_to_simulator() -> str | None:
    if numba.config.ENABLE_CUDASIM:
        return (
            "NUMBA_ENABLE_CUDASIM=1 has made numba.cuda the simulator in this process; start "
            "another without that variable (NumPy arrays run on the simulator without it too)"
        )
    return None


def _is_device_function(jitted: Any) -> bool:
    simulated = getattr(jitted, "_device", None)
    return bool(jitted.targetoptions["device"] if simulated is None else simulated)


# Types.


def _types(function: Any, dtype: str) -> tuple[Any, ...]:
    """Return the Numba types that a kernel's annotations stand for."""
    kinds = {
        "Scalars": numba.from_dtype(np.dtype(dtype))[::1],
        "Int32s": numba.int32[::1],
        "int32": numba.int32,
        "Conv2dShape": numba.types.NamedUniTuple(
            numba.int32, len(Conv2dShape._fields), Conv2dShape
        ),
        "PoolShape": numba.types.NamedUniTuple(numba.int32, len(PoolShape._fields), PoolShape),
    }
    annotations = {k: v for k, v in function.__annotations__.items() if k != "return"}
    return tuple(kinds[kind] for kind in annotations.values())


# On the simulator.


@functools.cache
def _simulated(
    source: NumbaSource, name: str, dtype: str, defines: tuple[tuple[str, int], ...]
) -> Any:
    return FakeCUDAKernel(source.namespace(dtype, defines, simulated=True)[name], device=False)


def _simulate(
    kernel: Any,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    args: tuple[Any, ...],
    shared_mem: int = 0,
) -> None:
    like = args[0]
    values = []
    for arg in args:
        if arg is None:  # neither target's kernels take None
            values.append(like.reshape(-1)[:0])
        elif isinstance(arg, np.ndarray):
            values.append(arg.reshape(-1))
        else:
            values.append(int(arg) if isinstance(arg, np.integer) else arg)
    with _one_simulation:
        kernel[grid, block, 0, shared_mem](*values)


# On a GPU.


@functools.cache
def _on_gpu(
    source: NumbaSource,
    name: str,
    dtype: str,
    defines: tuple[tuple[str, int], ...],
    device: int,
) -> Any:
    del device  # a loaded function belongs to one device's context
    jitted = source.namespace(dtype, defines)[name]
    key = repr((name, dtype, defines))
    with _compilation(source, name), _cached_below(_digest(source.path, key)):
        jitted.enable_caching()
        jitted.compile(source.signature(name, dtype).types)
    return jitted


def _launch_on_gpu(
    jitted: Any,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    args: tuple[Any, ...],
    shared_mem: int = 0,
) -> None:
    import cupy

    like = args[0]
    values = []
    for arg in args:
        if isinstance(arg, (Conv2dShape, PoolShape)):
            values.append(_in_32_bits(arg))
        elif isinstance(arg, np.integer):
            values.append(arg)
        else:
            array = like[:0] if arg is None else arg  # no target takes None
            # By default Numba would wait for CuPy's stream; it launches on that stream instead.
            values.append(cuda.as_cuda_array(array.reshape(-1), sync=False))
    stream = cuda.external_stream(cupy.cuda.get_current_stream().ptr)
    with _without_advice():
        configured = jitted[grid, block, stream, shared_mem]
    configured(*values)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Let a grid be as small as a layer is: Numba would warn of fewer than 128 blocks."""
    before = numba.config.CUDA_LOW_OCCUPANCY_WARNINGS
    numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
    try:
        yield
    finally:
        numba.config.CUDA_LOW_OCCUPANCY_WARNINGS = before


@functools.lru_cache(maxsize=1024)
def _in_32_bits(shape: Any) -> Any:
    # Numba types a field by its value, and a Python int is an int64.
    return type(shape)(*map(np.int32, shape))


@functools.cache
def _digest(path: Path, key: str) -> str:
    """Return a name for what a compiled kernel depends on.

    Numba's cache alone sees neither a changed global nor a changed device function of another file.
    """
    text = hashlib.sha256(key.encode())
    for file in (path, Path(index_numba.__file__), Path(__file__), ROOT / "shapes.py"):
        text.update(file.read_bytes())
    return text.hexdigest()[:24]


@contextmanager
def _cached_below(digest: str) -> Iterator[None]:
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_directory() / "numba" / digest)
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


@contextmanager
def _as_if_on(capability: tuple[int, int]) -> Iterator[None]:
    """Let device functions compile without a GPU: Numba asks the current one what it is."""
    dispatcher: Any = importlib.import_module("numba.cuda.dispatcher")
    asked = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = asked


@contextmanager
def _compilation(source: NumbaSource, name: str) -> Iterator[None]:
    """Compile one at a time; a terminal sees a spinner when it takes long."""
    label = f"{source.path.relative_to(ROOT) if source.path.is_relative_to(ROOT) else source.path}"
    text = f"compiling {name} ({label})"
    with _one_compilation, ranges.span(text), _spinner(text):
        try:
            yield
        except numba.core.errors.NumbaError as error:
            raise KernelCompileError(f"{label}: Numba refused {name}:\n{error}") from error


@contextmanager
def _spinner(text: str) -> Iterator[None]:
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    status = Console(stderr=True).status(text)
    timer = threading.Timer(SLOW_COMPILATION, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


def sources(row: Any) -> list[NumbaSource]:
    """Return the files of kernels of a table's row: those that its launchers' modules name."""
    if row.language != "numba" or "gpu" not in row.places:
        return []
    modules = dict.fromkeys(row.launcher(direction).__module__ for direction in row.passes)
    return [
        value
        for module in modules
        for value in vars(sys.modules[module]).values()
        if isinstance(value, NumbaSource)
    ]


def assemble(ptx: str, arch: str) -> tuple[str, bytes]:
    """Assemble PTX by nvJitLink for an architecture such as ``"sm_90"``.

    Returns
    -------
    tuple
        What ``ptxas -v`` says, and the cubin.
    """
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch=arch, ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=options)
    cubin = linker.link("cubin")
    return str(linker.get_info_log()), bytes(cubin.code)
