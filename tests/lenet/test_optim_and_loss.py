import numpy as np
import pytest

from lenet.loss import softmax, softmax_cross_entropy
from lenet.optim import NesterovSGD, one_cycle


def test_one_cycle_goes_up_then_down_and_is_never_zero():
    rates = [one_cycle(step, 10, 0.5) for step in range(10)]
    up, down = [0.5 * i / 3 for i in (1, 2, 3)], [0.5 * i / 8 for i in (7, 6, 5, 4, 3, 2, 1)]
    assert rates == pytest.approx(up + down)


@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_one_cycle_peaks_once(steps):
    rates = [one_cycle(step, steps, 0.1) for step in range(steps)]
    assert max(rates) == pytest.approx(0.1)
    assert min(rates) > 0
    assert rates.index(max(rates)) == max(round(0.3 * steps), 1) - 1


def test_nesterov_by_hand():
    weights, gradient = np.array([1.0, 2.0]), np.array([0.5, -1.0])
    sgd = NesterovSGD(weights, gradient, momentum=0.5, weight_decay=0.1)
    sgd.step(0.1)
    # g = [0.6, -0.8]; v = g; weights -= 0.1 (g + 0.5 v)
    assert sgd.velocity == pytest.approx([0.6, -0.8])
    assert weights == pytest.approx([0.91, 2.12])
    gradient[...] = 0
    sgd.step(0.1)
    # g = 0.1 weights = [0.091, 0.212]; v = 0.5 v + g = [0.391, -0.188]
    assert sgd.velocity == pytest.approx([0.391, -0.188])
    assert weights == pytest.approx([0.91 - 0.1 * (0.091 + 0.1955), 2.12 - 0.1 * (0.212 - 0.094)])


def test_cross_entropy_by_hand():
    logits = np.log(np.array([[1.0, 2.0, 1.0], [3.0, 1.0, 4.0]]))
    loss, gradient = softmax_cross_entropy(logits, np.array([1, 0]))
    assert loss == pytest.approx((np.log(2) + np.log(8 / 3)) / 2)
    want = np.array([[0.25, -0.5, 0.25], [-5 / 8, 1 / 8, 4 / 8]]) / 2
    assert gradient == pytest.approx(want)


def test_cross_entropy_of_huge_logits_is_finite():
    logits = np.array([[1e30, 0.0, -1e30]], np.float32)
    loss, gradient = softmax_cross_entropy(logits, np.array([0]))
    assert loss == 0
    assert np.all(gradient == 0)
    assert softmax(logits).tolist() == [[1, 0, 0]]
