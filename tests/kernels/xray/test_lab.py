"""The lab's own kernels: healthy ones have no finding, faults planted in them have theirs."""

import dataclasses
import functools

import pytest
from planted import PLANTS

from kernels import cases, emulator, table, xray
from kernels.source import CudaSource

ROWS = [row for row in table.rows() if row.language == "cuda_c"]
# The plants that touch memory wrongly. The others compute a wrong value from the right memory: of
# that only the judge of `check` can know.
FINDS = {
    "no-op": {"unwritten"},
    "one output unwritten": {"unwritten"},
    "one gradient unwritten": {"unwritten"},
    "adds to what was there": {"uninitialised"},
    "one thread too many": {"bounds"},
    "unguarded edge": {"bounds", "race"},  # into the next row of the output too
    "edge one too far": {"bounds"},
    "no barrier before the reads": {"race", "uninitialised"},
    "no barrier after the reads": {"race"},
    "halo one row short": {"uninitialised"},
    "halo one column short": {"uninitialised"},
    "no barrier before the sum of shares": {"race", "uninitialised"},
    "no barrier before the product": {"race"},
    "no barrier behind the wait": {"race"},
}


def name(row):
    return f"{row.operation}-{row.name}"


def healthy(row, shapes):
    for shape in shapes:
        for direction in row.passes if shape.n else ():
            if row.refuses(direction, shape, "float32"):
                continue
            for recording in xray.record_pass(row, direction, shape):
                assert recording.findings == (), (direction, shape)
                assert recording.cut == 0
                assert recording.blocks_traced == recording.blocks


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_no_finding_on_a_healthy_kernel(row):
    shapes = cases.random(row.operation, 8, seed=5)
    taken = [s for s in shapes if not row.refuses("forward", s, "float32")]
    # What takes few shapes has them among the fixed ones.
    healthy(row, taken or cases.fixed(row.operation))


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=name)
def test_no_finding_on_200_shapes(row):
    healthy(row, cases.chosen(row.operation, "emulator", 200, seed=6))


@pytest.mark.parametrize("plant", [p for p in PLANTS if p.name in FINDS], ids=lambda p: p.name)
def test_a_planted_fault_is_found(plant, tmp_path, monkeypatch):
    row = table.find(plant.operation, plant.row)
    *path, name = plant.source.split(".")
    module = functools.reduce(getattr, path, row.launchers)
    faulty = CudaSource(plant.write(tmp_path), **getattr(module, name).defines)
    monkeypatch.setattr(module, name, faulty)
    files = {str(file) for file in tmp_path.iterdir()}

    found = set()
    for shape in cases.fixed(plant.operation)[:14]:
        for direction in row.passes if shape.n else ():
            for recording in xray.record_pass(row, direction, shape):
                found |= {finding.kind for finding in recording.findings}
                assert {finding.file for finding in recording.findings} <= files
    assert found == FINDS[plant.name]


def test_every_launch_of_a_pass_is_recorded_and_the_plain_ones_stay_plain():
    (row,) = (row for row in ROWS if row.name == "im2col_gemm")
    shape = cases.random("conv2d", 1, seed=1)[0]
    recordings = xray.record_pass(row, "forward", shape)
    assert recordings[0].kernel == "conv2d_im2col"
    assert {one.kernel for one in recordings} > {"conv2d_im2col"}
    assert dataclasses.replace(recordings[0], seconds=0) == dataclasses.replace(
        xray.record_pass(row, "forward", shape)[0], seconds=0
    )
    assert emulator.options.interceptor.get() is None
