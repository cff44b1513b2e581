"""A loaded ``.cu`` file and its kernels, called as CuPy calls them."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import binding, build, options
from .arguments import Expected, Packed
from .elf import static_shared_bytes
from .errors import CompileError, EmulatorError, LaunchError
from .launch import launch

_MAX_SHARED = 227 << 10
_DEFAULT_SHARED = 48 << 10


class Function:
    """
    A kernel. Call it as CuPy's RawKernel: ``fn(grid, block, args, shared_mem=0)``.

    Attributes
    ----------
    name : str
        As it is asked for.
    module : Module
        Where it is from.
    parameters : list of Expected
        What it takes.
    static_shared_bytes : int
        Of the shared variables it declares.
    max_dynamic_shared_size_bytes : int
        The most a launch may ask for; 48 KiB less what is static, up to 227 KiB if set.
    """

    def __init__(self, module: Module, raw: binding.Kernel) -> None:
        self.name: str = raw.name.decode()
        self.module = module
        self._raw = raw
        self.parameters = [Expected.of(raw.parameters[i]) for i in range(raw.parameter_count)]
        self.static_shared_bytes = static_shared_bytes(module.library_path, self.name)
        self._max_dynamic = max(0, _DEFAULT_SHARED - self.static_shared_bytes)

    def __repr__(self) -> str:
        parameters = ", ".join(parameter.type for parameter in self.parameters)
        return f"<emulated kernel {self.name}({parameters})>"

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        """The most dynamic shared memory a launch may ask for, in bytes."""
        return self._max_dynamic

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, value: int) -> None:
        most = _MAX_SHARED - self.static_shared_bytes
        if not 0 <= value <= most:
            raise ValueError(
                f"{self.name}: max_dynamic_shared_size_bytes is {value}; expected 0 to {most}"
            )
        self._max_dynamic = value

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        shared_mem: int = 0,
    ) -> None:
        """
        Run the kernel; back when it has ended.

        Parameters
        ----------
        grid, block : tuple of 1 to 3 int
            Blocks, and threads a block.
        args : sequence
            Arrays, NumPy scalars, structured scalars, None for a null pointer.
        shared_mem : int
            Bytes of dynamic shared memory.

        Raises
        ------
        LaunchError
            For what CUDA or the kernel does not take.
        BarrierDivergence, KernelTimeout, IllegalAddress, EmulatorError
            For what ended the kernel early.
        """
        grid3 = self._extent("grid", grid, (2**31 - 1, 65535, 65535))
        block3 = self._extent("block", block, (1024, 1024, 64))
        threads = block3[0] * block3[1] * block3[2]
        limit = min(1024, self._raw.max_threads)
        if threads > limit:
            why = "its __launch_bounds__" if limit < 1024 else "CUDA"
            raise LaunchError(
                f"{self.name}: block {tuple(block)} has {threads} threads; {why} allows {limit}"
            )
        if self.static_shared_bytes > _DEFAULT_SHARED:
            raise LaunchError(
                f"{self.name}: its static shared memory is {self.static_shared_bytes} bytes; "
                f"CUDA allows {_DEFAULT_SHARED}"
            )
        if not 0 <= shared_mem <= self._max_dynamic:
            raise LaunchError(
                f"{self.name}: shared_mem is {shared_mem} bytes; at most {self._max_dynamic} are "
                f"allowed beside {self.static_shared_bytes} static ones (a larger "
                "max_dynamic_shared_size_bytes allows up to "
                f"{_MAX_SHARED - self.static_shared_bytes})"
            )
        intercept = options.interceptor.get()
        if intercept:
            intercept(self, grid3, block3, args, int(shared_mem))
        else:
            self.launch(grid3, block3, args, int(shared_mem), options.current())

    def launch(
        self,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        args: Sequence[Any],
        shared_mem: int,
        settings: options.Settings,
    ) -> None:
        """Run the kernel with a grid and a block that have been checked, as ``fn(...)`` does."""
        packed = Packed(self.name, self.parameters, args)
        module = self.module
        launch(
            module.library, module.library_path, self._raw, grid, block, packed, shared_mem,
            settings, module.build.traced,
        )  # fmt: skip

    def _extent(
        self, what: str, given: Sequence[int], most: tuple[int, int, int]
    ) -> tuple[int, int, int]:
        try:
            extent = tuple(int(n.__index__()) for n in given)
        except (TypeError, AttributeError):
            extent = ()
        if not 1 <= len(extent) <= 3:
            raise LaunchError(f"{self.name}: {what} is {given!r}; expected a tuple of 1 to 3 ints")
        x, y, z = (*extent, 1, 1)[:3]
        for axis, count, limit in zip("xyz", (x, y, z), most, strict=True):
            if not 1 <= count <= limit:
                raise LaunchError(
                    f"{self.name}: {what}.{axis} is {count}; CUDA allows 1 to {limit}"
                )
        return x, y, z


@dataclass(frozen=True)
class Build:
    """What a file is compiled with, as `load` takes it."""

    path: Path
    defines: tuple[tuple[str, object], ...] = ()
    include_dirs: tuple[Path, ...] = ()
    name_expressions: tuple[str, ...] = ()
    traced: bool = False
    local_arrays: bool = False

    def run(self) -> Path:
        """Compile it, or take it from the cache; return the library."""
        return build.build_module(
            self.path,
            dict(self.defines),
            self.include_dirs,
            self.name_expressions,
            traced=self.traced,
            local_arrays=self.local_arrays,
        )


class Module:
    """
    A compiled and loaded ``.cu`` file.

    Parameters
    ----------
    build : Build
        What it is compiled with.
    library_path : Path
        What it was compiled to.
    library : ctypes.CDLL
        That, loaded.
    """

    def __init__(self, build: Build, library_path: Path, library: ctypes.CDLL) -> None:
        self.build = build
        self.path = build.path
        self.library_path = library_path
        self.library = library
        table = binding.Module.in_dll(library, "emulator_module")
        self._functions = {
            function.name: function
            for function in (Function(self, table.kernels[i]) for i in range(table.kernel_count))
        }

    def __repr__(self) -> str:
        return f"<emulated {self.path.name}: {', '.join(self.kernels)}>"

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of the kernels there are."""
        return tuple(self._functions)

    def get_function(self, name: str) -> Function:
        """
        Return a kernel by its name, or a template's instance by its name expression.

        Raises
        ------
        EmulatorError
            If there is none of that name; the text lists those there are.
        """
        try:
            return self._functions[name]
        except KeyError:
            raise EmulatorError(
                f"{self.path.name} has no kernel {name!r}; it has {', '.join(self.kernels)}"
            ) from None


