"""The tensors of one pass, several sets of them, so that a cold launch finds none in a cache."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from kernels import compare, operations
from kernels.shapes import BlockShape, PoolShape, Shape

# Of the memory that is free: what the sets may take, and what one set may take at most (a peer
# wants copies in its own layout, im2col its columns).
SHARE_FOR_SETS = 0.25
SHARE_FOR_ONE = 0.4
MOST_SETS = 4096

Arrays = tuple[Any, ...]


class OutOfMemoryError(Exception):
    """A pass whose tensors do not fit; the message says what they need and what is free."""


class Buffers:
    """Sets of one pass's tensors.

    Parameters
    ----------
    xp
        numpy or cupy.
    operation, direction, shape
        The pass.
    sets
        How many are wanted; memory may allow fewer.
    rng
        For the values: standard normal, the same in every set.

    Attributes
    ----------
    host
        The inputs in host memory, as the judge takes them.
    inputs, outputs
        For each set, arrays of `xp`.

    Raises
    ------
    OutOfMemoryError
        Where not even one set fits.
    """

    def __init__(
        self,
        xp: Any,
        operation: str,
        direction: str,
        shape: Shape,
        sets: int,
        rng: np.random.Generator,
    ) -> None:
        dims = compare.outputs(operation, direction, shape)
        self._specs = [(size, dtype or np.dtype(np.float32)) for size, dtype in dims]
        one, free = set_bytes(operation, direction, shape), free_bytes(xp)
        if one > SHARE_FOR_ONE * free:
            raise OutOfMemoryError(
                f"its tensors take {one / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free; "
                "the lab wants two and a half times what the tensors take"
            )
        count = max(1, min(sets, int(SHARE_FOR_SETS * free / one), MOST_SETS))
        self.host = _inputs(operation, direction, shape, rng)
        self.inputs = [tuple(xp.array(array) for array in self.host) for _ in range(count)]
        self.outputs = [
            tuple(xp.empty(size, dtype) for size, dtype in self._specs) for _ in range(count)
        ]

    def poison(self) -> None:
        """Fill the first set's outputs with what no kernel writes: NaN, or `UNWRITTEN`."""
        for array in self.outputs[0]:
            array.fill(compare.UNWRITTEN.get(array.dtype, np.nan))

    def fetch(self) -> list[np.ndarray]:
        """Return the first set's outputs in host memory."""
        return [
            array if isinstance(array, np.ndarray) else array.get() for array in self.outputs[0]
        ]


def on_host(array: Any) -> np.ndarray:
    """Return an array's values in host memory."""
    return np.asarray(array if isinstance(array, np.ndarray) else array.get())


def set_bytes(operation: str, direction: str, shape: Shape) -> int:
    """Return the bytes of one set: inputs and outputs."""
    sizes = [math.prod(size) for size, _ in compare.outputs(operation, direction, shape)]
    return 4 * (sum(sizes) + sum(map(math.prod, _input_dims(operation, direction, shape))))


def free_bytes(xp: Any) -> int:
    """Return the memory that can be had: of the GPU, or of the host within its cgroup."""
    if xp is not np:
        return int(xp.cuda.Device().mem_info[0])
    found = [int(line.split()[1]) << 10 for line in _lines("/proc/meminfo") if "Available" in line]
    limit, used = _lines("/sys/fs/cgroup/memory.max"), _lines("/sys/fs/cgroup/memory.current")
    if limit and used and limit[0].isdigit():
        found.append(int(limit[0]) - int(used[0]))
    return min(found, default=1 << 30)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _input_dims(operation: str, direction: str, shape: Shape) -> list[tuple[int, ...]]:
    if not isinstance(shape, PoolShape):
        # A fused block's gradients come with their argmax.
        gradient: list[tuple[int, ...]] = [shape.output_shape]
        gradient *= 1 + isinstance(shape, BlockShape)
        dims: dict[str, list[tuple[int, ...]]] = {
            "forward": [shape.input_shape, shape.filter_shape, (shape.k,)],
            "backward_data": [*gradient, shape.filter_shape],
            "backward_filter": [shape.input_shape, *gradient],
            "backward_bias": gradient,
        }
        return dims[direction]
    if direction == "forward":
        return [shape.input_shape]
    return [shape.output_shape] * (2 if operation == "max_pool2d" else 1)


def _inputs(
    operation: str, direction: str, shape: Any, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    if operation == "max_pool2d" and direction == "backward":
        x = rng.standard_normal(shape.input_shape, dtype=np.float32)
        _, argmax = operations.max_pool2d(
            x, shape.window, stride=shape.stride, padding=shape.padding, kernel="cpu",
            return_argmax=True,
        )  # fmt: skip
        return rng.standard_normal(shape.output_shape, dtype=np.float32), argmax
    inputs = [
        rng.standard_normal(dims, dtype=np.float32)
        for dims in _input_dims(operation, direction, shape)
    ]
    if isinstance(shape, BlockShape) and direction != "forward":
        # No window is closed: every gradient has its work to do.
        argmax = rng.integers(0, shape.pool_r * shape.pool_s, shape.output_shape, np.uint8)
        inputs[2 if direction == "backward_filter" else 1] = argmax
    return tuple(inputs)
