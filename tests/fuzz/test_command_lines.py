"""Command lines of every option there is, with good values, bad ones and odd mixtures.

Where a command would begin long work it is interrupted: what is tried is all that comes before.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import shutil
from pathlib import Path
from typing import Any

import made_up_results
import pytest
from fuzzing import Target, share
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kernels import __main__ as kernels_command
from kernels import list_resources, shape_text, tune
from kernels.shapes import Conv2dShape
from kernels.xray import launches, own_file
from lenet import __main__ as lenet_command
from lenet import distributed, speedrun, train
from profiling import __main__ as profiling_command
from profiling import (
    bench,
    compare_torch,
    counts,
    doctor,
    nsys,
    scaling,
    suites,
    sweep,
    trace,
    verify,
)

SHAPES = ["2,1,28,28,6,5,5,1,2", "2,6,28,28,2", "0,1,5,5,1,3,3", "1,1,2,2,1,3,3", "1,1,9,9",
          "max_pool2d:2,3,9,9,2", "conv2d_relu_pool:1,1,9,9,2,3,3", "N=1:64:x2,1,9,9,1,3,3",
          "1:999999999:+1,1,9,9,1,3,3", "999999999," * 9 + "1", "1:1000:+1," * 9 + "1",
          "\u0663,1,9,9,1,3,3", "banana:1,2"]  # fmt: skip
NUMBERS = ["0", "1", "-1", "2", "9" * 400, "1e999", "nan", "-inf", "0x10", "1_0", "1.5", "98%",
           "200%", "\u0663"]  # fmt: skip
NAMES = ["naive", "tiled", "tiled_numba", "cpu", "reference", "auto", "none", "max", "avg:cpu",
         "max:max", "fused", "banana", "conv2d", "my_idea", "class", "forward", "backward_data",
         "relu", "tanh", "gpu", "h200", "digits", "fp32", "float64", "lenet", "sm_90", "emulator",
         "64:512:x2", "torch", "8x8", "5x5x3", "same", "3x3 filters 6 padding same", "pool 2x2",
         "12.3us", "x=zeros:3", "forward,data"]  # fmt: skip
FILES = ["there.jsonl", "unfinished.jsonl", "missing", "folder", "empty", "image.png", "kernel.cu",
         "README.md", ".", "folder/new", "no/such/folder/new", "x" * 300]  # fmt: skip
WORDS = ["", " ", "-", "--", "=", ",", ":", "'", '"', "[/red]", "%s", "{}", "\u202f", "~"]
VALUES = st.sampled_from(SHAPES + NUMBERS + NAMES + FILES + WORDS)


def options_of(main: Any, argv: list[str]) -> argparse.ArgumentParser:
    """Return the parser that a command line is parsed with."""
    found = []

    def stop(self: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        found.append(self)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with contextlib.suppress(KeyboardInterrupt):
            main(argv)  # which may have caught it
    (parser,) = found
    return parser


def commands_of(main: Any) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each of a command line's commands."""

    def commands(argv: list[str]) -> dict[str, argparse.ArgumentParser]:
        parser = options_of(main, argv)
        (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        return action.choices

    return {name: commands([name])[name] for name in commands([])}


@st.composite
def command_lines(draw: Any, commands: dict[str, argparse.ArgumentParser]) -> list[str]:
    """A command with its positionals, mostly, and some of its options, mostly with a value."""
    name = draw(st.sampled_from(sorted(commands)))
    argv = [name]
    actions = [a for a in commands[name]._actions if a.dest != "help"]
    for action in actions:
        wanted = action.required or (not action.option_strings and draw(st.booleans()))
        if (wanted and draw(st.integers(0, 19))) or draw(st.integers(0, 4)) == 0:
            if action.option_strings:
                argv.append(draw(st.sampled_from(action.option_strings)))
            if action.nargs != 0:
                argv += draw(
                    st.lists(_value(action), min_size=1, max_size=2 if action.nargs else 1)
                )
    if draw(st.integers(0, 14)) == 0:
        argv.insert(draw(st.integers(0, len(argv))), draw(VALUES))
    return argv


GOOD = {
    "conv": ["naive", "auto", "tiled"], "pool": ["max", "avg:cpu", "auto"],
    "device": ["cpu", "auto"],
    "block": ["none", "auto", "cpu"], "data": ["digits"], "activation": ["relu", "tanh"],
    "lr": ["0.01"], "momentum": ["0.9"], "name": ["my_idea", "tiled", "naive"],
    "kernel": ["naive", "tiled"], "direction": ["forward", "backward_data"],
    "operation": ["conv2d", "max_pool2d"], "target_accuracy": ["98%"], "input": ["5x5x3"],
    "size": ["3", "3x5"], "filters": ["32"], "layer": ["3x3 filters 6 padding same", "pool 2x2"],
    "plugin": ["folder"], "words": ["true"], "suite": ["lenet", "vgg"], "batch": ["1", "64:512:x2"],
    "checkpoint": ["missing"], "gpu": ["h200"], "passes": ["forward", "data,filter"],
}  # fmt: skip


def _value(action: argparse.Action) -> Any:
    """Return values for an option, more of those that it is likely to take."""
    if action.dest in GOOD:
        good = st.sampled_from(GOOD[action.dest])
        return st.one_of(good, good, good, VALUES)
    if action.choices:
        return st.one_of(st.sampled_from(sorted(action.choices)), VALUES)
    if "shape" in action.dest:
        return st.one_of(st.sampled_from(SHAPES), st.sampled_from(SHAPES), VALUES)
    if action.type in (int, float):
        return st.one_of(st.sampled_from(NUMBERS), st.sampled_from(["1", "2"]), VALUES)
    if action.type is Path:
        return st.one_of(st.sampled_from(FILES), st.sampled_from(FILES), VALUES)
    return st.one_of(st.sampled_from(NAMES), VALUES)


KERNELS = commands_of(kernels_command.main)
LENET = commands_of(lenet_command.main)
PROFILING = commands_of(profiling_command.main)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes what takes long an interruption."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for module, name in (
        (kernels_command, "_report"), (list_resources, "_compile"), (tune, "_search"),
        (launches, "of_row"), (own_file, "_load"), (bench, "_ceilings"), (bench, "Bench"),
        (sweep, "join"), (scaling, "_start"), (trace, "execute"), (nsys, "run"),
        (counts, "compare"), (doctor, "run"), (verify, "run"), (compare_torch, "_sides"),
        (train, "train"), (train, "resume"), (speedrun, "runs"),
        (distributed, "ranks_of_this_job"),
    ):  # fmt: skip
        assert hasattr(module, name)
        monkeypatch.setattr(module, name, stop)


