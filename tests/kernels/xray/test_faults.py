"""Every planted fault is found, of its kind, at its line, and nothing else is."""

import re
from pathlib import Path

import numpy as np
import pytest

from kernels import xray

SOURCE = Path(__file__).with_name("faults.cu")
N = 128
MARK = rf"// ((?:(?:{'|'.join(xray.KINDS)}) ?)+)$"
SETTINGS = {
    "bounds_one_thread_too_many": {"grid": 3},
    "bounds_dynamic_shared": {"shared_mem": 256},
    "uninitialised_dynamic_shared": {"shared_mem": 256},
    "unwritten_block_missing": {"grid": 1},
}
# What a fault brings with it: a kernel that is ended early, or that writes part of y only.
PART_OF_Y = ("misaligned", "bounds_copied")


def marked():
    """Return {kernel: {(kind, line)}} by the marks in the source."""
    found, kernel = {}, ""
    for number, text in enumerate(SOURCE.read_text().splitlines(), 1):
        if declared := re.match(r"KERNEL (\w+)\(", text):
            kernel = declared[1]
            found[kernel] = set()
        if kernel and (mark := re.search(MARK, text)):
            found[kernel] |= {(kind, number) for kind in mark[1].split()}
    return found


MARKED = marked()


def run(kernel):
    settings = {"grid": 2, "shared_mem": 0} | SETTINGS.get(kernel, {})
    x = np.arange(N, dtype=np.float32)
    y = np.full(N, np.nan, np.float32)
    return xray.record(
        SOURCE,
        (settings["grid"],),
        (64,),
        (x, y, np.int32(N)),
        kernel=kernel,
        shared_mem=settings["shared_mem"],
        outputs=[y],
    )


@pytest.mark.parametrize("kernel", MARKED)
def test_found_at_its_line(kernel):
    assert MARKED[kernel], f"{kernel} has no mark"
    recording = run(kernel)
    found = {(finding.kind, finding.line) for finding in recording.findings}
    if kernel.startswith(PART_OF_Y):
        found = {(kind, line) for kind, line in found if kind != "unwritten"}
    assert found == MARKED[kernel], "\n".join(map(str, recording.findings))
    for finding in recording.findings:
        assert Path(finding.file) == SOURCE
        assert finding.kernel == kernel


def test_enough_of_each_kind():
    kinds = [kernel.split("_")[0] for kernel in MARKED]
    for kind in ("bounds", "race", "uninitialised", "unwritten", "barrier"):
        assert kinds.count(kind) >= 5
    assert len(kinds) >= 30
