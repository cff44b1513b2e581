import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import Conv2dShape, PoolShape, compare

U32 = 2.0**-24

# LeNet's two convolutions, with the batch cut down.
LENET = [
    Conv2dShape.of((4, 1, 28, 28), (6, 1, 5, 5), padding=2),
    Conv2dShape.of((4, 6, 14, 14), (16, 6, 5, 5)),
]

INPUTS = {
    "forward": lambda s: [s.input_shape, s.filter_shape, (s.k,)],
    "backward_data": lambda s: [s.output_shape, s.filter_shape],
    "backward_filter": lambda s: [s.input_shape, s.output_shape],
    "backward_bias": lambda s: [s.output_shape],
}


def draw(direction, shape, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(d, dtype=np.float32) for d in INPUTS[direction](shape))


def judge(got, want, bound):
    return compare.judge(np.asarray(got), np.asarray(want, np.float64), bound)


# The verdict


def test_at_the_bound_is_right_and_past_it_is_wrong():
    verdict = judge([1.5, 2.0], [1.0, 2.0], 0.5)
    assert verdict.ok
    assert verdict.worst == 1
    assert not judge([1.5, 2.0], [1.0, 2.0], 0.499).ok
    assert not judge([0.5, 2.0], [1.0, 2.0], 0.499).ok


def test_each_element_has_its_own_bound():
    verdict = judge([1.1, 1.1], [1.0, 1.0], np.array([0.2, 0.05]))
    assert verdict.wrong == 1
    assert verdict.first[0][0] == (1,)
    assert verdict.worst == pytest.approx(2)


def test_nan_fails():
    verdict = judge([1.0, np.nan], [1.0, 1.0], 1e9)
    assert (verdict.ok, verdict.wrong, verdict.worst) == (False, 1, np.inf)


def test_nan_passes_only_where_the_judge_has_it():
    assert judge([np.nan, 1.0], [np.nan, 1.0], np.array([np.nan, 0.0])).ok
    assert not judge([np.nan, 1.0], [1.0, np.nan], 1e9).ok
    assert not judge([1.0], [np.nan], np.nan).ok
    assert not judge([1.0], [np.nan], np.inf).ok
    assert not judge([1.0], [2.0], np.nan).ok


def test_inf_passes_only_where_the_judge_has_it_with_its_sign():
    bound = np.inf  # what inf among the inputs makes of it
    assert judge([np.inf, -np.inf], [np.inf, -np.inf], bound).ok
    assert not judge([np.inf], [1.0], 1e9).ok
    assert not judge([np.inf], [-np.inf], bound).ok
    assert not judge([0.0], [np.inf], bound).ok
    assert not judge([np.nan], [np.inf], bound).ok


def test_a_bound_of_0_wants_equality():
    verdict = judge([0.0, -0.0, 3.0], [0.0, 0.0, 3.0], 0.0)
    assert verdict.ok
    assert verdict.worst == 0
    verdict = judge([1e-45, 0.0], [0.0, 0.0], 0.0)
    assert (verdict.wrong, verdict.worst) == (1, np.inf)


def test_integers_are_judged_too():
    assert judge(np.array([1, 2], np.int32), np.array([1, 2]), 0.0).ok
    assert not judge(np.array([1, -1], np.int32), np.array([1, 2]), 0.0).ok


def test_an_empty_array_is_right():
    verdict = judge(np.empty((0, 3)), np.empty((0, 3)), np.empty((0, 3)))
    assert (verdict.ok, verdict.total, verdict.worst) == (True, 0, 0)


def test_other_shapes_are_no_comparison_even_where_they_broadcast():
    with pytest.raises(ValueError, match=r"^compare: got shape \(1, 3\); expected \(2, 3\)$"):
        judge(np.ones((1, 3)), np.ones((2, 3)), 1.0)


