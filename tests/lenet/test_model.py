import functools

import numpy as np
import pytest
from lenet_idx_files import squares

from kernels import cases, table
from kernels.training import linear_stack
from lenet import build_model, choose_kernels, train_steps
from lenet.data import standardise
from lenet.device import CPU
from lenet.errors import OptionError
from lenet.layers import Conv2d
from lenet.learning_layers import figures_for_one
from lenet.loss import softmax_cross_entropy
from lenet.trainer import evaluate

BATCH, STEPS = 8, 4
U = 2.0**-24


@pytest.fixture(scope="module")
def batch():
    images, labels = squares(BATCH * STEPS, seed=0)
    return standardise(images, 0.2, 0.25), labels.astype(np.int64)


@pytest.mark.parametrize(
    ("conv", "pool", "block", "activation"),
    [
        *(
            ("reference", pool, "none", activation)
            for pool in ("max:reference", "avg:reference")
            for activation in ("relu", "tanh")
        ),
        ("auto", "auto", "cpu", "relu"),
        ("auto", "auto", "fused", "relu"),
    ],
)
def test_gradient_is_the_slope_of_the_loss(batch, conv, pool, block, activation):
    choice = choose_kernels(conv, pool, CPU, block=block, activation=activation)
    model = build_model(10, choice, activation=activation, dtype=np.float64)
    x, labels = batch[0][:4].astype(np.float64), batch[1][:4]

    def loss():
        return float(softmax_cross_entropy(model.forward(x), labels)[0])

    model.backward(softmax_cross_entropy(model.forward(x), labels)[1])
    assert_slope(model, loss)


def test_the_gradient_of_a_step_in_few_launches_is_the_slope_of_the_loss(batch):
    model = build_model(10, choose_kernels("auto", "auto", CPU, block="fused"), dtype=np.float64)
    x, labels = batch[0][:4].astype(np.float64), batch[1][:4]
    figures = figures_for_one(x)
    pieces = model.learn(x, labels, figures, count=4)
    model.gradient.fill(np.nan)
    model.sum_pieces(pieces)
    loss, _ = evaluate(model, x, labels)
    assert figures.losses[0] == pytest.approx(loss, rel=1e-12)
    assert_slope(model, lambda: evaluate(model, x, labels)[0])


def test_the_layers_that_are_compiled_ahead_are_lenets():
    model = build_model(10, choose_kernels("auto", "auto", CPU, block="fused"))
    assert model.layers[-1].stack == linear_stack.LENET


def test_a_model_without_such_a_step_says_so(batch):
    model = build_model(10, choose_kernels("reference", "auto", CPU))
    assert not model.learns
    with pytest.raises(TypeError, match="last layer, linear3, has no loss"):
        model.learn(batch[0], batch[1], figures_for_one(batch[0]), count=4)


def assert_slope(model, loss):
    """Hold a model's gradient against central differences of its loss."""
    rng = np.random.default_rng(5)
    for name, weights in model.tensors(model.weights).items():
        gradient = model.tensors(model.gradient)[name].copy()
        direction = rng.standard_normal(weights.shape)
        direction /= np.linalg.norm(direction)
        before, h = weights.copy(), 1e-6
        weights += h * direction
        above = loss()
        weights[...] = before - h * direction
        below = loss()
        weights[...] = before
        # Central differences: h^2 of curvature, and the loss's own rounding divided by h.
        slope = float((gradient * direction).sum())
        assert (above - below) / (2 * h) == pytest.approx(slope, abs=2e-8, rel=1e-6), name


def curve(batch, steps=STEPS, size=BATCH, **names):
    return np.array(train_steps(*batch, steps, batch_size=size, lr=0.01, **names).losses)


@pytest.fixture(scope="module")
def references(batch):
    """Curves of the judge in float64, and how far float32 alone takes them off it."""

    @functools.cache
    def reference(kind, steps=STEPS, size=BATCH):
        names = {"conv": "reference", "pool": f"{kind}:reference", "steps": steps, "size": size}
        exact = curve(batch, **names, dtype=np.float64)
        # What rounding does to a curve is seen by disturbing it as much as rounding does: the
        # longest sum of a step is conv1's filter gradient, of N*P*Q terms, so its relative error
        # is of the order of sqrt(N*P*Q) u (Higham & Mary's probabilistic bound).
        disturbance = (size * 28 * 28) ** 0.5 * U
        images, labels = batch
        noise = np.random.default_rng(9).choice([-1, 1], images.shape)
        moved = curve((images * (1 + disturbance * noise), labels), **names, dtype=np.float64)
        rounded = curve(batch, **names)
        spread = np.maximum(np.abs(moved - exact), np.abs(rounded - exact)).max()
        return exact, 8 * spread + 4 * U

    return reference


