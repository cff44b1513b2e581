"""One step's images and labels, gathered where they live (`batch.cu`), or by NumPy.

With a reach, every image is moved by up to that many pixels each way, and background comes in. How
far is a hash of (seed, epoch, image), so that no batch depends on the batches before it. So is how
an image is distorted: scaled, squeezed (wider and lower, or the reverse), sheared along its rows
and moved, the planar affine distortions of LeCun et al., *Gradient-Based Learning Applied to
Document Recognition* (1998), which does not say by how much.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kernels.source import CudaSource, ceil_div
from kernels.training import counter_hash

THREADS = 256
ONE = 1 << 16  # fixed point, as in the kernel
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
    distort
        By how much they are scaled, squeezed and sheared at most, 65,536 being as much again.
    seed_low, seed_high
        The seed's two halves.
    """

    n: int
    c: int
    h: int
    w: int
    batch_size: int
    reach: int
    distort: int
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


class Gather(NamedTuple):
    """One step's images and labels, and where they come from.

    Attributes
    ----------
    images, labels
        All of them: (N, C, H, W), and int64, (N,).
    order
        int32, (N,), by `shuffle`.
    position
        int32, (2,): the epoch and the step, read on the device. The batch begins at
        ``step * batch_size``.
    x, target
        The batch, to be written: (n, C, H, W), and int64, (n,).
    batch_size, seed, reach, background
        Images a step, the seed of the shifts, how far they go, and the value that comes in.
    distort
        Share by which images are scaled, squeezed and sheared at most, 0 to 0.5. Above 0 they are
        moved by parts of pixels too.
    """

    images: Any
    labels: Any
    order: Any
    position: Any
    x: Any
    target: Any
    batch_size: int
    seed: int
    reach: int
    background: float
    distort: float = 0.0

    @property
    def args(self) -> tuple[Any, ...]:
        """What a kernel takes."""
        low, high = map(int, counter_hash.words(self.seed))
        n, c, h, w = self.x.shape
        distort = _fixed(self.distort)
        shape = BatchShape(n, c, h, w, self.batch_size, self.reach, distort, low, high)
        return (*self[:6], self.x.dtype.type(self.background), shape)


def gather(batch: Gather) -> None:
    """Write one step's images and labels."""
    grid = (ceil_div(math.prod(batch.x.shape), THREADS),)
    source.kernel("gather_batch", like=batch.x)(grid, (THREADS,), batch.args)


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


def distorted(
    images: np.ndarray,
    chosen: np.ndarray,
    seed: int,
    epoch: int,
    reach: int,
    background: float,
    distort: float,
) -> np.ndarray:
    """Return the chosen images, distorted: what `gather` writes to `x`, computed by NumPy.

    Parameters
    ----------
    images, chosen, seed, epoch, reach, background, distort
        As for `gather`, and the images' numbers, (n,).
    """
    h, w = images.shape[2:]
    key = counter_hash.epoch_key(seed, epoch, counter_hash.DISTORT)
    keys = counter_hash.absorb(key, chosen.astype(np.uint32))
    most = _fixed(distort)

    def spread(number: int, most: int) -> np.ndarray:
        random = (counter_hash.absorb(keys, np.uint32(number)) >> 15).astype(np.int64) - ONE
        return (random * most >> 16)[:, None, None]

    scale, squeeze, shear = (spread(number, most) for number in range(3))
    down, right = (spread(number, 2 * ONE * reach) for number in (3, 4))
    below, beside = 2 * np.arange(h)[:, None] - (h - 1), 2 * np.arange(w) - (w - 1)
    rows = (ONE + scale - squeeze) * below + ONE * (h - 1) - down
    cols = (ONE + scale + squeeze) * beside + shear * below + ONE * (w - 1) - right
    # One pixel of background around an image stands for all outside it.
    framed = np.pad(
        images[chosen], ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=background
    ).reshape(len(chosen), -1, (h + 2) * (w + 2))
    top, bottom, left, late = (
        np.clip((places >> 17) + more, 0, side + 1)
        for places, side in ((rows, h), (cols, w))
        for more in (1, 2)
    )
    corners = [
        np.take_along_axis(framed, (row * (w + 2) + col).reshape(len(chosen), 1, -1), axis=2)
        for row in (top, bottom)
        for col in (left, late)
    ]
    lower, later = (
        ((places & 2 * ONE - 1) / images.dtype.type(2 * ONE))
        .astype(images.dtype)
        .reshape(len(chosen), 1, -1)
        for places in (np.broadcast_to(rows, cols.shape), cols)
    )
    above = corners[0] + later * (corners[1] - corners[0])
    under = corners[2] + later * (corners[3] - corners[2])
    return (above + lower * (under - above)).reshape(len(chosen), *images.shape[1:])


def _fixed(distort: float) -> int:
    """Return a share in fixed point, more than 0 where it is."""
    return max(round(distort * ONE), int(distort > 0))


def _overlap(move: int) -> tuple[slice, slice]:
    """Return the rows (columns) that a move fills, and those it fills them from."""
    filled, left_out = slice(max(move, 0), min(move, 0) or None), max(move, 0)
    return filled, slice(max(-move, 0), -left_out or None)
