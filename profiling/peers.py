"""What a user would call instead: the same pass by PyTorch, by CuPy, or by NumPy.

A peer's tensors are converted before the clock runs, its layout included; its outputs it allocates
itself, as it always does. TF32 is off, cuDNN may look for its fastest algorithm. Its results are
held against the judge too, and a peer outside the bound is timed all the same, with a note: cuDNN
may choose Winograd, whose error is larger.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from kernels.shapes import CLOSED, Shape
from profiling.buffers import Buffers
from profiling.timing import Subject

# Package to import, and how to get it, by the name that --against takes.
PACKAGES = {
    "torch": ("torch", "make compare-torch, or pip install 'conv-kernel-lab[compare]'"),
    "cupy": ("cupy", "pip install 'conv-kernel-lab[cuda12]' (or cuda13)"),
    "numpy": ("numpy", ""),
}
PLACES = {"torch": ("cpu", "gpu"), "cupy": ("gpu",), "numpy": ("cpu",)}
DEFAULT = {"cpu": ("torch",), "gpu": ("torch", "cupy")}

Launch = Callable[[int], Any]


class Peer(NamedTuple):
    """One way of a peer's to compute a pass.

    Attributes
    ----------
    name
        ``"torch channels_last graph"``.
    subject
        To be timed; None where `reason` says why not.
    fetch
        Launches once and returns the outputs in host memory, as the judge takes them.
    reason
        Why the peer does not compute this pass; else empty.
    """

    name: str
    subject: Subject | None
    fetch: Callable[[], list[np.ndarray]] | None
    reason: str = ""


def problem(name: str, place: str) -> str:
    """Return why a peer cannot be had at a place, or nothing.

    Raises
    ------
    ValueError
        A name that is no peer's.
    """
    if name not in PACKAGES:
        raise ValueError(f"unknown peer {name!r}; expected one of {', '.join(PACKAGES)}")
    if place not in PLACES[name]:
        return f"{name} is no peer on a {place.upper()}"
    package, install = PACKAGES[name]
    if importlib.util.find_spec(package) is None:
        return f"{name} is not installed: {install}"
    if name == "torch" and place == "gpu":
        import torch

        if not torch.cuda.is_available():
            return f"PyTorch {torch.__version__} sees no GPU"
    return ""


def version(name: str) -> str:
    """Return a peer's version, and cuDNN's where it has one."""
    if name == "cupy":
        import cupy

        return str(cupy.__version__)
    found = importlib.metadata.version(PACKAGES[name][0])
    if name == "torch":
        import torch

        if torch.version.cuda:
            return f"{found}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return found


def set_threads(threads: int) -> None:
    """Pin PyTorch's threads on the host, where it is loaded or will be."""
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)


def use_stream(stream: Any) -> None:
    """Let PyTorch launch into a stream of CuPy's current GPU, where there is a PyTorch that can."""
    if problem("torch", "gpu") == "":
        import cupy
        import torch

        torch.cuda.set_device(cupy.cuda.runtime.getDevice())
        torch.cuda.set_stream(torch.cuda.ExternalStream(stream.ptr))


def of_pass(
    name: str, operation: str, direction: str, shape: Shape, buffers: Buffers
) -> Iterator[Peer]:
    """Yield the ways in which a peer computes a pass on the given tensors."""
    if name == "torch":
        yield from _torch(operation, direction, shape, buffers)
    else:
        yield _windows(name, operation, direction, shape, buffers)


# PyTorch.