# The simulator takes a millisecond a thread.
SLOW = ("naive_numba", "im2col_gemm_numba", "tiled_numba")
TAKES_LENET = [
    row
    for row in table.rows("conv2d")
    if not cases.refuses_lenet(row) and not row.roundoff  # `check` holds those that round
]
CONVS = [
    pytest.param(
        row.name,
        marks=[pytest.mark.slow, pytest.mark.timeout(1200)] if row.name in SLOW else (),
    )
    for row in TAKES_LENET
]
POOLS = [f"{op[:3]}:{row.name}" for op in ("max_pool2d", "avg_pool2d") for row in table.rows(op)]


def runs_on_host(operation, name):
    return table.find(operation, name).places != ("gpu",)


def run_length(operation, name):
    """Steps and images a step: on Numba's simulator every thread takes a millisecond."""
    return (2, 1) if "simulator" in table.find(operation, name).places else (STEPS, BATCH)


@pytest.mark.parametrize("conv", CONVS)
def test_loss_curve_of_every_convolution(batch, references, conv):
    if not runs_on_host("conv2d", conv):
        pytest.skip("has no emulation")
    length = run_length("conv2d", conv)
    exact, tolerance = references("max", *length)
    difference = np.abs(curve(batch, *length, conv=conv, pool="max:reference") - exact)
    assert np.all(difference <= tolerance), f"{difference} against {tolerance}"


@pytest.mark.parametrize("pool", POOLS)
def test_loss_curve_of_every_pooling(batch, references, pool):
    if not runs_on_host(f"{pool[:3]}_pool2d", pool[4:]):
        pytest.skip("has no emulation")
    length = run_length(f"{pool[:3]}_pool2d", pool[4:])
    exact, tolerance = references(pool[:3], *length)
    difference = np.abs(curve(batch, *length, conv="reference", pool=pool) - exact)
    assert np.all(difference <= tolerance), f"{difference} against {tolerance}"


@pytest.mark.parametrize("block", table.names("conv2d_relu_pool"))
def test_loss_curve_of_every_block(batch, references, block):
    if not runs_on_host("conv2d_relu_pool", block):
        pytest.skip("has no emulation")
    length = run_length("conv2d_relu_pool", block)
    exact, tolerance = references("max", *length)
    difference = np.abs(curve(batch, *length, block=block) - exact)
    assert np.all(difference <= tolerance), f"{difference} against {tolerance}"


@pytest.mark.gpu
@pytest.mark.parametrize(
    "conv",
    [row.name for row in TAKES_LENET if "gpu" in row.places],
)
def test_loss_curve_on_the_gpu(batch, references, conv):
    exact, tolerance = references("max")
    difference = np.abs(curve(batch, conv=conv, pool="max", device="gpu") - exact)
    assert np.all(difference <= tolerance), f"{difference} against {tolerance}"


def bf16(array):
    return (array.view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32)


def test_a_bf16_convolution_is_seen_in_the_curve(batch, references, monkeypatch):
    exact, tolerance = references("max")
    forward = Conv2d.forward
    monkeypatch.setattr(Conv2d, "forward", lambda self, x: forward(self, bf16(x)))
    difference = np.abs(curve(batch, conv="reference", pool="max:reference") - exact)
    assert difference.max() > 3 * tolerance


def test_a_pooling_gradient_to_the_wrong_place_is_seen_in_the_curve(batch, references, monkeypatch):
    from lenet.layers import MaxPool2d

    exact, tolerance = references("max")
    backward = MaxPool2d.backward
    monkeypatch.setattr(MaxPool2d, "backward", lambda self, dy: backward(self, dy)[..., ::-1] * 1.0)
    difference = np.abs(curve(batch, conv="reference", pool="max:reference") - exact)
    assert difference.max() > 3 * tolerance


