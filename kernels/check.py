"""Hold a kernel against the judge: every pass, many shapes, both thread orders.

Outputs are filled with NaN before each launch, so that a cell left unwritten fails. Every array
lies between guard zones: what is read outside an input is NaN and poisons the result, what is
written outside any array is seen. On the emulator every pass runs with the threads in forward and
in reverse order: a result that differs by one bit is a race.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kernels import compare, emulator, operations, place, table, workspace
from kernels.shapes import CLOSED, BlockShape, Shape
from kernels.source import KernelCompileError

ORDERS = ("forward", "reverse")

# Elements on either side of every array; a multiple of 64 keeps the array as aligned as it was.
GUARD = 4096
# Around outputs a number, not NaN: a thread too many that read NaN would write NaN over NaN.
OUTPUT_GUARD = -1.5e30


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of one pass of one kernel on one shape.

    Attributes
    ----------
    operation, name, direction
        Which kernel and which pass.
    where
        ``"cpu"``, ``"emulator"``, ``"simulator"`` or ``"gpu"``.
    dtype
        ``"float32"`` or ``"float64"``.
    shape
        The convolution's or the pooling's.
    ok
        Whether every element was inside its bound, in every thread order.
    worst
        Largest error as a share of its bound.
    message
        What was wrong: the first mismatches with their indices, a race, an error; else empty.
    skips
        What is not checked after it: ``"row"``, which does not compile; ``"pass"``, which does not
        end; else empty.
    """

    operation: str
    name: str
    direction: str
    where: str
    dtype: str
    shape: Shape
    ok: bool
    worst: float
    message: str
    skips: str = ""


def skipped_after(error: BaseException) -> str:
    """Return what an error leaves no sense in checking: `Result.skips`."""
    if isinstance(error, emulator.CompileError | KernelCompileError):
        return "row"
    return "pass" if isinstance(error, emulator.KernelTimeout) else ""


def places_here(row: table.Row) -> dict[str, str | None]:
    """Return where a row can run, each with the reason why not here, or None."""
    problems = {
        "cpu": None,
        "emulator": emulator.problem(),
        "simulator": None,
        "gpu": place.gpu_problem(),
    }
    return {where: problems[where] for where in row.places}


def check_row(
    row: table.Row, shapes: Iterable[Shape], where: str, seed: int = 0
) -> Iterator[Result]:
    """Check every pass of `row` on every shape, most in float32, every fourth also in float64.

    Parameters
    ----------
    row
        A row of the table, or one like it.
    shapes
        From `kernels.cases`.
    where
        ``"cpu"``, ``"emulator"``, ``"simulator"`` or ``"gpu"``.
    seed
        Of the random values.

    Yields
    ------
    Result
        One for each (shape, dtype, pass) that the row does not refuse. A file that does not compile
        is the row's last one, a launch that does not end its pass's.
    """
    ended = set()
    for number, shape in enumerate(shapes):
        for dtype in ("float32", "float64") if number % 4 == 0 else ("float32",):
            rng = np.random.default_rng([seed, number])
            for direction in row.passes:
                if direction in ended or row.refuses(direction, shape, dtype):
                    continue
                inputs = make_inputs(row.operation, direction, shape, dtype, rng)
                # Every other shape with the least workspace there can be: the batch in slices.
                tight = number % 2 == 1
                result = check_pass(row, direction, inputs, shape, where, tight_workspace=tight)
                yield result
                if result.skips == "row":
                    return
                if result.skips:
                    ended.add(direction)


def check_pass(
    row: table.Row,
    direction: str,
    inputs: tuple[np.ndarray | None, ...],
    shape: Shape,
    where: str,
    tight_workspace: bool = False,
) -> Result:
    """Run one pass on given inputs (host memory) and compare with the judge."""
    dtype = next(a for a in inputs if a is not None).dtype
    worst, message, skips, earlier = 0.0, "", "", None
    for order in ORDERS if where == "emulator" else ("",):
        try:
            with emulator.settings(order=order) if order else contextlib.nullcontext():
                got, trespass = _run(row, direction, inputs, shape, where, tight_workspace)
        except Exception as error:  # any failure of a kernel under test is that kernel's result
            message, skips = f"{type(error).__name__}: {error}", skipped_after(error)
            break
        verdicts = compare.judge_pass(
            row.operation, direction, inputs, shape, got,
            compare.UNIT_ROUNDOFF[dtype.name], row.roundoff, row.growth,
        )  # fmt: skip
        worst = max(worst, *(verdict.worst for verdict in verdicts))
        wrong = [str(verdict) for verdict in verdicts if not verdict.ok]
        if trespass:
            wrong.append(f"wrote outside its arrays: {trespass}")
        if wrong:
            label = f"threads in {order} order: " if order else ""
            message = label + "\n".join(wrong)
            break
        if earlier is not None and any(map(_bits_differ, got, earlier)):
            message = "the result depends on the order of the threads: a race"
            break
        earlier = got
    return Result(
        row.operation, row.name, direction, where, dtype.name, shape,
        not message, worst, message, skips,
    )  # fmt: skip


