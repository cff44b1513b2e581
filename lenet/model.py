"""LeNet, as one list of layers, and the model that they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from kernels.training import nesterov_sgd
from kernels.training.batch import Gather, gather
from kernels.training.gradient_pieces import GradientPieces, Piece
from lenet import classic
from lenet.choice import LENET5, NO_BLOCK, Choice, choose_kernels
from lenet.device import CPU, Device
from lenet.layers import (
    AvgPool2d,
    Conv2d,
    ConvBlock,
    ConvBlockPair,
    Flatten,
    Layer,
    Linear,
    LinearStack,
    MaxPool2d,
    ReLU,
    Tanh,
)
from lenet.learning_layers import (
    Figures,
    LearningLayer,
    LearningStack,
    Side,
    SlicedBlock,
    SlicedPair,
    at_once,
)
from lenet.timing import Phase, Stopwatch

Array = Any  # numpy.ndarray or cupy.ndarray

MODELS = (LENET5, classic.NAME)
IMAGE = 28  # height and width, pixels
ACTIVATIONS: dict[str, type[Layer]] = {"relu": ReLU, "tanh": Tanh}
POOLS: dict[str, type[MaxPool2d] | type[AvgPool2d]] = {
    "max_pool2d": MaxPool2d,
    "avg_pool2d": AvgPool2d,
}
# What does two blocks, one behind the other, by row.
PAIRS: dict[str, Callable[..., Layer]] = {"cpu": ConvBlockPair, "fused": SlicedPair}
ALIGN = 64  # elements; every parameter starts where an allocation of its own could
FIGURES = 3  # elements behind the gradient, for what ranks add up with it


def lenet5(classes: int, choice: Choice, activation: str = "relu") -> list[Layer]:
    """Return LeNet-5's layers; each comment is the shape of an image's output there.

    The 28x28 images are padded to 32x32. Against LeCun et al., *Gradient-Based Learning Applied to
    Document Recognition* (1998): every filter of conv2 sees all six maps, pooling has no weights,
    and the output is a softmax. With average pooling and tanh it is otherwise the original.
    """
    pool = POOLS[choice.pool_operation]
    act = ACTIVATIONS[activation]
    if choice.block != NO_BLOCK:
        block = SlicedBlock if choice.block == "fused" else ConvBlock
        blocks = (
            block("conv1", 1, 6, 5, padding=2, kernel=choice.block, first=True),  # 6 x 14 x 14
            block("conv2", 6, 16, 5, kernel=choice.block),  # 16 x 5 x 5
        )
        features: list[Layer] = [*blocks]
        if choice.block in PAIRS:
            features = [PAIRS[choice.block](*blocks)]
    else:
        features = [
            Conv2d("conv1", 1, 6, 5, padding=2, kernel=choice.conv, first=True),  # 6 x 28 x 28
            act("act1"),
            pool("pool1", choice.pool),  # 6 x 14 x 14
            Conv2d("conv2", 6, 16, 5, kernel=choice.conv),  # 16 x 10 x 10
            act("act2"),
            pool("pool2", choice.pool),  # 16 x 5 x 5
        ]
    classifier = [
        Linear("linear1", 400, 120),
        act("act3"),
        Linear("linear2", 120, 84),
        act("act4"),
        Linear("linear3", 84, classes),
    ]
    if choice.block == "cpu":
        classifier = [LinearStack(*classifier)]
    elif choice.block == "fused":
        classifier = [LearningStack(*classifier)]
    return [*features, Flatten("flatten"), *classifier]  # flat: 400


class Model:
    """A list of layers whose parameters share one vector, and their gradients another.

    Parameters
    ----------
    layers
        In order. Their names differ.
    seed
        Of the initial weights.
    gain
        The weights' variance is ``gain / fan_in``, or without a gain ``2 / (fan_in + fan_out)``
        (Glorot, for tanh).
    device
        Where the parameters live.
    dtype
        float32 or float64.

    Attributes
    ----------
    weights, gradient
        The flat vectors.
    bucket
        The gradient and behind it room for `FIGURES` more: what ranks add up, in one piece.
    """

    def __init__(
        self,
        layers: list[Layer],
        seed: int = 0,
        *,
        gain: float | None = 1.0,
        device: Device = CPU,
        dtype: Any = np.float32,
    ) -> None:
        self.layers = layers
        self.device = device
        self._places = list(_places(layers))
        length = self._places[-1][2].stop
        # Drawn in double precision on the host: the same for every device and dtype.
        rng = np.random.default_rng([seed, 0])
        initial = np.zeros(length)
        for layer, name, where in self._places:
            if name == "w":
                fan_in, fan_out = layer.fan
                variance = gain / fan_in if gain else 2 / (fan_in + fan_out)
                drawn = rng.standard_normal(layer.shapes[name]) * variance**0.5
                initial[where] = drawn.ravel()
        self.weights = device.put(initial.astype(dtype))
        self.bucket = device.xp.zeros(length + FIGURES, dtype)
        self.gradient = self.bucket[:length]
        for layer, name, where in self._places:
            shape = layer.shapes[name]
            setattr(layer, name, self.weights[where].reshape(shape))
            setattr(layer, "d" + name, self.gradient[where].reshape(shape))
        self._learning = [
            layer
            for whole in layers
            for layer in (whole.parts if isinstance(whole, SlicedPair) else (whole,))
            if isinstance(layer, LearningLayer)
        ]
        self._pieces: dict[int, GradientPieces] = {}
        for layer in self._learning:
            begin, end, layer.offsets = self._piece(layer)
            layer.vector, layer.aside = self.weights[begin:end], at_once

    @property
    def learns(self) -> bool:
        """Whether the model has `learn`: its last layer ends in the loss."""
        return isinstance(self.layers[-1], LearningStack)

    def forward(self, x: Array, watch: Stopwatch | None = None) -> Array:
        """Return the logits, (N, classes), of the images `x`, (N, 1, 28, 28)."""
        watch = watch or Stopwatch(self.device)
        for layer in self.layers:
            with watch.phase(Phase(layer.name, layer.kind, "forward")):
                x = layer.forward(x)
        return x

    def backward(self, dy: Array, watch: Stopwatch | None = None) -> None:
        """Write the gradient, given that with respect to the logits of the last forward."""
        watch = watch or Stopwatch(self.device)
        for layer in reversed(self.layers):
            with watch.phase(Phase(layer.name, layer.kind, "backward")):
                dy = layer.backward(dy)

    def learn(
        self,
        x: Array,
        target: Array,
        figures: Figures,
        count: float,
        watch: Stopwatch | None = None,
        side: Side | None = None,
        batch: Gather | None = None,
    ) -> GradientPieces:
        """Do forward, loss and backward in few launches.

        Parameters
        ----------
        x, target
            Images, (N, 1, 28, 28), and labels, int64, (N,); N at least 1.
        figures
            Where the mean loss and the hits go.
        count
            The gradient is that of the loss's sum over the images divided by `count`.
        watch
            As for `forward`.
        side
            Takes what nothing waits for, while a CUDA graph is recorded.
        batch
            What x and target are yet to be filled with, if they are.

        Returns
        -------
        GradientPieces
            The gradient, in slices of the batch that are still to be added up: by the optimiser's
            step, or `sum_pieces`. The next call for as many images writes over them.

        Raises
        ------
        TypeError
            Unless the model `learns`.
        """
        watch = watch or Stopwatch(self.device)
        *body, stack = self.layers
        if not isinstance(stack, LearningStack):
            raise TypeError(f"Model.learn: the last layer, {stack.name}, has no loss; see learns")
        if batch and not isinstance(body[0], SlicedPair):
            gather(batch)
        for layer in body:
            with watch.phase(Phase(layer.name, layer.kind, "forward")):
                if batch and isinstance(layer, SlicedPair):
                    x = layer.gather(batch)
                else:
                    x = layer.forward(x)
        pieces = self._slice(len(x))
        try:
            for layer, partial in zip(self._learning, pieces.slices, strict=True):
                layer.partial, layer.aside = partial, side or at_once
            with watch.phase(Phase(stack.name, stack.kind)):
                dy = stack.learn(x, target, count, figures)
            for layer in reversed(body):
                with watch.phase(Phase(layer.name, layer.kind, "backward")):
                    dy = layer.backward(dy)
            if side:
                side.join()
        finally:
            for layer in self._learning:
                layer.partial, layer.aside = None, at_once
        return pieces

    def sum_pieces(self, pieces: GradientPieces) -> None:
        """Write to `gradient` what `learn` returned."""
        nesterov_sgd.sum_pieces(self.gradient, pieces)

    def _slice(self, images: int) -> GradientPieces:
        """Return where so many images' gradients go: always the same, for a graph holds it."""
        if images not in self._pieces:
            pieces = [
                Piece(*self._piece(layer)[:2], layer.slices(images)) for layer in self._learning
            ]
            self._pieces[images] = GradientPieces(pieces, self.weights)
        return self._pieces[images]

    def _piece(self, layer: Layer) -> tuple[int, int, tuple[int, ...]]:
        """Return where a layer's parameters are in the flat vector, and each one's offset there."""
        places = [where for part, _, where in self._places if part in layer.parts]
        begin = places[0].start
        return begin, places[-1].stop, tuple(where.start - begin for where in places)

    def tensors(self, vector: Array) -> dict[str, Array]:
        """Return views into a vector like `weights`, by the parameters' names (``"conv1.w"``)."""
        return {
            f"{layer.name}.{name}": vector[where].reshape(layer.shapes[name])
            for layer, name, where in self._places
        }


