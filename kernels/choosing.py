"""What ``kernel="auto"`` means on a GPU: the kernel that was fastest there for this very pass.

The first call with a new (operation, pass, shape, dtype) holds every kernel that takes it against
the fixed one of the table (`agreement`), times those that agree, and keeps the times: for this
process in a dictionary, for others in a file that this GPU, its driver, the kernels' sources and
the workspace's limit are the key of. Their outputs go to the caller's own output, which the chosen
kernel overwrites in the end; beside it the comparison takes as much memory as the inputs and two
outputs, and each kernel the workspace that it is allowed. What fails, disagrees or finds no memory
is left out with a warning. While a stream is being captured nothing can be measured: what is
remembered is used, or else the fixed kernel.
"""

from __future__ import annotations

import functools
import importlib.metadata
import threading
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kernels import compare, event_clock, place, precision, table, workspace
from kernels.agreement import Agreement
from kernels.remembered import Entries, Key
from kernels.shapes import Shape

Array = Any

ENTRIES = Entries("auto")


class Choice(NamedTuple):
    """What a measurement found: seconds by kernel, and why others were left out."""

    seconds: dict[str, float]
    left_out: dict[str, str]

    @property
    def ranking(self) -> list[str]:
        """The kernels' names, the fastest first."""
        return sorted(self.seconds, key=self.seconds.__getitem__)


_known: dict[tuple[Any, ...], list[table.Row]] = {}
_one_measurement = threading.Lock()  # two at once would time each other


def fastest(
    fixed: table.Row, direction: str, arrays: tuple[Array | None, ...], shape: Shape
) -> table.Row:
    """Return the row to run a pass on a GPU with.

    Parameters
    ----------
    fixed
        What `table.find` gives for ``"auto"``.
    direction, shape
        The pass.
    arrays
        Its inputs and outputs, CuPy's; the outputs' contents are lost.
    """
    like: Any = arrays[0]
    asked = (
        fixed.operation, direction, shape, like.dtype.name, like.device.id,
        precision.allowed(), workspace.limit(),
    )  # fmt: skip
    ranking = _known.get(asked)
    if ranking is None:
        with _one_measurement:
            ranking = _known.get(asked) or _rank(fixed, direction, arrays, shape, asked)
    first = ranking[0]
    if first.capturable or not _capturing():
        return first
    return next((row for row in ranking if row.capturable), first)


def candidates(
    fixed: table.Row, direction: str, shape: Shape, dtype: str, arch: str
) -> list[table.Row]:  # fmt: skip
    """Return the rows that may be chosen for a pass on a GPU: the fixed one first, if it may be.

    The rest follows from the top of the ladder down, CUDA C before Numba. `arch` is the GPU's,
    ``"sm_90"``.
    """
    from kernels import resources

    most = precision.ROUNDOFF[precision.allowed()]
    others = [row for row in reversed(table.rows(fixed.operation)) if row != fixed]
    others.sort(key=lambda row: row.language != "cuda_c")
    return [
        row
        for row in (fixed, *others)
        if "gpu" in row.places
        and direction in row.passes
        and row.roundoff <= most
        and not row.refuses(direction, shape, dtype)
        and all(source.compiles_for(arch) for source in resources.sources(row))
    ]


def key(rows: list[table.Row], direction: str, shape: Shape, dtype: str, device: int) -> Key:
    """Return all that a choice between `rows` depends on."""
    return {
        "operation": rows[0].operation,
        "pass": direction,
        "shape": shape._asdict(),
        "dtype": dtype,
        "precision": precision.allowed(),
        "workspace_limit": workspace.limit(),
        "device": place.gpu_identity(device),
        "sources": {row.name: _source(row) for row in sorted(rows, key=lambda row: row.name)},
        "lab": _version(),
    }


def is_current(key: Key) -> bool:
    """Tell whether an entry is of the sources as they are."""
    rows = {row.name: row for row in table.rows(key["operation"])}
    return key["lab"] == _version() and all(
        name in rows and _source(rows[name]) == digest for name, digest in key["sources"].items()
    )


def read(value: Any, rows: list[table.Row]) -> Choice | None:
    """Return the choice that an entry's value describes; None where it has another form."""
    try:
        seconds, left_out = dict(value["seconds"]), dict(value["left_out"])
        sound = all(isinstance(s, float) and 0 < s < float("inf") for s in seconds.values())
    except (TypeError, KeyError, ValueError):
        return None
    if not sound or not seconds or {*seconds, *left_out} != {row.name for row in rows}:
        return None
    return Choice(seconds, left_out)


