"""Products of a warpgroup from shared memory, against NumPy."""

from pathlib import Path

import numpy as np
import pytest

from kernels import emulator, xray
from kernels.source import ROOT

SOURCE = Path(__file__).with_name("warpgroup.cu")
N = 80
SHARED = 40 << 10


def load(**defines):
    return emulator.load(SOURCE, defines={"SWIZZLE": 0, **defines}, include_dirs=[ROOT])


@pytest.fixture(scope="module")
def warpgroup():
    return load()


def launch(function, *args, threads=128, shared=SHARED):
    values = [np.int32(arg) if isinstance(arg, int) else arg for arg in args]
    function((1,), (threads,), tuple(values), shared_mem=shared)


def factors(n=N):
    rng = np.random.default_rng(6)
    return rng.standard_normal((64, 16), np.float32), rng.standard_normal((n, 16), np.float32)


def bf16(x):
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def added(d, a, b):
    """Return what a product adds to d, in float32 and k rising."""
    a, b = bf16(a), bf16(b)
    for k in range(16):
        d = d + np.outer(a[:, k], b[:, k]).astype(np.float32)
    return d


# Leading and stride bytes of both sides: the tightest, what is padded, and exchanged.
LAYOUTS = {
    "vectors apart": (1024, 128, N * 16, 128),
    "core matrices in turn": (128, 256, 128, 256),
    "padded": (1024 + 16, 128, N * 16 + 48, 128),
    "rows of groups": (2048, 144, 3072, 176),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=list(LAYOUTS))
def test_a_product_reads_what_the_descriptors_say(warpgroup, any_order, layout):
    a, b = factors()
    d = np.full((64, N), np.nan, np.float32)
    launch(warpgroup.get_function("product"), a, b, d, *layout, 16 << 10, 5, 3)
    want = np.zeros_like(d)
    for _ in range(3):
        want = added(want, a, b)
    np.testing.assert_array_equal(d, want)
    assert np.allclose(d, 3 * bf16(a) @ bf16(b).T, atol=1e-5)


@pytest.mark.parametrize("n", [64, 208, 256])
def test_products_of_other_widths(n):
    a, b = factors(n)
    d = np.full((64, n), np.nan, np.float32)
    function = load(COLUMNS=n).get_function("product")
    launch(function, a, b, d, 1024, 128, n * 16 + 16, 128, 2048, 1, 1)
    np.testing.assert_array_equal(d, added(np.zeros_like(d), a, b))


def test_the_sums_are_there_after_the_wait_for_them(warpgroup, any_order):
    a, b = factors()
    before, one_pending, end = d = np.zeros((3, 64, N), np.float32)
    launch(warpgroup.get_function("pending"), a, b, d, 0)
    assert np.isnan(before).all()
    assert np.isnan(one_pending).all()
    np.testing.assert_array_equal(end, added(added(np.zeros_like(end), a, b), a, b))


def test_factors_written_before_the_wait_make_the_sums_unknown(warpgroup):
    a, b = factors()
    d = np.zeros((3, 64, N), np.float32)
    launch(warpgroup.get_function("pending"), a, b, d, 1)
    assert np.isnan(d[2]).all()


def test_copies_need_a_fence(warpgroup):
    x, d = np.zeros((2 * (64 + N), 4), np.uint32), np.ones((64, N), np.float32)
    launch(warpgroup.get_function("copied"), x, d, 1, 4)
    assert (d == 0).all()
    says = r"multiply_async at warpgroup.cu:\d+: row 0 .* copied by thread \d+ without an async_p"
    with pytest.raises(emulator.EmulatorError, match=says):
        launch(warpgroup.get_function("copied"), x, d, 0, 4)


def test_sums_need_a_fence():
    a, b = factors()
    d = np.zeros((64, N), np.float32)
    with pytest.raises(emulator.EmulatorError, match=r"expected warpgroup_fence\(\) first"):
        launch(load(NO_FENCE=1).get_function("product"), a, b, d, *LAYOUTS["padded"], 8192, 0, 1)


def test_all_four_warps_take_part(warpgroup):
    x, d = np.zeros((2 * (64 + N), 4), np.uint32), np.ones((64, N), np.float32)
    with pytest.raises(emulator.BarrierDivergence, match=r"warp 3 of warpgroup 0 began 0 of its 1"):
        launch(warpgroup.get_function("copied"), x, d, 1, 3)
    with pytest.raises(
        emulator.EmulatorError, match=r"a warpgroup is 4 warps, .* the block has 3 warps"
    ):
        launch(warpgroup.get_function("copied"), x, d, 1, 4, threads=96)


@pytest.mark.parametrize(
    ("swizzle", "bytes_given", "says"),
    [(1 << 62, SHARED, "a descriptor has a swizzle"), (0, 4096, "outside of shared memory")],
)
def test_a_descriptor_that_reads_elsewhere_is_refused(swizzle, bytes_given, says):
    a, b = factors()
    d = np.zeros((64, N), np.float32)
    function = load(SWIZZLE=f"{swizzle}ull").get_function("product")
    stray = 2048 if swizzle else 0
    with pytest.raises(emulator.EmulatorError, match=says):
        launch(
            function, a, b, d, 1024, 128, N * 16, 128, 2048, stray // 16, 1, shared=bytes_given
        )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ((8, 128, 128), "the matrix's address is "),
        ((0, 100, 128), "leading_bytes is 100; expected a multiple of 16 from 0 to 262128"),
        ((0, 128, -16), "stride_bytes is -16"),
        ((0, 128, 1 << 18), "stride_bytes is 262144"),
        ((1 << 20, 128, 128), "does not begin in shared memory"),
    ],
)
def test_a_descriptor_has_limits(warpgroup, fields, says):
    with pytest.raises(
        emulator.EmulatorError, match=rf"matrix_descriptor at warpgroup.cu:\d+: .*{says}"
    ):
        launch(warpgroup.get_function("described"), *fields)


def recorded(late=0):
    a, b = factors()
    d = np.zeros((3, 64, N), np.float32)
    return xray.record(
        SOURCE, (1,), (128,), (a, b, d, np.int32(late)), shared_mem=SHARED, kernel="pending",
        outputs=[d], defines={"SWIZZLE": "0"}, include_dirs=[ROOT],
    )  # fmt: skip


def test_the_xray_counts_what_a_product_reads_and_does():
    recording = recorded()
    assert recording.findings == ()
    assert recording.tensor_flops == {"bf16": 2 * 2 * 64 * N * 16}
    reads = [a for a in recording.accesses if a.space == "shared" and a.operation == "read"]
    # 64 + N rows of 32 bytes, 128 at a time, twice.
    assert sum(a.wavefronts for a in reads) == 2 * (64 + N) * 32 // 128
    assert {a.width for a in reads} == {16}
    assert {Path(a.file).name for a in reads} == {"warpgroup.cu"}


def test_the_xray_sees_a_write_that_no_barrier_keeps_apart():
    assert {finding.kind for finding in recorded(late=1).findings} == {"race"}
