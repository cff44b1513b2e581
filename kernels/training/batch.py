"""One step's images and labels, gathered where they live (`batch.cu`), or by NumPy.

With a reach, every image is moved by up to that many pixels each way, and background comes in. How
far is a hash of (seed, epoch, image), so that no batch depends on the batches before it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kernels.source import CudaSource, ceil_div
from kernels.training import counter_hash

THREADS = 256
source = CudaSource("training/batch.cu")


class BatchShape(NamedTuple):
    """What a batch is: ``struct BatchShape`` of ``batch.cu``.

    Attributes
    ----------
    n, c, h, w
        Of the batch; the last of an epoch may have fewer images than `batch_size`.
    batch_size
        Images of every step before it.
    reach
        How far images move at most, pixels.
    seed_low, seed_high
        The seed's two halves.
    """

    n: int
    c: int
    h: int
    w: int
    batch_size: int
    reach: int
    seed_low: int
    seed_high: int

    @property
    def struct(self) -> np.void:
        """The value the kernel takes."""
        scalar: np.void = np.array([tuple(self)], _LAYOUT)[0]
        return scalar


_LAYOUT = np.dtype(
    [(name, np.uint32 if name.startswith("seed") else np.int32) for name in BatchShape._fields]
)


def gather(
    images: Any,
    labels: Any,
    order: Any,
    position: Any,
    x: Any,
    target: Any,
    *,
    batch_size: int,
    seed: int,
    reach: int,
    background: float,
) -> None:
    """Write one step's images and labels.

    Parameters
    ----------
    images, labels
        All of them: (N, C, H, W), and int64, (N,).
    order
        int32, (N,), by `shuffle`.
    position
        int32, (2,): the epoch and the step, read on the device. The batch begins at
        ``step * batch_size``.
    x, target
        The batch: (n, C, H, W), and int64, (n,).
    batch_size, seed, reach, background
        Images a step, the seed of the shifts, how far they go, and the value that comes in.
    """
    n, c, h, w = x.shape
    low, high = map(int, counter_hash.words(seed))
    shape = BatchShape(n, c, h, w, batch_size, reach, low, high)
    args = (images, labels, order, position, x, target, x.dtype.type(background), shape)
    grid = (ceil_div(math.prod(x.shape), THREADS),)
    source.kernel("gather_batch", like=x)(grid, (THREADS,), args)


def shifts(chosen: np.ndarray, seed: int, epoch: int, reach: int) -> np.ndarray:
    """Return how far images move in an epoch, down and to the right: int64, (2, n).

    Parameters
    ----------
    chosen
        The images' numbers, (n,).
    seed, epoch, reach
        As for `gather`.
    """
    key = counter_hash.epoch_key(seed, epoch, counter_hash.SHIFT)
    bits = counter_hash.absorb(key, chosen.astype(np.uint32)).astype(np.int64)
    side = 2 * reach + 1
    return np.stack([bits % side, bits // side % side]) - reach


def moved(
    images: np.ndarray, chosen: np.ndarray, seed: int, epoch: int, reach: int, background: float
) -> np.ndarray:
    """Return the chosen images, moved: what `gather` writes to `x`, computed by NumPy."""
    x = np.full((len(chosen), *images.shape[1:]), background, images.dtype)
    overlaps = {move: _overlap(move) for move in range(-reach, reach + 1)}
    moves = shifts(chosen, seed, epoch, reach).tolist()
    for to, image, down, right in zip(x, chosen, *moves, strict=True):
        (to_rows, rows), (to_cols, cols) = overlaps[down], overlaps[right]
        to[:, to_rows, to_cols] = images[image, :, rows, cols]
    return x


def _overlap(move: int) -> tuple[slice, slice]:
    """Return the rows (columns) that a move fills, and those it fills them from."""
    filled, left_out = slice(max(move, 0), min(move, 0) or None), max(move, 0)
    return filled, slice(max(-move, 0), -left_out or None)
