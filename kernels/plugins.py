"""Kernels that live outside the lab: folders named by ``--plugin`` or ``KERNELS_PATH``, packages.

A folder holds a ``rows.py`` with ``ROWS``, a list of `kernels.table.Row`, beside the modules and
``.cu`` files that the rows name. A package says where its list is by an entry point of the group
``conv_kernel_lab.rows``, such as ``mine = "my_package.rows:ROWS"``. Loading either runs its code.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from kernels.one_line import one_line
from kernels.table import PASSES, Row, quoted

VARIABLE = "KERNELS_PATH"
GROUP = "conv_kernel_lab.rows"
LANGUAGES = {
    "numpy": ("cpu",), "cuda_c": ("emulator", "gpu"), "numba": ("cpu", "simulator", "gpu"),
}  # fmt: skip


class PluginError(ValueError):
    """A plug-in that cannot be used; the message names it and says what is wrong."""


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Give a command the option ``--plugin``; its folders are in use once it is parsed."""
    parser.add_argument(
        "--plugin", type=_folder, action=_Use, metavar="DIR",
        help=f"use the kernels in this folder too (or name folders in {VARIABLE}); runs their code",
    )  # fmt: skip


class _Use(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, value: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, value)
        use(value)


def _folder(text: str) -> Path:
    if not os.path.isdir(text):  # pathlib's raises where a name is too long
        raise argparse.ArgumentTypeError(f"{text!r} is no folder")
    return Path(text)


def use(folder: Path) -> None:
    """Add a folder to ``KERNELS_PATH``, for this process and those it starts."""
    path = str(folder.resolve())
    if path not in folders():
        os.environ[VARIABLE] = os.pathsep.join([*folders(), path])


def folders() -> list[str]:
    """Return the folders that ``KERNELS_PATH`` names."""
    return [part for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]


def rows(lab: tuple[Row, ...]) -> tuple[Row, ...]:
    """
    Return the rows of all plug-ins.

    Parameters
    ----------
    lab : tuple of Row
        The lab's own, whose names are taken.

    Raises
    ------
    PluginError
        If one of them is not to be used: nothing is left out in silence.
    """
    taken = {(row.operation, row.name): "the lab" for row in lab}
    found: list[Row] = []
    for label, row in _candidates():
        where = f"{label}: row {getattr(row, 'name', row)!r}"
        if problem := _problem(row):
            raise PluginError(f"{where} {problem}")
        key = row.operation, row.name
        if key in taken:
            raise PluginError(
                f"{where} of {row.operation} is there already, in {taken[key]}; rename one"
            )
        taken[key] = label
        found.append(row)
    return tuple(found)


def _candidates() -> Iterator[tuple[str, Any]]:
    for folder in dict.fromkeys(os.path.realpath(folder) for folder in folders()):
        for row in _of_folder(folder):
            yield folder, row
    for point in _entry_points():
        try:
            listed = point.load()
        except Exception as error:
            raise PluginError(_said(error, f"package {point.dist.name}")) from error
        yield from ((f"package {point.dist.name}", row) for row in _listed(listed, point.value))


@functools.cache
def _entry_points() -> tuple[Any, ...]:
    return tuple(importlib.metadata.entry_points(group=GROUP))


@functools.cache
def _of_folder(folder: str) -> list[Any]:
    file = Path(folder) / "rows.py"
    if not file.is_file():
        raise PluginError(
            f"{folder} has no rows.py: it is no folder of kernels; python -m kernels new conv2d "
            f"my_idea --plugin {folder} begins one"
        )
    module = imported(f"{package_of(folder)}.rows", str(file))
    return _listed(getattr(module, "ROWS", None), f"{file}: ROWS")


def imported(name: str, label: str) -> ModuleType:
    """Import a module of a plug-in.

    Parameters
    ----------
    name
        As Python has it.
    label
        What to call it where no line of it is to blame: it is not there.

    Raises
    ------
    PluginError
        Whatever it raises.
    """
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise PluginError(_said(error, label)) from error


def package_of(folder: str) -> str:
    """Return the name under which a folder's modules are imported."""
    name = f"kernels_plugin_{hashlib.sha256(folder.encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        package = ModuleType(name, f"The kernels in {folder}.")
        package.__path__ = [folder]
        sys.modules[name] = package
    return name


def _listed(value: Any, label: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise PluginError(f"{label} is {value!r}; expected a list of kernels.table.Row")
    return list(value)


def _problem(row: Any) -> str:
    """Return what is wrong with a row, or nothing; the words follow its name."""
    if not isinstance(row, Row):
        return f"is a {type(row).__name__}; expected a kernels.table.Row"
    if row.operation not in PASSES:
        return f"has the operation {row.operation!r}; expected one of {quoted(list(PASSES))}"
    if row.name in ("", "auto") or not row.name.isidentifier():
        return "has no good name: expected letters, digits and _, and not 'auto'"
    for kind, given, known in (
        ("passes", row.passes, PASSES[row.operation]),
        ("places", row.places, LANGUAGES.get(row.language, ())),
    ):
        if row.language not in LANGUAGES:
            return f"has the language {row.language!r}; expected one of {quoted(list(LANGUAGES))}"
        if not isinstance(given, tuple) or not given or not set(given) <= set(known):
            return f"has the {kind} {given!r}; expected a tuple of some of {quoted(list(known))}"
    return ""


def _said(error: Exception, label: str) -> str:
    """Return an error in one line that begins with where a plug-in raised it."""
    text = str(error)
    # From the import of the first file of theirs on, beyond Python's own machinery.
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__, importlib.metadata.__file__)
        and not frame.filename.startswith("<frozen")
    ]
    if isinstance(error, SyntaxError) and os.path.isfile(error.filename or ""):
        label, text = f"{_shown(str(error.filename))}:{error.lineno}", error.msg
    elif frames:
        # The deepest in their folder: what a library says was wrong, they asked for there.
        theirs = os.path.dirname(frames[0].filename)
        last = [frame for frame in frames if os.path.dirname(frame.filename) == theirs][-1]
        label = f"{_shown(last.filename)}:{last.lineno}"
    return one_line(": ".join(filter(None, (label, type(error).__name__, text))))


def _shown(path: str) -> str:
    """Return a path as a person would type it: inside the working directory, from there."""
    return (
        str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path
    )
