import doctest
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import BlockShape, Conv2dShape, PoolShape, checks, receptive_field, shapes


def conv_extent(extent, size, **how):
    """Output rows and columns of a square convolution."""
    shape = Conv2dShape.of((1, 1, extent, extent), (1, 1, size, size), **how)
    return shape.p, shape.q


def test_examples_in_the_docstrings():
    result = doctest.testmod(shapes)
    assert result.attempted >= 3
    assert not result.failed


# Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", chapters 2 and 5.
@pytest.mark.parametrize(
    ("figure", "i", "k", "s", "p", "d", "o"),
    [
        ("2.1 no padding", 4, 3, 1, 0, 1, 2),
        ("2.2 arbitrary padding", 5, 4, 1, 2, 1, 6),
        ("2.3 half padding", 5, 3, 1, 1, 1, 5),
        ("2.4 full padding", 5, 3, 1, 2, 1, 7),
        ("2.5 stride", 5, 3, 2, 0, 1, 2),
        ("2.6 padding and stride", 5, 3, 2, 1, 1, 3),
        ("2.7 the same, and the floor drops a row", 6, 3, 2, 1, 1, 3),
        ("5.1 dilation", 7, 3, 1, 0, 2, 3),
    ],
)
def test_output_size_of_dumoulin_and_visins_figures(figure, i, k, s, p, d, o):
    assert conv_extent(i, k, stride=s, padding=p, dilation=d) == (o, o)


@pytest.mark.parametrize(
    ("extent", "stride", "outputs"), [(7, 2, 3), (8, 2, 3), (9, 2, 4), (10, 4, 2), (3, 9, 1)]
)
def test_output_size_is_floored(extent, stride, outputs):
    assert conv_extent(extent, 3, stride=stride) == (outputs, outputs)
    pooled = PoolShape.of((1, 1, extent, extent), 3, stride=stride)
    assert (pooled.p, pooled.q) == (outputs, outputs)


def test_every_extent_by_hand():
    shape = Conv2dShape.of(
        (2, 3, 11, 17), (5, 3, 4, 2), stride=(2, 3), padding=((1, 0), (2, 5)), dilation=(3, 4)
    )
    # rows: (11 + 1 + 0 - 10) / 2 + 1 = 2; columns: (17 + 2 + 5 - 5) / 3 = 6.33 -> 7
    assert shape == (2, 3, 11, 17, 5, 4, 2, 2, 7, 2, 3, 1, 0, 2, 5, 3, 4)
    assert shape.input_shape == (2, 3, 11, 17)
    assert shape.filter_shape == (5, 3, 4, 2)
    assert shape.output_shape == (2, 5, 2, 7)
    assert shape.stride == (2, 3)
    assert shape.padding == ((1, 0), (2, 5))
    assert shape.dilation == (3, 4)
    assert shape.window == (10, 5)
    assert all(type(extent) is int for extent in shape)


def test_every_pooling_extent_by_hand():
    shape = PoolShape.of(
        (2, 3, 11, 17), (4, 2), stride=(2, 3), padding=((1, 0), (1, 0)), include_pad=True
    )
    # rows: (11 + 1 - 4) / 2 + 1 = 5; columns: (17 + 1 - 2) / 3 = 5.33 -> 6
    assert shape == (2, 3, 11, 17, 4, 2, 5, 6, 2, 3, 1, 0, 1, 0, 1)
    assert shape.output_shape == (2, 3, 5, 6)
    assert shape.input_shape == (2, 3, 11, 17)
    assert shape.window == (4, 2)
    assert shape.stride == (2, 3)
    assert shape.padding == ((1, 0), (1, 0))


def test_a_pools_stride_is_its_size_unless_given():
    assert PoolShape.of((1, 1, 12, 12), (3, 2)).stride == (3, 2)
    assert PoolShape.of((1, 1, 12, 12), 3, stride=1).stride == (1, 1)
    assert PoolShape.of((1, 1, 12, 12)).output_shape == (1, 1, 6, 6)


