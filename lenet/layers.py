"""The layers of a small network: forward, backward, and the parameters in between.

A layer keeps from ``forward`` what its ``backward`` needs. The arrays are NumPy's or CuPy's, and
stay where they are. Parameters and gradients are views into the model's two flat vectors (see
`lenet.model`), so a layer writes its gradients in place.
"""

from __future__ import annotations

import math
from typing import Any

import kernels
from kernels import place, ranges
from kernels.shapes import BlockShape
from lenet import products

Array = Any  # numpy.ndarray or cupy.ndarray


class Layer:
    """A layer without parameters; the others add theirs.

    Attributes
    ----------
    name
        Unique in its model; names the layer's tensors in checkpoints (``"conv1.w"``).
    kind
        What the layer's time is counted under.
    shapes
        Shape of each parameter, by its name in the layer.
    fan
        Connections into and out of one unit, for the initial scale of ``w``; those into it may be
        an array that broadcasts over ``w``.
    w, b, dw, db
        The parameters and their gradients, of a layer that has them.
    """

    kind = "reshape"

    def __init__(self, name: str) -> None:
        self.name = name
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.fan: tuple[Any, int] = (0, 0)
        self.w: Array
        self.b: Array
        self.dw: Array
        self.db: Array

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The layers that have the parameters: itself, but for one that is made of several."""
        return (self,)

    @property
    def parameters(self) -> int:
        """How many numbers the layer learns."""
        return sum(math.prod(shape) for part in self.parts for shape in part.shapes.values())

    def forward(self, x: Array) -> Array:
        """Return the layer's output for the batch `x`."""
        raise NotImplementedError

    def backward(self, dy: Array) -> Array:
        """Write the parameters' gradients and return the gradient with respect to `x`."""
        raise NotImplementedError


class Conv2d(Layer):
    """A convolution by one kernel of the lab: (N, C, H, W) to (N, K, P, Q).

    Parameters
    ----------
    name
        As for `Layer`.
    channels, filters
        C and K.
    size
        Height and width of a filter.
    padding
        Zeros on each side.
    kernel
        A conv2d row's name.
    first
        Whether the layer's input is the data, which needs no gradient.
    """

    kind = "convolution"

    def __init__(
        self,
        name: str,
        channels: int,
        filters: int,
        size: int,
        *,
        padding: int = 0,
        kernel: str = "auto",
        first: bool = False,
    ) -> None:
        super().__init__(name)
        self.shapes = {"w": (filters, channels, size, size), "b": (filters,)}
        self.fan = (channels * size * size, filters * size * size)
        self.how: dict[str, Any] = {"padding": padding, "kernel": kernel}
        self.first = first

    def forward(self, x: Array) -> Array:
        """Return the filtered images."""
        self.x = x
        return kernels.conv2d(x, self.w, self.b, **self.how)

    def backward(self, dy: Array) -> Array:
        """Write dw and db; return dx, or None from the first layer."""
        self.dw[...] = kernels.conv2d_backward_filter(self.x, dy, self.w.shape, **self.how)
        self.db[...] = kernels.conv2d_backward_bias(dy, kernel=self.how["kernel"])
        if self.first:
            return None
        return kernels.conv2d_backward_data(dy, self.w, self.x.shape, **self.how)


class ConvBlock(Conv2d):
    """A convolution with ReLU and 2x2 max-pooling in one: (N, C, H, W) to (N, K, P/2, Q/2).

    Its parameters are `Conv2d`'s; `kernel` is a conv2d_relu_pool row's name.
    """

    kind = "block"

    def forward(self, x: Array) -> Array:
        """Return the maxima, and keep where they were."""
        self.x = x
        y, self.argmax = kernels.conv2d_relu_pool(x, self.w, self.b, **self.how, return_argmax=True)
        return y

    def backward(self, dy: Array) -> Array:
        """Write dw and db; return dx, or None from the first layer."""
        found = dy, self.argmax
        self.dw[...] = kernels.conv2d_relu_pool_backward_filter(
            self.x, *found, self.w.shape, **self.how
        )
        self.db[...] = kernels.conv2d_relu_pool_backward_bias(*found, kernel=self.how["kernel"])
        x_shape = self.x.shape
        del self.x, self.argmax
        if self.first:
            return None
        return kernels.conv2d_relu_pool_backward_data(*found, self.w, x_shape, **self.how)


class ConvBlockPair(Layer):
    """The network's first two blocks, on the host in one go where their shapes allow it.

    Parameters
    ----------
    first, second
        As they would be alone, both on the row ``cpu``. They have the parameters.
    """

    kind = "block"

    def __init__(self, first: ConvBlock, second: ConvBlock) -> None:
        super().__init__(f"{first.name}+{second.name}")
        self.first, self.second = first, second

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The two blocks."""
        return self.first, self.second

    def forward(self, x: Array) -> Array:
        """Return the second block's output, and keep what both gradients need."""
        from kernels.conv2d_relu_pool import cpu_pair  # Numba takes a while to import

        first, second = self.first, self.second
        outer = BlockShape.of(x.shape, first.w.shape, padding=first.how["padding"])
        inner = BlockShape.of(outer.output_shape, second.w.shape, padding=second.how["padding"])
        self.together = cpu_pair.takes(outer, inner, x.itemsize)
        if not self.together:
            return second.forward(first.forward(x))
        parameters = first.w, first.b, second.w, second.b
        with ranges.span("conv2d_relu_pool pair forward cpu"):
            y, kept = cpu_pair.forward(x, parameters, outer, inner)
        self.kept = x, kept, outer, inner
        return y

    def backward(self, dy: Array) -> Array:
        """Write both blocks' dw and db; the data needs no gradient."""
        from kernels.conv2d_relu_pool import cpu_pair_gradient

        first, second = self.first, self.second
        if not self.together:
            return first.backward(second.backward(dy))
        x, kept, outer, inner = self.kept
        del self.kept
        gradients = first.dw, first.db, second.dw, second.db
        with ranges.span("conv2d_relu_pool pair backward cpu"):
            cpu_pair_gradient.backward(x, kept, dy, second.w, gradients, outer, inner)
        return None


