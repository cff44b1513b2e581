"""Numba's simulator under watch counts and finds what the X-ray does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numba import cuda, float32

from kernels import emulator
from kernels.exercises import catalogue, launching, watched
from kernels.numba_cuda import NumbaSource

source = NumbaSource(__name__)


@pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))
@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("guard_the_edge", "solution"),  # some lanes idle
        ("coalesce_this_load", "start"),  # 32 sectors a request
        ("stage_a_tile", "start"),  # loops
        ("bank_conflict", "start"),  # 32 wavefronts a request
        ("block_reduction", "start"),  # atomics
    ],
)
def test_the_counts_are_the_xrays(name, which):
    exercise = catalogue.find(name)
    case = exercise.cases("")[0]
    counts = []
    for language, make in (("cuda_c", launching.CudaKernel), ("numba", launching.NumbaKernel)):
        kernel = make(getattr(exercise, which)(language), exercise, list(case.args))
        recording = kernel.launch(case).recording
        totals: dict[tuple[str, str], list[int]] = {}
        for access in recording.accesses:
            key = access.array, access.operation
            figures = (
                access.requests, access.lanes, access.bytes, access.sectors, access.ideal_sectors,
                access.wavefronts, access.ideal_wavefronts, access.conflicts,
            )  # fmt: skip
            known = totals.get(key, [0] * len(figures))
            totals[key] = [a + b for a, b in zip(known, figures, strict=True)]
        counts.append(totals)
    assert counts[0] == counts[1]


@cuda.jit
def reads_what_nobody_wrote(x, y):
    staged = cuda.shared.array(32, float32)
    if cuda.threadIdx.x > 0:
        staged[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    cuda.syncthreads()
    y[cuda.threadIdx.x] = staged[cuda.threadIdx.x]


@cuda.jit
def counts_from_the_end(x, y):
    y[cuda.threadIdx.x] = x[cuda.threadIdx.x - 1]


@cuda.jit
def reads_a_neighbours_write(x, y):
    y[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    y[cuda.threadIdx.x] += y[cuda.threadIdx.x ^ 1]


@cuda.jit
def waits_before_it_reads(x, y):
    y[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    cuda.syncthreads()
    other = y[cuda.threadIdx.x ^ 1]
    cuda.syncthreads()
    y[cuda.threadIdx.x] += other


@cuda.jit
def adds_together(x, y):
    cuda.atomic.add(y, 0, x[cuda.threadIdx.x])
    y[cuda.threadIdx.x + 1] = 0


def launched(name: str, size: int = 32, **changes):
    x = np.arange(size, dtype=np.float32)
    y = np.full(changes.pop("y", size), np.nan, np.float32)
    if changes.pop("zeros", False):
        y[:] = 0
    empty = () if not np.isnan(y).any() else ("y",)
    function = source.namespace("float32", (), simulated=True)[name]
    return watched.record(function, (1,), (size,), {"x": x, "y": y}, empty, empty), y


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("reads_what_nobody_wrote", {"uninitialised"}),
        ("counts_from_the_end", {"bounds"}),
        ("reads_a_neighbours_write", {"race", "uninitialised"}),
        ("waits_before_it_reads", set()),
    ],
)
def test_a_fault_is_found_at_its_line(name, kinds):
    recording, _ = launched(name)
    assert {finding.kind for finding in recording.findings} == kinds
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    for finding in recording.findings:
        assert finding.file == __file__
        code = lines[finding.line - 1]
        assert "threadIdx" in code
        assert f"{finding.array}[" in code


def test_the_element_before_the_first_is_outside_though_python_counts_from_the_end():
    recording, y = launched("counts_from_the_end")
    (finding,) = recording.findings
    assert finding.message == "reads x[-1], outside of its 32 elements"
    assert (finding.thread, finding.index, finding.count) == ((0, 0, 0), -1, 1)
    assert np.isnan(y[0])
    np.testing.assert_array_equal(y[1:], np.arange(31))


def test_atomic_additions_do_not_collide_and_are_counted():
    recording, y = launched("adds_together", y=33, zeros=True)
    assert recording.findings == ()
    (atomic,) = [access for access in recording.accesses if access.operation == "atomic"]
    assert (atomic.requests, atomic.lanes, atomic.conflicts) == (1, 32, 31)
    assert y[0] == sum(range(32))