def _torch(operation: str, direction: str, shape: Any, buffers: Buffers) -> Iterator[Peer]:
    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    (top, bottom), (left, right) = shape.padding
    if (top, left) != (bottom, right):
        yield Peer("torch", None, None, "PyTorch's convolutions pad both sides alike")
        return
    on_gpu = not isinstance(buffers.inputs[0][0], np.ndarray)
    for layout in ("", " channels_last"):
        if layout and direction == "backward_bias":
            continue

        def absent(dims: tuple[int, ...], last: bool = bool(layout)) -> Any:
            """Return a tensor that a gradient wants for its shape and layout, and does not read."""
            form = torch.channels_last if last else torch.contiguous_format
            device = "cuda" if on_gpu else "cpu"
            return torch.empty(dims, device=device, memory_format=form)

        compute = _torch_function(torch, operation, direction, shape, absent)
        sets = [
            tuple(_tensor(torch, array, bool(layout)) for array in arrays)
            for arrays in buffers.inputs
        ]
        if operation == "conv2d_relu_pool" and direction != "forward":
            sets = [
                _with_torch_indices(torch, tensors, shape, direction, bool(layout))
                for tensors in sets
            ]

        def launch(number: int, sets: Any = sets, compute: Any = compute) -> Any:
            return compute(*sets[number])

        def fetch(launch: Launch = launch) -> list[np.ndarray]:
            outputs = launch(0)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            if operation == "conv2d_relu_pool" and direction == "forward":
                outputs = outputs[0], _window_places(torch, outputs, shape)
            return [
                output.contiguous().cpu().numpy().astype(np.int32)
                if output.dtype == torch.int64
                else output.contiguous().cpu().numpy()
                for output in outputs
            ]

        name = f"torch{layout}"
        yield Peer(name, Subject(name, launch, len(sets), eager=True), fetch)
        if on_gpu:

            def record(numbers: list[int], launch: Launch = launch) -> Any:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    for number in numbers:
                        launch(number)
                return graph.replay

            name = f"torch{layout} graph"
            yield Peer(name, Subject(name, launch, len(sets), record=record), fetch)


def _tensor(torch: Any, array: Any, channels_last: bool) -> Any:
    tensor = torch.from_dlpack(array)
    if tensor.dtype == torch.int32:  # PyTorch's own argmax is int64
        tensor = tensor.to(torch.int64)
    if channels_last and tensor.ndim == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def _torch_function(
    torch: Any, operation: str, direction: str, shape: Any, absent: Callable[..., Any]
) -> Callable[..., Any]:
    """Return the pass as PyTorch computes it, without the bookkeeping of autograd."""
    aten = torch.ops.aten
    pads = [shape.pad_top, shape.pad_left]
    if operation == "conv2d_relu_pool":
        return _torch_block(torch, direction, shape, absent)
    if operation == "conv2d":
        how = list(shape.stride), pads, list(shape.dilation)

        def gradients(dy: Any, x: Any, w: Any, wanted: int) -> Any:
            mask = [i == wanted for i in range(3)]
            return aten.convolution_backward(dy, x, w, None, *how, False, [0, 0], 1, mask)[wanted]

        if direction == "forward":
            return lambda x, w, b: torch.conv2d(x, w, b, *how)
        if direction == "backward_data":
            x = absent(shape.input_shape)
            return lambda dy, w: gradients(dy, x, w, 0)
        if direction == "backward_filter":
            w = absent(shape.filter_shape)
            return lambda x, dy: gradients(dy, x, w, 1)
        return lambda dy: dy.sum((0, 2, 3))
    window = list(shape.window), list(shape.stride), pads
    if operation == "max_pool2d":
        if direction == "forward":
            return lambda x: aten.max_pool2d_with_indices(x, *window)
        like = absent(shape.input_shape)
        return lambda dy, argmax: aten.max_pool2d_with_indices_backward(
            dy, like, *window, [1, 1], False, argmax
        )
    how_counted = False, bool(shape.include_pad)
    if direction == "forward":
        return lambda x: aten.avg_pool2d(x, *window, *how_counted)
    like = absent(shape.input_shape)
    return lambda dy: aten.avg_pool2d_backward(dy, like, *window, *how_counted, None)