@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        (0, ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        (np.int64(2), ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ([[1, 2], [3, 4]], ((1, 2), (3, 4))),
        ("valid", ((0, 0), (0, 0))),
        ("VALID", ((0, 0), (0, 0))),
        ("same", ((2, 2), (1, 2))),
        ("Same", ((2, 2), (1, 2))),
    ],
)
def test_padding_as_it_may_be_written(padding, sides):
    shape = Conv2dShape.of((1, 1, 9, 9), (1, 1, 5, 4), padding=padding)
    assert shape.padding == sides
    assert shape.p == 9 + sum(sides[0]) - 4
    assert shape.q == 9 + sum(sides[1]) - 3


@pytest.mark.parametrize(
    ("extent", "size", "stride", "dilation", "sides"),
    [
        (5, 3, 1, 1, (1, 1)),
        (5, 2, 1, 1, (0, 1)),  # an odd remainder: the extra row at the bottom
        (6, 4, 1, 1, (1, 2)),
        (6, 3, 2, 1, (0, 1)),
        (5, 3, 2, 1, (1, 1)),
        (7, 3, 3, 1, (1, 1)),
        (8, 3, 3, 1, (0, 1)),
        (9, 3, 3, 1, (0, 0)),
        (5, 3, 1, 2, (2, 2)),
        (6, 2, 4, 3, (1, 1)),
        (5, 1, 4, 1, (0, 0)),  # stride > filter: nothing to add
    ],
)
def test_same_padding_by_hand(extent, size, stride, dilation, sides):
    shape = Conv2dShape.of(
        (1, 1, extent, extent), (1, 1, size, size),
        stride=stride, padding="same", dilation=dilation,
    )  # fmt: skip
    assert shape.padding == (sides, sides)
    assert shape.p == shape.q == math.ceil(extent / stride)


sizes = st.integers(1, 40)
small = st.integers(1, 7)


