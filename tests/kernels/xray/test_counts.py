"""Counts of small kernels equal those derived by hand: sectors, wavefronts, lanes, arithmetic."""

from pathlib import Path

import numpy as np
import pytest

from kernels import emulator, table, xray
from kernels.shapes import Conv2dShape

SOURCE = Path(__file__).with_name("counts.cu")


def line(kernel, mark):
    lines = SOURCE.read_text().splitlines()
    start = next(n for n, text in enumerate(lines) if f"{kernel}(" in text and "{" in text)
    return next(n for n, t in enumerate(lines[start:], start + 1) if t.endswith(f"MARK {mark}"))


def run(kernel, *args, block=(32,), grid=(1,), **options):
    recording = xray.record(SOURCE, grid, block, args, kernel=kernel, **options)
    assert recording.findings == ()
    return recording


def access(recording, mark, operation="read", array=None, kernel=None):
    wanted = line(kernel or recording.kernel, mark)
    found = [
        a
        for a in recording.accesses
        if a.line == wanted and a.operation == operation and array in (None, a.array)
    ]
    assert len(found) == 1, recording.accesses
    return found[0]


def floats(n):
    return np.arange(n, dtype=np.float32)


# 32 lanes of 4 bytes are 128 bytes, 4 sectors. Two apart they spread over 256, 8 sectors; 32 apart
# every lane has its own. One element off a sector's edge: 5. Backwards: the same sectors.
@pytest.mark.parametrize(
    ("stride", "first", "sectors"),
    [(1, 0, 4), (2, 0, 8), (32, 0, 32), (1, 1, 5), (1, 8, 4), (-1, 31, 4), (-2, 62, 8), (3, 0, 12)],
)
def test_strides(stride, first, sectors):
    recording = run("strided", floats(1024), floats(64), np.int32(stride), np.int32(first))
    load = access(recording, "load")
    assert (load.requests, load.lanes, load.bytes, load.width) == (1, 32, 128, 4)
    assert (load.sectors, load.ideal_sectors, load.unique_bytes) == (sectors, 4, 128)
    assert load.warp.elements == tuple(first + stride * lane for lane in range(32))
    store = access(recording, "load", "write")
    assert (store.requests, store.sectors) == (1, 4)


def test_a_view_begins_where_it_begins_in_its_allocation():
    recording = run("strided", floats(64)[1:], floats(64), np.int32(1), np.int32(0))
    load = access(recording, "load")
    assert (load.sectors, load.ideal_sectors, load.warp.base) == (5, 4, 4)


def test_broadcast():
    recording = run("broadcast", floats(2), floats(128), block=(64,), grid=(2,))
    load = access(recording, "load")
    assert (load.requests, load.lanes, load.sectors, load.ideal_sectors) == (4, 128, 4, 4)
    assert load.unique_bytes == 8  # of 512 asked for: 64 times used again
    assert load.bytes == 512
    x, y = recording.arrays
    assert (x.name, x.read_bytes, x.read_sectors, x.written_bytes) == ("x", 8, 1, 0)
    assert (y.name, y.written_bytes, y.written_sectors, y.read_bytes) == ("y", 512, 16, 0)


def test_vectors_are_one_access():
    x, y = floats(128), floats(128)
    recording = run("vectors", x.view("V16"), y.view("V16"))
    for operation in ("read", "write"):
        one = access(recording, "load", operation)
        assert (one.requests, one.width, one.sectors, one.ideal_sectors) == (1, 16, 16, 16)
    np.testing.assert_array_equal(x, y)
    recording = run("made_vectors", x, y.view("V16"))
    assert access(recording, "load").width == 16
    store = access(recording, "store", "write")
    assert (store.requests, store.width, store.sectors) == (1, 16, 16)


def test_other_widths():
    recording = run("pairs_and_bytes", np.arange(32.0), np.zeros(32, np.uint8))
    load, store = access(recording, "load"), access(recording, "load", "write")
    assert (load.width, load.sectors, load.ideal_sectors) == (8, 8, 8)
    assert (store.width, store.sectors, store.ideal_sectors) == (1, 1, 1)
    # A float3 is three loads of 4 bytes, 12 apart: 384 bytes, 12 sectors, each of them three times.
    load = access(run("triples", floats(96).view("V12"), floats(32)), "load")
    assert (load.requests, load.width, load.sectors, load.unique_bytes) == (3, 4, 36, 384)


@pytest.mark.parametrize(
    ("kernel", "wavefronts"), [("conflicting_transpose", 32), ("padded_transpose", 1)]
)
def test_transpose(kernel, wavefronts):
    x, y = floats(1024), floats(1024)
    recording = run(kernel, x, y, block=(32, 32))
    np.testing.assert_array_equal(y.reshape(32, 32), x.reshape(32, 32).T)
    store = access(recording, "by rows", "write", "tile", kernel="transpose")
    assert (store.requests, store.wavefronts, store.space) == (32, 32, "shared")
    load = access(recording, "by columns", "read", "tile", kernel="transpose")
    assert (load.requests, load.wavefronts) == (32, 32 * wavefronts)
    assert load.ideal_wavefronts == 32
    assert load.unique_bytes == 4096


