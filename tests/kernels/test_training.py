"""Loss and update, one launch each, against NumPy in float64 within derived bounds."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import emulator
from kernels.compare import UNIT_ROUNDOFF
from kernels.training import nesterov_sgd, softmax_cross_entropy
from kernels.training.gradient_pieces import GradientPieces, Piece
from lenet import loss, optim

pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))

LIBRARY = 4  # CUDA's exp and log are within 2 units in the last place: so many unit round-offs


def batch(rows, classes, dtype):
    rng = np.random.default_rng([rows, classes])
    logits = (rng.standard_normal((rows, classes)) * 5).astype(dtype)
    return logits, rng.integers(0, classes, rows)


def launched(logits, labels, step=None, scratch=None):
    gradient = np.full_like(logits, np.nan)
    losses, hits = np.full(3, np.nan, logits.dtype), np.full(3, -1, np.int32)
    scratch = scratch or softmax_cross_entropy.scratch(logits)
    softmax_cross_entropy.launch(logits, labels, gradient, losses, hits, scratch, step)
    return losses, hits, gradient


def assert_loss(logits, labels, got_loss, got_hits, gradient, count):
    """Hold a batch's mean loss, its hits, and the gradient of its sum over `count` in bounds."""
    rows, classes = logits.shape
    wide = logits.astype(np.float64)
    want, want_gradient = loss.softmax_cross_entropy(wide, labels)
    shifted = wide.max(axis=1, keepdims=True) - wide
    share, onehot = loss.softmax(wide), np.eye(classes)[labels]
    u = UNIT_ROUNDOFF[logits.dtype.name] + 2.0**-53
    # A rounded exponent d changes exp(d) by |d| u; the total adds `classes` of them.
    total = u * (shifted.max() + LIBRARY + classes)
    bound = share * (total + u * (shifted + LIBRARY + 1)) + 2 * u * np.abs(share - onehot)
    error = np.abs(gradient - want_gradient * rows / count)
    np.testing.assert_array_less(error, 1.01 * bound / count + 1e-300)
    row_losses = -np.log(share[np.arange(rows), labels])
    bound = total + u * (LIBRARY * np.log(classes) + shifted.max() + (rows + 2) * row_losses.mean())
    assert abs(got_loss - want) <= 1.01 * bound
    assert got_hits == (logits.argmax(axis=1) == labels).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rows", "classes"), [(1, 1), (5, 3), (256, 10), (333, 10), (9, 17), (3, 100)]
)
def test_loss_gradient_and_hits(rows, classes, dtype):
    logits, labels = batch(rows, classes, dtype)
    losses, hits, gradient = launched(logits, labels)

    assert_loss(logits, labels, losses[0], hits[0], gradient, rows)


def test_the_step_says_where_to_write_and_scratch_serves_again():
    logits, labels = batch(100, 10, np.float32)
    scratch = softmax_cross_entropy.scratch(logits)
    first = launched(logits, labels, np.array([0], np.int32), scratch)
    for n in (100, 31):
        losses, hits, _ = launched(logits[:n], labels[:n], np.array([2], np.int32), scratch)
        assert np.isnan(losses[:2]).all()
        assert hits[:2].tolist() == [-1, -1]
        if n == 100:
            assert (losses[2], hits[2]) == (first[0][0], first[1][0])
    assert scratch.ticket == 0


def test_ties_nan_and_huge_logits():
    logits = np.array([[1, 1, 0], [1e30, 0, -1e30], [np.nan, 0, 0]], np.float32)
    losses, hits, gradient = launched(logits[:2], np.array([1, 0]))
    assert hits[0] == 1, "the first of equal logits is the answer"
    assert np.isfinite(losses[0])
    assert gradient[1].tolist() == [0, 0, 0]
    losses, _, gradient = launched(logits, np.array([1, 0, 0]))
    assert np.isnan(losses[0])
    assert np.isnan(gradient[2]).all()
    assert not np.isnan(gradient[:2]).any()


# Slices that a thread adds up, or a block; both, out of order; all of the gradient; none of it.
PIECES = (
    [],
    [Piece(0, 777, 3)],
    [Piece(5, 6, 400), Piece(7, 9, 0)],
    [Piece(5, 6, 400), Piece(10, 300, 2), Piece(320, 400, 17), Piece(401, 777, 40)],
)


def in_pieces(gradient, pieces, rng):
    """Return the gradient's pieces filled so that they add up to it, and what is left of it."""
    made, rest = GradientPieces(pieces, gradient), gradient.copy()
    size = np.abs(gradient).astype(np.float64)
    for (begin, end, slices), parts in zip(pieces, made.slices, strict=True):
        if not slices:
            assert parts is None
            continue
        parts[...] = rng.standard_normal(parts.shape)
        rest[begin:end] = np.nan  # nobody looks there
        gradient[begin:end] = parts.astype(np.float64).sum(axis=0)
        size[begin:end] = slices * np.abs(parts).sum(axis=0)
    return made, rest, size


@pytest.mark.parametrize("pieces", PIECES, ids=len)
def test_pieces_of_a_gradient_are_added_up(pieces):
    rng = np.random.default_rng(9)
    want = rng.standard_normal(777).astype(np.float32)
    made, got, size = in_pieces(want, pieces, rng)
    nesterov_sgd.sum_pieces(got, made)
    assert np.all(np.abs(got - want) <= UNIT_ROUNDOFF["float32"] * size)

    weights, velocity = np.zeros((2, 777), np.float32)
    rates = np.ones(1, np.float32)
    nesterov_sgd.launch(weights, got, velocity, rates, 0.0, 0.0, pieces=made)
    assert np.array_equal(velocity, got)
    assert np.array_equal(weights, -got)


def test_more_pieces_than_a_kernel_takes_are_refused():
    with pytest.raises(ValueError, match="5 pieces of a gradient; expected 4 at most"):
        GradientPieces([Piece(i, i + 1, 1) for i in range(5)], np.zeros(9, np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_update_over_some_steps(dtype):
    rng = np.random.default_rng(3)
    rates = np.array([optim.one_cycle(step, 4, 0.1) for step in range(4)], dtype)
    weights, velocity = rng.standard_normal((2, 777)).astype(dtype)
    step, ticket = np.zeros(1, np.int32), np.zeros(1, np.uint32)
    u = UNIT_ROUNDOFF[weights.dtype.name] + 2.0**-53
    for number in range(4):
        gradient = rng.standard_normal(777).astype(dtype)
        w, v, g = (array.astype(np.float64) for array in (weights, velocity, gradient))
        nesterov_sgd.launch(weights, gradient, velocity, rates, 0.9, 0.01, step, ticket)

        # No term goes through more roundings, its constants' included, than the factor.
        size_g = np.abs(g) + 0.01 * np.abs(w)
        size_v = 0.9 * np.abs(v) + size_g
        g += 0.01 * w
        v = 0.9 * v + g
        want = w - float(rates[number]) * (g + 0.9 * v)
        assert np.all(np.abs(velocity - v) <= 4 * u * size_v)
        moved = float(rates[number]) * (size_g + 0.9 * size_v)
        assert np.all(np.abs(weights - want) <= u * np.abs(want) + 9 * u * moved)
        assert (step[0], ticket[0]) == (number + 1, 0)


def test_without_a_step_the_first_rate_is_taken():
    weights, velocity = np.ones(3, np.float32), np.zeros(3, np.float32)
    rates = np.array([0.5, 100], np.float32)
    nesterov_sgd.launch(weights, np.ones(3, np.float32), velocity, rates, 0.0, 0.0)
    assert weights.tolist() == [0.5, 0.5, 0.5]
