"""Peers compute the very pass they are compared on, in every layout."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from kernels.shapes import BlockShape, Conv2dShape, PoolShape
from kernels.table import CONV2D_PASSES
from profiling import admission, peers
from profiling.buffers import Buffers

CONVS = (
    Conv2dShape.of((3, 2, 9, 8), (4, 2, 3, 2)),
    Conv2dShape.of((2, 3, 11, 10), (5, 3, 3, 3), stride=(2, 1), padding=(1, 2), dilation=(2, 1)),
)
BLOCKS = (
    BlockShape.of((3, 2, 9, 8), (4, 2, 3, 2)),
    BlockShape.of((2, 3, 12, 11), (5, 3, 3, 3), stride=(2, 1), padding=(1, 2), pool=(2, 3)),
)
POOLS = (PoolShape.of((2, 3, 8, 9), 2), PoolShape.of((2, 3, 9, 8), (3, 2), stride=2, padding=1))


def judged(name: str, operation: str, direction: str, shape) -> dict[str, str]:
    rng = np.random.default_rng(2)
    buffers = Buffers(np, operation, direction, shape, 2, rng)
    found = {}
    for peer in peers.of_pass(name, operation, direction, shape, buffers):
        if peer.fetch is None:
            found[peer.name] = peer.reason
            continue
        got = peer.fetch()
        _, found[peer.name] = admission.judge(operation, direction, shape, buffers.host, got, rng)
        peer.subject.launch(1)
    return found


@pytest.mark.parametrize("direction", ["forward", "backward_filter"])
@pytest.mark.parametrize("shape", CONVS)
def test_windows_and_a_product_are_a_convolution(shape: Conv2dShape, direction: str):
    assert judged("numpy", "conv2d", direction, shape) == {"numpy": ""}


def test_what_a_peer_does_not_do_has_its_reason():
    assert "no short way" in judged("numpy", "conv2d", "backward_data", CONVS[0])["numpy"]
    assert "no short way" in judged("numpy", "max_pool2d", "forward", POOLS[0])["numpy"]


PASSES = [
    *(("conv2d", d, s) for s in CONVS for d in ("forward", "backward_data", "backward_filter")),
    *(("conv2d_relu_pool", d, s) for s in BLOCKS for d in CONV2D_PASSES),
    *((f"{kind}_pool2d", d, s) for s in POOLS for kind in ("max", "avg") for d in
      ("forward", "backward")),
]  # fmt: skip


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize(("operation", "direction", "shape"), PASSES)
def test_pytorch_computes_the_same_pass_in_both_layouts(operation: str, direction: str, shape):
    found = judged("torch", operation, direction, shape)
    layouts = ["torch"] if direction == "backward_bias" else ["torch", "torch channels_last"]
    assert found == dict.fromkeys(layouts, "")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_pytorch_is_left_out_where_it_has_no_such_padding():
    shape = Conv2dShape.of((1, 1, 6, 6), (1, 1, 3, 3), padding=((0, 1), (0, 1)))
    assert judged("torch", "conv2d", "forward", shape) == {
        "torch": "PyTorch's convolutions pad both sides alike"
    }


def test_an_unknown_peer_is_told_the_others():
    with pytest.raises(ValueError, match="unknown peer 'jax'; expected one of torch, cupy, numpy"):
        peers.problem("jax", "cpu")
    assert peers.problem("cupy", "cpu") == "cupy is no peer on a CPU"
    assert peers.problem("numpy", "cpu") == ""
