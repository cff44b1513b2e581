"""A pickle, or code, where a file of data is expected: it is refused, and nothing in it runs."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_data_files import FLOATS
from test_run_folders import put, whole

from kernels import __main__ as kernels_command
from kernels import remembered
from kernels.explain_page import learned, picture
from kernels.xray import arguments
from lenet import __main__ as lenet_command
from lenet import load_data
from lenet.errors import LenetError
from lenet.idx import read_idx
from lenet.inference import read_image
from profiling import __main__ as profiling_command
from profiling.result_file import ResultFileError, load

MARK = Path("it-ran")


class Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (str(MARK),)


def _npy_of_objects() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Payload()], object), allow_pickle=True)
    return file.getvalue()


def _torch_checkpoint() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload()))
    return file.getvalue()


PLANTED = {
    "pickle": pickle.dumps(Payload()),
    "pickle, protocol 0": pickle.dumps(Payload(), 0),
    ".npy of objects": _npy_of_objects(),
    "zip with a pickle": _torch_checkpoint(),
    "Python": f"import os; os.mkdir({str(MARK)!r})".encode(),
    "YAML": f"!!python/object/apply:os.mkdir [{MARK}]".encode(),
    "PostScript": b"%%!PS-Adobe-3.0 EPSF-3.0\n%%%%BoundingBox: 0 0 28 28\n(%s) (w) file\n"
    % bytes(MARK),
}
PLANTED["gzip of a pickle"] = gzip.compress(PLANTED["pickle"])


@pytest.mark.parametrize("content", PLANTED.values(), ids=PLANTED)
def test_what_is_planted_does_not_run(content: bytes, monkeypatch, capsys):
    path = Path("planted.npy")
    path.write_bytes(content)
    with pytest.raises(LenetError):
        read_idx(path, 3)
    with pytest.raises(LenetError):
        read_image(path)
    with pytest.raises(ValueError, match="no image"):
        picture.read(path)
    with pytest.raises(ResultFileError):
        load(path)
    with pytest.raises(arguments.ArgumentsError, match="cannot be read"):
        arguments.parse("kernel", [FLOATS], [str(path)])
    Path("data").mkdir()
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        Path(f"data/{name}-ubyte").write_bytes(content)
    with pytest.raises(LenetError):
        load_data(folder="data")
    Image.new("L", (28, 28), 7).save("image.png")
    for name, argv in (
        ("config.json", ["train", "--resume", "run"]),
        ("timing.json", ["train", "--resume", "run"]),
        ("config.json", ["predict", "run", "image.png"]),
        ("checkpoint.safetensors", ["train", "--resume", "run"]),
        ("checkpoint.safetensors", ["predict", "run", "image.png"]),
    ):
        put({**whole(1), name: content})
        assert lenet_command.main(argv) == 2
        assert name in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected a run"):
        learned.read(Path("run"))
    put({**whole(1), "metrics.jsonl": content + b"\n"})
    assert profiling_command.main(["train-report", "run"]) == 2
    monkeypatch.setenv(remembered.FOLDER, "choices")
    entries = remembered.Entries("auto")
    key = {"operation": "conv2d", "pass": "forward"}
    entries.write(key, {})
    next(entries.folder.iterdir()).write_bytes(content)
    assert entries.read(key) is None
    assert kernels_command.main(["list", "--auto"]) == 0
    assert not MARK.exists()