def forget_here() -> None:
    """Forget what this process knows; the files stay."""
    _known.clear()


def _rank(
    fixed: table.Row,
    direction: str,
    arrays: tuple[Array | None, ...],
    shape: Shape,
    asked: tuple[Any, ...],
) -> list[table.Row]:
    """Return the rows that may be chosen, the fastest first: read, or else measured."""
    like: Any = arrays[0]
    arch = f"sm_{like.device.compute_capability}"
    rows = candidates(fixed, direction, shape, like.dtype.name, arch)
    if len(rows) < 2:  # nothing to choose; a fixed row that refuses says why when it is run
        return _known.setdefault(asked, rows or [fixed])
    unique = key(rows, direction, shape, like.dtype.name, like.device.id)
    choice = read(ENTRIES.read(unique), rows)
    if choice is None:
        if _capturing():
            return rows
        try:
            choice, lasting = _measure(rows, direction, arrays, shape)
        except Exception as error:  # the call does not need to know which is fastest
            choice, lasting = Choice({}, {}), False
            _warn(fixed.operation, direction, f"nothing is measured: {error}")
        if not choice.seconds:  # what stops them all stops the fixed one too, which then says so
            return _known.setdefault(asked, rows)
        if lasting:
            ENTRIES.write(unique, choice._asdict())
    by_name = {row.name: row for row in rows}
    return _known.setdefault(asked, [by_name[name] for name in choice.ranking])


def _measure(
    rows: list[table.Row], direction: str, arrays: tuple[Array | None, ...], shape: Shape
) -> tuple[Choice, bool]:
    """Return the times of the rows that agree with the first that runs.

    And whether they are worth keeping: want of memory may be over at the next start.
    """
    import cupy

    outputs = len(compare.outputs(rows[0].operation, direction, shape))
    given: tuple[Any, ...] = arrays[:-outputs]
    returned: tuple[Any, ...] = arrays[-outputs:]
    itemsize = returned[0].dtype.itemsize
    scratch: Any = cupy.empty(0, np.uint8)  # one workspace for all
    agreement: Agreement | None = None
    launches: dict[str, Callable[[], None]] = {}
    left_out: dict[str, str] = {}
    lasting = True
    for row in rows:
        try:
            nbytes = row.workspace_bytes(direction, shape, itemsize, workspace.limit())
            if nbytes > scratch.size:
                scratch = cupy.empty(nbytes, np.uint8)
            extra = {"workspace": scratch[:nbytes]} if nbytes else {}
            launch = functools.partial(_launch, row.launcher(direction), shape, extra)
            if agreement is None:
                agreement = Agreement(row, direction, given, returned, shape, launch)
            else:
                agreement.spoil()
                launch(arrays)
                if problem := agreement.problem(row):
                    raise DisagreementError(problem)
            launches[row.name] = functools.partial(launch, arrays)
        except Exception as error:  # whatever a kernel cannot do, the call goes on without it
            left_out[row.name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            lasting = lasting and not isinstance(error, MemoryError)
            _warn(row.operation, direction, f"{row.name!r} is left out: {left_out[row.name]}")
    del agreement
    clock = event_clock.EventClock(cupy.cuda.get_current_stream())
    return Choice(event_clock.race(clock, launches) if launches else {}, left_out), lasting


class DisagreementError(Exception):
    """A kernel's result is not the trusted one's; the message says how much of it."""


def _launch(
    launcher: Callable[..., None], shape: Shape, extra: dict[str, Array], arrays: tuple[Any, ...]
) -> None:
    launcher(*arrays, shape, **extra)


def _warn(operation: str, direction: str, text: str) -> None:
    warnings.warn(f"{operation} {direction}, kernel='auto': {text}", RuntimeWarning, stacklevel=2)


def _capturing() -> bool:
    """Tell whether the current stream, or one that it waits for, is being captured."""
    import cupy

    try:
        return bool(cupy.cuda.get_current_stream().is_capturing())
    except RuntimeError:  # the default stream, while another is captured
        return True


@functools.cache
def _source(row: table.Row) -> str:
    from kernels import source_hash

    return source_hash.of_row(row)


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("conv-kernel-lab")
    except importlib.metadata.PackageNotFoundError:  # a clone on the path
        return "not installed"
