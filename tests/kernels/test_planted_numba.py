"""The check rejects faults planted in the Numba kernels too, each one edit of a healthy file."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest

from kernels import cases, check, table


@dataclasses.dataclass(frozen=True)
class Plant:
    """One fault: in the module of `row`, or in `file` beside it, `healthy` becomes `faulty`."""

    name: str
    operation: str
    row: str
    healthy: str
    faulty: str
    file: str = ""


def _conv(name: str, row: str, healthy: str, faulty: str, file: str = "") -> Plant:
    return Plant(name, "conv2d", row, healthy, faulty, file)


PLANTS = (
    _conv(
        "flipped filter", "naive_numba", "w[w_offset(shape, k, c, r, s)]\n        y",
        "w[w_offset(shape, k, c, shape.r - 1 - r, shape.s - 1 - s)]\n        y",
    ),
    _conv("one output unwritten", "naive_numba", "        y[uint32(i)] = sum", "        if i:\n            y[uint32(i)] = sum"),
    _conv("bias of the first filter", "naive_numba", "b[uint32(k)] if len(b)", "b[uint32(0)] if len(b)"),
    _conv("one thread too many", "naive_numba", "in_bias = k < shape.k", "in_bias = k <= shape.k"),
    _conv("stride not asked about", "naive_numba", "p = output_row(shape, row, r)", "p = min((row + shape.pad_top - r * shape.dilation_h) // shape.stride_h, shape.p - 1)"),
    _conv("every slice reads the first images", "im2col_gemm_numba", "x_offset(shape, first + image, c, 0, 0)", "x_offset(shape, image, c, 0, 0)"),
    _conv("fold forgets the stride", "im2col_gemm_numba", "range(first_s, shape.s, step_s)", "range(first_s, shape.s)"),
    _conv("no barrier before the reads", "tiled_numba", "                cuda.syncthreads()  # a thread reads what its neighbours loaded\n\n                # Beyond", "                # Beyond"),
    _conv("halo one row short", "tiled_numba", "(taps_r - 1) * shape.dilation_h + 1)", "(taps_r - 1) * shape.dilation_h)"),
    _conv("halo one column short", "tiled_numba", "int32(cuda.threadIdx.x), width, int32(TILE_Q)", "int32(cuda.threadIdx.x), width - 1, int32(TILE_Q)"),
    _conv("unguarded edge", "tiled_numba", "in_output = p < shape.p and q < shape.q", "in_output = True"),
    _conv("last tap dropped", "tiled_numba", "                    for s in range(s_end):", "                    for s in range(s_end - (s_end > 1)):"),
    _conv("no barrier before the sum of shares", "tiled_filter_numba", "    cuda.syncthreads()  # a tap's first share adds up the others\n", "", "tiled_filter_numba"),
    _conv("last share forgotten", "tiled_filter_numba", "range(int32(1), shares)", "range(int32(1), shares - 1)", "tiled_filter_numba"),
    Plant("ties to the last", "max_pool2d", "max_numba", "value > best or", "value >= best or"),
    Plant("NaN passed over", "max_pool2d", "max_numba", "value > best or first_nan", "value > best"),
    Plant("overlapping windows overwrite", "max_pool2d", "max_numba", "sum += dy[window]", "sum = dy[window]"),
    Plant("padding never counted", "avg_pool2d", "avg_numba", "if shape.include_pad:", "if False:"),
)  # fmt: skip


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Return a function: a module's file, edited, as a module of another name."""

    def load(module: str, healthy: str, faulty: str):
        path = Path(importlib.util.find_spec(module).origin)
        text = path.read_text()
        assert text.count(healthy) == 1, f"{healthy!r} occurs {text.count(healthy)} times in {path}"
        copy = tmp_path / path.name
        copy.write_text(text.replace(healthy, faulty))
        name = f"planted_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, copy)
        planted = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, planted)
        spec.loader.exec_module(planted)
        return planted

    return load


def rejection(row: table.Row, operation: str) -> check.Result | None:
    results = check.check_row(row, cases.fixed(operation, "simulator"), "simulator")
    return next((r for r in results if not r.ok and r.dtype == "float32"), None)


@pytest.mark.parametrize(
    "plant",
    [  # all shapes but the last few pass with these
        pytest.param(
            plant, marks=pytest.mark.slow if plant.name.startswith(("halo", "last share")) else ()
        )
        for plant in PLANTS
    ],
    ids=lambda plant: plant.name.replace(" ", "-"),
)
def test_a_planted_fault_is_rejected(plant: Plant, edited, monkeypatch):
    row = table.find(plant.operation, plant.row if not plant.file else "tiled_numba")
    folder, _, stem = row.module.rpartition(".")
    planted = edited(f"{folder}.{plant.file or stem}", plant.healthy, plant.faulty)
    if plant.file:
        monkeypatch.setattr(row.launchers, "filter_source", planted.source)
        row = dataclasses.replace(row, passes=("backward_filter",))
    else:
        row = dataclasses.replace(row, module=planted.__name__)
    rejected = rejection(row, plant.operation)
    assert rejected is not None, f"{plant.name}: every shape passed"
    assert "NameError" not in rejected.message, rejected.message
    assert "TypeError" not in rejected.message, rejected.message


def test_an_edited_file_without_a_fault_passes(edited):
    row = table.find("max_pool2d", "max_numba")
    same = edited(row.module, "value > best or first_nan", "first_nan or value > best")
    assert rejection(dataclasses.replace(row, module=same.__name__), "max_pool2d") is None
