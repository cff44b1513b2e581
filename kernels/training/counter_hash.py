"""Random bits as a hash of what they are for: the integers of `counter_hash.cuh`, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

SHUFFLE, SHIFT, DISTORT = 1, 2, 3

Words = Any  # a numpy.ndarray of uint32


def mix(bits: Words) -> Words:
    """Return 32 bits for 32 bits: the finaliser of Appleby's MurmurHash3, one to one."""
    bits = bits ^ bits >> 16
    bits = bits * np.uint32(0x85EBCA6B)
    bits = bits ^ bits >> 13
    bits = bits * np.uint32(0xC2B2AE35)
    return bits ^ bits >> 16


def absorb(key: Words, word: Words) -> Words:
    """Return a hash of what `key` is the hash of and of one more word."""
    return mix((key ^ word) + np.uint32(0x9E3779B9))


def words(seed: int) -> tuple[np.uint32, np.uint32]:
    """Return a seed's low and high 32 bits."""
    return np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32 & 0xFFFFFFFF)


def epoch_key(seed: int, epoch: int, purpose: int) -> Words:
    """Return the key of one epoch's numbers for one purpose, an array of one uint32."""
    low, high = (np.array([word]) for word in words(seed))  # arrays wrap around without a warning
    key = absorb(absorb(mix(low + np.uint32(purpose)), low), high)
    return absorb(key, np.uint32(epoch))
