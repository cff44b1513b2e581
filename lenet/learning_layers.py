"""Layers of a step that is few launches: gradients that stay in slices, and a stack with its loss.

`lenet.model.Model.learn` drives them. Called as plain layers they do what those do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

import kernels
from kernels import place, ranges, table
from kernels.shapes import BlockShape
from kernels.training import linear_stack
from kernels.training.batch import Gather, gather
from lenet.layers import Array, ConvBlock, Layer, LinearStack


class Figures(NamedTuple):
    """Where a step's mean loss and hits go.

    Attributes
    ----------
    losses, hits
        Of the model's dtype, and int32.
    step
        int32, (1,), beside them: at which place, read when the kernel runs. None means the first.
    """

    losses: Array
    hits: Array
    step: Array | None = None


class LearningLayer(Layer):
    """A layer that can leave its gradients in slices of the batch.

    Attributes
    ----------
    vector, offsets
        The layer's parameters in one piece, and where each begins in it.
    partial
        (slices, elements), while `Model.learn` makes a step: where ``backward`` leaves the
        gradients. Else None, and it writes them.
    aside
        Calls what nothing before the update waits for.
    """

    vector: Array
    offsets: tuple[int, ...]
    partial: Array | None = None
    aside: Callable[..., None]

    def slices(self, images: int) -> int:
        """Return how many slices it makes of so many images, once it has met some; 0 for none."""
        raise NotImplementedError


class SlicedBlock(ConvBlock, LearningLayer):
    """A `ConvBlock` on the row ``fused``, both gradients of its parameters by one launch.

    Attributes
    ----------
    shape
        Of the images it met last.
    next
        The block behind it, in a `SlicedPair`.
    """

    shape: BlockShape
    next: SlicedBlock | None = None

    def meet(self, x_shape: tuple[int, ...]) -> BlockShape:
        """Return the block's shape on images, and keep it."""
        self.shape = BlockShape.of(x_shape, self.w.shape, padding=self.how["padding"])
        return self.shape

    def forward(self, x: Array) -> Array:
        """Return the maxima, and keep where they were."""
        self.meet(x.shape)
        return super().forward(x)

    def slices(self, images: int) -> int:
        """Return how many slices it makes of so many images."""
        shape, itemsize = self.shape._replace(n=images), self.w.dtype.itemsize
        if self.next:
            from kernels.conv2d_relu_pool import fused_pair  # its plans take a while to make

            behind = self.next.shape._replace(n=images)
            if slices := fused_pair.slices(shape, behind, itemsize):
                return slices
        return int(self._launchers.parameter_slices(shape, itemsize))

    @property
    def _launchers(self) -> Any:
        """The row's module, which takes a while to import."""
        return table.find("conv2d_relu_pool", "fused").launchers

    def backward(self, dy: Array) -> Array:
        """Leave dw and db in slices, or write them; return dx, or None from the first layer."""
        if self.partial is None:
            return super().backward(dy)
        x_shape, argmax = self.x.shape, self.argmax
        # Behind the first layer there is nothing else to do.
        self.leave_parameters(dy, at_once if self.first else self.aside)
        if self.first:
            return None
        return kernels.conv2d_relu_pool_backward_data(dy, argmax, self.w, x_shape, **self.how)

    def leave_parameters(self, dy: Array, call: Callable[..., None]) -> None:
        """Leave dw and db in slices, by one launch that `call` makes."""
        parameters = self.x, dy, self.argmax, self.partial, self.offsets[1], self.shape
        del self.x, self.argmax
        with ranges.span("conv2d_relu_pool backward_parameters fused"):
            call(self._launchers.backward_parameters, *parameters)


class SlicedPair(Layer):
    """The network's first two blocks, by one launch each way where their shapes allow it.

    Parameters
    ----------
    first, second
        As they would be alone. They have the parameters.
    """

    kind = "block"

    def __init__(self, first: SlicedBlock, second: SlicedBlock) -> None:
        super().__init__(f"{first.name}+{second.name}")
        self.first, self.second = first, second
        first.next = second

    @property
    def parts(self) -> tuple[Layer, ...]:
        """The two blocks."""
        return self.first, self.second

    def forward(self, x: Array) -> Array:
        """Return the second block's maxima."""
        return self.second.forward(self.first.forward(x))

    def gather(self, batch: Gather) -> Array:
        """Write the batch, and return the second block's maxima."""
        from kernels.conv2d_relu_pool import fused_pair

        first, second, x = self.first, self.second, batch.x
        outer = first.meet(x.shape)
        inner = second.meet(outer.output_shape)
        if not fused_pair.takes(outer, inner, x.dtype.itemsize):
            gather(batch)
            return self.forward(x)
        xp = place.array_module(x)
        found = [
            xp.empty(shape.output_shape, dtype)
            for shape in (outer, inner)
            for dtype in (x.dtype, np.uint8)
        ]
        parameters = first.w, first.b, second.w, second.b
        with ranges.span("conv2d_relu_pool pair forward fused"):
            fused_pair.forward(batch, parameters, tuple(found), outer, inner)
        between, first.argmax, y, second.argmax = found
        first.x, second.x = x, between
        return y

    def backward(self, dy: Array) -> Array:
        """Leave both blocks' dw and db in slices, or write them; the data needs no gradient."""
        from kernels.conv2d_relu_pool import fused_pair

        first, second = self.first, self.second
        shapes = first.shape, second.shape
        if first.partial is None or not fused_pair.slices(*shapes, dy.dtype.itemsize):
            return first.backward(second.backward(dy))
        x, argmax, argmax2 = first.x, first.argmax, second.argmax
        del first.x, first.argmax
        second.leave_parameters(dy, second.aside)
        with ranges.span("conv2d_relu_pool pair backward fused"):
            fused_pair.backward(
                dy, argmax2, second.w, x, argmax, first.partial, first.offsets[1], *shapes
            )
        return None