def files() -> None:
    """Put the files there that a command line may name, as they were before the last one."""
    for path in Path().iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    Path("folder").mkdir()
    Path("empty").touch()
    Path("README.md").write_text("mine")
    Path("kernel.cu").write_text('extern "C" __global__ void f(float *x) { x[0] = 1; }\n')
    Image.new("L", (28, 28), 7).save("image.png")
    Path("there.jsonl").write_bytes(_whole())
    Path("unfinished.jsonl").write_bytes(_whole().rpartition(b'{"line":"end"')[0])


_made: list[bytes] = []


def _whole() -> bytes:
    if not _made:
        made_up_results.write(Path("made_up.jsonl"), "cpu", batches=(64,))
        _made.append(Path("made_up.jsonl").read_bytes())
        Path("made_up.jsonl").unlink()
    return _made[0]


@given(command_lines(KERNELS))
@share(5, 150)
def test_kernels(target: Target, interrupted, capsys, argv: list[str]):
    os.environ.pop("KERNELS_PATH", None)
    files()
    if "new" in argv:
        argv = [*argv, "--plugin", "folder"]  # into the lab otherwise
    target.command(kernels_command.main, argv, capsys)


@given(command_lines(LENET))
@share(4, 100)
def test_lenet(target: Target, interrupted, capsys, argv: list[str]):
    os.environ.pop("KERNELS_PATH", None)
    files()
    target.command(lenet_command.main, argv, capsys)


@given(command_lines({name: one for name, one in PROFILING.items() if name != "report"}))
@share(4, 100)
def test_profiling(target: Target, interrupted, capsys, argv: list[str]):
    os.environ.pop("KERNELS_PATH", None)
    files()
    target.command(profiling_command.main, argv, capsys)
    assert Path("README.md").read_text() == "mine"


_number = st.sampled_from(["0", "1", "2", "3", "5", "9", "28", "64", "999999999", "4294967296",
                           "-1", "", " 2", "1:8:x2", "1:9:+2", "9:1:+1", "1:999999999:+1", "0:9:x2",
                           "1:9:x1", "N=3", "n=2", "\u0663"])  # fmt: skip


_usual = st.sampled_from(["1", "2", "3", "5", "9", "28", "64"])


@given(
    st.lists(st.one_of(*[_usual] * 6, _number), min_size=4, max_size=11),
    st.sampled_from(["", "conv2d:", "max_pool2d:"]),
)
@share(5, 300)
def test_shape(target: Target, numbers: list[str], operation: str):
    text = operation + ",".join(numbers)
    got = target.outcome(
        lambda: list(itertools.islice(suites.expand(text), 100_000)), suites.SuiteError
    )
    if got is not None and all(number.isascii() and number.isdigit() for number in numbers):
        (case,) = got
        n, c, h, w, *rest = map(int, numbers)
        assert case.shape.input_shape == (n, c, h, w)
        assert case.shape == shape_text.parse(text, case.operation)
        if isinstance(case.shape, Conv2dShape):
            k, r, s, stride, pad, dilation = [*rest, *(1, 0, 1)[len(rest) - 3 :]]
            assert case.shape.k == k
            assert case.shape.p == math.floor((h + 2 * pad - (r - 1) * dilation - 1) / stride) + 1
            assert case.shape.q == math.floor((w + 2 * pad - (s - 1) * dilation - 1) / stride) + 1