def test_curve_falls_and_has_the_time_of_every_layer(batch):
    found = train_steps(*batch, 30, conv="cpu", pool="max:cpu", batch_size=BATCH, lr=0.02)
    assert found.losses[-1] < 0.5 * found.losses[0]
    timed = {(phase.name, phase.direction) for phase in found.seconds}
    layers = {(layer.name, way) for layer in found.model.layers for way in ("forward", "backward")}
    assert timed == layers | {("data", ""), ("loss", ""), ("update", "")}


def test_parameters_are_aligned_views_of_one_vector():
    model = build_model(10, choose_kernels("reference", "reference", CPU))
    views = model.tensors(model.weights)
    assert views["conv1.w"].shape == (6, 1, 5, 5)
    assert views["linear3.b"].shape == (10,)
    assert sum(view.size for view in views.values()) == 61706  # LeNet-5's, conv2 fully connected
    for view in views.values():
        assert np.shares_memory(view, model.weights)
        assert (view.ctypes.data - model.weights.ctypes.data) % 256 == 0


@pytest.mark.parametrize(
    ("pool", "operation", "row"),
    [
        ("auto", "max_pool2d", "cpu"),
        ("max", "max_pool2d", "max"),
        ("avg", "avg_pool2d", "avg"),
        ("cpu", "max_pool2d", "cpu"),
        ("reference", "max_pool2d", "reference"),
        ("avg:cpu", "avg_pool2d", "cpu"),
        ("avg:auto", "avg_pool2d", "cpu"),
    ],
)
def test_what_pool_means(pool, operation, row):
    assert choose_kernels("auto", pool, CPU)[:3] == ("cpu", operation, row)


@pytest.mark.parametrize(
    ("conv", "pool", "activation", "block"),
    [
        ("auto", "auto", "relu", "cpu"),
        ("auto", "max:auto", "relu", "cpu"),
        ("cpu", "auto", "relu", "none"),
        ("auto", "max", "relu", "none"),
        ("auto", "avg:auto", "relu", "none"),
        ("auto", "auto", "tanh", "none"),
    ],
)
def test_a_block_stands_in_where_nothing_else_was_named(conv, pool, activation, block):
    choice = choose_kernels(conv, pool, CPU, activation=activation)
    assert choice.block == block
    layers = build_model(10, choice, activation=activation).layers
    assert len(layers) == (3 if block == "cpu" else 12)
    assert choose_kernels(conv, pool, CPU, block="none", activation=activation).block == "none"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"block": "median"}, "--block median: no such kernel; there are auto, none, reference"),
        ({"block": "cpu", "conv": "naive"}, "leave out --conv naive, or the block"),
        ({"block": "cpu", "pool": "avg"}, "in one; leave out --pool avg, or the block"),
        ({"block": "cpu", "activation": "tanh"}, "leave out --activation tanh, or the block"),
    ],
)
def test_a_block_that_cannot_be(names, message):
    names = {"conv": "auto", "pool": "auto"} | names
    with pytest.raises(OptionError, match=message):
        choose_kernels(names.pop("conv"), names.pop("pool"), CPU, **names)


def test_a_model_of_blocks_has_the_parameters_of_a_model_without():
    blocks, apart = (
        build_model(10, choose_kernels("auto", "auto", CPU, block=block))
        for block in ("cpu", "none")
    )
    ours, theirs = (model.tensors(model.weights) for model in (blocks, apart))
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("conv", "pool", "message"),
    [
        ("winograd9", "auto", "--conv winograd9: no such kernel; there are auto, reference, cpu"),
        ("auto", "median", "--pool median: no such pooling kernel; there are max:auto, max:ref"),
        ("auto", "median:cpu", "--pool median:cpu: no such pooling kernel"),
        ("auto", "avg:max", "--pool avg:max: no such pooling kernel"),
    ],
)
def test_unknown_kernels(conv, pool, message):
    with pytest.raises(OptionError, match=message):
        choose_kernels(conv, pool, CPU)


def test_a_host_kernel_is_refused_on_a_gpu():
    gpu = CPU._replace(name="gpu")
    message = "--conv cpu: it does not run with --device gpu; there conv2d has naive"
    with pytest.raises(OptionError, match=message):
        choose_kernels("cpu", "max", gpu)