def _torch_block(
    torch: Any, direction: str, shape: Any, absent: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a pass of convolution, ReLU and max-pooling, each a call of PyTorch's.

    The pooling's and the ReLU's gradients are in the time of each gradient, as they are in ours.
    """
    aten = torch.ops.aten
    window = list(shape.pool), list(shape.pool), [0, 0]
    if direction == "forward":
        conv = _torch_function(torch, "conv2d", direction, shape.conv, absent)
        return lambda x, w, b: aten.max_pool2d_with_indices(conv(x, w, b).relu_(), *window)

    def spread(dy: Any, indices: Any, activation: Any) -> Any:
        dz = aten.max_pool2d_with_indices_backward(dy, activation, *window, [1, 1], False, indices)
        return aten.threshold_backward(dz, activation, 0)

    if direction == "backward_bias":
        return lambda dy, indices, activation: spread(dy, indices, activation).sum((0, 2, 3))
    conv = _torch_function(torch, "conv2d", direction, shape.conv, absent)
    if direction == "backward_data":
        return lambda dy, indices, w, activation: conv(spread(dy, indices, activation), w)
    return lambda x, dy, indices, activation: conv(x, spread(dy, indices, activation))


def _with_torch_indices(
    torch: Any, tensors: Any, shape: Any, direction: str, channels_last: bool
) -> tuple[Any, ...]:
    """Return a gradient's tensors with PyTorch's indices and a ReLU's output for our argmax."""
    at = 2 if direction == "backward_filter" else 1
    argmax = tensors[at].to(torch.int64)
    rows = torch.arange(shape.pooled_p, device=argmax.device)[:, None] * shape.pool_r
    cols = torch.arange(shape.pooled_q, device=argmax.device) * shape.pool_s
    indices = (rows + argmax // shape.pool_s) * shape.q + cols + argmax % shape.pool_s
    activation = torch.ones(shape.conv.output_shape, device=argmax.device)
    form = torch.channels_last if channels_last else torch.contiguous_format
    indices, activation = (t.contiguous(memory_format=form) for t in (indices, activation))
    return (*tensors[:at], indices, *tensors[at + 1 :], activation)


def _window_places(torch: Any, outputs: tuple[Any, Any], shape: Any) -> Any:
    """Return PyTorch's indices as the block's argmax."""
    y, indices = outputs
    rows, cols = indices // shape.q % shape.pool_r, indices % shape.q % shape.pool_s
    places = (rows * shape.pool_s + cols).to(torch.uint8)
    return torch.where(y > 0, places, CLOSED).to(torch.uint8)


# NumPy and CuPy: a strided view of all windows, and one product.


def _windows(name: str, operation: str, direction: str, shape: Any, buffers: Buffers) -> Peer:
    if operation != "conv2d" or direction not in ("forward", "backward_filter"):
        return Peer(name, None, None, f"{name} has no short way to this pass")
    import importlib

    xp = importlib.import_module(name)
    views = importlib.import_module(f"{name}.lib.stride_tricks")
    pads = ((0, 0), (0, 0), *shape.padding)
    step = (slice(None), slice(None), *(slice(None, None, s) for s in shape.stride))
    taps = tuple(slice(None, None, d) for d in shape.dilation)

    def seen(x: Any) -> Any:
        padded = xp.pad(x, pads) if any(map(any, shape.padding)) else x
        return views.sliding_window_view(padded, shape.window, axis=(2, 3))[(*step, *taps)]

    def launch(number: int) -> Any:
        if direction == "forward":
            x, w, b = buffers.inputs[number]
            y = xp.tensordot(seen(x), w, axes=([1, 4, 5], [1, 2, 3])) + b
            return y.transpose(0, 3, 1, 2)
        x, dy = buffers.inputs[number]
        return xp.tensordot(dy, seen(x), axes=([0, 2, 3], [0, 2, 3]))

    def fetch() -> list[np.ndarray]:
        output = launch(0)
        return [output if isinstance(output, np.ndarray) else output.get()]

    subject = Subject(name, launch, len(buffers.inputs), eager=True, capturable=False)
    return Peer(name, subject, fetch)
