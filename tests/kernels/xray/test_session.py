"""What a recording is of, how it ends, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from kernels import emulator, table, xray
from kernels.shapes import Conv2dShape
from kernels.xray import launch, memory

SOURCE = Path(__file__).with_name("session.cu")


def fn(name):
    return emulator.load(SOURCE).get_function(name)


def zeros(n):
    return np.zeros(n, np.float32)


def test_several_launches_write_an_output_together():
    y = np.full(64, np.nan, np.float32)
    with xray.recording(outputs=[y]) as recordings:
        fn("fill")((1,), (32,), (y, np.int32(0)))
        fn("fill")((1,), (32,), (y, np.int32(32)))
        assert len(recordings) == 2
    assert [one.findings for one in recordings] == [(), ()]
    with xray.recording(outputs=[y]) as recordings:
        fn("fill")((1,), (32,), (y, np.int32(0)))
        fn("fill")((1,), (31,), (y, np.int32(32)))
    (finding,) = recordings[1].findings
    assert (finding.kind, finding.array, finding.index, finding.count) == ("unwritten", "y", 63, 1)
    assert recordings[0].findings == ()


def test_what_the_host_writes_between_launches_is_written():
    y, total = np.full(32, np.nan, np.float32), zeros(32)
    with xray.recording(outputs=[y]) as recordings:
        y[:] = 1
        fn("add_to")((1,), (32,), (y, total))
    assert recordings[0].findings == ()
    np.testing.assert_array_equal(total, 1)


def test_a_workspace_holds_nothing_until_it_is_written():
    x, y, workspace = zeros(32), zeros(32), zeros(32)
    with xray.recording(inputs=[x], outputs=[y]) as recordings:
        fn("add_to")((1,), (32,), (x, workspace))
    (finding,) = recordings[0].findings
    assert (finding.kind, finding.array) == ("uninitialised", "total")


def test_one_array_for_two_parameters():
    y = np.arange(32, dtype=np.float32)
    recording = xray.record(SOURCE, (1,), (32,), (y, y), kernel="add_to")
    assert recording.findings == ()
    np.testing.assert_array_equal(y, 2 * np.arange(32))
    (array,) = recording.arrays
    assert (array.name, array.read_bytes, array.written_bytes) == ("total", 128, 128)


def test_two_views_of_one_allocation():
    whole = zeros(64)
    recording = xray.record(SOURCE, (1,), (33,), (whole[:33], whole[31:]), kernel="add_to")
    assert {finding.kind for finding in recording.findings} <= {"race"}
    recording = xray.record(SOURCE, (1,), (32,), (whole[:32], whole[32:]), kernel="add_to")
    assert recording.findings == ()
    assert {array.name for array in recording.arrays} == {"x", "total"}


def test_only_inside_the_block_is_recorded():
    y = zeros(64)
    with xray.recording() as recordings:
        pass
    fn("fill")((1,), (32,), (y, np.int32(0)))
    assert recordings == []


def test_a_kernel_that_ends_early_is_recorded_until_there():
    y = zeros(64)
    recording = xray.record(SOURCE, (2,), (64,), (y,), kernel="stops", outputs=[y])
    assert [finding.kind for finding in recording.findings] == ["barrier"]
    (finding,) = recording.findings
    assert finding.block == (0, 0, 0)
    assert "63 of 64 threads arrived" in finding.message
    (store,) = recording.accesses
    assert store.lanes == 64


def test_what_is_no_finding_is_raised():
    with pytest.raises(emulator.EmulatorError, match="__trap"):
        xray.record(SOURCE, (1,), (1,), (), kernel="traps")
    with (
        pytest.raises(emulator.KernelTimeout, match="endless"),
        emulator.settings(time_limit=0.005),
    ):
        xray.record(SOURCE, (1,), (1,), (zeros(1),), kernel="endless")
    y = zeros(32)
    assert xray.record(SOURCE, (1,), (32,), (y, np.int32(0)), kernel="fill").findings == ()


def test_a_segment_that_is_too_long_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(launch, "MOST_EVENTS", 2000)
    y = np.full(1, np.nan, np.float32)
    recording = xray.record(
        SOURCE, (1,), (1,), (y, np.int32(100000)), kernel="counts_up", outputs=[y]
    )
    assert recording.cut == 1
    assert recording.findings == ()  # of what was not seen nothing is said
    assert y[0] == 100000


def test_an_array_too_large_for_races_is_named(monkeypatch):
    monkeypatch.setattr(memory, "MOST_WITH_CELLS", 100)
    recording = xray.record(SOURCE, (2,), (32,), (zeros(32), np.int32(0)), kernel="fill")
    assert recording.races_unseen == ("y",)
    assert recording.findings == ()
    monkeypatch.undo()
    recording = xray.record(SOURCE, (2,), (32,), (zeros(32), np.int32(0)), kernel="fill")
    assert recording.races_unseen == ()
    assert [finding.kind for finding in recording.findings] == ["race"]


def test_sample():
    assert launch.sample(3, 5) == [0, 1, 2]
    assert launch.sample(100, 4) == [0, 33, 66, 99]
    assert launch.sample(100, 1) == [0]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kernel": "nothing"}, "session.cu has no kernel 'nothing'; it has fill"),
        ({"kernel": ""}, "session.cu has several kernels: name one of fill, "),
        ({"args": (np.zeros(4), np.int32(0))}, "fill: argument 1: got an array of float64"),
        ({"args": ()}, "fill: got 0 arguments; it takes 2"),
        ({"block": (2000,)}, "CUDA allows 1 to 1024"),
        ({"shared_mem": 1 << 20}, "max_dynamic_shared_size_bytes is 1048576"),
        ({"most_blocks": 0}, "most_blocks is 0; expected at least 1"),
    ],
)
def test_bad_input(changes, text):
    given = {"args": (zeros(32), np.int32(0)), "kernel": "fill", "block": (32,)} | changes
    args, block = given.pop("args"), given.pop("block")
    with pytest.raises((emulator.EmulatorError, ValueError)) as told:
        xray.record(SOURCE, (1,), block, args, **given)
    assert text in str(told.value)


def test_a_file_that_does_not_compile_or_is_not_there(tmp_path):
    path = tmp_path / "broken.cu"
    path.write_text('extern "C" __global__ void k(float* y) {\n    y[0] = missing;\n}\n')
    with pytest.raises(emulator.CompileError, match=r"^broken.cu:2: .*missing"):
        xray.record(path, (1,), (1,), (zeros(1),))
    with pytest.raises(FileNotFoundError):
        xray.record(tmp_path / "none.cu", (1,), (1,), ())


def test_tracing_wants_gcc(monkeypatch):
    monkeypatch.setenv("CXX", "clang++")
    try:
        emulator.load(SOURCE)
    except emulator.CompilerNotFound:
        pytest.skip("clang++ is not installed")
    with pytest.raises(emulator.CompilerNotFound, match=r"tracing needs g\+\+"):
        emulator.load(SOURCE, traced=True)


def test_only_cuda_c_is_seen():
    row = next(row for row in table.rows() if row.language == "numba")
    with pytest.raises(ValueError, match="the X-ray sees CUDA C only"):
        xray.record_pass(row, "forward", Conv2dShape.of((1, 1, 4, 4), (1, 1, 2, 2)))


def test_a_template_and_a_header(tmp_path):
    (tmp_path / "scaled.cuh").write_text(
        "template <class T>\n__device__ T scaled(const T* x, int i) {\n    return x[i] * 2;\n}\n"
    )
    path = tmp_path / "uses.cu"
    path.write_text(
        '#include "scaled.cuh"\ntemplate <class T, int N>\n'
        "__global__ void scale(const T* x, T* y) {\n"
        "    y[threadIdx.x] = scaled(x, threadIdx.x + N);\n}\n"
    )
    x, y = zeros(32), zeros(32)
    recording = xray.record(path, (1,), (32,), (x, y), kernel="scale<float, 1>")
    (finding,) = recording.findings
    assert (finding.kind, finding.array, finding.index) == ("bounds", "x", 32)
    assert (Path(finding.file).name, finding.line) == ("scaled.cuh", 3)
    assert recording.flops == 32
