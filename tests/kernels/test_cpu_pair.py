"""Two `cpu` blocks in one go, against the judge one block after the other."""

import numba
import numpy as np
import pytest

import kernels
from kernels.conv2d.cpu_lanes import WIDE
from kernels.conv2d_relu_pool import cpu_pair, cpu_pair_gradient
from kernels.shapes import BlockShape
from lenet.layers import ConvBlock, ConvBlockPair

# Images, the filters of both blocks, and their options.
SHAPES = {
    "lenet": ((259, 1, 28, 28), (6, 1, 5, 5), (16, 6, 5, 5), {"padding": 2}, {}),
    "strides": (
        (257, 1, 31, 22), (4, 1, 2, 3), (5, 4, 5, 3), {"padding": (1, 0)},
        {"pool": (2, 3), "dilation": (2, 1)},
    ),
    "tall windows": (
        (258, 3, 33, 27), (6, 3, 4, 3), (5, 6, 2, 3),
        {"stride": (2, 1), "dilation": (1, 2), "pool": (3, 2)}, {"stride": 2, "pool": (1, 2)},
    ),
}  # fmt: skip


def drawn(name):
    """Return x, the parameters, dy and the shapes of both blocks."""
    input_shape, filters1, filters2, options1, options2 = SHAPES[name]
    first = BlockShape.of(input_shape, filters1, **options1)
    second = BlockShape.of(first.output_shape, filters2, **options2)
    if not WIDE:
        pytest.skip("the pair wants registers of 512 bits here")
    rng = np.random.default_rng(5)
    dims = input_shape, filters1, filters1[:1], filters2, filters2[:1], second.output_shape
    x, *parameters, dy = (rng.standard_normal(d).astype(np.float32) for d in dims)
    return x, parameters, dy, first, second


def paired(x, parameters, dy, first, second):
    """Return y, dw1, db1, dw2, db2, and nothing that was not written."""
    assert cpu_pair.takes(first, second, x.itemsize)
    y, kept = cpu_pair.forward(x, parameters, first, second)
    gradients = tuple(np.full_like(array, np.nan) for array in parameters)
    cpu_pair_gradient.backward(x, kept, dy, parameters[2], gradients, first, second)
    return y, *gradients


def one_by_one(name, x, parameters, dy, kernel):
    """Return the same by two calls of the public face."""
    *_, options1, options2 = SHAPES[name]
    w1, b1, w2, b2 = parameters
    how1, how2 = options1 | {"kernel": kernel}, options2 | {"kernel": kernel}
    middle, argmax1 = kernels.conv2d_relu_pool(x, w1, b1, **how1, return_argmax=True)
    y, argmax2 = kernels.conv2d_relu_pool(middle, w2, b2, **how2, return_argmax=True)
    between = kernels.conv2d_relu_pool_backward_data(dy, argmax2, w2, middle.shape, **how2)
    return (
        y,
        kernels.conv2d_relu_pool_backward_filter(x, between, argmax1, w1.shape, **how1),
        kernels.conv2d_relu_pool_backward_bias(between, argmax1, kernel=kernel),
        kernels.conv2d_relu_pool_backward_filter(middle, dy, argmax2, w2.shape, **how2),
        kernels.conv2d_relu_pool_backward_bias(dy, argmax2, kernel=kernel),
    )


@pytest.mark.parametrize("name", SHAPES)
def test_whole_numbers_are_exact(name):
    x, parameters, dy, first, second = drawn(name)
    x, dy = np.rint(x), np.rint(dy)
    parameters = [np.rint(array) for array in parameters]
    wanted = one_by_one(name, x, parameters, dy, "reference")
    assert max(np.abs(array).max() for array in wanted) < 2**24  # sums of such are exact
    for got, want in zip(paired(x, parameters, dy, first, second), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_bits_do_not_depend_on_threads():
    arrays = drawn("lenet")
    together = paired(*arrays)
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = paired(*arrays)
    finally:
        numba.set_num_threads(threads)
    for a, b in zip(together, alone, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("spoiled", ["x", "w1", "w2", "dy"])
def test_what_is_not_finite_goes_where_it_goes_one_by_one(spoiled, value):
    x, parameters, dy, first, second = drawn("lenet")
    array = {"x": x, "w1": parameters[0], "w2": parameters[2], "dy": dy}[spoiled]
    array[len(array) // 2, :, 2, 2] = value  # of dy, open windows and closed ones
    wanted = one_by_one("lenet", x, parameters, dy, "cpu")
    got = paired(x, parameters, dy, first, second)
    assert not all(np.isfinite(array).all() for array in got)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        np.testing.assert_array_equal(np.isinf(a), np.isinf(b))


@pytest.mark.parametrize(("images", "padding"), [(300, 0), (300, 1), (5, 0)])
def test_a_layer_of_two_blocks_is_the_blocks_one_by_one(images, padding):
    rng = np.random.default_rng(6)
    pair, apart = (
        [ConvBlock("a", 1, 6, 5, padding=2, kernel="cpu", first=True),
         ConvBlock("b", 6, 16, 5, padding=padding, kernel="cpu")]
        for _ in range(2)
    )  # fmt: skip
    for one, other in zip(pair, apart, strict=True):
        for name, shape in one.shapes.items():
            drawn = rng.standard_normal(shape).astype(np.float32)
            for layer in (one, other):
                setattr(layer, name, drawn)
                setattr(layer, "d" + name, np.full_like(drawn, np.nan))
    both = ConvBlockPair(*pair)
    x = rng.standard_normal((images, 1, 28, 28)).astype(np.float32)
    y = both.forward(x)
    np.testing.assert_array_equal(y, apart[1].forward(apart[0].forward(x)))
    together = (images, padding) == (300, 0) and WIDE
    assert both.together == together  # else this test would compare one thing with itself
    dy = rng.standard_normal(y.shape).astype(np.float32)
    assert both.backward(dy) is None
    apart[0].backward(apart[1].backward(dy))
    for one, other in zip(pair, apart, strict=True):
        for name in one.shapes:
            got, want = getattr(one, "d" + name), getattr(other, "d" + name)
            # Sums of the same products, 300 images of them, in another order.
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5 * np.abs(want).max())