@given(h=sizes, w=sizes, r=small, s=small, stride=st.tuples(small, small), dilation=small)
def test_same_gives_ceil_of_input_by_stride(h, w, r, s, stride, dilation):
    shape = Conv2dShape.of(
        (1, 1, h, w), (1, 1, r, s), stride=stride, padding="same", dilation=dilation
    )
    assert shape.p == -(-h // stride[0])
    assert shape.q == -(-w // stride[1])
    for before, after in shape.padding:
        assert 0 <= after - before <= 1
    pool = PoolShape.of((1, 1, h, w), (r, s), stride=stride, padding="same")
    assert (pool.p, pool.q) == (shape.p, shape.q)


@given(
    extent=sizes, size=small, stride=small, dilation=small, pads=st.tuples(small, small)
)  # fmt: skip
def test_output_size_counts_the_windows_that_fit(extent, size, stride, dilation, pads):
    window = (size - 1) * dilation + 1
    begins = range(0, extent + sum(pads) - window + 1, stride)
    if not begins:
        return
    shape = Conv2dShape.of(
        (1, 1, extent, 50), (1, 1, size, 1),
        stride=(stride, 1), padding=(pads, (0, 0)), dilation=(dilation, 1),
    )  # fmt: skip
    assert shape.p == len(begins)


def test_filter_maths_of_the_lecture():
    # 32 filters of 3x3 on 5x5x3: 27 weights each.
    shape = Conv2dShape.of((1, 3, 5, 5), (32, 3, 3, 3))
    assert shape.output_shape == (1, 32, 3, 3)
    assert shape.parameters(bias=False) == 32 * 27
    assert shape.parameters() == 896


def test_work_by_hand():
    shape = Conv2dShape.of((2, 3, 5, 7), (4, 3, 3, 2), stride=(2, 1))
    assert shape.output_shape == (2, 4, 2, 6)
    assert shape.parameters() == 4 * (3 * 2 * 3) + 4 == 76
    assert shape.flops == 2 * (2 * 4 * 2 * 6) * (3 * 3 * 2) == 3456
    assert shape.least_bytes() == 4 * (210 + 72 + 96) == 1512
    assert shape.least_bytes(itemsize=8) == 3024
    assert shape.intensity() == 3456 / 1512
    assert shape.intensity(itemsize=8) == 3456 / 3024


def test_work_of_a_pooling_by_hand():
    shape = PoolShape.of((2, 3, 6, 7), (3, 2))
    assert shape.output_shape == (2, 3, 2, 3)
    assert shape.flops == 36 * 6
    assert shape.least_bytes() == 4 * (252 + 36)
    assert shape.least_bytes(8) == 8 * (252 + 36)
    assert shape.intensity() == 216 / 1152


def test_empty_batch_has_no_work():
    conv = Conv2dShape.of((0, 1, 5, 5), (2, 1, 3, 3))
    assert (conv.flops, conv.intensity(), conv.output_shape) == (0, 0, (0, 2, 3, 3))
    pool = PoolShape.of((0, 1, 4, 4))
    assert (pool.flops, pool.intensity(), pool.output_shape) == (0, 0, (0, 1, 2, 2))


@pytest.mark.parametrize(
    "shape",
    [
        Conv2dShape(*range(101, 118)),
        BlockShape(*range(101, 122)),
        PoolShape(*range(101, 116)),
    ],
)
def test_struct_holds_every_field_as_int32_in_order(shape):
    struct = shape.struct
    assert struct.dtype.names == shape._fields
    assert struct.dtype.itemsize == 4 * len(shape), "no gaps"
    assert np.frombuffer(struct.tobytes(), np.int32).tolist() == list(shape)


CONV_LETTERS = (
    "n c h w k r s p q stride_h stride_w pad_top pad_bottom pad_left pad_right "
    "dilation_h dilation_w"
)


def test_field_order_is_the_contracts():
    assert " ".join(Conv2dShape._fields) == CONV_LETTERS
    assert " ".join(PoolShape._fields) == (
        CONV_LETTERS.replace("k ", "").replace("dilation_h dilation_w", "include_pad")
    )


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([], (1, 1)),
        ([5], (5, 5)),
        ([3, 3], (5, 5)),
        ([3, 3, 3], (7, 7)),
        ([(3, 1, 2)], (5, 5)),
        ([(3, 2), 3], (7, 7)),  # the second filter's neighbours are 2 apart
        ([(3, 2), (3, 2), 3], (15, 15)),
        ([(1, 2), 3], (5, 5)),
        ([((3, 5), (2, 1), (1, 2)), (3, 1)], (7, 11)),
        ([[3, 2], [3]], (7, 7)),
        # LeNet: 5 -> +1 -> +4*2 -> +1*2, then a 5x5 at jump 4 sees all 32
        ([5, (2, 2), 5, (2, 2)], (16, 16)),
        ([5, (2, 2), 5, (2, 2), 5], (32, 32)),
    ],
)
def test_receptive_field_by_hand(layers, field):
    assert receptive_field(layers) == field


def test_receptive_field_of_shapes():
    layers = [
        Conv2dShape.of((1, 1, 28, 30), (6, 1, 5, 3), padding=2),
        PoolShape.of((1, 6, 28, 32), (2, 3)),
        Conv2dShape.of((1, 6, 14, 10), (16, 6, 5, 3), dilation=(1, 2), stride=(2, 1)),
        PoolShape.of((1, 16, 5, 6), 2),
    ]
    # rows: 5 + 1 + 4*2 + 1*4; columns: 3 + 2 + 4*3 + 1*3
    assert receptive_field(layers) == (18, 20)


def one_output_reads(layers, extent):
    """Rows of the input that reach the first output, found by following the windows back."""
    reached = {0}
    for size, stride, dilation in reversed(layers):
        reached = {at * stride + tap * dilation for at in reached for tap in range(size)}
    assert max(reached) < extent
    return max(reached) - min(reached) + 1


@given(st.lists(st.tuples(small, st.integers(1, 3), st.integers(1, 3)), max_size=5))
def test_receptive_field_is_what_one_output_reads(layers):
    assert receptive_field(layers) == (one_output_reads(layers, 10**6),) * 2


LIMIT = checks.INDEX_LIMIT