_modules: dict[tuple[str, Path], Module] = {}
_lock = threading.Lock()


def load(
    path: str | os.PathLike[str],
    defines: Mapping[str, object] | None = None,
    include_dirs: Sequence[str | os.PathLike[str]] = (),
    name_expressions: Sequence[str] = (),
    *,
    traced: bool = False,
    local_arrays: bool = False,
) -> Module:
    """
    Compile a ``.cu`` file for the CPU, or take it from the cache, and load it.

    Parameters
    ----------
    path : path
        The file; it stays as it is.
    defines : mapping, optional
        Macros: ``{"TILE": 16}``.
    include_dirs : sequence of path
        Where its includes are searched, beside its own directory.
    name_expressions : sequence of str
        Instances of kernel templates: ``"conv<float, 5>"``.
    traced : bool
        Whether it is for the tracing runtime, which `kernels.xray` reads.
    local_arrays : bool
        Whether that is told of all accesses to a kernel's own arrays, too.

    Returns
    -------
    Module
        With the kernels.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CompileError
        If it does not compile; names file and line.
    CompilerNotFound
        If there is no compiler.
    """
    source = Path(path).resolve(strict=True)
    directories = [Path(directory).resolve() for directory in include_dirs]
    with _lock:
        settled = Build(
            source,
            tuple(sorted((defines or {}).items())),
            tuple(directories),
            tuple(name_expressions),
            traced,
            local_arrays,
        )
        built = settled.run()
        module = _modules.get((str(source), built))
        if module is None:
            try:
                library = binding.load_module(built, traced)
            except CompileError as error:
                raise CompileError(f"{source.name}: {error}", error.log) from None
            module = Module(settled, built, library)
            _modules[(str(source), built)] = module
        return module
