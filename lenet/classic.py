"""LeNet-5 as it was published: its table of connections, trainable subsampling, scaled tanh.

LeCun, Bottou, Bengio and Haffner, *Gradient-Based Learning Applied to Document Recognition*,
Proceedings of the IEEE 86 (11), 1998, section II.

Its convolutions and means are the lab's kernels. It differs from the paper in its output, a linear
layer and softmax where that has Euclidean distances to drawn codes; in the optimiser, that of
`lenet.train`; and in the weights' first variance, 1 / fan-in after LeCun, Bottou, Orr and Müller,
*Efficient BackProp* (1998): between the paper's +-2.4 / fan-in, gradient descent without the second
derivatives that the authors used hardly learns in its first hundreds of steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import kernels
from kernels import place
from lenet.layers import Array, Conv2d, Flatten, Layer, Linear

if TYPE_CHECKING:
    from lenet.choice import Choice

NAME = "lenet5-1998"

# A pixel from 0 to 1 becomes BACKGROUND to FOREGROUND: that makes about mean 0 and variance 1.
BACKGROUND, FOREGROUND = -0.1, 1.175
STD = 1 / (FOREGROUND - BACKGROUND)
MEAN = -BACKGROUND * STD  # (pixel - MEAN) / STD

AMPLITUDE, SLOPE = 1.7159, 2 / 3  # so that f(1) = 1 and f(-1) = -1, almost

# Table I: the maps of S2 that each map of C3 sees.
C3_INPUTS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


def lenet5_1998(classes: int, choice: Choice) -> list[Layer]:
    """Return the layers; each comment is the shape of an image's output there.

    Parameters
    ----------
    classes
        Outputs.
    choice
        Kernels; the pooling is avg_pool2d's.
    """
    conv, pool = choice.conv, choice.pool
    return [
        Frame("input", 2, BACKGROUND),  # 1 x 32 x 32
        Conv2d("c1", 1, 6, 5, kernel=conv, first=True),  # 6 x 28 x 28
        ScaledTanh("f1"),
        Subsample("s2", 6, pool),  # 6 x 14 x 14
        ScaledTanh("f2"),
        TableConv2d("c3", C3_INPUTS, 6, 5, kernel=conv),  # 16 x 10 x 10
        ScaledTanh("f3"),
        Subsample("s4", 16, pool),  # 16 x 5 x 5
        ScaledTanh("f4"),
        Conv2d("c5", 16, 120, 5, kernel=conv),  # 120 x 1 x 1
        Flatten("flatten"),
        ScaledTanh("f5"),
        Linear("f6", 120, 84),
        ScaledTanh("f7"),
        Linear("output", 84, classes),
    ]


class Frame(Layer):
    """The data in a frame of background: (N, C, H, W) to (N, C, H + 2 margin, W + 2 margin)."""

    def __init__(self, name: str, margin: int, background: float) -> None:
        super().__init__(name)
        self.margin, self.background = margin, background

    def forward(self, x: Array) -> Array:
        """Return the framed images."""
        n, c, h, w = x.shape
        m = self.margin
        shape = n, c, h + 2 * m, w + 2 * m
        y = place.array_module(x).full(shape, self.background, x.dtype)
        y[:, :, m : m + h, m : m + w] = x
        return y

    def backward(self, dy: Array) -> Array:
        """Return nothing: this is the data, which needs no gradient."""
        return None


class TableConv2d(Conv2d):
    """A convolution whose filters see some of the maps each, by a table.

    Parameters
    ----------
    name, channels, size, kernel
        As for `Conv2d`.
    inputs
        The channels that each filter sees.

    Notes
    -----
    The kernel is a full convolution's: what the table leaves out is a weight of 0, before every
    forward pass, and a gradient of 0.
    """

    def __init__(
        self,
        name: str,
        inputs: tuple[tuple[int, ...], ...],
        channels: int,
        size: int,
        *,
        kernel: str = "auto",
    ) -> None:
        super().__init__(name, channels, len(inputs), size, kernel=kernel)
        self.table = np.zeros((len(inputs), channels, 1, 1))
        for filter_, seen in enumerate(inputs):
            self.table[filter_, list(seen)] = 1
        # The inputs of each filter's units.
        self.fan = (self.table.sum(axis=1, keepdims=True) * size * size, self.fan[1])
        self.mask: Array = None

    @property
    def parameters(self) -> int:
        """Weights that the table has, and biases."""
        _, _, r, s = self.shapes["w"]
        return int(self.table.sum()) * r * s + self.shapes["b"][0]

    def forward(self, x: Array) -> Array:
        """Return the filtered maps."""
        if self.mask is None:  # once, before a CUDA graph is recorded
            self.mask = place.array_module(x).asarray(self.table.astype(self.w.dtype))
        self.w *= self.mask
        return super().forward(x)

    def backward(self, dy: Array) -> Array:
        """Write dw and db; return dx."""
        dx = super().backward(dy)
        self.dw *= self.mask
        return dx


class Subsample(Layer):
    """A map's coefficient times the sum of each 2x2 window, plus its bias."""

    kind = "pooling"

    def __init__(self, name: str, channels: int, kernel: str = "auto") -> None:
        super().__init__(name)
        self.shapes = {"w": (channels,), "b": (channels,)}
        self.fan = (4, 1)
        self.kernel = kernel

    def forward(self, x: Array) -> Array:
        """Return the subsampled maps."""
        self.x_shape = x.shape
        self.sum = kernels.avg_pool2d(x, kernel=self.kernel)
        self.sum *= 4
        return self.sum * self.w[:, None, None] + self.b[:, None, None]

    def backward(self, dy: Array) -> Array:
        """Write dw and db; share each window's gradient among its elements."""
        (dy * self.sum).sum(axis=(0, 2, 3), out=self.dw)
        dy.sum(axis=(0, 2, 3), out=self.db)
        dsum = dy * (4 * self.w)[:, None, None]
        return kernels.avg_pool2d_backward(dsum, self.x_shape, kernel=self.kernel)


class ScaledTanh(Layer):
    """AMPLITUDE tanh(SLOPE x). Works in place: the layer before must not need its own output."""

    kind = "activation"

    def forward(self, x: Array) -> Array:
        """Overwrite x with the squashed x."""
        x *= SLOPE
        self.y = place.array_module(x).tanh(x, out=x)
        self.y *= AMPLITUDE
        return self.y

    def backward(self, dy: Array) -> Array:
        """Overwrite dy with dy SLOPE / AMPLITUDE (AMPLITUDE^2 - y^2)."""
        slope = self.y * self.y
        slope *= -SLOPE / AMPLITUDE
        slope += SLOPE * AMPLITUDE
        dy *= slope
        return dy
