"""Matrix instructions and asynchronous copies, against NumPy."""

from pathlib import Path

import numpy as np
import pytest

from kernels import emulator, xray
from kernels.source import ROOT

SOURCE = Path(__file__).with_name("tensor.cu")


@pytest.fixture(scope="module")
def tensor():
    return emulator.load(SOURCE, include_dirs=[ROOT])


def rounded(x, bits, ties_away):
    """Round to `bits` significant bits, by arithmetic on the significand."""
    significand, exponent = np.frexp(np.asarray(x, np.float64))
    scaled = significand * 2.0**bits
    whole = np.trunc(scaled + np.copysign(0.5, scaled)) if ties_away else np.rint(scaled)
    return np.ldexp(whole, exponent - bits)


@pytest.mark.parametrize(
    ("kernel", "depth", "bits"), [("product_tf32", 8, 11), ("product_bf16", 16, 8)]
)
def test_a_product_of_rounded_factors(tensor, any_order, kernel, depth, bits):
    rng = np.random.default_rng(4)
    a = rng.standard_normal((16, depth), dtype=np.float32)
    b = rng.standard_normal((depth, 8), dtype=np.float32)
    d = np.full((16, 8), np.nan, np.float32)
    tensor.get_function(kernel)((1,), (32,), (a, b, d))
    a, b = rounded(a, bits, bits == 11), rounded(b, bits, bits == 11)
    bound = (depth + 1) * 2.0**-24 * (abs(a) @ abs(b))
    assert np.all(abs(d - a @ b) <= bound)
    # As a whole, too, it is a sum in float32, k rising.
    sums = np.zeros((16, 8), np.float32)
    for k in range(depth):
        sums += np.outer(a[:, k], b[k]).astype(np.float32)
    np.testing.assert_array_equal(d, sums)


def test_rounding_with_ties_infinities_and_nan(tensor):
    one = np.float32(1)
    halves = [one + np.float32(2.0**-p) for p in (8, 11)]  # halfway for bfloat16, for TF32
    thirds = [one + np.float32(3 * 2.0**-p) for p in (8, 11)]
    x = np.array([*halves, *thirds, -halves[0], -halves[1], 1e-38, 3.4e38, np.inf, -np.inf, np.nan,
                  0, -0.0, *np.random.default_rng(0).standard_normal(19)], np.float32)  # fmt: skip
    tf32, bf16 = np.zeros(32, np.uint32), np.zeros(32, np.uint32)
    tensor.get_function("rounded")((1,), (32,), (x, tf32, bf16))
    finite = np.isfinite(x)
    with np.errstate(over="ignore"):
        want_tf32 = rounded(x[finite], 11, True).astype(np.float32)
        want_bf16 = rounded(x[finite], 8, False).astype(np.float32)
    np.testing.assert_array_equal(tf32.view(np.float32)[finite], want_tf32)
    np.testing.assert_array_equal((bf16 << 16).view(np.float32)[finite], want_bf16)
    np.testing.assert_array_equal(bf16 >> 16, np.full(32, 0x3F80))
    for got in (tf32.view(np.float32), (bf16 << 16).view(np.float32)):
        np.testing.assert_array_equal(got[~finite], x[~finite])


def test_an_mma_needs_the_whole_warp(tensor):
    with pytest.raises(emulator.BarrierDivergence, match=r"mma_tf32 at tensor.cu:.* 0xffff0000"):
        tensor.get_function("too_few_lanes")((1,), (32,), (np.zeros(32, np.float32),))


def test_matrices_are_handed_out_by_rows(tensor, any_order):
    x = np.random.default_rng(5).integers(0, 256, (4, 8, 16), np.uint8)
    parts = np.zeros((32, 4), np.uint32)
    tensor.get_function("matrices")((1,), (32,), (x, parts, np.int32(32)))
    # Lane 4 g + t has of every tile the 16-bit numbers 2 t and 2 t + 1 of row g.
    numbers = x.view(np.uint16).reshape(4, 8, 4, 2)
    want = numbers.transpose(1, 2, 0, 3).reshape(32, 4, 2)
    np.testing.assert_array_equal(parts.view(np.uint16).reshape(32, 4, 2), want)


def test_matrices_need_the_whole_warp(tensor):
    x, parts = np.zeros((4, 8, 16), np.uint8), np.zeros((32, 4), np.uint32)
    with pytest.raises(emulator.BarrierDivergence, match=r"load_matrices at tensor.cu:.* 0x0000ff"):
        tensor.get_function("matrices")((1,), (32,), (x, parts, np.int32(16)))


def test_the_xray_counts_a_pass_over_the_banks_for_a_tile():
    x, parts = np.zeros((4, 8, 16), np.uint8), np.zeros((32, 4), np.uint32)
    recording = xray.record(
        SOURCE, (1,), (32,), (x, parts, np.int32(32)), kernel="matrices", outputs=[parts],
        include_dirs=[ROOT],
    )  # fmt: skip
    assert recording.findings == ()
    (reads,) = (a for a in recording.accesses if a.array == "tiles" and a.operation == "read")
    assert (reads.width, reads.requests, reads.wavefronts) == (4, 4, 4)


def test_copies_are_there_after_the_wait_for_them(tensor, any_order):
    x = np.arange(64, dtype=np.float32)
    seen = np.zeros((3, 3, 32), np.float32)
    tensor.get_function("copies")((1,), (32,), (x, seen))
    before, one_pending, end = seen
    assert np.isnan(before).all()
    np.testing.assert_array_equal(one_pending[:2].ravel(), x)
    assert np.isnan(one_pending[2]).all()
    np.testing.assert_array_equal(end[:2].ravel(), x)
    np.testing.assert_array_equal(end[2], 0)


def recorded(**defines):
    x, y = np.ones((64, 4), np.float32), np.empty((64, 4), np.float32)
    return xray.record(
        SOURCE, (1,), (32,), (x[:32], y[:32]), kernel="neighbours", outputs=[y[:32]],
        defines=defines, include_dirs=[ROOT],
    )  # fmt: skip


def test_the_xray_counts_a_copy_as_a_read_and_a_write():
    recording = recorded()
    assert recording.findings == ()
    (read,) = (a for a in recording.accesses if a.array == "x")
    (write,) = (a for a in recording.accesses if a.array == "to" and a.operation == "write")
    assert (read.width, read.requests, read.sectors) == (16, 1, 16)
    assert (write.width, write.requests, write.wavefronts) == (16, 1, 4)
    assert read.line == write.line


def test_a_wait_is_no_barrier():
    assert {finding.kind for finding in recorded(NO_BARRIER=1).findings} == {"race"}


def test_the_xray_counts_tensor_arithmetic():
    a, b, d = (np.ones(dims, np.float32) for dims in ((16, 8), (8, 8), (16, 8)))
    recording = xray.record(
        SOURCE, (1,), (32,), (a, b, d), kernel="product_tf32", outputs=[d], include_dirs=[ROOT]
    )
    assert recording.tensor_flops == {"tf32": 2 * 16 * 8 * 8}
    assert recording.flops == 2048


def test_other_ptx_is_refused(tmp_path):
    path = tmp_path / "own.cu"
    path.write_text('__global__ void own(float* x) { asm("cp.async.wait_all;"); x[0] = 1; }\n')
    with pytest.raises(emulator.CompileError, match=r"own.cu:1: .* inline PTX"):
        emulator.load(path)
