"""The bound: every term against arithmetic by hand, and what must hold of any."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented_launch import access, array, launch

from kernels.xray.bound import Bound, bound
from kernels.xray.gpus import GPUS, Gpu

# 10 multiprocessors of compute capability 8.0 (64 float32 and 32 float64 lanes) at 1 GHz, memory
# of 100 GB a second, L2 of 500 bytes a clock.
SMALL = Gpu("small", "8.0", 10, 1e9, 1 << 20, 100e9, 500)


def times(per_flop: float) -> Callable[[float], float]:
    """Return what machine code says of a lane's operations that has so many instructions each."""
    return lambda flops: flops * per_flop


def seconds(found: Bound) -> dict[str, float]:
    return {term.name: term.seconds for term in found.terms}


def test_float32_arithmetic():
    """10 x 64 lanes x 2 x 1 GHz are 1.28 Tflop/s."""
    found = bound(launch(flops=1_280_000), SMALL)
    assert seconds(found)["fp32"] == pytest.approx(1e-6)
    assert (found.binds, found.seconds) == ("fp32", pytest.approx(1e-6))


def test_float64_arithmetic_has_its_own_lanes():
    found = bound(launch(flops=640_000, arrays=(array(dtype="float64"),)), SMALL)
    assert seconds(found)["fp64"] == pytest.approx(1e-6)
    # On a GeForce there are 2 lanes for 128.
    slow = dataclasses.replace(SMALL, capability="8.9")
    assert seconds(bound(launch(flops=640_000, arrays=(array(dtype="float64"),)), slow))[
        "fp64"
    ] == pytest.approx(16e-6)


def test_mixed_arrays_count_as_float32():
    mixed = launch(flops=1_280_000, arrays=(array(dtype="float64"), array()))
    assert seconds(bound(mixed, SMALL))["fp32"] == pytest.approx(1e-6)


def test_half_precision_has_no_term():
    found = bound(launch(flops=10**9, arrays=(array(1, dtype="float16"),)), SMALL, times(1))
    assert set(seconds(found)) == {"lsu", "l2", "dram"}
    assert "half-precision" in found.left_out["fp32"]
    assert "half-precision" in found.left_out["issue"]


def test_shared_wavefronts():
    """One a clock and multiprocessor: 10,000 over 10 are 1,000 clocks."""
    found = bound(launch(access("shared", requests=5000, wavefronts=10_000)), SMALL)
    assert seconds(found)["lsu"] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("requests", "sectors", "wavefronts"),
    [
        (10_000, 40_000, 10_000),  # stride 1: 4 sectors are 128 bytes
        (10_000, 320_000, 80_000),  # stride 32: each lane its own sector
        (10_000, 10_000, 10_000),  # one sector for all lanes still takes a turn
        (10_000, 50_000, 12_500),  # misaligned by a float
    ],
)
def test_global_requests_take_turns_with_shared_ones(requests, sectors, wavefronts):
    both = launch(
        access(requests=requests, sectors=sectors), access("shared", requests=1, wavefronts=7000)
    )
    assert seconds(bound(both, SMALL))["lsu"] == pytest.approx((wavefronts + 7000) * 1e-10)


def test_local_arrays_are_not_counted():
    found = bound(launch(access("local", requests=10**6, bytes=10**9)), SMALL)
    assert (found.seconds, found.binds) == (0, None)


def test_issue():
    """Of 2,560,000 flop a lane of 8,000 warps does 10; 25 instructions a warp, 4 a clock on 10."""
    found = bound(launch(flops=2_560_000), SMALL, times(2.5))
    assert seconds(found)["issue"] == pytest.approx(200_000 / 40 * 1e-9)
    assert "issue" not in found.left_out
    (formula,) = (term.formula for term in found.terms if term.name == "issue")
    assert formula.startswith("8,000 warps x 25.0 instructions")
    assert "with 10.0 flop a lane" in formula


def test_warps_that_are_not_full_issue_as_whole_ones():
    """256 threads of 8 blocks are 8 warps each; of 100 threads 4, whose lanes are taken as 128."""
    asked = []
    for threads in (256, 100):
        bound(launch(flops=1000, blocks=8, threads=threads), SMALL, asked.append)
    assert asked == [1000 / (8 * 8 * 32), 1000 / (8 * 4 * 32)]


def test_without_machine_code_there_is_no_issue_term():
    found = bound(launch(flops=1), SMALL)
    assert "issue" not in seconds(found)
    assert "no machine code" in found.left_out["issue"]
    unknown = bound(launch(flops=1), SMALL, lambda flops: None)
    assert "issue" not in seconds(unknown)
    assert "not known here" in unknown.left_out["issue"]


