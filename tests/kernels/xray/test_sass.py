"""Machine code: small sources with known loops, the lab's kernels, and nvdisasm's own graph."""

from __future__ import annotations

import functools
import re
import subprocess
import sys

import pytest

from kernels import resources, table
from kernels.source import ROOT, nvrtc_options
from kernels.xray import disassembly, loops, static
from kernels.xray.disassembly import DisassemblerMissingError, Instruction, disassemble
from kernels.xray.sass import Function, Mix

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed (make test does)")
try:
    disassembly.program()
except DisassemblerMissingError as error:
    pytest.skip(str(error), allow_module_level=True)

TILED = ROOT / "conv2d/tiled.cu"
TILES = {"SCALAR": "float", "TILE_P": 8, "TILE_Q": 32}

ARCHS = ("sm_80", "sm_90", "sm_120")
EVERY_ARCH = pytest.mark.parametrize("arch", ARCHS)

KNOWN = """\
extern "C" __global__ void chain(float* x, int n, float b) {
    float a = x[threadIdx.x];
    for (int i = 0; i < n; i++) {
        #pragma unroll
        for (int j = 0; j < 64; j++)
            a = a * b + 1.5f;
    }
    x[threadIdx.x] = a;
}

extern "C" __global__ void turns(float* x, int n, float b) {
    float a = x[threadIdx.x];
    #pragma unroll 1
    do {
        #pragma unroll
        for (int j = 0; j < 64; j++)
            a = a * b + 1.5f;
    } while (--n > 0);
    x[threadIdx.x] = a;
}

extern "C" __global__ void copy(const float4* __restrict__ x, float4* y, int n) {
    #pragma unroll 1
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        y[i] = x[i];
}

extern "C" __global__ void shared_sums(float4* x, int n) {
    __shared__ float4 tile[256];
    float sum = 0;
    #pragma unroll 1
    for (int i = 0; i < n; i++) {
        tile[threadIdx.x] = x[i * 256 + threadIdx.x];
        __syncthreads();
        #pragma unroll 1
        for (int j = 0; j < n; j++) {
            const float4 v = tile[j];
            sum += v.x + v.y + v.z + v.w;
        }
        __syncthreads();
    }
    x[threadIdx.x].x = sum;
}

// The inner loop has one addition; the rest of the arithmetic is unrolled into the outer one.
extern "C" __global__ void outer_arithmetic(float* x, int n) {
    __shared__ float tile[32];
    float sum = 0;
    #pragma unroll 1
    for (int k = 0; k < n; k++) {
        #pragma unroll 1
        for (int i = threadIdx.x; i < 32 * n; i += 32) tile[i / 32] = x[k * n + i] + 1;
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 32; i++)
            sum += tile[i] * tile[(i * 7) % 32];
        __syncthreads();
    }
    x[threadIdx.x] = sum;
}

extern "C" __global__ void cases(float* x, int n, int k) {
    float s = 0;
    #pragma unroll 1
    for (int i = 0; i < n; i++) {
        switch ((k + i) % 7) {
            case 0: s += x[i]; break;
            case 1: s *= x[i]; break;
            case 2: s -= x[i] * 2; break;
            case 3: s = s / x[i]; break;
            case 4: s = sqrtf(s) + x[i]; break;
            case 5: s = sinf(x[i]); break;
            default: s = x[2 * i]; break;
        }
    }
    x[0] = s;
}

extern "C" __global__ void __launch_bounds__(1024) spills(float* x) {
    float a[70];
    for (int i = 0; i < 70; i++) a[i] = x[threadIdx.x * 70 + i];
    __syncthreads();
    for (int k = 0; k < 70; k++)
        for (int i = 0; i < 70; i++) a[i] = a[i] * a[(i + 7) % 70] + x[k];
    for (int i = 0; i < 70; i++) x[threadIdx.x * 70 + i] = a[i];
}

extern "C" __global__ void divides(float* x, int n) {
    for (int i = 0; i < n; i++) x[i] = x[i + n] / x[i];
}

extern "C" __global__ void straight(float* x) { x[threadIdx.x] += 1; }
"""


@functools.cache
def known(arch: str) -> dict[str, Function]:
    made = resources.compile_cubin(arch, KNOWN, nvrtc_options(()), "known.cu")
    return {name: Function(name, code) for name, code in disassemble(made.cubin).items()}


def line_of(text: str) -> int:
    return 1 + KNOWN[: KNOWN.index(text)].count("\n")