def build_model(
    classes: int = 10,
    choice: Choice | None = None,
    *,
    model: str = LENET5,
    activation: str = "relu",
    seed: int = 0,
    device: Device = CPU,
    dtype: Any = np.float32,
) -> Model:
    """Return LeNet-5 with fresh weights.

    Parameters
    ----------
    classes
        Outputs.
    choice
        Kernels, from `choose_kernels`; by default the device's fastest.
    model
        ``"lenet5"``, or ``"lenet5-1998"``: `lenet.classic`.
    activation
        ``"relu"`` or ``"tanh"``; the classic has its own.
    seed
        Of the initial weights.
    device, dtype
        As for `Model`.
    """
    choice = choice or choose_kernels("auto", "auto", device, activation=activation, model=model)
    if model == classic.NAME:
        layers = classic.lenet5_1998(classes, choice)
        return Model(layers, seed, gain=1.0, device=device, dtype=dtype)
    layers = lenet5(classes, choice, activation)
    # He's gain for ReLU is 2, but he had no pooling; a maximum of four is larger than one of them.
    gain = 1.0 if activation == "relu" else None
    return Model(layers, seed, gain=gain, device=device, dtype=dtype)


def _places(layers: list[Layer]) -> Iterator[tuple[Layer, str, slice]]:
    """Yield each parameter: its layer, its name there, and where it is in the flat vector."""
    begin = 0
    for layer in (part for whole in layers for part in whole.parts):
        for name, shape in layer.shapes.items():
            end = begin + math.prod(shape)
            yield layer, name, slice(begin, end)
            begin = -(-end // ALIGN) * ALIGN
