"""A ``.cu`` file of the user's own: its kernels, a command line to start from, and its launch."""

from __future__ import annotations

import argparse
import copy
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from kernels import emulator
from kernels.emulator.scan import followed
from kernels.source import ceil_div
from kernels.xray import arguments, excerpt, launches, names
from kernels.xray.arguments import Arguments, ArgumentsError, Parameter
from kernels.xray.host_code import stand_in

ELEMENTS = 1024  # of the arrays in the command line to start from
THREADS = 256


@dataclass(frozen=True)
class Launch:
    """What to record."""

    path: Path
    function: emulator.Function
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_bytes: int
    arguments: Arguments
    title: str


def read(args: argparse.Namespace) -> Launch | str:
    """Return the launch that a command line describes; or, for a file alone, what is in it.

    Raises
    ------
    ArgumentsError
        Something is missing or does not fit.
    emulator.EmulatorError
        The file does not compile.
    """
    path = Path(args.name)
    if not path.is_file():
        raise ArgumentsError(f"{path}: there is no such file")
    module = _load(path, args)
    wanted = (args.kernel, args.grid, args.block, args.shared, args.arguments)
    if all(value is None for value in wanted):
        return listing(path, module, args)
    function = _function(module, args.kernel)
    parameters = parameters_of(function)
    for name in ("grid", "block"):
        if getattr(args, name) is None:
            raise ArgumentsError(
                f"--{name} is missing; to start from: {command(path, function, args)}"
            )
    grid, block = _extent("grid", args.grid), _extent("block", args.block)
    shared = args.shared or "0"
    if not re.fullmatch(r"\d{1,9}", shared):
        raise ArgumentsError(f"--shared {shared}: expected a number of bytes")
    if int(shared) > function.max_dynamic_shared_size_bytes:
        try:  # a GPU grants more than 48 KiB where the host asks for it
            function.max_dynamic_shared_size_bytes = int(shared)
        except ValueError as error:
            raise ArgumentsError(f"--shared {shared}: {error}") from None
    given = arguments.parse(function.name, parameters, args.arguments or [])
    title = f"{path.name} {function.name}, grid {args.grid}, block {args.block}"
    return Launch(path.resolve(), function, grid, block, int(shared), given, title)


def record(launch: Launch, local_arrays: bool = False) -> launches.Xray:
    """Record a launch; raise emulator.EmulatorError for what ends it early.

    With `local_arrays` accesses to all of the kernel's own arrays are recorded, too.
    """
    given = copy.deepcopy(launch.arguments)  # the kernel writes to them
    xray = launches.of_function(
        launch.function,
        launch.grid,
        launch.block,
        given,
        launch.shared_bytes,
        launch.title,
        local_arrays,
    )
    compiled = launch.function.module.path
    return launches.renamed(xray, str(compiled), str(launch.path))


def parameters_of(function: emulator.Function) -> list[Parameter]:
    """Return a kernel's parameters with the names that its source gives them."""
    build = function.module.build
    _, _, found = names.declaration(function.name, followed(build.path, build.include_dirs))
    if len(found) != len(function.parameters):  # a macro writes the kernel's head
        found = [f"arg{number}" for number in range(len(function.parameters))]
    return [
        Parameter(name, expected) for name, expected in zip(found, function.parameters, strict=True)
    ]


def listing(path: Path, module: emulator.Module, args: argparse.Namespace) -> str:
    """Return a file's kernels with their parameters, and a command line for each."""
    lines = []
    for name in module.kernels:
        function = module.get_function(name)
        taken = parameters_of(function)
        lines += [f"{name}({', '.join(map(str, taken))})"]
        if function.static_shared_bytes:
            lines[-1] += f"  {function.static_shared_bytes:,} B of shared memory"
        structs = [p for p in taken if not p.is_number and not p.expected.is_pointer]
        if structs:
            lines += [f"  takes {structs[0]} by value: no command line can give that", ""]
        else:
            lines += [f"  {command(path, function, args)}", ""]
    lines += [
        "Grid, block and values above are a guess: set them as your program does. An array that is",
        "'empty' holds nothing: reading it is a finding, and so is an element never written.",
    ]
    return "\n".join(lines)


def command(path: Path, function: emulator.Function, args: argparse.Namespace) -> str:
    """Return a command line to start from; what was given stays."""
    taken = parameters_of(function)
    integers = [p for p in taken if p.is_number and p.expected.kind in "iu"]
    flat = "threadIdx.y" not in _body(path, function.name)
    extent = ELEMENTS if flat and len(integers) < 2 else 32
    block = str(THREADS) if flat else "16x16"
    grid = str(ceil_div(ELEMENTS, THREADS)) if flat else "2x2"
    words = ["python", "-m", "kernels", "xray", str(path)]
    words += [f"-D{name}" for name in args.defines or []]
    words += [f"-I{name}" for name in args.include_dirs or []]
    if len(function.module.kernels) > 1 or "<" in function.name:
        words += ["--kernel", function.name]
    words += ["--grid", args.grid or grid, "--block", args.block or block]
    if re.search(r"extern\s+__shared__", path.read_text(errors="replace")):
        words += ["--shared", args.shared or str(4 * THREADS)]
    for text in args.arguments or [arguments.example(one, extent) for one in taken]:
        words += ["--arg", text]
    return shlex.join(words)


def _load(path: Path, args: argparse.Namespace) -> emulator.Module:
    for directory in args.include_dirs or []:
        if not Path(directory).is_dir():
            raise ArgumentsError(f"-I {directory}: there is no such directory")
    defines = {}
    for text in args.defines or []:
        match = re.fullmatch(r"([A-Za-z_]\w*)(?:=(.*))?", text, re.DOTALL)
        if not match:
            raise ArgumentsError(f"-D {text}: expected NAME or NAME=VALUE")
        defines[match[1]] = "1" if match[2] is None else match[2]
    kernel = args.kernel or ""
    instances = [kernel] if "<" in kernel or "::" in kernel else []
    return emulator.load(stand_in(path), defines, args.include_dirs or [], instances)


def _function(module: emulator.Module, name: str | None) -> emulator.Function:
    known = ", ".join(module.kernels)
    if name is None and len(module.kernels) > 1:
        raise ArgumentsError(f"{module.path.name} has several kernels; --kernel is one of {known}")
    if name is not None and name not in module.kernels:
        raise ArgumentsError(f"--kernel {name}: {module.path.name} has no such kernel, but {known}")
    return module.get_function(name or module.kernels[0])


def _extent(name: str, text: str) -> tuple[int, ...]:
    parts = text.replace(",", "x").split("x")
    if len(parts) > 3 or not all(re.fullmatch(r"\d{1,10}", part) for part in parts):
        raise ArgumentsError(f"--{name} {text}: expected N, NxN or NxNxN, such as 64 or 8x8")
    return tuple(map(int, parts))


def _body(path: Path, name: str) -> str:
    """Return the source of a kernel, or nothing where it is in another file."""
    text = path.read_text(errors="replace")
    for first, last in excerpt.definitions(text):
        part = "\n".join(text.splitlines()[first - 1 : last])
        if re.search(rf"\b{re.escape(name.split('<')[0])}\s*\(", part):
            return part
    return ""
