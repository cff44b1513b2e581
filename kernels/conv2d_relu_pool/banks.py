"""Which pads keep a warp's threads on different banks of shared memory."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from kernels.source import ceil_div

T = TypeVar("T")


def places(*extents: int | Iterable[int]) -> list[tuple[int, ...]]:
    """Return all places of a grid, the last extent fastest."""
    return list(itertools.product(*(range(e) if isinstance(e, int) else e for e in extents)))


def even(elements: int) -> int:
    """Return a number of elements rounded up, for what is read in pairs."""
    return ceil_div(elements, 2) * 2


def whole_warps(threads: int) -> int:
    """Return a number of threads rounded up to whole warps."""
    return ceil_div(threads, 32) * 32


def first_good(candidates: Iterable[T], is_good: Callable[[T], bool]) -> T:
    """Return the first good candidate, or the first at all: conflicts cost time, no more."""
    candidates = list(candidates)
    return next(filter(is_good, candidates), candidates[0])


def least(candidates: Iterable[T], conflicts: Callable[[T], int]) -> T:
    """Return the first candidate without a conflict, or the first with the fewest."""
    candidates = iter(candidates)
    best = next(candidates)
    fewest = conflicts(best)
    for candidate in candidates:
        if not fewest:
            break
        if (found := conflicts(candidate)) < fewest:
            best, fewest = candidate, found
    return best


def is_free_of_conflicts(offsets: list[int], width: int, itemsize: int) -> bool:
    """Tell whether threads that read `width` elements at these offsets meet in no bank."""
    return not any(_extra_passes(offsets, width, itemsize))


def conflicts(offsets: list[int], width: int, itemsize: int) -> int:
    """Return the passes beyond one that threads take to read `width` elements at these offsets."""
    return sum(_extra_passes(offsets, width, itemsize))


def _extra_passes(offsets: list[int], width: int, itemsize: int) -> Iterator[int]:
    """Yield what each of the threads' turns takes beyond one pass.

    Of 4 bytes a lane a whole warp goes at a time, of 8 half of it, of 16 a quarter; lanes with the
    same address are served together.
    """
    words = width * itemsize // 4
    together = 32 // words
    for first in range(0, len(offsets), together):
        starts = {offset * itemsize // 4 for offset in offsets[first : first + together]}
        banks = [(start + word) % 32 for start in starts for word in range(words)]
        yield max(Counter(banks).values()) - 1 if len(set(banks)) < len(banks) else 0