# A bank is a word's number modulo 32: gcd(stride, 32) lanes meet in each; 0 is a broadcast.
@pytest.mark.parametrize(
    ("stride", "wavefronts"), [(0, 1), (1, 1), (2, 2), (3, 1), (4, 4), (6, 2), (16, 16), (32, 32)]
)
def test_bank_conflicts(stride, wavefronts):
    recording = run("shared_strides", floats(32), np.int32(stride))
    read = access(recording, "read", "read", "tile")
    assert (read.requests, read.wavefronts, read.ideal_wavefronts) == (1, wavefronts, 1)
    fill = access(recording, "fill", "write", "tile")
    assert (fill.requests, fill.wavefronts) == (32, 32)


def test_shared_vectors():
    recording = run("shared_vectors", floats(32))
    fours = access(recording, "fours", "write")
    twos = access(recording, "twos", "write")
    assert (fours.width, fours.wavefronts, fours.ideal_wavefronts) == (
        16,
        4,
        4,
    )  # quarters of warps
    assert (twos.width, twos.wavefronts, twos.ideal_wavefronts) == (8, 2, 2)  # halves
    # 8 bytes apart, the second 4 of each: two lanes a bank.
    assert access(recording, "read", "read", "twos").wavefronts == 2
    assert access(recording, "read", "read", "fours").wavefronts == 1


