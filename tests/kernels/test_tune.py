"""`tune`: the tile that is fastest is found, if it is right, and launches use it from then on."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import kernels
from kernels import __main__ as cli
from kernels import check, choosing, emulator, event_clock, shape_text, table, tuned
from kernels.conv2d.tiled import tiles
from kernels.source import recorded_launches

TEXT = "3,2,12,20,2,3,3"
SHAPE = shape_text.parse(TEXT, "conv2d")
TILED = table.find("conv2d", "tiled")
# A few of those there are, as every one is compiled: the usual one first.
OFFERED = [{"TILE_P": p, "TILE_Q": q} for p, q in ((8, 32), (4, 16), (2, 32), (16, 8))]
TUNE = ("tune", "tiled", "--shape", TEXT)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(TILED.launchers, "tiles", lambda *_: OFFERED)


@pytest.fixture
def seconds(cupy, monkeypatch):
    """Seconds that a launch takes by its tile; 50 microseconds unless they are said."""
    pytest.importorskip("optuna")
    said: dict[tuple[int, int], float] = {}

    def pace(name, options):
        macros = dict(re.findall(r"-D(\w+)=(\d+)", " ".join(options)))
        return said.get((int(macros.get("TILE_P", 0)), int(macros.get("TILE_Q", 0))), 50e-6)

    monkeypatch.setattr(cupy.cuda, "pace", pace)
    monkeypatch.setattr(event_clock, "SAMPLES", 1)
    monkeypatch.setattr(event_clock, "MOST_LAUNCHES", 1)
    return said


def launched(array, direction="forward", n=3):
    """Return the tiles of a pass's launches on arrays of a kind."""
    x, w = array(np.ones((n, 2, 12, 20), np.float32)), array(np.ones((2, 2, 3, 3), np.float32))
    dy = array(np.ones((n, 2, 10, 18), np.float32))
    with recorded_launches() as made:
        if direction == "forward":
            kernels.conv2d(x, w, kernel="tiled")
        else:
            kernels.conv2d_backward_filter(x, dy, w.shape, kernel="tiled")
    return {(one.defines["TILE_P"], one.defines["TILE_Q"]) for one in made}


