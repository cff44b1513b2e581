"""The order of an epoch's images, computed where they live (`shuffle.cu`), or in NumPy.

Black and Rogaway, *Ciphers with Arbitrary Finite Domains* (CT-RSA 2002,
https://eprint.iacr.org/2001/012): a Feistel network over pairs, and cycle-walking.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.source import CudaSource, ceil_div
from kernels.training import counter_hash

THREADS = 256
ROUNDS = 12  # fewer show in permutations of five elements: all 120 should come up alike
source = CudaSource("training/shuffle.cu", ROUNDS=ROUNDS)


def shuffle(order: Any, position: Any, like: Any, seed: int) -> None:
    """Write a permutation of 0 to n - 1 into `order`.

    Parameters
    ----------
    order
        int32, (n,), not empty.
    position
        int32, (2,): the epoch and a step; the epoch is read on the device.
    like
        An array beside them, float32 or float64.
    seed
        0 to 2**64 - 1.
    """
    n = order.size
    lows, highs = _pairs(n)
    scalars = (np.int32(n), np.int32(lows), np.int32(highs), *counter_hash.words(seed))
    source.kernel("shuffle", like=like)(
        (ceil_div(n, THREADS),), (THREADS,), (order, position, *scalars)
    )


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """Return the same permutation, int32, (n,), computed by NumPy."""
    lows, highs = (np.uint32(count) for count in _pairs(n))
    key = counter_hash.epoch_key(seed, epoch, counter_hash.SHUFFLE)
    keys = [counter_hash.absorb(key, np.uint32(number)) for number in range(ROUNDS)]
    order = np.arange(n, dtype=np.uint32)
    walking = np.arange(n)  # the places whose image is not yet below n
    while walking.size:
        high, low = np.divmod(order[walking], lows)
        for of_low, of_high in zip(keys[::2], keys[1::2], strict=True):
            low = (low + (counter_hash.absorb(of_low, high) >> 1)) % lows
            high = (high + (counter_hash.absorb(of_high, low) >> 1)) % highs
        order[walking] = high * lows + low
        walking = walking[order[walking] >= n]
    return order.astype(np.int32)


def _pairs(n: int) -> tuple[int, int]:
    """Return how many lows and highs there are: as few pairs as hold n, about as many of each."""
    lows = math.isqrt(max(n - 1, 0)) + 1
    return lows, max(ceil_div(n, lows), 1)
