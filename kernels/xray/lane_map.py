"""Where the 32 lanes of one request fall: on sectors of global memory, on banks of shared memory.

Both are rows of 32 words of 4 bytes. Of global memory a row is an aligned 128 bytes, four sectors;
of shared memory it is a wavefront, one pass over the 32 banks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kernels.xray.record import Access, Warp

WORD = 4  # bytes
ROW_WORDS = 32
SECTOR_WORDS = 8


@dataclass(frozen=True)
class Row:
    """32 words side by side.

    Attributes
    ----------
    label
        ``"x[32..63]"``, the elements touched, for global memory, ``"wavefront 1"`` for shared.
    cells
        For each word the lanes that touch it.
    elements
        For each word the flat index of the element that begins in it or holds it; None where no
        lane touches it.
    sectors
        Which of the row's four sectors are touched, for global memory; empty for shared.
    """

    label: str
    cells: tuple[tuple[int, ...], ...]
    elements: tuple[int | None, ...]
    sectors: tuple[bool, ...] = ()


def lane_map(access: Access) -> list[Row]:
    """Return the rows of an access's example request; none where there is no example."""
    if access.warp is None:
        return []
    if access.space == "shared":
        return _wavefronts(access, access.warp)
    return _lines(access, access.warp)


def _words(access: Access, warp: Warp, lanes: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (word, lane, element) for every word of 4 bytes that the lanes touch."""
    for lane in lanes:
        element = warp.elements[lane]
        if element is None:
            continue
        begin = warp.base + element * access.itemsize
        for word in range(begin // WORD, (begin + access.width - 1) // WORD + 1):
            inside = max(word * WORD - begin, 0) // access.itemsize
            yield word, lane, element + inside


def _lines(access: Access, warp: Warp) -> list[Row]:
    rows: dict[int, dict[int, list[tuple[int, int]]]] = {}
    for word, lane, element in _words(access, warp, range(len(warp.elements))):
        rows.setdefault(word // ROW_WORDS, {}).setdefault(word % ROW_WORDS, []).append(
            (lane, element)
        )
    found = []
    for row in sorted(rows):
        cells, elements = _cells(rows[row])
        touched = [element for element in elements if element is not None]
        sectors = tuple(
            any(cells[first : first + SECTOR_WORDS]) for first in range(0, ROW_WORDS, SECTOR_WORDS)
        )
        first, last = min(touched), max(touched)
        label = f"{access.array}[{first}]" if first == last else f"{access.array}[{first}..{last}]"
        found.append(Row(label, cells, elements, sectors))
    return found


def _wavefronts(access: Access, warp: Warp) -> list[Row]:
    # Of 8 bytes a lane half a warp goes at a time, of 16 a quarter; of a load twice as many where
    # lanes are paired (kernels/emulator/runtime/trace_counts.hpp has the source).
    together = 32 // max(access.width // WORD, 1)
    if access.operation == "read" and together < 32 and _is_paired(warp):
        together *= 2
    found: list[Row] = []
    for first in range(0, 32, together):
        lanes = range(first, first + together)
        banks: dict[int, dict[int, list[tuple[int, int]]]] = {}
        for word, lane, element in _words(access, warp, lanes):
            banks.setdefault(word % ROW_WORDS, {}).setdefault(word, []).append((lane, element))
        for number in range(max(map(len, banks.values()), default=0)):
            # The n-th different word of a bank goes in the n-th pass.
            taken = {
                bank: words[sorted(words)[number]]
                for bank, words in banks.items()
                if number < len(words)
            }
            found.append(Row(f"wavefront {len(found) + 1}", *_cells(taken)))
    return found


def _is_paired(warp: Warp) -> bool:
    """Tell whether each lane has the element of lane ^ 1, or each that of lane ^ 2."""
    at = warp.elements
    return any(
        all(at[i] == at[i ^ apart] or None in (at[i], at[i ^ apart]) for i in range(len(at)))
        for apart in (1, 2)
    )


def _cells(
    touched: dict[int, list[tuple[int, int]]],
) -> tuple[tuple[tuple[int, ...], ...], tuple[int | None, ...]]:
    cells = tuple(
        tuple(dict.fromkeys(lane for lane, _ in touched.get(at, ()))) for at in range(ROW_WORDS)
    )
    elements = tuple(min((e for _, e in touched.get(at, ())), default=None) for at in range(32))
    return cells, elements
