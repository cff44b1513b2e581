"""A batch of a data set's images on CPU cores, in Numba, in the threads that go on with them.

out[i] = images[indices[i]]
Shapes: images (images, ...), indices (N,), out (N, ...); any dtype.
Threads: a task is an image.
Idea: images drawn at random come from memory, not from a cache, and one core alone waits for each;
the convolution that reads them next splits the batch between the cores in the same way.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from kernels.cpu_threads import one_launch


@njit(cache=True, nogil=True, parallel=True)
def _gather(images, indices, out):  # type: ignore[no-untyped-def]
    for i in prange(len(indices)):
        to, image = out[i], images[indices[i]]
        for j in range(len(to)):
            to[j] = image[j]


def gather(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return images[indices], a copy.

    Parameters
    ----------
    images
        C-contiguous, of any shape behind the first dimension.
    indices
        Integers, (N,).

    Raises
    ------
    IndexError
        An index below 0 or past the last image.
    """
    out = np.empty((len(indices), *images.shape[1:]), images.dtype)
    if not out.size:
        return out
    if not 0 <= indices.min() <= indices.max() < len(images):
        raise IndexError(
            f"gather: indices from {indices.min()} to {indices.max()}; "
            f"expected 0 to {len(images) - 1}"
        )
    with one_launch:
        _gather(images.reshape(len(images), -1), indices, out.reshape(len(out), -1))
    return out