@EVERY_ARCH
def test_a_chain_of_64_multiply_adds(arch):
    hot = known(arch)["chain"].hot_loop
    assert hot.mix.fma == hot.mix.opcodes["FFMA"] == 64
    assert hot.mix.fma_share >= 0.9
    assert (hot.mix.loads_per_fma, hot.depth) == (0, 1)
    assert hot.first_line <= line_of("a = a * b") <= hot.last_line


@EVERY_ARCH
def test_a_copy_of_16_bytes_a_thread(arch):
    hot = known(arch)["copy"].hot_loop
    assert (hot.mix.global_loads, hot.mix.wide_loads, hot.mix.shared_loads) == (1, 1, 0)
    assert hot.mix.opcodes["STG.E.128"] == 1
    # ptxas moves constants by HFMA2, which is no arithmetic.
    assert known(arch)["copy"].mix.fma == 0
    assert hot.mix.loads_per_fma is None
    assert known(arch)["copy"].least_instructions(100) == known(arch)["copy"].least_instructions(0)


@EVERY_ARCH
def test_a_loop_in_a_loop(arch):
    code = known(arch)["shared_sums"]
    outer, inner = code.loops
    assert (outer.depth, inner.depth) == (1, 2)
    assert code.hot_loop == inner
    assert (inner.mix.shared_loads, inner.mix.wide_loads, inner.mix.opcodes["FADD"]) == (1, 1, 4)
    assert inner.mix.global_loads == inner.mix.count({"BAR", "STS"}) == 0
    # The outer loop's own: a load from global memory, a store to shared, two barriers.
    assert (outer.mix.global_loads, outer.mix.count({"STS"}), outer.mix.count({"BAR"})) == (1, 1, 2)
    assert outer.mix.shared_loads == 0


@EVERY_ARCH
def test_the_hot_loop_has_the_arithmetic_not_the_deepest_nesting(arch):
    code = known(arch)["outer_arithmetic"]
    inner = [loop for loop in code.loops if loop.depth == 2]
    assert any(loop.mix.opcodes.get("FADD") and not loop.mix.fma for loop in inner)
    assert (code.hot_loop.depth, code.hot_loop.mix.fma) == (1, 32)


@EVERY_ARCH
def test_a_loop_holds_every_case_of_a_switch(arch):
    code = known(arch)["cases"]
    (loop,) = loops.loops(code.blocks)
    lines = {one.line for block in loop.blocks for one in code.blocks[block].instructions}
    assert {line_of(f"case {n}:") for n in range(6)} | {line_of("default:")} <= lines
    assert code.hot_loop.mix.global_loads == 7


@EVERY_ARCH
def test_spills_are_local_memory(arch):
    assert known(arch)["spills"].mix.local > 0
    assert known(arch)["straight"].mix.local == 0


@EVERY_ARCH
def test_a_function_without_a_loop_has_no_hot_loop(arch):
    code = known(arch)["straight"]
    assert (code.loops, code.hot_loop) == ([], None)
    assert code.to_dict()["hot_loop"] is None


@EVERY_ARCH
def test_the_mix_of_a_line(arch):
    lines = {one.line: one.mix for one in known(arch)["chain"].lines}
    assert lines[line_of("a = a * b")].fma == 64
    assert lines[line_of("float a = x")].global_loads == 1
    assert sum(mix.fma for mix in lines.values()) == 64


@EVERY_ARCH
@pytest.mark.parametrize("turns", [1, 7, 1000])
def test_a_loop_of_known_turns_is_counted_exactly(arch, turns):
    """There is one way of so many turns: what is before the loop, its turns, what is behind it."""

    def issued(code: Function) -> int:
        once = [one.base for one in code.instructions].index("EXIT") + 1
        return once + (turns - 1) * a_turn(code)

    def a_turn(code: Function) -> int:
        (loop,) = loops.loops(code.blocks)
        return sum(len(code.blocks[number].instructions) for number in loop.blocks)

    code = known(arch)["turns"]
    assert code.least_instructions(128 * turns) == issued(code)
    # Another way goes around the loop of `chain`, and costs less before and behind it.
    code = known(arch)["chain"]
    assert turns * a_turn(code) < code.least_instructions(128 * turns) <= issued(code)


