"""Linear layers with ReLU between them, ending in softmax cross-entropy, by two launches a step.

`linear_stack.cu` takes images forward through all layers, and with their labels back; the gradients
of the parameters, which need all images, are `linear_stack_gradient.cu`'s.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels import place
from kernels.source import CudaSource, ceil_div
from kernels.training.softmax_cross_entropy import Scratch

THREADS, TOGETHER = 512, 4  # as in linear_stack.cu; the latter images at most
# As in linear_stack_gradient.cu: inputs and vectors of outputs of a block.
GRADIENT_THREADS = 128
GRADIENT_ROWS, GRADIENT_VECTORS = 32, 32
# How many multiprocessors an H200 has, and of one in a clock: multiply-adds, of its peak of 128 as
# many as loops like these are guessed to reach, and bytes from L2. All together have L2's own rate,
# which is guessed as well: about 6 TB/s.
MULTIPROCESSORS, MULTIPLY_ADDS, PORT_BYTES, L2_BYTES = 132, 80, 64, 3200
IMAGES = (2, 4, 8, 16)  # of a block
MOST_IMAGES = {4: 16, 8: 4}  # by bytes an element: a thread's sums are registers
SLICE_IMAGES, MOST_SLICES = 32, 8


class LinearStack(NamedTuple):
    """The layers: what is compiled in.

    Attributes
    ----------
    sizes
        Inputs, and the outputs of every layer.
    offsets
        Where w (inputs, outputs) and b (outputs,) of every layer begin in the vector of all
        parameters, elements. Each a multiple of 4.
    length
        Elements of that vector.
    """

    sizes: tuple[int, ...]
    offsets: tuple[int, ...]
    length: int

    @property
    def pitch(self) -> int:
        """Outputs of all layers, of one image; each layer's are begun at a multiple of 4."""
        return sum(ceil_div(outputs, 4) * 4 for outputs in self.sizes[1:])

    @property
    def defines(self) -> dict[str, int | str]:
        """The macros of ``linear_stack.cuh``."""
        return {
            "SIZES": ",".join(map(str, self.sizes)),
            "OFFSETS": ",".join(map(str, self.offsets)),
        }

    def logits(self, outputs: Any) -> Any:
        """Return the last layer's part of `outputs`, a view."""
        begin = self.pitch - ceil_div(self.sizes[-1], 4) * 4
        return outputs[:, begin : begin + self.sizes[-1]]

    def slices(self, rows: int) -> int:
        """Return how many slices of so many images `gradient` is to write."""
        return min(ceil_div(rows, SLICE_IMAGES), MOST_SLICES)

    def images(self, rows: int, itemsize: int) -> int:
        """Return how many images a block takes.

        Few, and many blocks read all parameters, which L2 has to hand out; many, and few
        multiprocessors work.
        """
        products = 2 * sum(ins * outs for ins, outs in itertools.pairwise(self.sizes))

        def clocks(images: int) -> float:
            blocks = ceil_div(rows, images)
            alone = max(images * products / MULTIPLY_ADDS, products * itemsize / PORT_BYTES)
            rounds = ceil_div(blocks, MULTIPROCESSORS)
            return max(rounds * alone, blocks * products * itemsize / L2_BYTES)

        return min((n for n in IMAGES if n <= MOST_IMAGES[itemsize]), key=clocks)

    def shared_bytes(self, images: int, itemsize: int) -> int:
        """Return the dynamic shared memory of a block: activations, and sums of its warps."""
        held = (ceil_div(self.sizes[0], 4) * 4 + self.pitch + 4) * images
        sums = THREADS // 32 * min(images, TOGETHER) * max(self.sizes[1:])
        return (held + sums) * itemsize


# LeNet's, as `lenet.model` lays them out.
LENET = LinearStack((400, 120, 84, 10), (0, 48000, 48128, 58240, 58368, 59264), 59274)
source = CudaSource(
    "training/linear_stack.cu",
    [{**LENET.defines, "IMAGES": images, "SCALAR": "float"} for images in IMAGES]
    + [{**LENET.defines, "IMAGES": images, "SCALAR": "double"} for images in IMAGES[:2]],
    THREADS=THREADS,
)
gradient_source = CudaSource(
    "training/linear_stack_gradient.cu", [LENET.defines], THREADS=GRADIENT_THREADS
)


def scratch(stack: LinearStack, rows: int, like: Any) -> Scratch:
    """Allocate the scratch memory of `learn`, beside `like`; further launches may use it again."""
    xp, blocks = place.array_module(like), ceil_div(rows, stack.images(rows, like.itemsize))
    return Scratch(xp.empty(blocks, like.dtype), xp.empty(blocks, np.int32), xp.zeros(1, np.uint32))


def forward(stack: LinearStack, x: Any, parameters: Any, outputs: Any) -> None:
    """Write every layer's outputs, after their ReLU.

    Parameters
    ----------
    stack
        The layers.
    x
        (N, inputs), float32 or float64, C-contiguous; N at least 1.
    parameters
        (length,), aligned to 16 bytes.
    outputs
        (N, pitch), written: an image's outputs of all layers, one behind the other.
    """
    _launch(stack, "forward", x, (x, parameters, outputs, np.int32(len(x))))


def learn(
    stack: LinearStack,
    x: Any,
    labels: Any,
    parameters: Any,
    outputs: Any,
    deltas: Any,
    dx: Any,
    losses: Any,
    hits: Any,
    scratch: Scratch,
    *,
    count: float,
    step: Any = None,
) -> None:
    """Do what `forward` does, then compare with the labels, and go back through the layers.

    Parameters
    ----------
    stack, x, parameters, outputs
        As for `forward`.
    labels
        int64, (N,), each from 0 to classes - 1.
    deltas
        (N, pitch), written: the loss's gradient with respect to each layer's outputs before their
        ReLU.
    dx
        (N, inputs), written: with respect to x.
    losses, hits, step
        As for `softmax_cross_entropy.launch`: the mean over these N images.
    scratch
        From `scratch`, for as many images.
    count
        The gradient is that of the loss's sum over these images divided by `count`.
    """
    rows = np.int32(len(x))
    args = (x, labels, parameters, outputs, deltas, dx, losses, hits, *scratch, step, rows)
    _launch(stack, "learn", x, (*args, x.dtype.type(count)))


def gradient(stack: LinearStack, x: Any, outputs: Any, deltas: Any, partial: Any) -> None:
    """Write the parameters' gradients, in slices of the batch.

    Parameters
    ----------
    stack, x, outputs, deltas
        As for `learn`, which wrote the latter two.
    partial
        (slices, length), written where a parameter is: their sum over the slices is the gradient,
        laid out as the parameters.
    """
    slices, length = partial.shape
    tiles = sum(
        ceil_div(inputs, GRADIENT_ROWS) * ceil_div(outs // math.gcd(outs, 4), GRADIENT_VECTORS)
        for inputs, outs in itertools.pairwise(stack.sizes)
    )
    kernel = gradient_source.kernel("linear_stack_gradient", like=x, **stack.defines)
    args = (x, outputs, deltas, partial, *map(np.int32, (len(x), slices, length)))
    kernel((tiles, slices), (GRADIENT_THREADS,), args)


def _launch(stack: LinearStack, function: str, x: Any, args: Sequence[Any]) -> None:
    images = stack.images(len(x), x.itemsize)
    kernel = source.kernel(f"linear_stack_{function}", like=x, IMAGES=images, **stack.defines)
    blocks, nbytes = ceil_div(len(x), images), stack.shared_bytes(images, x.itemsize)
    kernel((blocks,), (THREADS,), tuple(args), shared_mem=nbytes)
