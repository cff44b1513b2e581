"""Where a gradient lies that kernels leave in slices of the batch, until they are added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels import place
from kernels.source import ceil_div

MOST_PIECES = 4
# From so many slices on, several threads add up an element.
MANY = 16

_PIECE = np.dtype(
    [(name, np.int32) for name in ("begin", "end", "slices", "offset", "first_block")]
)
_LAYOUT = np.dtype([("of", _PIECE, MOST_PIECES), ("count", np.int32), ("blocks", np.int32)])

_ABSENT = (0, 0, 0, 0, -1)


class Piece(NamedTuple):
    """A part of the flat gradient.

    Attributes
    ----------
    begin, end
        Its elements.
    slices
        How many slices of the batch each leave a sum for it; 0 where they do not, and the gradient
        itself has it.
    """

    begin: int
    end: int
    slices: int

    @property
    def length(self) -> int:
        """Its elements' number."""
        return self.end - self.begin


class GradientPieces:
    """The slices of several parts of a gradient, in one buffer that lives as long as this.

    Parameters
    ----------
    pieces
        At most `MOST_PIECES` that do not overlap.
    like
        An array of the gradient's dtype and place.

    Attributes
    ----------
    partial
        The buffer, zeros at first: what no kernel writes, such as the gaps between parameters,
        stays without a gradient.
    slices
        A view of each piece's part of it, (slices, length), in the pieces' order; None where there
        are no slices.
    struct
        ``struct Pieces`` of ``nesterov_sgd.cu``.
    blocks
        Blocks that add up the pieces of many slices.

    Raises
    ------
    ValueError
        More pieces.
    """

    def __init__(self, pieces: Sequence[Piece], like: Any) -> None:
        if len(pieces) > MOST_PIECES:
            raise ValueError(f"{len(pieces)} pieces of a gradient; expected {MOST_PIECES} at most")
        xp = place.array_module(like)
        self.partial = xp.zeros(sum(p.slices * p.length for p in pieces), like.dtype)
        self.slices: list[Any] = []
        self.blocks, offset, found = 0, 0, []
        for piece in pieces:
            if not piece.slices:
                self.slices.append(None)
                continue
            size, first_block = piece.slices * piece.length, -1
            if piece.slices >= MANY:
                first_block, self.blocks = self.blocks, self.blocks + ceil_div(piece.length, 32)
            found.append((*piece, offset, first_block))
            self.slices.append(self.partial[offset : offset + size].reshape(-1, piece.length))
            offset += size
        # The kernel looks for a block's piece among the first.
        found.sort(key=lambda one: (one[-1] < 0, one[-1]))
        filled = found + [_ABSENT] * (MOST_PIECES - len(found))
        self.struct = _struct(filled, len(found), self.blocks)


def _struct(pieces: Sequence[tuple[int, ...]], count: int, blocks: int) -> np.void:
    scalar: np.void = np.array([(pieces, count, blocks)], _LAYOUT)[0]
    return scalar


NONE = _struct([_ABSENT] * MOST_PIECES, 0, 0)
