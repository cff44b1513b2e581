"""Fetching data sets from servers on this machine that answer well, badly or not at all."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from lenet_idx_files import idx, squares

from lenet import datasets, fetch
from lenet.__main__ import main
from lenet.data import load_data
from lenet.datasets import IDX_ORDER, TRAIN_IMAGES
from lenet.errors import DataError

ROOT = Path(__file__).parents[2]


def packed(array):
    return gzip.compress(idx(array), mtime=0)


def files(classes=10):
    """Return the four files of a small data set, by MNIST's names."""
    content = []
    for count, seed in ((6 * classes, 1), (2 * classes, 2)):
        content += map(packed, squares(count, seed, classes))
    return dict(zip(IDX_ORDER, content, strict=True))


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as its server's `manner` says."""

    def do_GET(self):
        server = self.server
        with server.lock:
            server.asked.append(self.path)
        content = server.files.get(self.path.rpartition("/")[2])
        if content is None or server.manner == "404":
            self.send_error(404)
            return
        if server.manner == "corrupt":
            content = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if server.manner in ("cut", "silent"):
            self.wfile.write(content[: len(content) // 2])
            if server.manner == "silent":
                server.release.wait(20)
            return
        time.sleep(server.pause)
        self.wfile.write(content)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def serve(monkeypatch):
    """Return a function that starts a server and returns it, with its `url`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(content, manner="well", pause=0.0):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.files, server.manner, server.pause = content, manner, pause
        server.asked, server.lock, server.release = [], threading.Lock(), threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}/data/"
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.release.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Return a function that lets a name stand for small files at some mirrors."""
    monkeypatch.setenv(fetch.VARIABLE, str(tmp_path / "cache"))

    def put(content, *mirrors, name="mnist"):
        sums = {file: hashlib.sha256(data).hexdigest() for file, data in content.items()}
        changed = dataclasses.replace(datasets.SOURCES[name], mirrors=mirrors, sha256=sums)
        monkeypatch.setitem(datasets.SOURCES, name, changed)
        return tmp_path / "cache" / name

    return put


def nobody():
    """Return an address where no server listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def held(folder):
    """Return what a cache holds but for the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_fetched_once(serve, source):
    content = files()
    server = serve(content)
    folder = source(content, server.url)
    data = load_data("mnist")
    assert data.train_labels.tolist() == squares(60, 1)[1].tolist()
    pixels = data.test_images[:, 0] * data.std + data.mean
    assert np.rint(255 * pixels).astype(int).tolist() == squares(20, 2)[0].tolist()
    assert (data.name, data.classes, data.names[3]) == ("mnist", 10, "3")
    assert held(folder) == content
    assert sorted(server.asked) == sorted("/data/" + name for name in IDX_ORDER)
    assert load_data("mnist").fingerprint == data.fingerprint
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("cut", "cut off in the middle"),
        ("corrupt", "what it sent has another SHA-256"),
        ("404", "HTTP 404"),
        ("silent", "no answer in time"),
        ("nobody", "no connection"),
    ],
)
def test_the_second_mirror_where_the_first_fails(
    serve, source, monkeypatch, capsys, manner, reason
):
    monkeypatch.setattr(fetch, "TIMEOUT", (0.3, 0.3))
    content = files()
    bad = nobody() if manner == "nobody" else serve(content, manner).url
    good = serve(content)
    folder = source(content, bad, good.url)
    assert len(load_data("mnist").train_images) == 60
    assert held(folder) == content
    assert len(good.asked) == 4
    said = capsys.readouterr().err
    host = bad.removesuffix("/").removesuffix("/data")
    for file in IDX_ORDER:
        assert (
            f"lenet: fetching mnist's {file} from {host}\nlenet: {host}: {reason}\n"
            f"lenet: fetching mnist's {file} from {good.url.removesuffix('/data/')}\n"
        ) in said


@pytest.mark.parametrize("manner", ["cut", "corrupt", "404"])
def test_no_mirror_leaves_nothing_and_says_the_way_out(serve, source, tmp_path, capsys, manner):
    content = files()
    server = serve(content, manner)
    folder = source(content, server.url, nobody())
    options = ["--data", "mnist", "--runs-dir", str(tmp_path / "runs"), "--device", "cpu"]
    assert main(["train", *options]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"lenet: error: mnist: {TRAIN_IMAGES} is not in {folder}, and no ")
    assert error.count("127.0.0.1") == 3  # each mirror, and where to take it by hand
    assert "no connection)" in error
    assert ", ".join(IDX_ORDER) in error
    assert "--data-dir DIR in place of --data" in error
    assert held(folder) == {}
    assert not (tmp_path / "runs").exists()
    assert len(server.asked) == 1  # the other files are not asked for


def test_a_damaged_file_in_the_cache_is_fetched_again(serve, source):
    content = files()
    server = serve(content)
    folder = source(content, server.url)
    fingerprint = load_data("mnist").fingerprint
    path = folder / TRAIN_IMAGES
    path.write_bytes(path.read_bytes()[:100])
    assert load_data("mnist").fingerprint == fingerprint
    assert server.asked[4:] == ["/data/" + TRAIN_IMAGES]
    assert held(folder) == content


