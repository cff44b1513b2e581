"""The register-blocked rungs, counted offline: multiply-adds, banks, sectors, blocks."""

from __future__ import annotations

import functools

import pytest

from kernels import table
from kernels.shapes import Conv2dShape
from kernels.xray import disassembly, gpus, static
from kernels.xray.disassembly import DisassemblerMissingError
from kernels.xray.passes import record_pass

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed (make test does)")
try:
    disassembly.program()
except DisassemblerMissingError as error:
    pytest.skip(str(error), allow_module_level=True)

H200 = gpus.find("h200")
# LeNet's second layer, and ResNet's 64 channels with fewer of them: more only repeat the loop.
LENET = Conv2dShape.of((12, 6, 14, 14), (16, 6, 5, 5))
RESNET = Conv2dShape.of((1, 12, 56, 56), (64, 12, 3, 3), padding=1)

# Kernel, pass, shape, and the least share of multiply-adds in the hot loop: the rest is loads from
# shared memory and the loop itself.
LAUNCHES = [
    pytest.param(*of, id="-".join((of[0], of[1], "lenet" if of[2] is LENET else "resnet")))
    for of in (
        ("register_tiled", "forward", LENET, 0.85),
        ("register_tiled", "forward", RESNET, 0.85),
        ("register_tiled", "backward_data", RESNET, 0.85),
        ("register_tiled", "backward_filter", LENET, 0.75),
        ("register_tiled", "backward_filter", RESNET, 0.75),
        ("winograd", "forward", RESNET, 0.80),
        ("winograd", "backward_filter", RESNET, 0.80),
    )
]
MAIN = {
    "register_tiled": ("conv2d_register_tiled", "conv2d_register_tiled_backward_filter"),
    "winograd": ("conv2d_winograd", "conv2d_winograd_backward_filter"),
}


@functools.cache
def recorded(name, direction, shape):
    """The launch that does the work, of a few blocks."""
    launches = record_pass(table.find("conv2d", name), direction, shape, most_blocks=4)
    (main,) = (launch for launch in launches if launch.kernel in MAIN[name])
    return main


@pytest.mark.parametrize(("name", "direction", "shape", "least"), LAUNCHES)
def test_the_hot_loop_is_multiply_adds(name, direction, shape, least):
    report = static.of_recording(recorded(name, direction, shape), H200)
    hot, usage = report.kernel.code.hot_loop.mix, report.kernel.usage
    assert hot.fma_share >= least, hot.opcodes
    assert hot.global_loads == 0
    assert hot.shared_loads <= hot.fma / 5
    assert usage.spill_stores == usage.spill_loads == usage.stack_bytes == 0
    assert report.occupancy.blocks >= 2


PLAIN = [launch for launch in LAUNCHES if launch.id != "register_tiled-backward_filter-lenet"]


@pytest.mark.parametrize(("name", "direction", "shape", "least"), PLAIN)
def test_lanes_read_shared_memory_without_bank_conflicts(name, direction, shape, least):
    del least
    reads = [
        access
        for access in recorded(name, direction, shape).accesses
        if (access.space, access.operation) == ("shared", "read")
    ]
    assert {access.width for access in reads} == {4, 16}
    for access in reads:
        # 16 bytes a lane go to a quarter of the warp at a time.
        passes = access.requests * access.width // 4
        assert access.wavefronts <= passes, (access.file, access.line)


@pytest.mark.parametrize("direction", ["forward", "backward_data"])
@pytest.mark.parametrize(
    ("name", "filters"), [("register_tiled", "arranged"), ("winograd", "points")]
)
def test_whole_rows_of_images_take_the_fewest_sectors(name, filters, direction):
    launch = recorded(name, direction, RESNET)
    accesses = [access for access in launch.accesses if access.space == "global"]
    assert {access.array for access in accesses} >= {"x", filters, "y"}
    for access in accesses:
        assert access.sectors == access.ideal_sectors, (access.array, access.operation)
    if name == "winograd":
        return
    # Rows that go to shared memory, too, meet no other's bank.
    writes = [a for a in launch.accesses if (a.space, a.operation) == ("shared", "write")]
    assert all(access.wavefronts == access.ideal_wavefronts for access in writes)
