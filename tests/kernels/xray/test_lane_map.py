"""Where lanes fall on sectors and banks, each figure counted by hand."""

from __future__ import annotations

import pytest
from xray_samples import access

from kernels.xray.lane_map import lane_map


def sectors(rows) -> int:
    return sum(sum(row.sectors) for row in rows)


@pytest.mark.parametrize(
    ("elements", "base", "width", "expected"),
    [
        (range(32), 0, 4, 4),  # 128 bytes side by side
        (range(32), 4, 4, 5),  # a word later: the last one lies in a fifth sector
        (range(0, 64, 2), 0, 4, 8),
        (range(0, 1024, 32), 0, 4, 32),
        ([7] * 32, 0, 4, 1),
        (range(0, 128, 4), 0, 16, 16),  # float4
        ([0, None, 8], 0, 4, 2),
        ([-1], 0, 4, 1),  # before the array
    ],
)
def test_sectors_of_a_request(elements, base, width, expected):
    assert sectors(lane_map(access(elements, base=base, width=width))) == expected


def test_a_row_is_128_bytes_and_says_which_elements():
    first, second = lane_map(access(range(32), base=64))
    assert (first.label, second.label) == ("x[0..15]", "x[16..31]")
    assert first.cells == ((),) * 16 + tuple((lane,) for lane in range(16))
    assert first.elements[16:] == tuple(range(16))
    assert first.sectors == (False, False, True, True)


@pytest.mark.parametrize(
    ("elements", "width", "expected"),
    [
        (range(32), 4, 1),
        ([5] * 32, 4, 1),  # one word for all: a broadcast
        (range(0, 64, 2), 4, 2),  # even banks only, twice
        (range(0, 1024, 32), 4, 32),  # all in one bank
        (range(0, 1056, 33), 4, 1),  # the same, with a pad
        (range(0, 64, 2), 8, 2),  # float2: half a warp at a time
        (range(0, 128, 4), 16, 4),  # float4: a quarter
        ([0, 32, 0, 32], 4, 2),
        ([8] * 32, 16, 2),  # float4 for all: of paired lanes half a warp at a time
        ([8] * 32, 8, 1),
        ([i // 2 * 4 for i in range(32)], 16, 2),  # neighbours in pairs
        ([(i // 4 * 2 + i % 2) * 4 for i in range(32)], 16, 2),  # every second lane in pairs
        ([i // 16 * 64 + i // 2 % 8 * 32 for i in range(32)], 16, 16),  # in pairs, but on one bank
        ([i % 8 * 4 for i in range(32)], 16, 4),  # shared, but not by pairs
    ],
)
def test_wavefronts_of_a_request(elements, width, expected):
    rows = lane_map(access(elements, space="shared", width=width))
    assert len(rows) == expected
    assert rows[-1].label == f"wavefront {expected}"


def test_a_bank_gives_one_word_in_a_wavefront():
    first, second = lane_map(access([0, 32, 0, 1], space="shared"))
    assert first.cells[:2] == ((0, 2), (3,))
    assert first.elements[:2] == (0, 1)
    assert second.cells[:2] == ((1,), ())
    assert second.elements[0] == 32


def test_no_example_no_rows():
    one = access([0])
    assert lane_map(type(one)(**{**vars(one), "warp": None})) == []
