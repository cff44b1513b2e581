"""A run's folder: checkpoint, config, metrics, times, as every command that takes one reads it."""

from __future__ import annotations

import functools
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np
import pytest
from fuzzing import AWKWARD, Content, Target, as_json, damaged, damaged_json, json_text, share
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kernels.explain_page import learned
from lenet import __main__ as command
from lenet import build_model, choose_kernels, load_data, settings, train
from lenet.checkpoint import FORMAT, Checkpoint, Run
from lenet.device import CPU
from lenet.errors import CheckpointError, LenetError
from lenet.settings import Settings
from lenet.timing import FORMAT as TIMING_FORMAT
from profiling import __main__ as profiling_command
from profiling import train_page, train_report

EPOCHS, STEPS = 2, 15
SETTINGS = Settings(
    epochs=EPOCHS, batch_size=100, conv="reference", pool="max:reference", block="none",
    device="cpu", activation="relu",
)  # fmt: skip
METRICS = [
    {
        "epoch": epoch, "loss": 0.5, "accuracy": 0.9, "test_loss": 0.4, "test_accuracy": 0.95,
        "seconds": 1.5, "images_per_second": 958.0,
    }
    for epoch in range(1, EPOCHS + 1)
]  # fmt: skip
TIMES = {
    "format": TIMING_FORMAT,
    "sessions": [
        {
            "machine": {"processor": "a processor", "cores": 2}, "graph": False, "steps": 30,
            "sampled": 30, "phases": [
                {"name": "conv1", "kind": "convolution", "direction": way, "in_steps": True,
                 "seconds": 1.5}
                for way in ("forward", "backward")
            ] + [{"name": "evaluation", "kind": "evaluation", "direction": "", "in_steps": False,
                  "seconds": 0.5}],
        }
    ],
}  # fmt: skip


@functools.cache
def digits() -> Any:
    return load_data()


@functools.cache
def weights() -> dict[str, np.ndarray]:
    model = build_model(10, choose_kernels("reference", "reference", CPU))
    return model.tensors(model.weights)


@functools.cache
def whole(epoch: int) -> dict[str, bytes]:
    """Return the files of a right run."""
    folder = Path("whole")
    run = Run.create(folder, SETTINGS.config(digits()))
    velocity = {name: np.zeros_like(array) for name, array in weights().items()}
    done = 0 if epoch == EPOCHS else 3
    run.save(Checkpoint(weights(), velocity, epoch, np.full(done, 0.5), np.full(done, 9.0)))
    for line in METRICS[:epoch]:
        run.add_metrics(line)
    run.save_timing(TIMES["sessions"])
    files = {path.name: Content(path.read_bytes()) for path in folder.iterdir()}
    shutil.rmtree(folder)
    return files