@EVERY_ARCH
def test_a_loop_takes_along_what_stands_around_its_arithmetic(arch):
    """Copies, barriers, counters: more than the block of the 32 multiply-adds has by itself."""
    code = known(arch)["outer_arithmetic"]
    (dense,) = (
        block.instructions
        for block in code.blocks
        if sum(one.base == "FFMA" for one in block.instructions) == 32
    )
    a_turn = code.least_instructions(64 * 1000) - code.least_instructions(64 * 999)
    assert len(dense) + 2 <= a_turn <= code.hot_loop.mix.instructions


@EVERY_ARCH
def test_code_without_a_loop_is_counted_exactly(arch):
    straight = known(arch)["straight"]
    before_padding = [one.base for one in straight.instructions].index("EXIT") + 1
    assert straight.least_instructions(1) == before_padding
    assert straight.least_instructions(0) == before_padding


@EVERY_ARCH
def test_a_division_is_a_subroutine_that_is_found(arch):
    """`cases` has an indirect jump; `divides` calls what ptxas put behind it by name."""
    assert known(arch)["cases"].least_instructions(10) is None
    code = known(arch)["divides"]
    assert any(one.operands.startswith("$") for one in code.instructions if one.base == "CALL")
    assert code.least_instructions(1000) > code.least_instructions(0) > 0


def test_what_is_not_arithmetic():
    def a_flop(*opcodes: str) -> float:
        """Instructions of a loop of these, and its jump, by their operations; 0 without any."""
        code = [Instruction(16 * i, op, "R1,-RZ,RZ,1,1", "", "", 0) for i, op in enumerate(opcodes)]
        code.append(Instruction(16 * len(code), "BRA", "0x0", "@P0", "", 0))
        code.append(Instruction(16 * len(code), "EXIT", "", "", "", 0))
        loop = Function("f", code)
        least = [loop.least_instructions(flops) for flops in (1e6, 2e6)]
        return None if None in least else (least[1] - least[0]) / 1e6

    assert a_flop("HFMA2.MMA", "FSEL", "F2I.NTZ", "IMAD", "LDG.E", "ATOMG.E.ADD") == 0
    assert a_flop("FFMA", "HFMA2.MMA") == 3 / 2
    assert a_flop("FFMA2", "IMAD") == 3 / 4
    assert a_flop("DADD", "MUFU.RCP") == 3 / 2
    assert a_flop("RED.E.ADD.F32.FTZ.RN.STRONG.GPU") == 2, "the emulator's addition"
    assert a_flop("FFMA", "QGMMA.64x64x32.F32.E4M3.E4M3") is None, "counted?"
    # 16 x 8 x 16 by 32 threads are 128 operations each.
    assert a_flop("FADD", "HMMA.16816.F32") == 3 / 129
    # 64 x 80 x 16 by 128 threads.
    assert a_flop("FADD", "HGMMA.64x80x16.F32.BF16") == pytest.approx(3 / 1281)
    assert Mix({"HMMA.16816.F32": 1}).tensor == 1


def test_an_empty_mix():
    assert (Mix({}).fma_share, Mix({}).loads_per_fma) == (0, None)


# NVIDIA's disassembler draws the graph of basic blocks itself.


def drawn_edges(cubin: bytes, path) -> dict[str, set[tuple[int, int]]]:
    path.write_bytes(cubin)
    command = [disassembly.program(), "-bbcfg", "-poff", str(path)]
    dot = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for part in dot.split('subgraph "cluster_')[1:]:
        name = part[: part.index('"')]
        starts = {
            node: int(text[1], 16)
            for node, label in re.findall(r'^"([^"]+)"\n\[label="(.*)"', part, re.MULTILINE)
            if (text := re.search(r"(?:\\l|>)\s*([0-9a-f]{4,}):", label))
        }
        edges = re.findall(r'^"([^"]+)":\S+ -> "([^"]+)"', part, re.MULTILINE)
        found[name] = {(starts[a], starts[b]) for a, b in edges if a in starts and b in starts}
    return found


def our_edges(code: Function) -> set[tuple[int, int]]:
    start = [block.instructions[0].address for block in code.blocks]
    return {(start[n], start[to]) for n, block in enumerate(code.blocks) for to in block.successors}