def test_l2_counts_reads_once_and_writes_every_time():
    """1,000 different sectors read, 4,000 written: 160,000 bytes at 500 GB/s."""
    work = launch(
        access(sectors=90_000, requests=1),
        access(operation="write", sectors=3000, requests=1),
        access(operation="atomic", sectors=1000, requests=1),
        access("shared", operation="write", wavefronts=1, requests=1),
        arrays=(array(read=1000, written=500),),
    )
    assert seconds(bound(work, SMALL))["l2"] == pytest.approx(160_000 / 500e9)


def test_without_a_published_rate_there_is_no_l2_term():
    found = bound(launch(flops=1), GPUS["h200"])
    assert "l2" not in seconds(found)
    assert "H200" in found.left_out["l2"]


@pytest.mark.parametrize("gpu", GPUS.values(), ids=list(GPUS))
def test_a_copy_takes_its_bytes_by_the_bandwidth(gpu):
    """1 GiB read, 1 GiB written, 128 bytes a request."""
    sectors = (1 << 30) // 32
    copy = launch(
        access(requests=sectors // 4, sectors=sectors),
        access(operation="write", requests=sectors // 4, sectors=sectors),
        arrays=(array(read=sectors), array(written=sectors)),
        blocks=1 << 20,
    )
    found = bound(copy, gpu)
    assert found.binds == "dram"
    assert found.seconds == pytest.approx((2 << 30) / gpu.dram_rate)
    assert found.notes == ()


def test_fewer_blocks_than_multiprocessors():
    few = bound(launch(flops=1_280_000, blocks=5), SMALL)
    assert seconds(few)["fp32"] == pytest.approx(2e-6), "half of them are idle"
    assert few.rounds == 0.5
    assert any("5 blocks leave 5 of 10 multiprocessors idle" in note for note in few.notes)


@pytest.mark.parametrize(
    ("blocks", "said"), [(11, "some do 2, and .* grow 1.82 times"), (20, None), (999, None)]
)
def test_the_last_round_of_blocks(blocks, said):
    """11 blocks on 10 multiprocessors: one of them does 2, the time of 20."""
    found = bound(launch(flops=1_280_000, blocks=blocks), SMALL)
    assert seconds(found)["fp32"] == pytest.approx(1e-6), "the bound itself does not presume it"
    assert bool(found.notes) == bool(said)
    assert said is None or re.search(said, found.notes[0])


def test_a_sample_is_scaled_up_and_says_so():
    sampled = launch(
        access("shared", requests=1, wavefronts=1000),
        flops=2560,
        blocks=1000,
        traced=10,
        arrays=(array(read=100),),
    )
    found = bound(sampled, SMALL, times(4))
    work = {term.name: term.work for term in found.terms}
    assert work["fp32"] == pytest.approx(256_000)
    assert work["issue"] == pytest.approx(32_000)
    assert work["lsu"] == pytest.approx(100_000)
    assert work["dram"] == 3200, "other blocks may have read the same"
    assert any("10 of 1,000 blocks were traced" in note for note in found.notes)


def test_notes_of_what_fits_in_l2_and_of_cut_segments():
    notes = " ".join(bound(launch(arrays=(array(read=10),), cut=3), SMALL).notes)
    assert "fits in L2 (1 MiB)" in notes
    assert "3 segments of warps were cut short" in notes


COUNTS = st.integers(0, 10**9)


@given(flops=COUNTS, wavefronts=COUNTS, sectors=COUNTS, blocks=st.integers(1, 10**5))
def test_the_bound_is_its_largest_term(flops, wavefronts, sectors, blocks):
    work = launch(
        access("shared", requests=1, wavefronts=wavefronts),
        flops=flops,
        blocks=blocks,
        arrays=(array(read=sectors),),
    )
    found = bound(work, SMALL, times(1.5))
    assert found.seconds == max(seconds(found).values()) <= sum(seconds(found).values())
    assert (found.binds is None) == (found.seconds == 0)
    bigger = dataclasses.replace(SMALL, sms=20, dram_rate=200e9, l2_per_clock=1000)
    assert bound(work, bigger, times(1.5)).seconds <= found.seconds
    if blocks >= 20:
        assert bound(work, bigger, times(1.5)).seconds == pytest.approx(found.seconds / 2)


def test_as_json_has_it():
    found = bound(launch(flops=10, arrays=(array(read=1),)), SMALL, times(0.01))
    read = json.loads(json.dumps(found.to_dict()))
    assert read["binds"] == "dram"
    assert read["seconds"] == found.seconds == read["terms"][0]["seconds"]
    assert {term["name"] for term in read["terms"]} == {"fp32", "issue", "lsu", "l2", "dram"}
    assert all(term["formula"] for term in read["terms"])
