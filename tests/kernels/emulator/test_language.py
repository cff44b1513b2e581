"""Types, arguments, math, intrinsics, atomics."""

import numpy as np
import pytest

from kernels import emulator

SHAPE = np.dtype([("n", "i4"), ("c", "i4"), ("scale", "f8"), ("flag", "u1")], align=True)
FLOAT4 = np.dtype([(axis, "f4") for axis in "xyzw"])


def test_structs_by_value(language):
    shape = np.array((3, -4, 0.25, 200), SHAPE)[()]
    vector = np.array((1, 2, 3, 4), FLOAT4)[()]
    out = np.zeros(7)
    language.get_function("by_value")((1,), (1,), (shape, vector, True, np.int16(-5), out))
    np.testing.assert_array_equal(out, [3, -4, 0.25, 200, 4321, 1, -5])


def test_scalars_as_cupy_sends_them(language):
    out = np.zeros(7)
    args = (np.int32(-1), np.uint32(2**32 - 1), 2**40, np.float32(0.1), 0.1, out, None)
    language.get_function("scalars")((1,), (1,), args)
    np.testing.assert_array_equal(out, [-1, 2**32 - 1, 2**40, np.float32(0.1), 0.1, 1, 3.0])


def test_vector_layouts(language):
    out = np.full(50, -1, np.int32)
    language.get_function("layouts")((1,), (1,), (out,))
    # The CUDA programming guide's table of vector types: size, alignment.
    expected = [
        *[1, 1, 2, 2, 3, 1, 4, 4],
        *[2, 2, 4, 4, 6, 2, 8, 8],
        *[4, 4, 8, 8, 12, 4, 16, 16],
        *[8, 8, 16, 16, 24, 8, 32, 16],
        *[4, 4, 8, 8, 12, 4, 16, 16],
        *[8, 8, 16, 16, 24, 8, 32, 16],
        *[12, 4],
    ]
    np.testing.assert_array_equal(out, expected)


def test_vector_pointers_take_arrays_of_their_components(language):
    x = np.arange(32, dtype=np.float32)
    y = np.zeros((8, 2), np.float32)
    language.get_function("vectors")((1,), (8,), (x, y))
    np.testing.assert_array_equal(y, x.reshape(8, 2, 2).sum(axis=2))


def test_single_precision_math(language):
    x = np.array([0.25, 1.0, 2.0, 7.5], np.float32)
    out = np.zeros((4, 16), np.float32)
    language.get_function("single_math")((1,), (32,), (x, out, np.int32(4)))
    d = x.astype(float)
    expected = [
        np.sqrt(d), 1 / np.sqrt(d), np.exp(d), d * d + 1, 3 * d, d * d + 1, np.maximum(d, 1),
        np.maximum(d, 1) + 7, np.tanh(d), 0 * d, d / 3, np.clip(d, 0, 1), d**1.5,
        np.floor(d) + np.ceil(d) + d, np.log(d), d**2 + 0.5,
    ]  # fmt: skip
    np.testing.assert_allclose(out.T, expected, rtol=3e-7, atol=1e-7)


def test_integer_intrinsics(language):
    out = np.zeros(20, np.int32)
    language.get_function("integers")((1,), (1,), (out,))
    expected = [
        8, 31, 32, 4, 1, -15, 2, 0x3F800000, 1, 0x77441100 & ~0xFFFF0000 | 0x77440000,
        2, -2, 3, 2**31 - 1, 64, 15, 3, 1, 6, 800,
    ]  # fmt: skip
    np.testing.assert_array_equal(out, expected)


def test_atomic_additions_from_many_blocks(atomics, any_order):
    total = 64 * 96
    i, u = np.zeros(1, np.int32), np.zeros(1, np.uint32)
    long, f, d = np.zeros(1, np.uint64), np.zeros(1, np.float32), np.zeros(1)
    atomics.get_function("add")((64,), (96,), (i, u, long, f, d))
    assert (i[0], u[0], long[0], f[0], d[0]) == (total, 2 * total, 3 * total, total, total / 2)


def test_other_atomics(atomics, any_order):
    v = np.array([0, 1000, -1000, 255, 0, 0, 0, 0, 0, 0], np.int32)
    atomics.get_function("others")((8,), (32,), (v,))
    xor = np.bitwise_xor.reduce(np.arange(256))
    assert list(v) == [-256, 0, 255, 0, 255, xor, 9, 11, 256 % 7, (-256) % 7]