def test_the_report_names_the_places():
    got = np.zeros((2, 3, 4))
    got[0, 2, 1] = 0.5
    got[1, 0, 3] = np.nan
    verdict = judge(got, np.zeros((2, 3, 4)), 0.25)
    assert str(verdict) == (
        "2 of 24 elements wrong, worst at inf x the bound\n"
        "  [0, 2, 1] got 0.5, want 0 within 0.25\n"
        "  [1, 0, 3] got nan, want 0 within 0.25"
    )
    assert str(judge([1.0], [0.5], 0.25)).startswith("1 of 1 elements wrong, worst at 2 x the")
    assert str(judge([1.0], [0.5], 2.0)) == "ok, at 0.25 of the bound"


def test_the_report_stops_after_five_places():
    verdict = judge(np.ones(9), np.zeros(9), 0.5)
    assert verdict.wrong == 9
    assert [index for index, *_ in verdict.first] == [(0,), (1,), (2,), (3,), (4,)]


# The bound


def test_reduction_lengths_by_hand():
    shape = Conv2dShape.of((2, 3, 7, 8), (5, 3, 4, 2))  # output 4 x 7
    lengths = {d: compare.reduction_length(d, shape) for d in INPUTS}
    assert lengths == {
        "forward": 3 * 4 * 2,
        "backward_data": 5 * 4 * 2,
        "backward_filter": 2 * 4 * 7,
        "backward_bias": 2 * 4 * 7,
    }
    assert compare.reduction_length("forward", shape, bias=True) == 25
    pool = PoolShape.of((1, 1, 6, 6), (3, 2))
    assert compare.reduction_length("forward", pool) == 6
    assert compare.reduction_length("backward", pool) == 6


def test_the_bound_by_hand():
    x = np.array([1, -2, 3, -4], np.float32).reshape(1, 1, 2, 2)
    w = np.array([5, 6, -7, 8], np.float32).reshape(1, 1, 2, 2)
    shape = Conv2dShape.of(x.shape, w.shape)
    u = U32 + 2.0**-53
    [want], [bound] = compare.expected("conv2d", "forward", (x, w, None), shape, U32)
    assert want.tolist() == [[[[5 - 12 - 21 - 32]]]]
    assert bound.tolist() == [[[[(4 + 1) * u * (5 + 12 + 21 + 32)]]]]
    b = np.array([-100], np.float32)
    [want], [bound] = compare.expected("conv2d", "forward", (x, w, b), shape, U32)
    assert want.tolist() == [[[[-160]]]]
    assert bound.tolist() == [[[[(5 + 1) * u * 170]]]]


def test_the_bound_of_average_pooling_by_hand():
    x = np.array([1, -2, 3, -4], np.float32).reshape(1, 1, 2, 2)
    shape = PoolShape.of(x.shape, 2)
    [want], [bound] = compare.expected("avg_pool2d", "forward", (x,), shape, U32)
    assert want.item() == -0.5
    assert bound.item() == 5 * (U32 + 2.0**-53) * 2.5


def test_max_pooling_is_exact():
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    shape = PoolShape.of(x.shape, 2)
    want, bound = compare.expected("max_pool2d", "forward", (x,), shape, U32)
    assert want[0].ravel().tolist() == [5, 7, 13, 15]
    assert want[1].ravel().tolist() == [5, 7, 13, 15]
    assert want[1].dtype == np.int32
    assert bound == [0, 0]
    dy = np.full((1, 1, 2, 2), -1, np.float32)
    [dx], [bound] = compare.expected("max_pool2d", "backward", (dy, want[1]), shape, U32)
    assert dx.sum() == -4
    assert np.array_equal(bound != 0, dx != 0)
    assert (bound >= 0).all()


def test_padding_alone_gives_a_bound_of_0():
    x = np.ones((1, 1, 1, 1), np.float32)
    w = np.ones((1, 1, 1, 1), np.float32)
    shape = Conv2dShape.of(x.shape, w.shape, padding=1)
    [want], [bound] = compare.expected("conv2d", "forward", (x, w, None), shape, U32)
    assert np.array_equal(bound[0, 0] > 0, np.eye(3)[1][:, None] * np.eye(3)[1] > 0)
    got = want.astype(np.float32)
    assert compare.judge(got, want, bound).ok
    got[0, 0, 0, 0] = 1e-30
    assert not compare.judge(got, want, bound).ok