@pytest.mark.parametrize(
    ("at", "lanes", "wavefronts"),
    [
        ([0] * 32, 32, 2),
        ([i // 2 for i in range(32)], 32, 2),
        ([i // 4 * 2 + i % 2 for i in range(32)], 32, 2),
        ([i // 2 * 8 % 128 for i in range(32)], 32, 16),  # in pairs, but on one bank
        ([i % 8 for i in range(32)], 32, 4),  # shared, but not by pairs
        ([i // 2 for i in range(32)], 31, 2),  # the last has no other half
        (range(32), 32, 4),
    ],
)
def test_vectors_of_paired_lanes(at, lanes, wavefronts):
    recording = run("paired_vectors", np.array(at, np.int32), np.int32(lanes), floats(32))
    read = access(recording, "read", "read", "fours")
    assert (read.width, read.requests, read.wavefronts) == (16, 1, wavefronts)


def lanes(recording, mark, operation="write"):
    one = access(recording, mark, operation)
    return one.requests, one.lanes


def branch(recording, mark):
    wanted = line(recording.kernel, mark)
    (one,) = (b for b in recording.branches if b.line == wanted)
    return one.executions, one.lanes, one.divergent


def test_divergence():
    recording = run("half_of_the_lanes", floats(64))
    assert lanes(recording, "odd") == lanes(recording, "even") == (1, 16)
    assert lanes(recording, "together") == (1, 32)
    assert branch(recording, "if") == (1, 32, 1)


def test_uneven_loops():
    recording = run("uneven_loops", floats(64))
    # Lane t goes round t times: 31 rounds, of 31, 30, ... 1 lanes; then all together.
    assert lanes(recording, "body", "read") == (31, sum(range(32)))
    assert lanes(recording, "together") == (1, 32)
    # The test at its head: 32 times, of 32, 31, ... 1 lanes; at each but the last one lane leaves,
    # and at the last the only one does.
    assert branch(recording, "loop") == (32, sum(range(33)), 31)


def test_nested_loops():
    recording = run("nested_loops", floats(256))
    # Of every 4 lanes, 4 - i do round i, with i + 1 inner rounds.
    assert lanes(recording, "body", "read") == (1 + 2 + 3 + 4, 8 * (4 + 2 * 3 + 3 * 2 + 4))
    assert lanes(recording, "after") == (4, 8 * (4 + 3 + 2 + 1))
    assert lanes(recording, "together") == (1, 32)
    assert branch(recording, "continue") == (4, 128, 3)


def test_early_return_and_break():
    x = floats(40)
    x[1] = -1
    recording = run("early_return", x, floats(64), np.int32(40), grid=(2,))
    assert branch(recording, "guard") == (2, 64, 1)
    assert lanes(recording, "body") == (2, 40)
    assert branch(recording, "break") == (4, 80, 0)


def test_calls_end_before_their_caller_goes_on():
    recording = run("calls", floats(8), floats(32))
    assert lanes(recording, "together") == (1, 32)
    recursion = access(recording, "recursion", kernel="triangle")
    assert (recursion.requests, recursion.lanes) == (3, 8 * (1 + 2 + 3))
    recording = run("lanes_in_two_functions", floats(8), floats(32))
    assert lanes(recording, "together") == (1, 32)


def test_switch():
    recording = run("switched", floats(64))
    assert [lanes(recording, mark) for mark in ("zero", "falls", "others")] == [(1, 8)] * 3
    assert lanes(recording, "two") == (1, 16)
    assert lanes(recording, "together") == (1, 32)


def test_barriers_part_no_block_of_code():
    recording = run("after_a_barrier", floats(192), block=(64,))
    assert lanes(recording, "before") == (2, 64)
    assert lanes(recording, "eight") == (1, 8)
    assert lanes(recording, "after") == (2, 64)


def test_a_warp_that_is_not_full():
    recording = run("strided", floats(64), floats(64), np.int32(1), np.int32(0), block=(40,))
    load = access(recording, "load")
    assert (load.requests, load.lanes, load.sectors) == (2, 40, 5)
    assert recording.warps == 2


def test_arithmetic():
    recording = run("saxpy", floats(64), floats(64), np.float32(2), block=(64,))
    assert recording.flops == 2 * 64
    n = 6
    recording = run("arithmetic", floats(8), floats(32), np.int32(n))
    by_line = {one.line: one.flops for one in recording.lines}
    assert by_line == {
        line("arithmetic", "products"): 32 * 2 * n,
        line("arithmetic", "quotient"): 32 * n // 2,
        line("arithmetic", "root"): 32 * 2,  # a root and a difference; a maximum is none
    }
    assert recording.flops == 32 * (2 * n + n // 2 + 2)
    assert run("doubles", np.arange(32.0), np.arange(32.0)).flops == 32 * 3


@pytest.mark.parametrize("name", ["naive", "tiled"])
def test_arithmetic_of_a_convolution(name):
    """Without padding every product that the shape declares is done, and no more."""
    shape = Conv2dShape.of((2, 3, 9, 12), (4, 3, 3, 2))
    (row,) = (row for row in table.rows() if row.name == name)
    (recording,) = xray.record_pass(row, "forward", shape)
    assert recording.flops == shape.flops


def test_atomics():
    bins = np.repeat(np.arange(8, dtype=np.int32), 4)
    y, sums = np.zeros(32, np.int32), np.zeros(2, np.float32)
    recording = run("histogram", bins, y, sums)
    np.testing.assert_array_equal(y[:9], [4] * 8 + [0])
    np.testing.assert_array_equal(sums, [16, 16])
    counts = access(recording, "bins", "atomic")
    assert (counts.requests, counts.lanes, counts.conflicts, counts.sectors) == (1, 32, 24, 1)
    assert access(recording, "sums", "atomic").conflicts == 30
    assert access(recording, "cas", "atomic").conflicts == 0


def test_a_fence_and_a_counter_order_blocks():
    args = floats(4), np.zeros(1, np.float32), np.zeros(4, np.float32), np.zeros(1, np.uint32)
    run("last_block_sums", *args, grid=(4,))
    assert args[1][0] == 6
    (finding,) = xray.record(SOURCE, (4,), (32,), args, kernel="last_block_without_fence").findings
    assert (finding.kind, finding.array, finding.count) == ("race", "partial", 3)
    assert finding.line == line("last_block_without_fence", "race")
    assert finding.other.block == (0, 0, 0)


def test_a_large_grid_is_sampled_and_says_so():
    x, y = floats(32 * 100), np.zeros(32 * 100, np.float32)
    recording = run("strided", x, y, np.int32(1), np.int32(0), grid=(100,), most_blocks=5)
    np.testing.assert_array_equal(x, y)  # the others run all the same
    assert (recording.blocks, recording.blocks_traced, recording.sampled) == (100, 5, 0.05)
    load = access(recording, "load")
    assert (load.requests, load.sectors) == (5, 20)
    assert recording.arrays[0].read_bytes == 5 * 128


def test_traced_results_are_the_plain_ones():
    x, y, plain = floats(1024), floats(1024), floats(1024)
    run("padded_transpose", x, y, block=(32, 32))
    emulator.load(SOURCE).get_function("padded_transpose")((1,), (32, 32), (x, plain))
    np.testing.assert_array_equal(y, plain)


def test_there_and_back_by_json():
    recording = run("histogram", *(np.zeros(32, np.int32) for _ in range(2)), floats(2))
    assert xray.Recording.from_dict(recording.to_dict()) == recording


# However often the compiler writes a line down, it is one access of the source.
def test_an_unrolled_loop_is_counted_as_the_loop_it_was():
    x, y = floats(32 * 11), floats(32)
    recording = run("unrolled", x, y, np.int32(11))
    np.testing.assert_array_equal(y, x.reshape(11, 32).sum(axis=0))
    for mark, turns in (("known", 8), ("asked", 3)):
        load = access(recording, mark)
        assert (load.requests, load.lanes, load.sectors) == (turns, 32 * turns, 4 * turns)
        assert load.unique_bytes == 128 * turns
    assert recording.flops == 32 * 11
