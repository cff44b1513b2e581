"""The starting files fail at what they teach, the solutions pass; and the grader itself."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from kernels import emulator, numba_cuda
from kernels.conv2d import reference
from kernels.exercises import catalogue, grade, launching
from kernels.exercises.exercise import LANGUAGES
from kernels.exercises.for_gpu import NotForGpu, NotHere

pytestmark = pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))

FILES = [
    pytest.param(exercise, language, id=f"{exercise.name}-{language}")
    for exercise in catalogue.EXERCISES
    for language in exercise.languages
]
# Barriers are many changes of thread on the simulator: those solutions take longest.
SOLUTIONS = [
    pytest.param(*one.values, id=one.id, marks=pytest.mark.slow)
    if "numba" in one.id and 8 <= one.values[0].number <= 14
    else one
    for one in FILES
]
# What the failing criterion has to say, white space aside: where, what, and why.
TEACHES = {
    "hello_index": r"y\[256\] is nan .*never written.*start\S*:\d+ race.*how a thread finds its",
    "guard_the_edge": r":\d+ bounds: reads x\[1004\], outside of its 1004 .*guard it",
    "pad_the_edge": r"512 of 512 elements of y are wrong y\[0, 0\] is -?\d",
    "coalesce_this_load": r":\d+ asks for 32 sectors a request where 4 would.* 128 bytes apart",
    "vector_load": r"asks for 16 sectors .* 16 bytes apart.*4 bytes a thread, 128 .*, 32 would do",
    "keep_the_warp_together": r":\d+: a warp came here 64 times, and 64 times \(100%\)",
    "stage_a_tile": r"reads x 17.8 times over .*wanted: at most 2.5 times",
    "halo_off_by_one": r"y\[0, 15\] is .*y\[0, 31\].*:\d+ bounds: reads halo\[",
    "missing_barrier": r"y\[0, 14\].*:\d+ race: (writes|write of) halo\[.* there must be a barrier",
    "barrier_in_a_branch": r":\d+ barrier: .*232 of .*256 threads .*cannot stand under a condition",
    "bank_conflict": r":\d+ takes 32 wavefronts a request where 1 .* 32 words apart, .* i % 32",
    "block_reduction": r":\d+: 4,704 atomic additions to db, of which 4,554 .*one a block, 6",
    "warp_shuffle": r"272 requests to shared memory \(shares\); wanted: none",
    "write_im2col": r"columns\[0, 0\] is nan .*5832 of 5832 elements of columns are never written",
    "fuse_relu_and_pool": r"writes map 1 times over .*wanted: not at all",
    "write_the_filter_gradient": r"dw\[0, 0, 0, 0\] is nan .*108 of 108 .* never written",
    "beat_tiled": r"1.8 and 1.28; wanted: less of both.*at the least on a T4, bound by lsu; .*less",
}


@pytest.fixture
def simulated_only(monkeypatch):
    """Leaves Numba's compilation out, which takes longer than all the rest: slow tests have it."""

    def not_here(self) -> str:
        raise NotHere("left out here")

    monkeypatch.setattr(launching.NumbaKernel, "for_gpu", not_here)


def said(graded: grade.Grade) -> str:
    """What the failing criteria say."""
    text = " ".join(one.message for one in graded.criteria if one.passed is False)
    return " ".join(text.split())


def test_there_are_twelve_exercises_and_more_in_order_with_their_files():
    exercises = catalogue.EXERCISES
    assert [exercise.number for exercise in exercises] == list(range(1, len(exercises) + 1))
    assert len({exercise.name for exercise in exercises}) == len(exercises) >= 12
    assert sum("numba" in exercise.languages for exercise in exercises) >= 6
    for exercise in exercises:
        assert exercise.text().startswith(f"# {exercise.number}. {exercise.title}\n")
        assert len(exercise.hints()) == 3
        folder = exercise.start("cuda_c").parent
        there = {path.name for path in folder.iterdir() if path.is_file()}
        files = {exercise.start(one).name for one in exercise.languages}
        files |= {exercise.solution(one).name for one in exercise.languages}
        assert there == {"task.md", "hints.md", *files}
        assert all(language in LANGUAGES for language in exercise.languages)


@pytest.mark.usefixtures("simulated_only")
@pytest.mark.parametrize(("exercise", "language"), FILES)
def test_a_starting_file_fails_at_what_it_teaches_and_says_it(exercise, language):
    graded = grade.grade(exercise, exercise.start(language), language)
    assert graded.failed == exercise.start_fails
    assert re.search(TEACHES[exercise.name], said(graded)), said(graded)