@st.composite
def checkpoints(draw: Any, epoch: int = 1) -> bytes:
    """A checkpoint with a damaged header, tensors that are renamed, moved, retyped; or bytes."""
    content = whole(epoch)["checkpoint.safetensors"]
    how = draw(st.integers(0, 5))
    if how == 0:
        return draw(damaged(content))
    if how == 1:
        return Content(content)
    (size,) = struct.unpack("<Q", content[:8])
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    if how == 2:
        text = draw(json_text(header))
    elif how == 3:  # of the right form, another's
        name = draw(st.sampled_from(sorted(header.keys() - {"__metadata__"})))
        entry = header[name]
        entry["dtype"] = draw(st.sampled_from(["F32", "F64", "I32", "BF16", "F16", "F8_E4M3", "I64",
                                               "U8", "BOOL", "C64", "F4", "X1"]))  # fmt: skip
        begin, end = entry["data_offsets"]
        each = {"F64": 8, "I64": 8, "C64": 8, "F16": 2, "BF16": 2, "F8_E4M3": 1, "U8": 1, "BOOL": 1}
        count = (end - begin) // each.get(entry["dtype"], 4)
        if draw(st.booleans()):
            entry["shape"] = draw(
                st.sampled_from([[count], [1, count], [count, 1], [], [2**62, 4]])
            )
        if draw(st.booleans()):
            header[draw(st.sampled_from(fuzzing.TEXTS[:-4]))] = header.pop(name)
        text = as_json(header)
    elif how == 4:
        metadata = header["__metadata__"]
        key = draw(st.sampled_from(["format", "epoch", "more"]))
        metadata[key] = draw(st.one_of(st.sampled_from(fuzzing.TEXTS), AWKWARD))
        text = as_json(header)
    else:
        values = np.frombuffer(body, np.uint8).copy()
        at = draw(st.integers(0, len(values) // 8 - 1)) * 8
        number = draw(st.sampled_from([np.nan, np.inf, -1.0, 1e300]))
        values[at : at + 8] = np.frombuffer(np.float64(number).tobytes(), np.uint8)
        text, body = as_json(header), values.tobytes()
    text += b" " * (-len(text) % 8)
    size = draw(st.sampled_from([len(text)] * 8 + [0, 2**40, 2**64 - 1]))
    return Content(struct.pack("<Q", size) + text + body)


def told_by_hand(content: bytes, name: str) -> np.ndarray:
    (size,) = struct.unpack("<Q", content[:8])
    entry = json.loads(content[8 : 8 + size])[name]
    begin, end = (8 + size + at for at in entry["data_offsets"])
    return np.frombuffer(content[begin:end], "<f4").reshape(entry["shape"])


@given(checkpoints())
@share(6, 200)
def test_checkpoint(target: Target, content: bytes):
    Path("run").mkdir(exist_ok=True)
    Path("run/checkpoint.safetensors").write_bytes(content)
    got = target.outcome(lambda: Run(Path("run")).load(weights()), CheckpointError)
    if got is not None:
        for name, array in got.weights.items():
            assert array.tobytes() == told_by_hand(content, name).tobytes()
        assert got.losses.shape == got.hits.shape == (len(got.losses),)
        assert 0 <= got.epoch < 10**9


@given(checkpoints(), st.data())
@share(3, 80)
def test_checkpoint_to_explain(target: Target, content: bytes, data: Any):
    Path("run").mkdir(exist_ok=True)
    config = whole(1)["config.json"]
    if data.draw(st.booleans()):
        config = data.draw(json_text(json.loads(config)))
    Path("run/checkpoint.safetensors").write_bytes(content)
    Path("run/config.json").write_bytes(config)
    pixels = np.arange(784.0).reshape(28, 28) % 256

    def read() -> Any:
        with np.errstate(all="ignore"):  # weights may be anything
            return learned.maps(*learned.read(Path("run")), pixels, "an image")

    got = target.outcome(read, ValueError)
    assert got is None or [stage["name"] for stage in got["stages"]] == ["conv1", "conv2"]


@st.composite
def runs(draw: Any) -> dict[str, bytes]:
    """The files of a run, one or two of them damaged or missing."""
    epoch = draw(st.sampled_from([0, 1, EPOCHS]))
    files = dict(whole(epoch))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
        name = draw(st.sampled_from(["config.json"] * 3 + ["metrics.jsonl", "timing.json"] * 2
                                    + ["checkpoint.safetensors"]))  # fmt: skip
        if not draw(st.integers(0, 9)):
            files.pop(name, None)
        elif name == "checkpoint.safetensors":
            files[name] = draw(checkpoints(epoch))
        elif name == "config.json":
            files[name] = draw(json_text(json.loads(whole(0)[name])))
        elif name == "timing.json":
            files[name] = draw(json_text(TIMES))
        else:
            lines = draw(damaged_json(METRICS[: max(epoch, 1)]))
            lines = lines if isinstance(lines, list) else [lines]
            files[name] = b"\n".join(map(as_json, lines)) + draw(
                st.sampled_from([b"\n", b"", b"{"])
            )
    return files


def put(files: dict[str, bytes]) -> None:
    shutil.rmtree("run", ignore_errors=True)
    Path("run").mkdir()
    for name, content in files.items():
        (Path("run") / name).write_bytes(content)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads the digits once; and where training would begin, it is interrupted."""
    whole_training = train._Session.go

    def go(self: Any, start: Checkpoint) -> Any:
        if start.epoch == self.settings.epochs:
            return whole_training(self, start)
        self._restore(start)
        raise KeyboardInterrupt

    def load(name: str, folder: str | None, **_: Any) -> Any:
        return digits() if (name, folder) == ("digits", None) else load_data(name, folder)

    monkeypatch.setattr(train._Session, "go", go)
    monkeypatch.setattr(settings, "load_data", load)


@given(runs())
@share(4, 100)
def test_run_to_resume(target: Target, no_training: None, capsys: Any, files: dict[str, bytes]):
    put(files)
    target.command(command.main, ["train", "--resume", "run"], capsys)


@given(runs())
@share(3, 60)
def test_run_to_predict_with(target: Target, capsys: Any, files: dict[str, bytes]):
    put(files)
    Image.new("L", (28, 28), 7).save("image.png")
    kernels = ["--conv", "reference", "--block", "none", "--json"]
    with np.errstate(all="ignore"):
        target.command(command.main, ["predict", "run", "image.png", *kernels], capsys)


@given(runs(), st.sampled_from([[], ["--json"], ["--sort", "time"]]))
@share(5, 100)
def test_run_to_report(target: Target, capsys: Any, files: dict[str, bytes], options: list[str]):
    put(files)
    target.command(profiling_command.main, ["train-report", "run", *options], capsys)


@given(runs())
@share(0.5, 12)
def test_page_of_a_run(target: Target, files: dict[str, bytes]):
    put(files)
    page = target.outcome(lambda: train_page.build(train_report.load(Path("run"))), LenetError)
    assert page is None or "<script>alert(1)" not in page


def test_a_right_run_is_read(capsys: Any, no_training: None):
    put(whole(1))
    assert command.main(["train", "--resume", "run"]) == 130
    put(whole(EPOCHS))
    assert command.main(["train", "--resume", "run"]) == 0
    assert profiling_command.main(["train-report", "run"]) == 0
    assert json.loads(whole(0)["config.json"])["format"] == FORMAT