@pytest.mark.parametrize("strategy", ["grid", "random", "tpe"])
def test_finds_the_planted_tile_and_launches_use_it(
    cupy, seconds, capsys, restarted, strategy
):  # fmt: skip
    seconds[2, 32] = 20e-6
    seconds[16, 8] = 30e-6
    assert launched(cupy.asarray) == {(8, 32)}
    assert cli.main([*TUNE, "--strategy", strategy, "--seed", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TILE_P=2", "TILE_Q=32", "20.00", "µs", "0.40", "times"]
    assert lines[-1] == "4 of 4 tiles tried; the first is kept for this GPU"
    for _ in range(2):
        assert launched(cupy.asarray) == {(2, 32)}
        restarted()
    # Of this pass, this shape and this GPU.
    assert launched(np.asarray) == {(8, 32)}
    assert launched(cupy.asarray, n=2) == {(8, 32)}
    assert launched(cupy.asarray, "backward_filter") == {(8, 32)}


def test_the_tuned_launch_is_right_and_auto_measures_it_anew(cupy, seconds, capsys):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(d).astype(np.float32) for d in ((3, 2, 12, 20), (2, 2, 3, 3)))
    want = kernels.conv2d(x, w, kernel="reference")

    def right(**how):
        y = kernels.conv2d(cupy.asarray(x), cupy.asarray(w), **how)
        np.testing.assert_allclose(y.get(), want, rtol=1e-4, atol=1e-4)

    seconds[8, 32] = 70e-6
    seconds[4, 16] = 10e-6
    right()
    (before,) = choosing.ENTRIES
    assert cli.main([*TUNE]) == 0
    assert list(choosing.ENTRIES) == []
    right(kernel="tiled")
    right()
    (after,) = choosing.ENTRIES
    assert before.value["seconds"]["tiled"] == pytest.approx(70e-6)
    assert after.value["seconds"]["tiled"] == pytest.approx(10e-6)


def test_every_pass_can_be_tuned(cupy, seconds):
    for direction in ("backward_data", "backward_filter"):
        seconds[4, 16] = 10e-6
        assert cli.main([*TUNE, "--pass", direction, "--dtype", "float64"]) == 0
    found = [entry.value["tile"] for entry in tuned.ENTRIES]
    assert found == [{"TILE_P": 4, "TILE_Q": 16}] * 2


def test_a_wrong_tile_is_not_kept_however_fast(cupy, seconds, capsys, monkeypatch):
    real = TILED.launchers.forward

    def wrong(x, w, b, y, shape):
        real(x, w, b, y, shape)
        if tuned.tile("conv2d", "tiled", "forward", shape, x) == OFFERED[1]:
            y *= np.float32(1.001)

    monkeypatch.setattr(TILED.launchers, "forward", wrong)
    seconds[4, 16] = 1e-6
    seconds[16, 8] = 30e-6
    assert cli.main([*TUNE]) == 1
    out = capsys.readouterr().out
    assert re.search(r"TILE_P=4 TILE_Q=16 +WRONG\n +\d+ of \d+ elements wrong", out)
    assert launched(cupy.asarray) == {(16, 8)}


def test_one_wrong_only_on_the_whole_batch_is_seen(cupy, seconds, capsys, monkeypatch):
    real = TILED.launchers.forward

    def wrong(x, w, b, y, shape):
        real(x, w, b, y, shape)
        if shape.n == 3 and tuned.tile("conv2d", "tiled", "forward", shape, x) == OFFERED[1]:
            y[2] = np.float32(0)

    monkeypatch.setattr(TILED.launchers, "forward", wrong)
    assert cli.main([*TUNE]) == 1
    assert "elements differ from those of kernel 'tiled'" in capsys.readouterr().out


def test_a_tile_that_cannot_be_launched_is_left_out(cupy, seconds, capsys, monkeypatch):
    real = TILED.launchers.forward

    def forward(x, w, b, y, shape):
        if tuned.tile("conv2d", "tiled", "forward", shape, x) == OFFERED[2]:
            raise RuntimeError("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
        real(x, w, b, y, shape)

    monkeypatch.setattr(TILED.launchers, "forward", forward)
    assert cli.main([*TUNE]) == 0
    out = capsys.readouterr().out
    assert re.search(r"TILE_P=2 TILE_Q=32 +left out\n +RuntimeError: CUDA_ERROR_LAUNCH", out)


def test_where_the_usual_tile_is_wrong_nothing_is_kept(cupy, seconds, capsys, monkeypatch):
    monkeypatch.setattr(TILED.launchers, "forward", lambda *_: None)
    assert cli.main([*TUNE]) == 1
    assert "the usual tile itself has no right result" in capsys.readouterr().err
    assert list(tuned.ENTRIES) == []


def test_tensors_too_large_for_the_gpu(cupy, capsys, monkeypatch):
    pytest.importorskip("optuna")

    def no_memory(*_):
        raise MemoryError("Out of memory allocating 9 bytes")

    monkeypatch.setattr(cupy, "empty", no_memory)
    assert f"the tensors of {TEXT!r} find no memory: Out of" in refused(capsys, *TUNE[1:])


def test_a_budget_and_json(cupy, seconds, capsys):
    assert cli.main([*TUNE, "--budget", "2", "--json", "--strategy", "random"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert len(records) == 2
    assert OFFERED[0] in [record["tile"] for record in records]


def test_a_table_of_other_sources_is_stale(cupy, seconds, capsys, monkeypatch, restarted):
    seconds[4, 16] = 20e-6
    assert cli.main([*TUNE]) == 0
    capsys.readouterr()
    assert cli.main(["list", "--tiles"]) == 0
    said = capsys.readouterr().out
    assert f"conv2d tiled forward {TEXT} float32" in said
    assert "TILE_P=4 TILE_Q=16  20.00 µs, 0.40 times the usual TILE_P=8 TILE_Q=32" in said
    assert "STALE" not in said
    real = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: real(path) + (b"//" if path.name == "tiled.cu" else b"")
    )
    restarted()
    assert launched(cupy.asarray) == {(8, 32)}
    assert cli.main(["list", "--tiles"]) == 0
    assert "STALE" in capsys.readouterr().out
    assert cli.main(["list", "--tiles", "--forget"]) == 0
    assert list(tuned.ENTRIES) == []


@pytest.mark.parametrize("tile", [{"TILE_P": 7, "TILE_Q": 7}, {"TILE_P": 4}, None, [4, 16]])
def test_a_tile_that_was_never_offered_is_not_used(cupy, restarted, tile):
    key = tuned.make_key("conv2d", "tiled", "forward", SHAPE, "float32", 0)
    assert tuned.keep(key, {"tile": tile})
    assert launched(cupy.asarray) == {(8, 32)}


# Without a GPU.


@pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))
def test_the_bound_ranks_without_a_gpu_and_keeps_nothing(capsys, monkeypatch, tmp_path):
    pytest.importorskip("optuna")
    monkeypatch.setenv("CONV_KERNEL_LAB_CHOICES", str(tmp_path))
    monkeypatch.setattr(TILED.launchers, "tiles", lambda *_: OFFERED[:2])
    assert cli.main([*TUNE, "--objective", "bound", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert 0 < first["ratio"] < second["ratio"] == 1
    assert cli.main([*TUNE, "--objective", "bound", "--gpu", "a100", "--budget", "1"]) == 0
    assert capsys.readouterr().out.endswith("1 of 2 tiles tried; nothing is kept\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(emulator.problem() is not None, reason=str(emulator.problem()))
@pytest.mark.parametrize("direction", ["forward", "backward_data", "backward_filter"])
@pytest.mark.parametrize("number", [1, 9, pytest.param(None, marks=pytest.mark.slow)])
def test_the_tiles_that_are_offered_are_right(direction, number):
    shape = shape_text.parse("2,2,21,37,3,3,2,2,1", "conv2d")
    offered = tiles(direction, shape, 4)
    assert len(offered) > 9
    inputs = check.make_inputs("conv2d", direction, shape, "float32", np.random.default_rng(0))
    for tile in offered if number is None else [offered[number]]:
        with tuned.using("conv2d", "tiled", tile):
            result = check.check_pass(TILED, direction, inputs, shape, "emulator")
            with recorded_launches() as made:
                check.check_pass(TILED, direction, inputs, shape, "emulator")
        assert result.ok, f"{tile}: {result.message}"
        assert all(tile.items() <= one.defines.items() for one in made)


def refused(capsys, *words):
    assert cli.main(["tune", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tune: ")
    assert captured.err.count("\n") == 1, "one line"
    return captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("winograd9", "--shape", TEXT),
            "no kernel named 'winograd9' has tiles to choose; there a",
        ),
        (("naive", "--shape", TEXT), "no kernel named 'naive' has tiles"),
        (("tiled", "--shape", TEXT, "--pass", "sideways"), "no pass 'sideways'; tiled has forward"),
        (("tiled", "--shape", "1,2,3"), "has 3 numbers"),
        (("tiled", "--shape", "0,2,12,20,2,3,3"), "N is 0"),
        (("tiled", "--shape", TEXT, "--budget", "0"), "--budget 0"),
        (("tiled", "--shape", TEXT, "--gpu", "a100"), "--gpu goes with --objective bound"),
        (("tiled", "--shape", TEXT, "--objective", "bound", "--gpu", "9"), "--gpu: "),
    ],
)
def test_bad_input(capsys, words, said):
    assert said in refused(capsys, *words)


def test_a_pass_without_tiles(capsys, monkeypatch):
    monkeypatch.setattr(TILED.launchers, "tiles", tiles)
    said = refused(capsys, "tiled", "--shape", TEXT, "--pass", "backward_bias")
    assert "tiled has no tile to choose for backward_bias" in said


def test_without_a_gpu_the_way_out_is_said(capsys, monkeypatch):
    monkeypatch.setattr("kernels.place.gpu_problem", lambda: "CuPy is not installed")
    said = refused(capsys, *TUNE[1:])
    assert "times need a GPU: CuPy is not installed; without one, --objective bound" in said


def test_without_optuna_what_to_install_is_said(capsys, cupy, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'conv-kernel-lab[tune]'" in refused(capsys, *TUNE[1:])