def test_outputs_of_every_pass():
    conv = Conv2dShape.of((2, 3, 7, 8), (5, 3, 4, 2))
    dims = {d: compare.outputs("conv2d", d, conv) for d in INPUTS}
    assert dims == {
        "forward": [((2, 5, 4, 7), None)],
        "backward_data": [((2, 3, 7, 8), None)],
        "backward_filter": [((5, 3, 4, 2), None)],
        "backward_bias": [((5,), None)],
    }
    pool = PoolShape.of((2, 3, 6, 8), 2)
    forward, backward = ((2, 3, 3, 4), None), ((2, 3, 6, 8), None)
    assert compare.outputs("max_pool2d", "forward", pool) == [forward, ((2, 3, 3, 4), np.int32)]
    assert compare.outputs("avg_pool2d", "forward", pool) == [forward]
    assert compare.outputs("max_pool2d", "backward", pool) == [backward]
    assert compare.outputs("avg_pool2d", "backward", pool) == [backward]


# What the bound lets through, and what not


def in_float32(direction, inputs, shape):
    """Run the plain reference itself, in float32: right, with float32's rounding."""
    [(dims, _)] = compare.outputs("conv2d", direction, shape)
    output = np.full(dims, np.nan, np.float32)
    getattr(compare.conv2d_reference, direction)(*inputs, output, shape)
    return output


def rounded(array, bits):
    """Round a float32 array to `bits` explicit significand bits, to nearest even."""
    cut = 23 - bits
    raw = array.view(np.uint32).astype(np.uint64)
    raw += (1 << (cut - 1)) - 1 + ((raw >> np.uint64(cut)) & np.uint64(1))
    return (raw >> np.uint64(cut) << np.uint64(cut)).astype(np.uint32).view(np.float32)


def test_rounding_to_fewer_bits():
    one = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3.0], np.float32)
    assert rounded(one, 7).tolist() == [1, 1, 1 + 2**-6, 1 + 2**-7, -3]


@pytest.mark.parametrize("shape", LENET)
@pytest.mark.parametrize("direction", INPUTS)
def test_float32_stays_far_inside(direction, shape):
    inputs = draw(direction, shape)
    [want], [bound] = compare.expected("conv2d", direction, inputs, shape, U32)
    verdict = compare.judge(in_float32(direction, inputs, shape), want, bound)
    assert verdict.ok, str(verdict)
    assert 0 < verdict.worst < 0.25


# The bound grows with the number of products faster than a rounding's share of their sum does. So
# reduced precision shows in short sums: a filter's gradient is checked on small images.
SHORT = Conv2dShape.of((1, 6, 8, 8), (16, 6, 5, 5))


@pytest.mark.parametrize(
    ("direction", "shape"),
    [
        ("forward", LENET[0]),
        ("forward", LENET[1]),
        ("backward_data", LENET[0]),
        ("backward_data", LENET[1]),
        ("backward_filter", SHORT),
    ],
)
@pytest.mark.parametrize(("bits", "least"), [(10, 2), (7, 16)], ids=["tf32", "bf16"])
def test_inputs_of_reduced_precision_fail(direction, shape, bits, least):
    inputs = draw(direction, shape)
    [want], [bound] = compare.expected("conv2d", direction, inputs, shape, U32)
    first, second, *bias = inputs
    got = in_float32(direction, (rounded(first, bits), rounded(second, bits), *bias), shape)
    verdict = compare.judge(got, want, bound)
    assert not verdict.ok
    assert verdict.worst > least


@pytest.mark.parametrize("direction", INPUTS)
def test_one_unwritten_cell_fails(direction):
    shape = LENET[1]
    inputs = draw(direction, shape)
    [want], [bound] = compare.expected("conv2d", direction, inputs, shape, U32)
    got = in_float32(direction, inputs, shape)
    got.reshape(-1)[-1] = np.nan  # what the output was filled with
    verdict = compare.judge(got, want, bound)
    assert verdict.wrong == 1
    assert verdict.first[0][0] == tuple(extent - 1 for extent in want.shape)