class MaxPool2d(Layer):
    """The maximum of each 2x2 window."""

    kind = "pooling"

    def __init__(self, name: str, kernel: str = "auto") -> None:
        super().__init__(name)
        self.kernel = kernel

    def forward(self, x: Array) -> Array:
        """Return the maxima, and keep where they were."""
        self.x_shape = x.shape
        y, self.argmax = kernels.max_pool2d(x, kernel=self.kernel, return_argmax=True)
        return y

    def backward(self, dy: Array) -> Array:
        """Hand each window's gradient to its maximum."""
        return kernels.max_pool2d_backward(dy, self.argmax, self.x_shape, kernel=self.kernel)


class AvgPool2d(Layer):
    """The mean of each 2x2 window."""

    kind = "pooling"

    def __init__(self, name: str, kernel: str = "auto") -> None:
        super().__init__(name)
        self.kernel = kernel

    def forward(self, x: Array) -> Array:
        """Return the means."""
        self.x_shape = x.shape
        return kernels.avg_pool2d(x, kernel=self.kernel)

    def backward(self, dy: Array) -> Array:
        """Share each window's gradient among its elements."""
        return kernels.avg_pool2d_backward(dy, self.x_shape, kernel=self.kernel)


class Linear(Layer):
    """y = x w + b, a matrix product by a BLAS: (N, inputs) to (N, outputs)."""

    kind = "linear"

    def __init__(self, name: str, inputs: int, outputs: int) -> None:
        super().__init__(name)
        self.shapes = {"w": (inputs, outputs), "b": (outputs,)}
        self.fan = (inputs, outputs)

    def forward(self, x: Array) -> Array:
        """Return x w + b."""
        self.x = x
        y = place.array_module(x).empty((len(x), self.w.shape[1]), x.dtype)
        products.matmul(x, self.w, out=y)
        y += self.b
        return y

    def backward(self, dy: Array) -> Array:
        """Write dw = x' dy and db; return dx = dy w'."""
        products.matmul(self.x.T, dy, out=self.dw)
        dy.sum(axis=0, out=self.db)
        dx = place.array_module(dy).empty(self.x.shape, dy.dtype)
        return products.matmul(dy, self.w.T, out=dx)


class ReLU(Layer):
    """max(x, 0). Works in place: the layer before must not need its own output."""

    kind = "activation"

    def forward(self, x: Array) -> Array:
        """Overwrite x with max(x, 0)."""
        self.y = place.array_module(x).maximum(x, 0, out=x)
        return self.y

    def backward(self, dy: Array) -> Array:
        """Overwrite dy with 0 where the output was 0."""
        dy *= self.y > 0
        return dy


class LinearStack(Layer):
    """Linear layers with ReLU between them, on the host in one go where there is work enough.

    Parameters
    ----------
    layers
        `Linear` and `ReLU` in turns, from the first `Linear` to the last. They have the parameters.
    """

    kind = "linear"

    def __init__(self, *layers: Layer) -> None:
        self.layers, self.linear = layers, layers[::2]
        super().__init__("+".join(layer.name for layer in self.linear))

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The linear layers."""
        return self.linear

    def forward(self, x: Array) -> Array:
        """Return the last layer's output, and keep what the gradients need."""
        from kernels.training import linear_stack_cpu  # Numba takes a while to import

        w, b = zip(*((layer.w, layer.b) for layer in self.linear), strict=True)
        self.together = linear_stack_cpu.takes(len(x), w)
        if not self.together:
            for layer in self.layers:
                x = layer.forward(x)
            return x
        with ranges.span("linear stack forward cpu"):
            outputs = linear_stack_cpu.forward(x, w, b)
        self.kept = x, outputs, w
        return outputs[-1]

    def backward(self, dy: Array) -> Array:
        """Write every layer's dw and db, and return dx."""
        from kernels.training import linear_stack_cpu

        if not self.together:
            for layer in reversed(self.layers):
                dy = layer.backward(dy)
            return dy
        x, outputs, w = self.kept
        del self.kept
        dw, db = zip(*((layer.dw, layer.db) for layer in self.linear), strict=True)
        with ranges.span("linear stack backward cpu"):
            return linear_stack_cpu.backward(x, outputs, dy, w, dw, db)


class Tanh(Layer):
    """tanh(x), LeNet's own activation. Works in place, as `ReLU`."""

    kind = "activation"

    def forward(self, x: Array) -> Array:
        """Overwrite x with tanh(x)."""
        self.y = place.array_module(x).tanh(x, out=x)
        return self.y

    def backward(self, dy: Array) -> Array:
        """Overwrite dy with dy (1 - y^2)."""
        dy *= 1 - self.y * self.y
        return dy


class Flatten(Layer):
    """(N, C, H, W) to (N, C*H*W), without a copy."""

    def forward(self, x: Array) -> Array:
        """Return x as a matrix."""
        self.x_shape = x.shape
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def backward(self, dy: Array) -> Array:
        """Return dy as images."""
        return dy.reshape(self.x_shape)
