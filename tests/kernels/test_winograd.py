"""Winograd's bound, held against its matrices; the shapes that it refuses."""

from __future__ import annotations

import numpy as np
import pytest

import kernels
from kernels import compare, table
from kernels.shapes import Conv2dShape

# As Lavin and Gray print them for F(2x2, 3x3).
B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])

GROWTH = table.find("conv2d", "winograd").growth
U32 = compare.UNIT_ROUNDOFF["float32"]


def one_dimension(output, left, right):
    """How often each product of two inputs occurs in each output, all signs taken as plus."""
    return np.einsum("om,mi,mj->oij", *map(np.abs, (output, left, right)))


def test_the_growth_is_that_of_the_matrices():
    forward = one_dimension(A_T, B_T, G)
    for y in range(2):
        seen = np.zeros((4, 3), bool)
        seen[y : y + 3] = True
        assert forward[y][seen].max() == 2
        assert not forward[y][~seen].any(), "nothing outside the output's own window"
    gradient = one_dimension(G.T, A_T.T, B_T)
    for e in range(2):
        for d in range(4):
            assert gradient[:, e, d].max() <= (2 if 0 <= d - e <= 2 else 0)
    # In both dimensions; a mean over 9 taps is a ninth of their sum.
    assert GROWTH == 2 * 2 * 9


def test_the_bound_averages_the_taps():
    shape = Conv2dShape.of((1, 2, 5, 5), (3, 2, 3, 3))
    rng = np.random.default_rng(0)
    x, w, dy = (
        rng.standard_normal(d) for d in (shape.input_shape, shape.filter_shape, (1, 3, 3, 3))
    )
    args = shape, U32, 0.0, GROWTH
    u = U32 + compare.UNIT_ROUNDOFF["float64"]

    _, [bound] = compare.expected("conv2d", "forward", (x, w, None), *args)
    windows = sum(np.abs(x)[:, :, r : r + 3, s : s + 3] for r in range(3) for s in range(3))
    sums = np.abs(w).sum(axis=(2, 3))
    np.testing.assert_allclose(bound, 4 * (2 + 12) * u * np.einsum("nchw,kc->nkhw", windows, sums))

    _, [bound] = compare.expected("conv2d", "backward_filter", (x, dy), *args)
    plain = np.stack(
        [
            np.einsum("nchw,nkhw->kc", np.abs(x)[:, :, r : r + 3, s : s + 3], np.abs(dy))
            for r in range(3)
            for s in range(3)
        ]
    ).sum(axis=0)
    np.testing.assert_allclose(
        bound, np.broadcast_to(4 * (9 + 12) * u * plain[..., None, None], bound.shape)
    )

    # The bias has no taps: its bound is what it was.
    for growth in (0.0, GROWTH):
        _, [bound] = compare.expected("conv2d", "backward_bias", (dy,), shape, U32, 0.0, growth)
        np.testing.assert_allclose(bound, 10 * u * np.abs(dy).sum(axis=(0, 2, 3)))


def to_tf32(array):
    bits = array.astype(np.float32).view(np.uint32)
    return ((bits + 0x1000) & 0xFFFFE000).view(np.float32)


@pytest.mark.parametrize("channels", [1, 3, 32])
def test_factors_rounded_to_tf32_break_the_bound(channels):
    rng = np.random.default_rng(channels)
    shape = Conv2dShape.of((4, channels, 32, 32), (8, channels, 3, 3))
    x, w = (
        rng.standard_normal(d).astype(np.float32) for d in (shape.input_shape, shape.filter_shape)
    )

    def by_winograd(rounded):
        tiles = np.lib.stride_tricks.sliding_window_view(x, (4, 4), (2, 3))[:, :, ::2, ::2]
        data = rounded(np.einsum("ai,ncpqij,bj->ncpqab", B_T, tiles, B_T))
        filters = rounded(np.einsum("ai,kcij,bj->kcab", G, w, G))
        points = np.einsum("ncpqab,kcab->nkpqab", data, filters)
        y = np.einsum("ia,nkpqab,jb->nkpiqj", A_T, points, A_T)
        return y.reshape(shape.output_shape)

    want, [bound] = compare.expected("conv2d", "forward", (x, w, None), shape, U32, 0.0, GROWTH)
    assert compare.judge(by_winograd(lambda a: a.astype(np.float32)), want[0], bound).ok
    assert not compare.judge(by_winograd(to_tf32), want[0], bound).ok


@pytest.mark.parametrize(
    ("size", "how", "what"),
    [
        ((5, 5), {}, r"5x5 with stride \(1, 1\)"),
        ((3, 2), {}, "3x2 with"),
        ((3, 3), {"stride": (1, 2)}, r"3x3 with stride \(1, 2\)"),
        ((3, 3), {"dilation": 2}, r"dilation \(2, 2\)"),
    ],
)
def test_other_filters_are_refused(size, how, what):
    x, w = np.zeros((1, 2, 9, 9), np.float32), np.zeros((3, 2, *size), np.float32)
    with pytest.raises(ValueError, match=f"takes 3x3 filters .* this is .*{what}.*kernel='auto'"):
        kernels.conv2d(x, w, kernel="winograd", **how)
    y = kernels.conv2d(x, w, kernel="reference", **how)
    for gradient, inputs, dims in (
        (kernels.conv2d_backward_data, (y, w), x.shape),
        (kernels.conv2d_backward_filter, (x, y), w.shape),
    ):
        with pytest.raises(ValueError, match=what):
            gradient(*inputs, dims, kernel="winograd", **how)


def test_too_little_workspace_is_refused():
    x, w = np.zeros((1, 2, 9, 9), np.float32), np.zeros((3, 2, 3, 3), np.float32)
    for name, what in (("winograd", "its transformed filters"), ("register_tiled", "its filters")):
        with kernels.workspace_limit(100), pytest.raises(ValueError, match=f"{name}.*{what}"):
            kernels.conv2d(x, w, kernel=name)