class LearningStack(LinearStack, LearningLayer):
    """A `LinearStack` in CUDA C, forward, loss and backward in one launch.

    Parameters
    ----------
    layers
        As for `LinearStack`.
    """

    def __init__(self, *layers: Layer) -> None:
        super().__init__(*layers)
        self._scratch: dict[int, Any] = {}

    @property
    def stack(self) -> linear_stack.LinearStack:
        """What is compiled in."""
        sizes = [layer.shapes["w"] for layer in self.linear]
        return linear_stack.LinearStack(
            (sizes[0][0], *(outputs for _, outputs in sizes)), self.offsets, self.vector.size
        )

    def forward(self, x: Array) -> Array:
        """Return the last layer's output."""
        self.x = x
        outputs = place.array_module(x).empty((len(x), self.stack.pitch), x.dtype)
        with ranges.span("linear stack forward"):
            linear_stack.forward(self.stack, x, self.vector, outputs)
        return self.stack.logits(outputs).copy()

    def backward(self, dy: Array) -> Array:
        """Write every layer's dw and db, one by one, and return dx."""
        x = self.x
        for layer in self.layers:
            x = layer.forward(x)
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def slices(self, images: int) -> int:
        """Return how many slices it makes of so many images."""
        return self.stack.slices(images)

    def learn(self, x: Array, target: Array, count: float, figures: Figures) -> Array:
        """Write the mean loss and the hits, leave all gradients in slices, and return dx.

        Parameters
        ----------
        x, target
            (N, inputs), and labels, int64, (N,).
        count
            The gradient is that of the loss's sum divided by it.
        figures
            Where loss and hits go.
        """
        xp, stack, rows = place.array_module(x), self.stack, len(x)
        if rows not in self._scratch:
            self._scratch[rows] = linear_stack.scratch(stack, rows, x)
        outputs, deltas = (xp.empty((rows, stack.pitch), x.dtype) for _ in range(2))
        dx = xp.empty(x.shape, x.dtype)
        with ranges.span("linear stack learn"):
            linear_stack.learn(
                stack, x, target, self.vector, outputs, deltas, dx, figures.losses, figures.hits,
                self._scratch[rows], count=count, step=figures.step,
            )  # fmt: skip
        with ranges.span("linear stack gradient"):
            self.aside(linear_stack.gradient, stack, x, outputs, deltas, self.partial)
        return dx


class Side(Protocol):
    """Takes launches that nothing waits for before the update."""

    def __call__(self, launch: Callable[..., None], *args: Any) -> None:
        """Call `launch`, which may allocate nothing."""

    def join(self) -> None:
        """Let what comes now wait for all of them."""


class SideStreams:
    """What nothing waits for before the update, each on a stream beside the current one.

    For the recording of a CUDA graph: there each is a branch of its own. To be kept until that has
    ended: streams and events that are recorded must not be destroyed before.

    Parameters
    ----------
    xp
        CuPy.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self._streams: list[Any] = []
        self._events: list[Any] = []
        self._held: list[Any] = []

    def __call__(self, launch: Callable[..., None], *args: Any) -> None:
        """Call `launch`, which may allocate nothing, once what the current stream has is done."""
        stream = self.xp.cuda.Stream(non_blocking=True)
        self._wait(stream, self.xp.cuda.get_current_stream())
        with stream:
            launch(*args)
        self._streams.append(stream)
        # The current stream would hand freed memory on without a wait for this one.
        self._held.append(args)

    def join(self) -> None:
        """Let the current stream wait for all of it."""
        for stream in self._streams:
            self._wait(self.xp.cuda.get_current_stream(), stream)
        self._held.clear()

    def _wait(self, stream: Any, other: Any) -> None:
        """Let a stream wait for what another one has."""
        event = self.xp.cuda.Event(disable_timing=True)
        event.record(other)
        stream.wait_event(event)
        self._events.append(event)


def at_once(launch: Callable[..., None], *args: Any) -> None:
    """Call `launch`, as `SideStreams` does, on the current stream."""
    launch(*args)


def figures_for_one(like: Array) -> Figures:
    """Return room for one step's figures, beside an array."""
    xp = place.array_module(like)
    return Figures(xp.empty(1, like.dtype), xp.empty(1, np.int32))