def test_a_cache_that_is_full_needs_no_network_and_no_lock(source):
    content = files()
    folder = source(content, nobody())
    folder.mkdir(parents=True)
    for name, data in content.items():
        (folder / name).write_bytes(data)
    folder.chmod(0o500)
    try:
        assert load_data("mnist").classes == 10
        assert not (folder / ".lock").exists()
    finally:
        folder.chmod(0o700)


def test_a_cache_that_cannot_be_made(source, tmp_path, monkeypatch):
    source(files(), nobody())
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(fetch.VARIABLE, str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot write mnist to .*file/mnist: .*_DATA=DIR"):
        load_data("mnist")


TWO = """
import dataclasses, json, sys
from lenet import datasets
from lenet.data import load_data
mirror, sums = json.loads(sys.argv[1])
changed = dataclasses.replace(datasets.SOURCES["mnist"], mirrors=(mirror,), sha256=sums)
datasets.SOURCES["mnist"] = changed
print(load_data("mnist").fingerprint)
"""


def test_two_processes_fetch_once(serve, source):
    content = files()
    server = serve(content, pause=0.2)
    folder = source(content, server.url)
    asked = json.dumps([server.url, datasets.SOURCES["mnist"].sha256])
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, asked], cwd=ROOT, stdout=subprocess.PIPE, env=os.environ
        )
        for _ in range(2)
    ]
    first, second = (process.communicate(timeout=60)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert first == second != b""
    assert len(server.asked) == 4
    assert held(folder) == content


@pytest.fixture
def balanced(serve, source):
    """EMNIST's archive with 47 classes, and a split that is not asked for."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for (images, labels), part in zip((squares47(141, 1), squares47(94, 2)), ("train", "test"),
                                          strict=True):  # fmt: skip
            turned = images.transpose(0, 2, 1).copy()
            archive.writestr(f"gzip/emnist-balanced-{part}-images-idx3-ubyte.gz", packed(turned))
            archive.writestr(f"gzip/emnist-balanced-{part}-labels-idx1-ubyte.gz", packed(labels))
        archive.writestr("gzip/emnist-letters-train-images-idx3-ubyte.gz", b"not read")
    content = {"gzip.zip": memory.getvalue()}
    source(content, serve(content).url, name="emnist-balanced")


def squares47(count, seed):
    """47 classes: a square's place and its size."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 47).astype(np.uint8)
    images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left, wide = 2 + 6 * (label // 4 % 4), 2 + 6 * (label % 4), 2 + label // 16
        image[top : top + 6, left : left + wide] = 220
    return images, labels


def test_emnist_comes_upright_out_of_its_archive(balanced):
    data = load_data("emnist-balanced")
    pixels = data.train_images[:, 0] * data.std + data.mean
    assert np.rint(255 * pixels).astype(int).tolist() == squares47(141, 1)[0].tolist()
    assert (data.classes, len(data.names), len(data.test_images)) == (47, 47, 94)
    # Of emnist-balanced-mapping.txt: the ASCII codes of labels 0, 10, 36 and 46.
    assert [ord(data.names[label]) for label in (0, 10, 36, 46)] == [48, 65, 97, 116]


def test_47_classes_from_training_to_the_report(balanced, tmp_path, idx_folder, capsys):
    run = tmp_path / "runs" / "letters"
    options = ["--epochs", "1", "--device", "cpu", "--runs-dir", str(run.parent)]
    assert main(["train", "--data", "emnist-balanced", *options, "--name", run.name]) == 0
    config = json.loads((run / "config.json").read_text())
    assert (config["data"], config["classes"], config["names"][46]) == ("emnist-balanced", 47, "t")
    capsys.readouterr()
    assert main(["evaluate", str(run), "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["classes"]] == list(datasets.BALANCED)
    assert sum(row["images"] for row in found["classes"]) == found["images"] == 94
    assert sum(row["right"] for row in found["classes"]) == round(94 * found["accuracy"])
    assert main(["evaluate", str(run), "--device", "cpu", "--by-class"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 48
    assert lines[11].startswith("A  ")
    assert main(["evaluate", str(run), "--data-dir", str(idx_folder), "--device", "cpu"]) == 2
    assert "has 10 classes but the run was trained on 47" in capsys.readouterr().err


def test_the_report_counts_what_was_mistaken_for_what():
    from lenet.data import Dataset
    from lenet.inference import by_class

    empty = np.empty(0)
    labels = np.array([0, 0, 0, 0, 1, 1])
    data = Dataset("x", empty, empty, empty, labels, 3, 0.0, 1.0, 0, ("a", "b", "c"))
    assert by_class(data, np.array([0, 2, 2, 1, 1, 1])) == [
        {"label": 0, "name": "a", "images": 4, "right": 1, "mistaken_for": "c"},
        {"label": 1, "name": "b", "images": 2, "right": 2, "mistaken_for": None},
        {"label": 2, "name": "c", "images": 0, "right": 0, "mistaken_for": None},
    ]