def test_histogram(atomics, any_order):
    x = np.random.default_rng(2).integers(0, 16, 5000).astype(np.int32)
    bins = np.zeros(16, np.int32)
    atomics.get_function("histogram")((40,), (128,), (x, bins, np.int32(5000)))
    np.testing.assert_array_equal(bins, np.bincount(x, minlength=16))


def refused(fn, args, message, grid=(1,), block=(1,), shared_mem=0):
    with pytest.raises(emulator.LaunchError, match=message) as told:
        fn(grid, block, args, shared_mem=shared_mem)
    assert isinstance(told.value, ValueError)


def test_arguments_that_do_not_fit(language):
    fn = language.get_function("vectors")
    x, y = np.zeros(4, np.float32), np.zeros(2, np.float32)
    refused(fn, (x,), r"vectors: got 1 arguments; it takes 2 \(const float4\*, float2\*\)")
    refused(fn, (x.astype(float), y), r"vectors: argument 1: got an array of float64; wanted .*"
            r"const float4\*: an array of float32")  # fmt: skip
    refused(fn, (np.zeros(8, np.float32)[::2], y), "argument 1: .*not C-contiguous")
    refused(fn, (np.zeros(5, np.float32), y), "argument 1: got 20 bytes, no multiple of its 16")
    refused(fn, (np.zeros(8, np.float32)[1:5], y), "address that is no multiple of 16")
    refused(fn, ([1.0], y), "argument 1: got a Python list")
    y.flags.writeable = False
    refused(fn, (x, y), "argument 2: got an array of float32 that is read-only.*writeable")
    x.flags.writeable = False
    fn((1,), (1,), (x, np.zeros(2, np.float32)))


def test_scalars_that_do_not_fit(language):
    fn = language.get_function("scalars")
    right = [np.int32(1), np.uint32(1), 1, np.float32(1), 1.0, np.zeros(7), None]
    for number, value, message in [
        (1, 1, r"got a Python int \(sent as 64 bits\); wanted int: np.int32"),
        (1, np.float32(1), "got np.float32; wanted int"),
        (2, np.int32(-1), "got np.int32 of value -1; wanted unsigned int: np.uint32"),
        (4, 1.0, r"got a Python float \(sent as double\); wanted float: np.float32"),
        (5, np.float32(1), "got np.float32; wanted double"),
        (5, None, "got a Python NoneType"),
        (3, right[5], "got an array of float64"),
    ]:
        args = [*right[: number - 1], value, *right[number:]]
        refused(fn, args, rf"scalars: argument {number}: {message}")


def test_structs_that_do_not_fit(language):
    vector = np.array((1, 2, 3, 4), FLOAT4)[()]
    refused(
        language.get_function("by_value"),
        (vector, vector, True, np.int16(1), np.zeros(7)),
        r"argument 1: got a structured scalar of 16 bytes; wanted Shape: .* of 24 bytes",
    )


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((1,), (1025,), r"block.x is 1025; CUDA allows 1 to 1024"),
        ((1,), (32, 33), r"has 1056 threads; CUDA allows 1024"),
        ((1,), (1, 1, 65), r"block.z is 65"),
        ((1, 65536), (1,), r"grid.y is 65536; CUDA allows 1 to 65535"),
        ((0,), (1,), r"grid.x is 0"),
        ((2**31,), (1,), r"grid.x is 2147483648"),
        ((1, 1, 1, 1), (1,), r"expected a tuple of 1 to 3 ints"),
        (1, (1,), r"grid is 1; expected"),
        ((1.5,), (1,), r"expected a tuple of 1 to 3 ints"),
    ],
)
def test_extents_that_cuda_refuses(shared, grid, block, message):
    refused(shared.get_function("place"), (np.zeros(9, np.int32),), message, grid, block)


def test_launch_bounds(shared):
    out = np.zeros(65, np.int32)
    shared.get_function("bounded")((1,), (64,), (out,))
    assert out.sum() == 64
    refused(shared.get_function("bounded"), (out,), "its __launch_bounds__ allows 64", block=(65,))


def test_shared_memory_limits(shared):
    fn, out = shared.get_function("large"), np.zeros(32, np.int32)
    most = 48 * 1024 - 40000
    assert fn.max_dynamic_shared_size_bytes == most
    fn((1,), (32,), (out,), shared_mem=most)
    refused(fn, (out,), f"at most {most} are allowed beside 40000", shared_mem=most + 1)
    with pytest.raises(ValueError, match="expected 0 to 192448"):
        fn.max_dynamic_shared_size_bytes = 227 * 1024
    fn.max_dynamic_shared_size_bytes = 150000
    fn((1,), (32,), (out,), shared_mem=150000)
