"""What is measured: named suites of layers, and shapes of the user's own.

A suite is data: layers with the batch sizes it sweeps. Add one by adding lines.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Sequence

from kernels import shape_text
from kernels.shapes import Shape

MOST = 1000  # shapes of one text, more than anybody waits for


class SuiteError(ValueError):
    """A suite, shape or sweep that cannot be read; the message says what is wanted."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a suite.

    Attributes
    ----------
    name
        ``"conv1"``.
    operation
        One of `shape_text.OPERATIONS`.
    dims
        The numbers after N, as `shape_text.FIELDS` lists them.
    """

    name: str
    operation: str
    dims: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Suite:
    """Layers, each measured at every batch size.

    Attributes
    ----------
    about
        One line for a person.
    batches
        The values of N.
    layers
        In a network's order.
    """

    about: str
    batches: tuple[int, ...]
    layers: tuple[Layer, ...]


@dataclasses.dataclass(frozen=True)
class Case:
    """One shape to measure, with its names.

    Attributes
    ----------
    operation, shape
        What is computed.
    group, label
        Without and with what is swept: ``"lenet conv1"``, ``"lenet conv1 N=64"``.
    """

    operation: str
    shape: Shape
    group: str
    label: str


def _conv(name: str, *dims: int) -> Layer:
    return Layer(name, "conv2d", dims)


SUITES = {
    "lenet": Suite(
        "LeNet's layers, alone and as fused blocks, each batch size twice the one before",
        (64, 128, 256, 512, 1024, 2048, 4096, 8192),
        (
            _conv("conv1", 1, 28, 28, 6, 5, 5, 1, 2),
            Layer("pool1", "max_pool2d", (6, 28, 28, 2)),
            _conv("conv2", 6, 14, 14, 16, 5, 5),
            Layer("pool2", "max_pool2d", (16, 10, 10, 2)),
            Layer("block1", "conv2d_relu_pool", (1, 28, 28, 6, 5, 5, 1, 2)),
            Layer("block2", "conv2d_relu_pool", (6, 14, 14, 16, 5, 5)),
        ),
    ),
    "ece408": Suite(
        "UIUC's ECE408 project: 10,000 images of 48x48, filters of 5x5, 1 -> 6 -> 16 channels",
        (10_000,),
        (_conv("conv1", 1, 48, 48, 6, 5, 5), _conv("conv2", 6, 22, 22, 16, 5, 5)),
    ),
    "googlenet-1x1": Suite(
        "GoogLeNet's 1x1 convolutions, from large planes to many channels",
        (32,),
        (
            _conv("conv2 reduce", 64, 56, 56, 64, 1, 1),
            _conv("3a 3x3 reduce", 192, 28, 28, 96, 1, 1),
            _conv("4a 3x3 reduce", 480, 14, 14, 96, 1, 1),
            _conv("5a 1x1", 832, 7, 7, 256, 1, 1),
        ),
    ),
    "resnet50-3x3": Suite(
        "ResNet-50's 3x3 convolutions, one a stage",
        (64,),
        (
            _conv("stage 1", 64, 56, 56, 64, 3, 3, 1, 1),
            _conv("stage 2", 128, 28, 28, 128, 3, 3, 1, 1),
            _conv("stage 3", 256, 14, 14, 256, 3, 3, 1, 1),
            _conv("stage 4", 512, 7, 7, 512, 3, 3, 1, 1),
        ),
    ),
    "vgg": Suite(
        "VGG's convolutions, the first of each block and the last",
        (16,),
        (
            _conv("conv1_1", 3, 224, 224, 64, 3, 3, 1, 1),
            _conv("conv2_1", 64, 112, 112, 128, 3, 3, 1, 1),
            _conv("conv3_1", 128, 56, 56, 256, 3, 3, 1, 1),
            _conv("conv4_1", 256, 28, 28, 512, 3, 3, 1, 1),
            _conv("conv5_3", 512, 14, 14, 512, 3, 3, 1, 1),
        ),
    ),
    "arithmetic": Suite(
        "small odd shapes: what a kernel tuned for round ones pays",
        (7,),
        (
            _conv("prime", 3, 31, 29, 5, 3, 3),
            _conv("wide", 2, 5, 257, 3, 3, 5, 1, 1),
            _conv("tall", 2, 257, 5, 3, 5, 3, 1, 1),
            _conv("strided", 3, 33, 35, 7, 3, 3, 2, 1),
            _conv("dilated", 3, 37, 41, 5, 3, 3, 1, 2, 2),
            _conv("large filter", 1, 47, 43, 3, 11, 11),
            Layer("odd pool", "max_pool2d", (5, 31, 29, 3, 2, 1)),
            Layer("odd average", "avg_pool2d", (5, 31, 29, 3, 2, 1)),
        ),
    ),
}


def cases(suites: Sequence[str], shapes: Sequence[str], batches: str | None = None) -> list[Case]:
    """Return what is to be measured, suites first, each case once.

    Parameters
    ----------
    suites
        Names out of `SUITES`.
    shapes
        As `expand` takes them.
    batches
        A sweep such as ``"64:8192:x2"`` that takes the place of the suites' own batch sizes.

    Raises
    ------
    SuiteError
        An unknown suite, or a shape or sweep that cannot be read.
    """
    found: dict[tuple[str, tuple[int, ...]], Case] = {}
    for case in itertools.chain(
        *(_of_suite(name, batches) for name in suites), *(expand(text) for text in shapes)
    ):
        found.setdefault((case.operation, tuple(case.shape)), case)
    return list(found.values())


def expand(text: str) -> Iterator[Case]:
    """Yield the cases of a user's shape, in which any number may be a sweep.

    Parameters
    ----------
    text
        ``"64,1,28,28,6,5,5,1,2"``, ``"N=64:8192:x2,6,14,14,16,5,5"``, or
        ``"max_pool2d:64,6,28,28,2"``.
    """
    try:
        operation, values = shape_text.split(text)
    except shape_text.ShapeTextError as error:
        raise SuiteError(str(error)) from None
    sweeps = [_sweep(value, name, text) for name, value in values.items()]
    if (count := math.prod(map(len, sweeps))) > MOST:
        raise SuiteError(
            f"shape {text!r} is {count:,} shapes; expected {MOST:,} at most: sweep fewer numbers"
        )
    swept = {name for name, numbers in zip(values, sweeps, strict=True) if len(numbers) > 1}
    for numbers in itertools.product(*sweeps):
        given = dict(zip(values, numbers, strict=True))
        shape = _shape(operation, given, text)
        group = ",".join("*" if name in swept else str(given[name]) for name in given)
        label = ",".join(map(str, numbers))
        prefix = "" if operation == "conv2d" else f"{operation} "
        yield Case(operation, shape, prefix + group, prefix + label)


def parse_shape(text: str, operation: str) -> Shape:
    """Return one shape.

    Parameters
    ----------
    text
        As `shape_text.parse` takes it.
    operation
        One of `shape_text.OPERATIONS`.

    Raises
    ------
    SuiteError
        A text that is no shape, or more than one.
    """
    found = list(expand(f"{operation}:{text.removeprefix(operation + ':')}"))
    if len(found) != 1:
        raise SuiteError(f"shape {text!r} is {len(found)} shapes; expected one")
    return found[0].shape


def _of_suite(name: str, batches: str | None) -> Iterator[Case]:
    if name not in SUITES:
        raise SuiteError(f"unknown suite {name!r}; expected one of {', '.join(SUITES)}")
    suite = SUITES[name]
    for layer in suite.layers:
        for n in _sweep(batches, "N", f"--batch {batches}") if batches else suite.batches:
            names, _ = shape_text.fields(layer.operation)
            given = dict(zip(names, (n, *layer.dims), strict=False))
            group = f"{name} {layer.name}"
            shape = _shape(layer.operation, given, group)
            yield Case(layer.operation, shape, group, f"{group} N={n}")


def _sweep(text: str, name: str, whole: str) -> tuple[int, ...]:
    """Return the numbers of ``"64"``, ``"64:8192:x2"`` (times two) or ``"16:64:+16"``."""
    if re.fullmatch(r"\d{1,9}", text):
        return (int(text),)
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9}):([x+])(\d{1,9})", text)
    if not found:
        raise SuiteError(
            f"{name} is {text!r} in {whole!r}; expected a number or a sweep such as "
            "64:8192:x2 or 16:64:+16"
        )
    first, last, how = int(found[1]), int(found[2]), found[3]
    step = int(found[4])
    if first > last or (step < 2 if how == "x" else step < 1) or (how == "x" and first < 1):
        raise SuiteError(f"{name} sweeps {text!r} in {whole!r}, which never gets from end to end")
    numbers = [first]
    while (following := numbers[-1] * step if how == "x" else numbers[-1] + step) <= last:
        numbers.append(following)
        if len(numbers) > MOST:
            raise SuiteError(
                f"{name} sweeps more than {MOST:,} values in {whole!r}; take a larger step"
            )
    return tuple(numbers)


def _shape(operation: str, given: dict[str, int], text: str) -> Shape:
    if given["N"] < 1:
        raise SuiteError(f"shape {text!r}: N is {given['N']}; an empty batch takes no time")
    try:
        return shape_text.build(operation, given, text)
    except shape_text.ShapeTextError as error:
        raise SuiteError(str(error)) from None
