"""``python -m kernels xray``: rows of the lab, files of one's own, bad input, exit codes."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path

import pytest

from kernels import cases, table
from kernels.__main__ import main
from kernels.emulator.compiler import UNSUPPORTED
from kernels.xray import Recording, launches
from kernels.xray.lane_map import lane_map
from kernels.xray.unsupported import with_advice

DATA = Path(__file__).parent / "data"
TRANSPOSE, PROGRAM = DATA / "transpose.cu", DATA / "program.cu"
LAUNCH = ["--grid", "2x2", "--block", "16x16"]
ARGUMENTS = ["in=random:1024", "out=empty:1024", "width=32", "height=32"]
SMALL = ["--shape", "1,2,5,6,2,3,2"]


@pytest.fixture
def xray(capsys):
    """Runs the command; returns its exit code, what it printed and what it said on stderr."""

    def run(*argv: str | Path) -> tuple[int, str, str]:
        code = main(["xray", *map(str, argv)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def with_args(texts) -> list[str]:
    return [word for text in texts for word in ("--arg", text)]


# A row of the lab.


def test_a_row_has_no_findings_and_its_counts_are_those_of_the_shape(xray):
    code, out, err = xray("naive", *SMALL, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    (launch,) = found["launches"]
    assert found["findings"] == 0
    # 3 x 5 outputs of 2 filters with 12 taps each, and nothing is padded.
    assert found["declared_flops"] == launch["flops"] == 2 * (3 * 5 * 2) * 12
    report = launch.pop("static")
    assert report is None or report["gpu"]["name"] == "H200 SXM"
    del launch["static_missing"]
    recording = Recording.from_dict(launch)
    assert recording.kernel == "conv2d_naive_forward"
    (y,) = [array for array in recording.arrays if array.name == "y"]
    assert y.written_bytes == 4 * (3 * 5 * 2)


def test_without_a_shape_it_takes_a_small_one_and_says_so(xray):
    code, out, _ = xray("max", "--gpu", "t4")
    assert code == 0
    assert out.startswith("max_pool2d max forward, 2,6,28,28,2\nno findings\n")
    assert "The shape is a small one: --shape names another." in out
    assert "The GPU is" not in out


def test_a_pass_of_several_launches_shows_each_and_names_the_product(xray):
    code, out, _ = xray("im2col_gemm", *SMALL, "--pass", "backward_filter", "--gpu", "a100")
    assert code == 0
    order = [
        line.split()[0] if line.startswith("conv2d_") else line
        for line in out.splitlines()
        if line.startswith("not traced") or "  conv2d/im2col_gemm.cu  SCALAR" in line
    ]
    assert order == [
        "conv2d_im2col",
        "conv2d_images_to_rows",
        "not traced: matrix product (2 x 15) (15 x 12), 720 FLOPs, by the library",
    ]
    assert "counted: 0 + 720 of the library's, 100% of it" in out


def test_a_line_alone(xray):
    lines = (Path(__file__).parents[3] / "kernels/conv2d/naive.cu").read_text().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "y[i] = " in line or "] = sum;" in line)
    code, out, _ = xray("naive", *SMALL, "--line", f"naive.cu:{number}")
    assert code == 0
    assert "write y (global memory), 4 B a lane" in out
    assert "y[0..29] |11111111|11111111|11111111|111111··|" in out
    assert "bound" not in out


@pytest.mark.parametrize("row", [row for row in table.rows() if row.language == "cuda_c"])
def test_the_drawing_of_a_request_agrees_with_the_recorders_count(row):
    # Two implementations, one of them in C++.
    exact = 0
    takes = [
        shape
        for shape in cases.fixed(row.operation)[2:]
        if not any(row.refuses(direction, shape, "float32") for direction in row.passes)
    ]
    for direction, shape in itertools.product(row.passes, takes[:2]):
        made = launches.of_row(row, direction, shape, "")
        for access in (one for recording in made.recordings for one in recording.accesses):
            if access.space == "local":  # a thread's own words, as the GPU interleaves them
                continue
            rows = lane_map(access)
            if access.space == "shared":
                drawn, counted = len(rows), access.wavefronts
            else:
                drawn, counted = sum(sum(row.sectors) for row in rows), access.sectors
            assert drawn * access.requests >= counted > 0  # the example is the worst request
            if access.requests == 1:
                assert drawn == counted
                exact += 1
    assert exact


def test_a_measured_time_stands_beside_the_bound(xray):
    code, out, _ = xray("naive", *SMALL, "--measured", "12.3us", "--json")
    report = json.loads(out)["launches"][0]["static"]
    assert code == 0
    assert report is None or report["measured_seconds"] == pytest.approx(12.3e-6)


# A file of one's own.


def test_the_file_alone_lists_its_kernels_and_a_command_line_that_runs(xray):
    code, out, _ = xray(PROGRAM)
    assert code == 0
    head, command = out.splitlines()[:2]
    assert head == "saxpy(int n, float a, const float* x, float* y)"
    words = shlex.split(command)
    assert words[:4] == ["python", "-m", "kernels", "xray"]
    code, out, _ = xray(*words[4:])
    assert code == 1  # y is read: 'empty' was a guess, and n + 1 threads run past the end
    assert "uninitialised  program.cu:9" in out


def test_a_planted_race_is_found_at_both_its_lines(xray, tmp_path):
    page = tmp_path / "page.html"
    code, out, err = xray(TRANSPOSE, *LAUNCH, *with_args(ARGUMENTS), "--html", page)
    assert code == 1
    races = [line for line in out.splitlines() if line.startswith("  race")]
    assert {line.split()[1] for line in races} == {"transpose.cu:10", "transpose.cu:16"}
    assert str(page) in err
    assert "transpose.cu:16" in page.read_text()


def test_without_the_bug_there_is_no_finding_but_the_bank_conflicts(xray, tmp_path):
    fixed = tmp_path / "transpose.cu"
    text = TRANSPOSE.read_text()
    fixed.write_text(text.replace("    // The planted", "    __syncthreads();\n    // The planted"))
    code, out, _ = xray(fixed, *LAUNCH, *with_args(ARGUMENTS))
    assert code == 0
    assert "no findings" in out
    (line,) = [line for line in out.splitlines() if "] = tile[" in line]
    assert "8 (1)" in line  # 2 columns of 16 rows of 64 bytes: 16 words in 2 banks


def test_a_whole_program_is_taken_as_it_is(xray):
    arguments = ["1000", "a=2", "random:1000", "y=zeros:float32:1000"]
    code, out, _ = xray(PROGRAM, "--grid", "4", "--block", "256", *with_args(arguments), "--json")
    assert code == 1
    (launch,) = json.loads(out)["launches"]
    assert launch["file"] == str(PROGRAM)
    for finding in launch["findings"]:
        assert (finding["kind"], finding["line"], finding["index"]) == ("bounds", 9, 1000)
        assert finding["file"] == str(PROGRAM)
    assert {one["array"] for one in launch["findings"]} == {"x", "y"}
    assert launch["flops"] == 2 * 1001


def test_macros_includes_and_instances_of_templates(xray, tmp_path):
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "times.cuh").write_text("#define TIMES 3\n")
    file = tmp_path / "fill.cu"
    file.write_text(
        '#include "times.cuh"\n'
        "template <class T> __global__ void fill(T* y) { y[threadIdx.x] = TIMES * PLUS; }\n"
    )
    options = ["--kernel", "fill<float>", "--grid", "1", "--block", "32", "--arg", "empty:32"]
    code, out, _ = xray(file, "-D", "PLUS=2", "-I", tmp_path / "inc", *options)
    assert (code, "fill<float>" in out) == (0, True)
    code, _, err = xray(file, "-I", tmp_path / "inc", *options)
    assert (code, err.startswith("xray: fill.cu:2: 'PLUS'")) == (2, True)


# Bad input: exit 2 and one line.


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["tild"], "no CUDA C kernel named 'tild'; there are naive, im2col_gemm, tiled"),
        (["tiled_numba"], "the X-ray is of CUDA C; 'tiled_numba' is Numba, its twin is 'tiled'"),
        (["cpu"], "'cpu' runs on the host"),
        (["tiled", "--pass", "back"], "tiled has no pass 'back'; it has forward, backward_data"),
        (["tiled", "--shape", "1,2"], "shape '1,2' has 2 numbers; expected N,C,H,W,K,R,S[,stride"),
        (["tiled", "--shape", "a,1,4,4,1,1,1"], "N is 'a'; expected a whole number"),
        (["tiled", "--shape", "0,1,4,4,1,1,1"], "N is 0; an empty batch launches nothing"),
        (["tiled", "--shape", "1,1,2,2,1,3,3"], "the filter spans 3 rows"),
        (["tiled", "--gpu", "h300"], "--gpu: unknown GPU 'h300'; there are t4, a100"),
        (["tiled", "--grid", "4"], "--grid goes with a .cu file; got 'tiled'"),
        (["tiled", "--html", "nowhere/page.html"], "there is no directory nowhere"),
        (["tiled", "--html", __file__], "there is something that is no page of this lab"),
        (["tiled", "--json", "--line", "3"], "--line is for a person"),
        (
            ["tiled", "--measured", "3"],
            "--measured 3: expected a time with its unit, such as 12.3us",
        ),
        (["im2col_gemm", *SMALL, "--measured", "3us"], "--measured is for one launch; there are 2"),
        (["naive", *SMALL, "--line", "9999"], "--line 9999: nothing was recorded there, but at"),
        (["naive", *SMALL, "--line", "x"], "--line x: expected a line's number, or FILE:NUMBER"),
        (["none.cu"], "none.cu: there is no such file"),
        ([TRANSPOSE, "--pass", "forward"], "--pass goes with a kernel of the lab, not with a .cu"),
        ([TRANSPOSE, "-D", "3"], "-D 3: expected NAME or NAME=VALUE"),
        ([TRANSPOSE, "-I", "nowhere"], "-I nowhere: there is no such directory"),
        (
            [TRANSPOSE, "--kernel", "f"],
            "--kernel f: transpose.cu has no such kernel, but transpose",
        ),
        ([TRANSPOSE, "--grid", "2"], "--block is missing; to start from: python -m kernels xray"),
        ([TRANSPOSE, "--grid", "2y2", "--block", "1"], "--grid 2y2: expected N, NxN or NxNxN"),
        ([TRANSPOSE, "--grid", "1", "--block", "32x64", *with_args(ARGUMENTS)], "2048 threads"),
        ([TRANSPOSE, *LAUNCH, "--shared", "much"], "--shared much: expected a number of bytes"),
        ([TRANSPOSE, *LAUNCH, "--shared", "999999"], "--shared 999999: transpose: max_dynamic"),
        ([TRANSPOSE, *LAUNCH, "--arg", "in=zeros:4"], "no --arg for float* out, int width, int"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(xray, argv, said):
    code, out, err = xray(*argv)
    assert (code, out) == (2, "")
    assert err.startswith("xray: ")
    assert said in err
    assert err.count("\n") == 1


def test_what_does_not_compile_is_named_with_the_users_line(xray, tmp_path):
    file = tmp_path / "broken.cu"
    file.write_text("#include <cstdio>\n\n__global__ void f(float* x) {\n    x[0] = yy;\n}\n")
    code, _, err = xray(file)
    assert code == 2
    assert err.startswith("xray: broken.cu:4: 'yy' was not declared")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#include <cuda_fp16.h>\n", "one.cu:1: the emulator does not support half precision"),
        (
            '__global__ void f() { asm("bar.sync 0;"); }\n',
            "1: the emulator does not support inline",
        ),
        ("__device__ int f() { return 1; }\n", "one.cu: there is no kernel in it"),
    ],
)
def test_unsupported_cuda_is_named_with_a_way_out(xray, tmp_path, text, said):
    file = tmp_path / "one.cu"
    file.write_text(text)
    code, _, err = xray(file)
    assert code == 2
    assert said in err
    assert "; " in err.split(said)[1]
    assert err.count("\n") == 1


def test_there_is_advice_for_all_that_the_emulator_calls_unsupported():
    for feature in set(UNSUPPORTED.values()):
        message = f"one.cu:1: the emulator does not support {feature} (word)"
        assert len(with_advice(message)) > len(message) + 10


def test_a_kernel_that_stops_itself_is_exit_1(xray, tmp_path):
    file = tmp_path / "trap.cu"
    file.write_text("__global__ void f(int n) {\n    if (n) __trap();\n}\n")
    code, _, err = xray(file, "--grid", "1", "--block", "1", "--arg", "1")
    assert code == 1
    assert "__trap() at trap.cu:2" in err
