"""Factors for tensor cores: rounded, and with what a product sums over innermost (`pack.cu`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.source import CudaSource, ceil_div

VECTOR_BYTES = 16
ROW_VECTORS = 4  # a tile's, by COLS
THREADS, COLS = 256, 64


def pack_source(is_bf16: bool) -> CudaSource:
    """Return what packs to bfloat16, two numbers to a register; else to TF32."""
    return CudaSource("conv2d/pack.cu", least_arch="sm_80", SCALAR="float", BF16=int(is_bf16))


def pack(
    source: CudaSource, array: Any, packed: Any,
    batches: int, rows: int, cols: int, batch_pitch: int, row_pitch: int,
) -> None:  # fmt: skip
    """Write rounded (batches, cols, rows) from (batches, rows, cols); `source` is `pack_source`'s.

    Elements of a column are neighbours in `array`, rows are `row_pitch` apart and batches
    `batch_pitch`.
    """
    in_vector = 8 if source.defines["BF16"] else 4
    blocks = batches * ceil_div(cols, COLS) * ceil_div(rows, ROW_VECTORS * in_vector)
    sizes = map(np.int32, (rows, cols, batch_pitch, row_pitch))
    source.kernel("conv2d_pack", like=array)((blocks,), (THREADS,), (array, packed, *sizes))