def test_the_largest_tensor_that_is_allowed():
    assert LIMIT < 2**31
    shape = Conv2dShape.of((1, 1, 1, LIMIT), (1, 1, 1, 1))
    assert shape.q == LIMIT
    assert PoolShape.of((LIMIT, 1, 1, 1), 1).n == LIMIT
    assert shape.struct["w"] == LIMIT


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Conv2dShape.of((1, 1, 2, LIMIT // 2 + 1), (1, 1, 1, 1)),
         f"conv2d: x of shape (1, 1, 2, {LIMIT // 2 + 1}) has {LIMIT + 2} elements; kernels index "
         f"with 32 bits, at most {LIMIT}: split the batch"),
        (lambda: Conv2dShape.of((1, 1, 1, LIMIT + 1), (1, 1, 1, 1)),
         f"conv2d: W of x shape is {LIMIT + 1}; kernels index with 32 bits, expected at most "
         f"{LIMIT}"),
        (lambda: Conv2dShape.of((2**16, 1, 1, 1), (2**16, 1, 1, 1)),
         f"conv2d: y of shape (65536, 65536, 1, 1) has {2**32} elements; kernels index with 32 "
         f"bits, at most {LIMIT}: split the batch"),
        (lambda: Conv2dShape.of((1, 2**16, 1, 1), (2**16, 2**16, 1, 1)),
         f"conv2d: w of shape (65536, 65536, 1, 1) has {2**32} elements; kernels index with 32 "
         f"bits, at most {LIMIT}: use fewer filters"),
        (lambda: Conv2dShape.of((1, 1, 1, 1), (1, 1, 1, 1), padding=(0, LIMIT)),
         f"conv2d: padded input width is {2 * LIMIT + 1}; kernels index with 32 bits, expected at "
         f"most {LIMIT}"),
        (lambda: Conv2dShape.of((1, 1, 1, 1), (1, 1, 1, 1), padding=(LIMIT, 0)),
         f"conv2d: padded input height is {2 * LIMIT + 1}; kernels index with 32 bits, expected at "
         f"most {LIMIT}"),
        (lambda: PoolShape.of((2**11, 2**10, 2**5, 2**6)),
         f"pool2d: x of shape (2048, 1024, 32, 64) has {2**32} elements; kernels index with 32 "
         f"bits, at most {LIMIT}: split the batch"),
        (lambda: PoolShape.of((2, 1, 2**15, 2**14), 2, stride=1, padding=2**14),
         "pool2d: padding (16384, 16384) makes a window of 2 rows all padding (input 32768, "
         "stride 1); expected every window to hold an input element: use less padding"),
        (lambda: PoolShape.of((1, 2, 2**15, 2**14), 2**14, stride=1, padding=2**14 - 1),
         f"pool2d: y of shape (1, 2, 49151, 32767) has {2 * 49151 * 32767} elements; kernels index "
         f"with 32 bits, at most {LIMIT}: split the batch"),
    ],
)  # fmt: skip
def test_sizes_past_the_index_limit(make, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        make()


@pytest.mark.parametrize(
    ("layers", "error", "text"),
    [
        ([()], ValueError,
         "receptive_field: layer (); expected a size or (size[, stride[, dilation]])"),
        ([(3, 1, 1, 1)], ValueError, "receptive_field: layer (3, 1, 1, 1); expected a size or "
                                     "(size[, stride[, dilation]])"),
        (["3x3"], TypeError, "receptive_field: size is '3x3' (str); expected an int or (vertical, "
                             "horizontal)"),
        ([(3, 0)], ValueError, "receptive_field: stride is 0; expected at least 1"),
        ([(3, 1, -1)], ValueError, "receptive_field: dilation is -1; expected at least 1"),
        ([0], ValueError, "receptive_field: size is 0; expected at least 1"),
        ([(3, (1, 2, 3))], ValueError, "receptive_field: stride has 3 values, (1, 2, 3); expected "
                                       "an int or (vertical, horizontal)"),
    ],
)  # fmt: skip
def test_receptive_field_refuses_what_is_no_layer(layers, error, text):
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        receptive_field(layers)