@pytest.mark.usefixtures("simulated_only")
@pytest.mark.parametrize(("exercise", "language"), SOLUTIONS)
def test_a_solution_passes(exercise, language):
    graded = grade.grade(exercise, exercise.solution(language), language)
    assert graded.passed, said(graded)
    # All was looked at, but for what NVRTC would have to be there for.
    left_out = {one.name for one in graded.criteria if one.passed is None}
    assert left_out <= {"for a GPU", "local memory"}
    names = [one.name for one in graded.criteria]
    always = ["compiles", "ends", "right", "sanitiser", "for a GPU"]
    assert names == [*always, *(one.name for one in exercise.limits)]


@pytest.mark.slow
@pytest.mark.skipif(numba_cuda.ptx_problem() is not None, reason=str(numba_cuda.ptx_problem()))
@pytest.mark.parametrize(("exercise", "language"), [one for one in FILES if "numba" in one.id])
def test_a_numba_solution_is_a_gpu_kernel(exercise, language):
    kernel = launching.NumbaKernel(exercise.solution(language), exercise, parameters(exercise))
    assert kernel.for_gpu() == "Numba compiles it for sm_75"


def parameters(exercise) -> list[str]:
    return list(first_case(exercise.name).args)


@pytest.mark.skipif(numba_cuda.ptx_problem() is not None, reason=str(numba_cuda.ptx_problem()))
@pytest.mark.parametrize(
    ("healthy", "faulty", "message"),
    [
        # What the simulator takes.
        ("(TILE, PITCH)", "(TILE, TILE + 1)", r"mine\.py: Numba refuses it: .*array.*32"),
        (
            "x: Scalars",
            "x",
            r"mine\.py: the types of transpose's parameters .* keep the annotations",
        ),
    ],
)
def test_a_numba_kernel_that_no_gpu_runs_is_told_so(tmp_path, healthy, faulty, message):
    exercise = catalogue.find("bank_conflict")
    path = tmp_path / "mine.py"
    path.write_text(exercise.solution("numba").read_text().replace(healthy, faulty))
    kernel = launching.NumbaKernel(path, exercise, parameters(exercise))
    with pytest.raises(NotForGpu) as refused:
        kernel.for_gpu()
    assert re.search(message, str(refused.value)), refused.value


def test_a_cuda_kernel_that_no_gpu_runs_is_told_so(tmp_path):
    graded = check_text(tmp_path, PLAIN.replace("y[i]", "y[std::min(i, n)]"))
    criterion = next(one for one in graded.criteria if one.name == "for a GPU")
    if criterion.passed is None:
        pytest.skip(criterion.message)
    assert graded.failed == ("for a GPU",)
    assert re.search(r"NVRTC refuses it: .*mine\.cu\(8\): error:.*std", said(graded)), said(graded)


# The values that NumPy has for the exercises, found in other ways.


def first_case(name: str):
    exercise = catalogue.find(name)
    source = exercise.solution("cuda_c").read_text()
    return exercise.cases(source)[0]


def test_the_columns_times_the_filters_are_the_convolution():
    case = first_case("write_im2col")
    shape = case.args["shape"]
    w = np.random.default_rng(0).standard_normal(shape.filter_shape)
    y = w.reshape(shape.k, -1) @ case.want["columns"]
    want = np.empty(shape.output_shape)
    reference.forward(case.args["x"].astype(float), w, None, want, shape)
    np.testing.assert_allclose(y.reshape(shape.k, shape.n, shape.p, shape.q).swapaxes(0, 1), want)


def test_the_doubled_signal_is_the_filter_over_zeros_between():
    case = first_case("keep_the_warp_together")
    x, w = (case.args[name].astype(float) for name in "xw")
    stuffed = np.zeros(2 * x.size)
    stuffed[::2] = x
    np.testing.assert_allclose(case.want["y"], np.convolve(stuffed, w)[: 2 * x.size])


def test_a_wrong_value_is_named_with_its_index(tmp_path: Path):
    exercise = catalogue.find("bank_conflict")
    text = exercise.solution("cuda_c").read_text()
    wrong = tmp_path / "mine.cu"
    wrong.write_text(text.replace("tile[threadIdx.x][i];", "tile[threadIdx.x][i] + (col == 7);"))
    graded = grade.grade(exercise, wrong, "cuda_c")
    assert graded.failed == ("right",)
    assert "32 of 2,048 elements of y are wrong" in said(graded)
    assert "y[7, 0] is" in said(graded)


# Files that cannot be graded.


def check_text(tmp_path: Path, text: str, number: str = "1", suffix: str = ".cu") -> grade.Grade:
    path = tmp_path / f"mine{suffix}"
    path.write_text(text)
    language = "numba" if suffix == ".py" else "cuda_c"
    return grade.grade(catalogue.find(number), path, language)


PLAIN = catalogue.find("hello_index").solution("cuda_c").read_text()
HEAD = 'extern "C" __global__ void relu(const float* x, float* y, int n) {\n'


