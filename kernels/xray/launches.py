"""The launches that an X-ray is of: a row's pass, or one launch of a file of the user's own."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kernels import emulator, observe, table, xray
from kernels.shapes import BlockShape, Shape
from kernels.xray.arguments import Arguments
from kernels.xray.record import Finding, Recording


@dataclass(frozen=True)
class Product:
    """A matrix product between two launches, which a library does: it is not traced.

    Attributes
    ----------
    gemm_m, gemm_n, gemm_k
        Of (M, K) times (K, N).
    batch
        How many of them.
    """

    gemm_m: int
    gemm_n: int
    gemm_k: int
    batch: int = 1

    @property
    def flops(self) -> int:
        """A multiplication and an addition for each term."""
        return 2 * self.batch * self.gemm_m * self.gemm_n * self.gemm_k

    def __str__(self) -> str:
        times = f"{self.batch:,} times " if self.batch > 1 else ""
        return (
            f"matrix product {times}({self.gemm_m:,} x {self.gemm_k:,}) ({self.gemm_k:,} x "
            f"{self.gemm_n:,}), {self.flops:,} FLOPs"
        )


@dataclass(frozen=True)
class Xray:
    """All that was recorded.

    Attributes
    ----------
    title
        ``"conv2d tiled forward, 2,1,28,28,6,5,5"``.
    steps
        Launches and matrix products, in their order.
    declared_flops
        Of the whole pass, as benchmarks count them; None where nobody declared any.
    compiled_from
        Files that were compiled in the stead of those that the recordings name.
    """

    title: str
    steps: tuple[Recording | Product, ...]
    declared_flops: int | None = None
    compiled_from: Mapping[str, str] = field(default_factory=dict)

    @property
    def recordings(self) -> list[Recording]:
        """The launches alone."""
        return [step for step in self.steps if isinstance(step, Recording)]

    @property
    def findings(self) -> list[Finding]:
        """Of all launches, in their order."""
        return [finding for recording in self.recordings for finding in recording.findings]


def of_row(
    row: table.Row,
    direction: str,
    shape: Shape,
    text: str,
    seed: int = 0,
    local_arrays: bool = False,
) -> Xray:
    """Record every launch of one pass of a row, on random tensors.

    Parameters
    ----------
    row
        In CUDA C.
    direction
        One of its passes.
    shape
        Of the operation.
    text
        The shape as it was written, for the title.
    seed
        Of the tensors.
    local_arrays
        As for `recording`.

    Raises
    ------
    emulator.EmulatorError
        What the compiler or the launch itself refuses.
    """
    with _products() as order, np.errstate(all="ignore"):
        launched = iter(
            xray.record_pass(row, direction, shape, seed=seed, local_arrays=local_arrays)
        )
    steps = [step if isinstance(step, Product) else next(launched) for step in order]
    title = f"{row.operation} {row.name} {direction}, {text}"
    return Xray(title, (*steps, *launched), _declared(row.operation, direction, shape))


def of_function(
    function: emulator.Function,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Arguments,
    shared_bytes: int,
    title: str,
    local_arrays: bool = False,
) -> Xray:
    """Record one launch of a kernel of the user's own.

    Parameters
    ----------
    function
        The kernel.
    grid, block
        Blocks, and threads a block.
    arguments
        From `arguments.parse`.
    shared_bytes
        Dynamic shared memory.
    title
        For a person.
    local_arrays
        As for `recording`.

    Raises
    ------
    emulator.EmulatorError
        What the launch itself refuses.
    """
    outputs, inputs = arguments.outputs, arguments.inputs
    with xray.recording(outputs=outputs, inputs=inputs, local_arrays=local_arrays) as recordings:
        function(tuple(grid), tuple(block), arguments.values, shared_mem=shared_bytes)
    return Xray(title, tuple(recordings))


def renamed(xray: Xray, compiled: str, file: str) -> Xray:
    """Return an X-ray whose recordings name `file` where they name what was compiled for it."""
    if compiled == file:
        return xray

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: file if key == "file" and inner == compiled else named(inner)
                for key, inner in value.items()
            }
        return [named(inner) for inner in value] if isinstance(value, (list, tuple)) else value

    steps = tuple(Recording.from_dict(named(one.to_dict())) for one in xray.recordings)
    return replace(xray, steps=steps, compiled_from={file: compiled})


def _declared(operation: str, direction: str, shape: Shape) -> int | None:
    if operation == "max_pool2d":
        return None
    if direction == "backward_bias":
        return math.prod(shape.output_shape)
    if isinstance(shape, BlockShape) and direction != "forward":
        return shape.sparse_flops
    return shape.flops


class _Order:
    """An observer that notes launches (as None) and matrix products in their order."""

    def __init__(self) -> None:
        self.seen: list[Product | None] = []

    def launch(self, launch: observe.Launch) -> AbstractContextManager[Any]:
        product = None
        if launch.function == "matmul":
            a, b, out = launch.args
            product = Product(a.shape[-2], b.shape[-1], a.shape[-1], math.prod(out.shape[:-2]))
        self.seen.append(product)
        return contextlib.nullcontext()

    def span(self, name: str) -> AbstractContextManager[Any] | None:
        return None


@contextlib.contextmanager
def _products() -> Iterator[list[Product | None]]:
    """Yield the list of what is launched inside a ``with`` block."""
    order, before = _Order(), observe.current
    observe.current = order
    try:
        yield order.seen
    finally:
        observe.current = before
