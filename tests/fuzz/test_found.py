"""What fuzzing found, one small input each: all of them once ended in a traceback, or never."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import limits, one_clear_line
from safetensors.numpy import load, save
from test_data_files import FLOATS, idx, large_png
from test_result_files import RECORD
from test_run_folders import METRICS, put, whole

from kernels import __main__ as kernels_command
from kernels import remembered
from kernels.explain_page import picture
from kernels.xray import arguments
from lenet import __main__ as lenet_command
from lenet.checkpoint import FORMAT
from lenet.errors import DataError
from lenet.idx import read_idx
from lenet.inference import read_image
from profiling import __main__ as profiling_command

RESUME = lenet_command.main, ["train", "--resume", "run"]
REPORT = profiling_command.main, ["train-report", "run"]
PREDICT = lenet_command.main, ["predict", "run", "image.png"]


def refusal(main: Any, argv: list[str], capsys: Any) -> str:
    """Return the one line with which a command refuses its input."""
    with limits():
        assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    one_clear_line(err.rstrip("\n"))
    return err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "12"}, "Expected `int`, got `str` - at `$.epochs`"),
        ({"data_dir": ["x"]}, "at `$.data_dir`"),
        ({"std": 0}, "at `$.std`"),
        ({"conv": "\x1b[2J"}, "at `$.conv`"),
        ({"activation": "sigmoid"}, "at `$.activation`"),
        ({"classes": 10**30}, "config.json"),
    ],
    ids=str,
)
def test_config_of_another_form(change: dict[str, Any], message: str, capsys: Any):
    files = whole(1)
    put({**files, "config.json": json.dumps(json.loads(files["config.json"]) | change).encode()})
    for command in (RESUME, REPORT, PREDICT):
        assert message in refusal(*command, capsys)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "timing.json"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe", b"null", b"[1]", b'{"epoch": 1}'])
def test_a_runs_json_of_another_form(name: str, content: bytes, capsys: Any):
    put({**whole(1), name: content + b"\n"})
    assert name in refusal(*REPORT, capsys)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({}, {"epoch": "9" * 5000}, "not a checkpoint of ours"),
        ({}, {"epoch": "\u0663"}, "not a checkpoint of ours"),
        ({}, {"epoch": "7"}, "at epoch 7 and step 3, past the run's 2 epochs of 15 steps"),
        ({"epoch.losses": np.zeros((3, 1))}, {}, "damaged: epoch.losses is float64 (3, 1)"),
        ({"epoch.hits": np.zeros(3, np.int32)}, {}, "epoch.hits int32 (3,)"),
        ({"\x1b[2J\n": np.zeros(1)}, {}, r"it also has \x1b[2J\n"),
    ],
)
def test_checkpoint_that_does_not_fit(tensors, metadata, message: str, capsys: Any):
    content = whole(1)["checkpoint.safetensors"]
    (size,) = struct.unpack("<Q", content[:8])
    known = json.loads(content[8 : 8 + size])["__metadata__"]
    put({**whole(1), "checkpoint.safetensors": save(load(content) | tensors, known | metadata)})
    assert message in refusal(*RESUME, capsys)


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3"])
def test_checkpoint_of_elements_that_numpy_has_not(kind: str, capsys: Any):
    content = whole(1)["checkpoint.safetensors"]
    (size,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    begin, end = header["conv1.w"]["data_offsets"]
    count = (end - begin) // (2 if kind == "BF16" else 1)
    header["conv1.w"] |= {"dtype": kind, "shape": [count]}
    text = json.dumps(header).encode()
    put({**whole(1), "checkpoint.safetensors": struct.pack("<Q", len(text)) + text + body})
    assert "no safetensors file" in refusal(*RESUME, capsys)
    assert "no safetensors file" in refusal(*PREDICT, capsys)


def test_weights_that_give_no_numbers(capsys: Any):
    from PIL import Image

    tensors = load(whole(1)["checkpoint.safetensors"])
    tensors["conv1.w"][:] = np.nan
    metadata = {"format": FORMAT, "epoch": "1"}
    put({**whole(1), "checkpoint.safetensors": save(tensors, metadata)})
    Image.new("L", (28, 28), 7).save("image.png")
    argv = [*PREDICT[1], "--conv", "reference", "--block", "none", "--json"]
    assert "its weights give no numbers" in refusal(lenet_command.main, argv, capsys)


def test_an_epoch_that_was_resumed_behind_its_last_step_has_no_rate(capsys: Any):
    line = json.dumps({**METRICS[0], "images_per_second": 0.0}).encode()
    put({**whole(1), "metrics.jsonl": line + b"\n"})
    assert profiling_command.main(["train-report", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clock_step_s"] is None


def test_more_steps_timed_than_made(capsys: Any):
    times = json.loads(whole(1)["timing.json"])
    times["sessions"][0]["steps"] = 0
    put({**whole(1), "timing.json": json.dumps(times).encode()})
    assert "30 of 0 steps sampled" in refusal(*REPORT, capsys)


def test_a_data_folder_with_a_name_that_no_system_takes(capsys: Any):
    config = json.loads(whole(1)["config.json"]) | {"data_dir": "9" * 5000}
    put({**whole(1), "config.json": json.dumps(config).encode()})
    assert "999: File name too long" in refusal(*RESUME, capsys)


def test_idx_dimensions_that_no_array_has():
    Path("file").write_bytes(idx((0, 2**32 - 1, 2**32 - 1), b""))
    with pytest.raises(DataError, match="no array is that large"):
        read_idx(Path("file"), 3)


@pytest.mark.parametrize("side", [13_000, 60_000])
def test_a_large_image_is_refused_before_it_is_unpacked(side: int):
    Path("image").write_bytes(large_png(side))
    with limits(), pytest.raises(DataError, match=r"pixels; (expected 28x28|save it smaller)"):
        read_image(Path("image"))


def test_an_image_that_says_it_has_two_gigabytes():
    from PIL import Image

    Image.new("L", (28, 28), 7).save("image.png")
    content = bytearray(Path("image.png").read_bytes())
    at = content.index(b"IDAT")
    content[at - 4 : at] = struct.pack(">I", 2**31 - 1)
    Path("image.png").write_bytes(content)
    with limits():
        assert set(picture.read(Path("image.png")).ravel()) == {7}


def test_a_shape_without_images_is_none(capsys: Any):
    import made_up_results

    made_up_results.write(Path("a.jsonl"), batches=(64,))
    Path("b.jsonl").write_text(Path("a.jsonl").read_text().replace('"n":', '"x":'))
    assert "a shape without n" in refusal(profiling_command.main, ["report", "b.jsonl"], capsys)


def _zip() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.ones(3, np.float32))
    return file.getvalue()


def _npy(shape: str, dtype: str = "<f4") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


@pytest.mark.parametrize(
    "content",
    [
        _zip(),
        _npy("-" * 9000 + "1"),
        _npy("(1073741824,)"),
        _npy("(-1,)", "|S0"),
        _npy("(3,)", "|V0"),
    ],
)
def test_npy_that_is_none(content: bytes):
    Path("x.npy").write_bytes(content)
    with limits(), pytest.raises(arguments.ArgumentsError, match="cannot be read") as refused:
        arguments.parse("kernel", [FLOATS], ["x.npy"])
    one_clear_line(str(refused.value))


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("rows", 0, "cold", "samples_s"), [], "at `$.rows[0].cold.samples_s`"),
        (("rows", 0, "cold", "median_s"), 0.0, "at `$.rows[0].cold.median_s`"),
        (("rows", 0, "name"), "\x1b[2J", "at `$.rows[0].name`"),
        (("rows", 0, "flops"), -1, "at `$.rows[0].flops`"),
        (("machine", "name"), 7, "a machine's name is 7"),
        (("machine", "python"), "\x1b[2J", "a machine's python is '\\x1b[2J'"),
        (("ceilings", "gemm"), 0.0, "at `$.ceilings.gemm`"),
    ],
)
def test_result_file_with_what_nobody_measured(where, value, message: str, capsys: Any):
    import made_up_results

    made_up_results.write(Path("a.jsonl"), batches=(64,))
    lines = [json.loads(line) for line in Path("a.jsonl").read_text().splitlines()]
    *path, last = where
    part = lines[1 if path[0] == "rows" else 0]
    for key in path:
        part = part[key]
    part[last] = value
    Path("b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert message in refusal(profiling_command.main, ["compare", "a.jsonl", "b.jsonl"], capsys)
    assert message in refusal(profiling_command.main, ["report", "b.jsonl"], capsys)


@pytest.mark.parametrize(
    "change", [{"kernels": None}, {"lenet": [None]}, {"machine": {}}, {"date": "\x1b[2J"}], ids=str
)
def test_record_of_verify_of_another_form(change: dict[str, Any], capsys: Any):
    Path("results").mkdir()
    Path("results/gpu.json").write_text(json.dumps(RECORD | change))
    argv = ["verified", "--results", "results"]
    assert "damaged" in refusal(profiling_command.main, argv, capsys)


def test_what_is_remembered_does_not_reach_the_terminal_as_it_is(monkeypatch, capsys: Any):
    monkeypatch.setenv(remembered.FOLDER, "choices")
    entries = remembered.Entries("auto")
    key = {"operation": "conv2d", "pass": "\x1b[2J", "shape": {}, "dtype": "float32",
           "device": {"name": "a GPU"}, "lab": "", "sources": {}}  # fmt: skip
    entries.write(key, {"seconds": {"naive": 1.0}, "left_out": {}})
    assert kernels_command.main(["list", "--auto"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    next(entries.folder.iterdir()).write_text('{"key": {}, "value": {"seconds": NaN}}')
    assert list(entries) == []


@pytest.mark.parametrize(
    ("main", "argv", "message"),
    [
        (
            kernels_command.main,
            ["list", "--auto", "--forget", "--json"],
            "--json is for what there",
        ),
        (kernels_command.main, ["xray", "naive", "--html", "x" * 300], "File name too long"),
        (profiling_command.main, ["report", "x" * 300], "File name too long"),
        (lenet_command.main, ["evaluate", "x" * 300], "File name too long"),
        (profiling_command.main, ["trace", "\u202f"], r"trace: \u202f: there is no such program"),
        (
            profiling_command.main,
            ["bench", "--shape", "1:999999999:+1,1,9,9,1,3,3"],
            "1,000 values",
        ),
    ],
)
def test_command_lines(main: Any, argv: list[str], message: str, capsys: Any):
    assert message in refusal(main, argv, capsys)


@pytest.mark.parametrize(
    ("main", "command"),
    [
        (kernels_command.main, "list"),
        (kernels_command.main, "explain"),
        (lenet_command.main, "train"),
        (profiling_command.main, "doctor"),
    ],
)
def test_what_argparse_repeats_is_escaped(main: Any, command: str, capsys: Any):
    with pytest.raises(SystemExit):
        main([command, "\u202f\x1b[2J"])
    assert r"unrecognized arguments: \u202f\x1b[2J" in capsys.readouterr().err