def contracted(edges: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Join blocks that can only follow each other, and drop what the entry does not reach.

    NVIDIA's graph starts a block at more places than jumps and their targets.
    """
    reached, waiting = set(), [0]
    while waiting:
        if (node := waiting.pop()) not in reached:
            reached.add(node)
            waiting += [b for a, b in edges if a == node]
    edges = {(a, b) for a, b in edges if a in reached}
    while joined := next(
        (
            (a, b)
            for a, b in sorted(edges)
            if a != b and sum(x == a for x, _ in edges) == sum(y == b for _, y in edges) == 1
        ),
        None,
    ):
        first, second = joined
        edges = {(first if a == second else a, b) for a, b in edges - {joined}}
    return edges


@pytest.mark.parametrize(
    ("file", "arch"), [*(("known", arch) for arch in ARCHS), ("tiled", "sm_90")]
)
def test_the_graph_is_nvidias(arch, file, tmp_path):
    if file == "known":
        made = resources.compile_cubin(arch, KNOWN, nvrtc_options(()), "known.cu")
    else:
        made = resources.compile_file(TILED, tuple(sorted(TILES.items())), arch)
    drawn = drawn_edges(made.cubin, tmp_path / "code.cubin")
    for name, instructions in disassemble(made.cubin).items():
        if any(one.base in loops.INDIRECT for one in instructions):
            continue  # neither of us knows where to
        ours = contracted(our_edges(Function(name, instructions)))
        assert (name, ours) == (name, contracted(drawn[name]))


# The lab's kernels.

QUICK = ("naive", "implicit_gemm_bf16", "winograd", "max", "avg", "avg_numba")
ROWS = [
    pytest.param(
        row,
        id=f"{row.operation}-{row.name}",
        marks=() if row.name in QUICK else pytest.mark.slow,
    )
    for row in table.rows()
    if "gpu" in row.places
]


@pytest.mark.parametrize("row", ROWS)
def test_every_kernel_of_the_lab(row):
    try:
        found = static.of_row(row, "sm_90")
    except resources.NvrtcMissingError as error:
        pytest.skip(str(error))
    assert found
    for kernel in found:
        assert kernel.why_no_code is None
        mix, usage = kernel.code.mix, kernel.usage
        assert bool(mix.local) == bool(usage.stack_bytes or usage.spill_stores), usage
        if not row.roundoff:
            assert mix.tensor == 0
        assert sum(one.mix.instructions for one in kernel.code.lines) <= mix.instructions
        if not mix.count({"STS", "ATOMS"}):
            assert usage.shared_bytes == 0


@EVERY_ARCH
@pytest.mark.parametrize("name", ["conv2d_tiled_forward", "conv2d_tiled_backward_data"])
def test_tiled_reads_shared_memory_in_its_hot_loop(arch, name):
    code = static.compiled(TILED, name, arch, TILES).code
    assert code.hot_loop.mix.fma > 0
    assert code.hot_loop.mix.shared_loads > 0
    text = TILED.read_text().splitlines()[code.hot_loop.first_line - 1 : code.hot_loop.last_line]
    assert any("sum += shared" in line for line in text)
    assert code.mix.count({"BAR"}) > 0


def test_naive_uses_no_shared_memory():
    path = ROOT / "conv2d/naive.cu"
    code = static.compiled(path, "conv2d_naive_forward", "sm_90", {"SCALAR": "float"}).code
    assert code.mix.count({"LDS", "STS", "BAR"}) == 0
    assert code.hot_loop.mix.global_loads > 0


def test_lines_name_the_files_where_they_are():
    lines = static.compiled(TILED, "conv2d_tiled_forward", "sm_90", TILES).code.lines
    assert {one.file for one in lines} == {str(TILED), str(ROOT / "index.cuh")}


def test_lines_of_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.cu"
    path.write_text('extern "C" __global__ void f(float* x) {\n    x[0] *= 2;\n}\n')
    lines = static.compiled(path, "f", "sm_90", {}).code.lines
    assert {(one.file, one.line) for one in lines} == {(str(path), n) for n in (1, 2, 3)}


# What can be missing.


def test_no_disassembler_is_said_with_the_way_out(monkeypatch):
    def absent(name):
        raise disassembly.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(disassembly.importlib.metadata, "files", absent)
    monkeypatch.setattr(disassembly.shutil, "which", lambda name: None)
    disassembly.program.cache_clear()
    try:
        with pytest.raises(DisassemblerMissingError, match=r"nvdisasm is not installed \(pip"):
            disassembly.program()
    finally:
        disassembly.program.cache_clear()


def test_what_is_no_cubin_is_refused():
    with pytest.raises(RuntimeError, match="refused the machine code"):
        disassemble(b"not a cubin")


def test_nothing_is_imported_from_the_other_packages():
    code = (
        "import sys, kernels.xray.static_view;"
        "print([name for name in sys.modules if name.split('.')[0] in ('profiling', 'lenet')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
