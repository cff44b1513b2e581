"""Records a pass of one of the lab's kernels, on random inputs."""

from __future__ import annotations

import numpy as np

from kernels import check, compare, operations, table
from kernels.shapes import Shape

from .launch import MOST_BLOCKS
from .record import Recording
from .session import recording


def record_pass(
    row: table.Row,
    direction: str,
    shape: Shape,
    dtype: str = "float32",
    seed: int = 0,
    most_blocks: int = MOST_BLOCKS,
    local_arrays: bool = False,
) -> list[Recording]:
    """
    Record every launch of one pass on the emulator.

    Parameters
    ----------
    row : Row
        A kernel in CUDA C.
    direction : str
        One of its passes.
    shape : Conv2dShape, BlockShape or PoolShape
        The problem's.
    dtype : {"float32", "float64"}
        Of the arrays.
    seed : int
        Of the random inputs.
    most_blocks, local_arrays
        As for `recording`.

    Returns
    -------
    list of Recording
        In the order of the launches.

    Raises
    ------
    EmulatorError
        As for `recording`.
    ValueError
        For a row that is not CUDA C: only that runs on the emulator.
    """
    if row.language != "cuda_c":
        raise ValueError(f"{row.name} is in {row.language}; the X-ray sees CUDA C only")
    rng = np.random.default_rng(seed)
    inputs = check.make_inputs(row.operation, direction, shape, dtype, rng)
    outputs = [
        np.full(dims, np.nan if kind is None else compare.UNWRITTEN[kind], kind or dtype)
        for dims, kind in compare.outputs(row.operation, direction, shape)
    ]
    given = [array for array in inputs if array is not None]
    with recording(
        outputs=outputs, inputs=given, most_blocks=most_blocks, local_arrays=local_arrays
    ) as recordings:
        operations.run(row, direction, (*inputs, *outputs), shape)
    return recordings