@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_filter"])
def test_a_product_left_out_fails(direction):
    shape = LENET[0]
    inputs = draw(direction, shape)
    [want], [bound] = compare.expected("conv2d", direction, inputs, shape, U32)
    inputs[1].reshape(-1)[7] = 0
    assert not compare.judge(in_float32(direction, inputs, shape), want, bound).ok


def test_nan_and_inf_among_the_inputs_are_followed():
    shape = LENET[0]
    inputs = draw("forward", shape)
    inputs[0][0, 0, 0, 0] = np.nan
    inputs[0][1, 0, 9, 9] = np.inf
    [want], [bound] = compare.expected("conv2d", "forward", inputs, shape, U32)
    got = in_float32("forward", inputs, shape)
    assert np.isnan(want).any()
    assert np.isinf(want).any()
    assert compare.judge(got, want, bound).ok
    wrong = np.nan_to_num(got, nan=0, posinf=0, neginf=0)
    verdict = compare.judge(wrong, want, bound)
    assert verdict.wrong == np.count_nonzero(~np.isfinite(want))


def shuffled_sum(x, w, shape, rng):
    """Convolve in float32, each output's products added one by one in a random order."""
    padded = np.pad(x, ((0, 0), (0, 0), *shape.padding))
    taps = list(np.ndindex(shape.c, shape.r, shape.s))
    rng.shuffle(taps)
    y = np.zeros(shape.output_shape, np.float32)
    for c, r, s in taps:
        top, left = r * shape.dilation_h, s * shape.dilation_w
        seen = padded[:, c, top:, left:][:, :: shape.stride_h, :: shape.stride_w]
        y += seen[:, None, : shape.p, : shape.q] * w[None, :, c, r, s, None, None]
    assert y.dtype == np.float32
    return y


few = st.integers(1, 4)


@settings(max_examples=80, deadline=None)
@given(
    dims=st.tuples(few, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    bank=st.tuples(few, few, few),
    stride=st.tuples(few, few),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pad=st.integers(0, 3),
    scale=st.integers(-20, 20),
    seed=st.integers(0, 2**20),
)
def test_float32_in_any_order_stays_inside(dims, bank, stride, dilation, pad, scale, seed):
    k, r, s = bank
    if (r - 1) * dilation[0] >= dims[2] + 2 * pad or (s - 1) * dilation[1] >= dims[3] + 2 * pad:
        return
    rng = np.random.default_rng(seed)
    shape = Conv2dShape.of(dims, (k, dims[1], r, s), stride=stride, padding=pad, dilation=dilation)
    # mixed signs and sizes, so that sums cancel
    x = (rng.standard_normal(dims) * 2.0 ** rng.integers(-9, 9, dims)).astype(np.float32)
    w = (rng.standard_normal(shape.filter_shape) * 2.0**scale).astype(np.float32)
    [want], [bound] = compare.expected("conv2d", "forward", (x, w, None), shape, U32)
    verdict = compare.judge(shuffled_sum(x, w, shape, rng), want, bound)
    assert verdict.ok, str(verdict)


def test_float64_has_its_own_unit():
    shape = LENET[1]
    inputs = tuple(a.astype(np.float64) for a in draw("forward", shape))
    u = compare.UNIT_ROUNDOFF["float64"]
    [want], [bound] = compare.expected("conv2d", "forward", inputs, shape, u)
    x, w, b = inputs
    got = np.broadcast_to(b[None, :, None, None], shape.output_shape).copy()
    for c, r, s in reversed(list(np.ndindex(6, 5, 5))):
        got += x[:, None, c, r : r + 10, s : s + 10] * w[None, :, c, r, s, None, None]
    verdict = compare.judge(got, want, bound)
    assert verdict.ok, str(verdict)
    assert not compare.judge(got.astype(np.float32), want, bound).ok