def make_inputs(
    operation: str, direction: str, shape: Any, dtype: str, rng: np.random.Generator
) -> tuple[np.ndarray | None, ...]:
    """Draw the inputs of one pass, as its launcher takes them."""

    def normal(dims: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal(dims).astype(dtype)

    if operation == "conv2d_relu_pool":
        return _block_inputs(direction, shape, dtype, rng)
    if operation == "conv2d":
        if direction == "forward":
            bias = normal((shape.k,)) if rng.integers(0, 4) else None
            return normal(shape.input_shape), normal(shape.filter_shape), bias
        if direction == "backward_data":
            return normal(shape.output_shape), normal(shape.filter_shape)
        if direction == "backward_filter":
            return normal(shape.input_shape), normal(shape.output_shape)
        return (normal(shape.output_shape),)
    if direction == "forward":
        # Few distinct values: windows with ties are the rule. And one NaN, which must propagate.
        x = (normal(shape.input_shape) * 2).round().astype(dtype)
        x.flat[rng.integers(x.size)] = np.nan
        return (x,)
    if operation == "max_pool2d":
        x = (normal(shape.input_shape) * 2).round()
        (_, argmax), _ = compare.expected(operation, "forward", (x,), shape, 0.0)
        return normal(shape.output_shape), argmax
    return (normal(shape.output_shape),)


def _block_inputs(
    direction: str, shape: BlockShape, dtype: str, rng: np.random.Generator
) -> tuple[np.ndarray | None, ...]:
    def draw(dims: tuple[int, ...], whole: bool = False) -> np.ndarray:
        return (rng.integers(-2, 3, dims) if whole else rng.standard_normal(dims)).astype(dtype)

    if direction == "forward":
        # Whole numbers, every other time: windows with ties and with 0 are the rule.
        whole = bool(rng.integers(0, 2))
        bias = draw((shape.k,), whole) if rng.integers(0, 4) else None
        return draw(shape.input_shape, whole), draw(shape.filter_shape, whole), bias
    # A quarter of the windows is closed.
    argmax = rng.integers(0, shape.pool_r * shape.pool_s, shape.output_shape).astype(np.uint8)
    argmax[rng.random(shape.output_shape) < 0.25] = CLOSED
    dy = draw(shape.output_shape)
    if direction == "backward_data":
        return dy, argmax, draw(shape.filter_shape)
    if direction == "backward_filter":
        return draw(shape.input_shape), dy, argmax
    return dy, argmax


def _run(
    row: table.Row,
    direction: str,
    inputs: tuple[np.ndarray | None, ...],
    shape: Shape,
    where: str,
    tight_workspace: bool,
) -> tuple[list[np.ndarray], str]:
    xp: Any = importlib.import_module("cupy") if where == "gpu" else np
    given = [None if a is None else _Guarded(xp, a, np.nan) for a in inputs]
    dtype = inputs[0].dtype if inputs[0] is not None else np.dtype(np.float32)
    outputs = [
        _Guarded(
            xp,
            np.full(dims, np.nan if kind is None else compare.UNWRITTEN[kind], kind or dtype),
            OUTPUT_GUARD,
        )
        for dims, kind in compare.outputs(row.operation, direction, shape)
    ]
    arrays = tuple(None if a is None else a.array for a in (*given, *outputs))
    with _least_workspace(row, direction, shape) if tight_workspace else contextlib.nullcontext():
        operations.run(row, direction, arrays, shape)
    trespass = [
        note
        for name, guarded in (("input", given), ("output", outputs))
        for number, a in enumerate(guarded)
        if a is not None and (note := a.trespass(f"{name} {number}"))
    ]
    return [a.on_host() for a in outputs], "; ".join(trespass)


class _Guarded:
    """An array between guard zones filled with `guard`, or whole numbers with `UNWRITTEN`."""

    def __init__(self, xp: Any, values: np.ndarray, guard: float) -> None:
        self._xp = xp
        zone = np.full(GUARD, compare.UNWRITTEN.get(values.dtype, guard), values.dtype)
        self._zone = zone.tobytes()
        self._buffer = xp.asarray(np.concatenate([zone, values.ravel(), zone]))
        self.array = self._buffer[GUARD : GUARD + values.size].reshape(values.shape)

    def on_host(self) -> np.ndarray:
        """Return a copy in host memory."""
        return np.array(self.array if self._xp is np else self._xp.asnumpy(self.array))

    def trespass(self, name: str) -> str:
        """Return what was written to the guard zones, for a person, or nothing."""
        buffer = self._buffer if self._xp is np else self._xp.asnumpy(self._buffer)
        clean = np.frombuffer(self._zone, buffer.dtype).view(np.uint8)
        for side, zone in (("before", buffer[:GUARD]), ("behind", buffer[-GUARD:])):
            changed = np.flatnonzero(zone.view(np.uint8) != clean)
            if changed.size:
                at = int(changed[0] if side == "behind" else changed[-1]) // buffer.itemsize
                distance = at if side == "behind" else GUARD - 1 - at
                return f"{name}, {distance} elements {side} it"
        return ""


def _least_workspace(
    row: table.Row, direction: str, shape: Shape
) -> contextlib.AbstractContextManager[None]:
    if not hasattr(row.launchers, "workspace_bytes"):
        return contextlib.nullcontext()
    one = shape._replace(n=1)
    needed = row.launchers.workspace_bytes(direction, one, 8, workspace.DEFAULT_LIMIT)
    return workspace.workspace_limit(needed)


def _bits_differ(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() != b.tobytes()
