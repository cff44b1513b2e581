"""Offline proof that the Numba kernels are GPU kernels: PTX for sm_80 and sm_90, without a GPU."""

from __future__ import annotations

import re

import pytest

from kernels import numba_cuda, resources, table
from kernels.conv2d import tiled, tiled_filter_numba, tiled_numba

pytestmark = pytest.mark.skipif(
    numba_cuda.ptx_problem() is not None, reason=str(numba_cuda.ptx_problem())
)

ROWS = [row for row in table.rows() if row.language == "numba" and "gpu" in row.places]
KERNELS = {
    (source.module_name, name): (source, name)
    for row in ROWS
    for source in numba_cuda.sources(row)
    for name in source.kernels()
}


def code(ptx: str) -> str:
    """The instructions alone."""
    return "\n".join(line for line in ptx.splitlines() if line.startswith("\t"))


def test_every_row_has_kernels_and_every_kernel_of_its_cuda_twin():
    assert len(KERNELS) == 18
    for row in ROWS:
        twin = table.find(row.operation, row.name.removesuffix("_numba"))
        files = [source.path for source in resources.sources(twin)]
        text = "\n".join(path.read_text() for path in files)
        in_c = set(re.findall(r"\b((?:conv2d|max_pool2d|avg_pool2d)_\w+)\(", text))
        ours = {n for source in numba_cuda.sources(row) for n in source.kernels()}
        assert in_c == ours, row.name


@pytest.mark.parametrize(
    ("dtype", "capability"),
    [("float32", (8, 0)), ("float32", (9, 0)), ("float64", (9, 0))],
    ids=str,
)
@pytest.mark.parametrize("key", KERNELS, ids=lambda key: key[1])
def test_compiles_for_a_gpu(key, dtype, capability):
    source, name = KERNELS[key]
    ptx = source.ptx(name, dtype, capability)
    assert ".target sm_{}{}".format(*capability) in ptx
    assert re.search(rf"\.visible \.entry \w*{name}", ptx)
    instructions = code(ptx)
    if dtype == "float32":
        assert ".f64" not in instructions  # an int32 times a float32 is a float64 in Numba
    else:
        assert ".f64" in instructions
        assert not re.search(r"\.f32\b", instructions)
    wide = re.findall(r"\b(?:mul\.lo|mad\.lo|div|rem)\.[us]64.*", instructions)
    assert not wide, "64-bit index arithmetic:\n" + "\n".join(wide)
    assert ".local" not in instructions  # arrays or spills in slow memory


@pytest.mark.slow
def test_resources_stand_beside_the_cuda_twins():
    shared, registers = {}, {}
    for row in table.rows():
        for one in resources.of_row(row) if row.name in ("tiled", "tiled_numba") else ():
            assert not one.spill_stores, one
            key = one.function, one.defines.get("TILE_P")
            shared.setdefault(key, []).append(one.shared_bytes)
            registers.setdefault(key, []).append(one.registers)
            if one.function == "conv2d_tiled_forward" and one.defines["TILE_P"] == 8:
                assert set(one.dynamic_bytes.values()) == {1728}
    assert shared["conv2d_tiled_backward_filter", 8] == [2048, 2048]
    assert all(len(both) == 2 and min(both) > 0 for both in registers.values())


@pytest.mark.parametrize("tile", tiled.TILES[1:], ids=str)
def test_every_tile_compiles(tile):
    for source in (tiled_numba.source, tiled_filter_numba.source):
        for name in source.kernels():
            ptx = source.ptx(name, "float32", (9, 0), TILE_P=tile[0], TILE_Q=tile[1])
            assert ".f64" not in code(ptx)


def test_the_proof_sees_what_it_looks_for():
    import numba
    from numba import cuda

    def widened(x, n, m):
        x[(n * m) // (n + m)] = n * x[0]

    types = numba.void(numba.float32[::1], numba.int32, numba.int32)
    ptx, _ = cuda.compile(widened, types, device=False, abi="numba", cc=(9, 0))
    assert ".f64" in code(ptx)
    assert re.search(r"(div|rem)\.[us]64", code(ptx))


def test_tiles_are_part_of_what_is_compiled():
    source = tiled_filter_numba.source
    small, large = (
        source.ptx("conv2d_tiled_backward_filter", "float32", (9, 0), TILE_P=p, TILE_Q=q)
        for p, q in ((4, 8), (16, 16))
    )
    shared = [sum(map(int, re.findall(r"\.shared .*\[(\d+)\]", ptx))) for ptx in (small, large)]
    assert shared[1] - shared[0] == 4 * (16 * 16 - 4 * 8)