@pytest.mark.parametrize(
    ("text", "criterion", "message"),
    [
        (HEAD + "y[0] = z[0];\n}", "compiles", r"mine\.cu:2: .*'z' was not declared"),
        (HEAD.replace("relu", "mine") + "}", "compiles", r"no kernel 'relu'; it has mine: keep"),
        (HEAD.replace("* x", "* in") + "}", "compiles", r"\.cu:1: relu\(in, y, n\) .*\(x, y, n\)"),
        (HEAD.replace(", int n", "") + "}", "compiles", r"relu\(x, y\) was found; .*\(x, y, n\)"),
        (HEAD.replace("int n", "double n") + "}", "ends", r"argument 3: got np.int32; wanted"),
        ("int main() { return 0; }", "compiles", r"no kernel"),
        (HEAD + "while (true) y[0] = x[0];\n}", "ends", r"time limit of .* at mine\.cu:2: a loop"),
        (HEAD + "volatile int go = 1;\nwhile (go) {}\n}", "ends", r"limit of 0\.3 s.*: a loop"),
        (HEAD + "__trap();\n}", "ends", r"relu: block \(0, 0, 0\), thread .*trap"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_graded_is_told_why(tmp_path, monkeypatch, text, criterion, message):
    monkeypatch.setattr(launching, "TIME_LIMIT", 0.3)
    graded = check_text(tmp_path, text)
    assert graded.failed == (criterion,)
    assert re.search(message, said(graded)), said(graded)
    assert "trace_" not in said(graded)  # no place inside the emulator


@pytest.mark.parametrize(
    ("healthy", "faulty", "message"),
    [
        ("#define TILE_K 1\n", "", r"#define TILE_K: got nothing; expected one line"),
        ("#define TILE_K 1\n", "#define TILE_K 2 * 4\n", r"TILE_K: got 2 \* 4; expected"),
        ("#define TILE_K 1\n", "#define TILE_K EIGHT\n", r"#define TILE_K: got EIGHT; expected"),
        ("#define TILE_K 1\n", "#define TILE_K 0\n", r"#define TILE_K 0: expected 1 to 1024"),
    ],
)
def test_a_launch_by_the_files_own_numbers(tmp_path, healthy, faulty, message):
    text = catalogue.find("beat_tiled").start("cuda_c").read_text()
    assert healthy in text
    graded = check_text(tmp_path, text.replace(healthy, faulty), "17")
    assert graded.failed == ("compiles",)
    assert re.search(message, said(graded)), said(graded)


NUMBA = "from numba import cuda\n@cuda.jit\ndef relu(x, y, n):\n"


@pytest.mark.parametrize(
    ("text", "criterion", "message"),
    [
        ("def relu(:\n", "compiles", r"mine\.py:1: SyntaxError"),
        ("import nothing_like_it\n", "compiles", r"mine\.py:1: ModuleNotFoundError"),
        ("from numba import cuda\n", "compiles", r"no kernel 'relu'; it has none"),
        (NUMBA.replace("y, n", "n, y") + "    pass\n", "compiles", r"relu\(x, n, y\) was found"),
        (NUMBA + "    y[0] = missing\n", "ends", r"mine\.py:4: NameError: .*missing"),
        (NUMBA + "    y[0.5] = 1\n", "ends", r"mine\.py:4: TypeError"),
        (NUMBA + "    y[0, 0] = 1\n", "ends", r"y has 1 dimensions and is indexed by 2"),
        (
            NUMBA + "    cuda.syncthreads()\n    1 / (cuda.threadIdx.x - 9)\n",
            "ends", r"mine\.py:5: ZeroDivisionError",
        ),
    ],
)  # fmt: skip
def test_a_numba_file_that_cannot_be_graded_is_told_why(tmp_path, text, criterion, message):
    graded = check_text(tmp_path, text, suffix=".py")
    assert graded.failed == (criterion,)
    assert re.search(message, said(graded)), said(graded)


def test_an_edited_numba_file_is_read_anew(tmp_path):
    assert check_text(tmp_path, NUMBA + "    y[0] = one\n", suffix=".py").failed == ("ends",)
    again = check_text(tmp_path, NUMBA + "    y[0] = 1.0\n", suffix=".py")
    assert again.failed == ("right", "sanitiser")


def test_a_numba_file_that_does_not_end_is_ended(tmp_path):
    path = tmp_path / "mine.py"
    exercise = catalogue.find("hello_index")
    path.write_text(NUMBA + "    while True:\n        pass\n")
    graded = grade.in_child(exercise, path, "numba", limit=2.0)
    assert graded.failed == ("ends",)
    assert "stopped after 2 s: a loop that does not end?" in said(graded)
    path.write_text("import os\nos._exit(7)\n")
    assert "mine.py ended its process (exit code 7)" in said(
        grade.in_child(exercise, path, "numba")
    )
