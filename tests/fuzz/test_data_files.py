"""IDX files and folders of them, images, and .npy arguments."""

from __future__ import annotations

import gzip
import io
import math
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import Target, damaged, limits, share
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kernels.emulator.arguments import Expected
from kernels.explain_page import picture
from kernels.xray import arguments
from lenet.data import load_data
from lenet.errors import DataError
from lenet.idx import read_idx
from lenet.inference import read_image

ZEROS = gzip.compress(bytes(1 << 24), 9)  # 16 MiB in 16 kB


def idx(dims: tuple[int, ...], body: bytes, kind: int = 8, rank: int | None = None) -> bytes:
    head = struct.pack(">HBB", 0, kind, len(dims) if rank is None else rank)
    return head + b"".join(struct.pack(">I", dim) for dim in dims) + body


@st.composite
def idx_files(draw: Any) -> tuple[bytes, int]:
    """An IDX file, mostly damaged: any dimensions, gzipped or not; and how many ZEROS follow."""
    small = st.integers(0, 5)
    if draw(st.integers(0, 3)) == 0:
        dims = tuple(draw(st.lists(small, min_size=1, max_size=3)))
        return draw(damaged(idx(dims, bytes(math.prod(dims))), 1)), 0
    extent = st.one_of(small, small, small, st.sampled_from([28, 65536, 2**31 - 1, 2**32 - 1]))
    dims = tuple(draw(st.lists(extent, min_size=0, max_size=4)))
    count = math.prod(dims)
    body = draw(st.binary(min_size=min(count, 200), max_size=min(count, 200)))
    if not draw(st.integers(0, 3)):
        body += draw(st.binary(max_size=3))
    whole = idx(dims, body, draw(st.sampled_from([8, 8, 8, 8, 9, 13, 7])))
    whole = draw(damaged(whole, 2)) if draw(st.booleans()) else whole
    how = draw(st.integers(0, 9))
    if how < 4:
        return whole, 0
    packed = gzip.compress(whole, 1, mtime=0)
    if how < 7:
        return packed, 0
    if how == 7:
        return draw(damaged(packed)), 0
    if how == 8:
        twice = gzip.compress(packed, 1, mtime=0) if draw(st.booleans()) else packed + packed
        return twice, 0
    return packed, draw(st.sampled_from([0, 1, 20, 200]))


def told_by_zlib(content: bytes, rank: int) -> np.ndarray | None:
    """Read an IDX file by another way: zlib for what is packed, one array for header and body."""
    if content[:2] == b"\x1f\x8b":
        unpacked, rest = b"", content
        while rest.strip(b"\0"):
            member = zlib.decompressobj(31)
            unpacked += member.decompress(rest)
            if not member.eof:
                return None
            rest = member.unused_data
        content = unpacked
    begin = 4 + 4 * rank
    if content[:4] != bytes([0, 0, 8, rank]) or len(content) < begin:
        return None
    dims = [int(dim) for dim in np.frombuffer(content[4:begin], ">u4")]
    body = np.frombuffer(content[begin:], np.uint8)
    # No array has 0 x 4294967295 x 4294967295 elements: with 1 for 0, none may be that large.
    if math.prod(dims) != len(body) or math.prod(max(dim, 1) for dim in dims) >= 2**63:
        return None
    return body.reshape(dims)


@given(idx_files(), st.sampled_from([1, 3]))
@share(14, 300)
def test_idx_file(target: Target, tmp_path: Path, file: tuple[bytes, int], rank: int):
    content, zeros = file
    path = tmp_path / "file"
    path.write_bytes(content + ZEROS * zeros)
    got = target.outcome(lambda: read_idx(path, rank), DataError)
    if not zeros:
        wanted = told_by_zlib(content, rank) if got is not None else None
        assert got is None or np.array_equal(got, wanted)
        if got is None and content[:4] == bytes([0, 0, 8, rank]):
            assert told_by_zlib(content, rank) is None, "a right file was refused"


@st.composite
def folders(draw: Any) -> dict[str, bytes]:
    """MNIST's four files, small; their contents, sizes and labels may not fit together."""
    files = {}
    for part in ("train", draw(st.sampled_from(["t10k", "t10k", "test"]))):
        count = draw(st.integers(0, 4))
        extent = draw(st.sampled_from([28] * 9 + [27]))
        level = draw(st.sampled_from([0, 7, 255]))
        images = idx((count, extent, 28), bytes([level, 9] * (count * extent * 14)))
        labels = draw(st.lists(st.sampled_from([0, 1, 2, 9, 61, 62, 255]), max_size=5))
        labels = labels if draw(st.integers(0, 3)) == 0 else (labels + [1] * 4)[:count]
        files[f"{part}-images-idx3-ubyte"] = images
        files[f"{part}-labels-idx1-ubyte"] = idx((len(labels),), bytes(labels))
    name = draw(st.sampled_from(sorted(files)))
    how = draw(st.integers(0, 9))
    if how == 0:
        files[name] = draw(damaged(files[name], 2))
    elif how == 1:
        files[name + ".gz"] = gzip.compress(files.pop(name), mtime=0)
    elif how == 2:
        files["emnist-letters-" + name + ".gz"] = gzip.compress(files.pop(name), mtime=0)
    elif how == 3:
        del files[name]
    return files


@given(folders())
@share(8, 100)
def test_folder_of_idx_files(target: Target, tmp_path: Path, files: dict[str, bytes]):
    for path in tmp_path.iterdir():
        path.unlink()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    got = target.outcome(lambda: load_data(folder=tmp_path), DataError)
    if got is not None:
        for images, labels in (
            (got.train_images, got.train_labels), (got.test_images, got.test_labels)
        ):  # fmt: skip
            assert images.shape == (len(labels), 1, 28, 28)
            assert len(labels) > 0
            assert np.isfinite(images).all()
            assert 0 <= labels.min() <= labels.max() < got.classes <= 62


def _image(kind: str, size: tuple[int, int], mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 1).save(file, kind)
    return file.getvalue()


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Pillow's of what it will no longer write
    IMAGES = [
        _image(kind, size, mode)
        for kind, mode in (
            ("PNG", "L"), ("PNG", "RGBA"), ("PNG", "I;16"), ("PNG", "1"), ("PNG", "P"),
            ("BMP", "L"), ("GIF", "P"), ("JPEG", "RGB"), ("TIFF", "F"), ("TIFF", "L"),
            ("WEBP", "RGB"), ("PPM", "L"), ("TGA", "L"), ("ICO", "RGBA"), ("EPS", "L"),
        )
        for size in ((28, 28), (28, 28), (5, 9))
    ]  # fmt: skip


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def large_png(side: int) -> bytes:
    """Return a PNG of the right form that says how large it is, and has next to nothing in it."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20), 9)
    parts = _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@given(
    st.one_of(
        st.sampled_from(IMAGES).flatmap(damaged),
        st.sampled_from([28, 1000, 9000, 13000, 60000, 2**31 - 1]).map(large_png),
        st.binary(max_size=40),
    )
)
@share(8, 150)
def test_image_to_predict(target: Target, tmp_path: Path, content: bytes):
    path = tmp_path / "image"
    path.write_bytes(content)
    got = target.outcome(lambda: read_image(path), DataError)
    if got is not None:
        assert (got.shape, got.dtype) == ((28, 28), np.uint8)
        ignored = warnings.catch_warnings(action="ignore")
        with ignored, Image.open(io.BytesIO(content)) as again:
            black = Image.new("RGBA", again.size, "black")
            wanted = Image.alpha_composite(black, again.convert("RGBA")).convert("L")
        assert np.array_equal(got, np.asarray(wanted))


@given(
    st.one_of(
        st.sampled_from(IMAGES).flatmap(damaged),
        st.sampled_from([28, 1000, 9000, 13000, 60000]).map(large_png),
    )
)
@share(4, 80)
def test_image_to_explain(target: Target, tmp_path: Path, content: bytes):
    path = tmp_path / "image"
    path.write_bytes(content)
    got = target.outcome(lambda: picture.read(path), ValueError)
    if got is not None:
        assert max(got.shape) <= picture.SIDE
        assert 0 <= got.min() <= got.max() <= 255


def npy(header: str, body: bytes, version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode("latin1", "replace") + b"\n"
    size = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + body


@st.composite
def npy_files(draw: Any) -> bytes:
    """A .npy file: any type, shape and header, with a body that fits or does not."""
    if draw(st.integers(0, 3)) == 0:
        file = io.BytesIO()
        np.save(file, np.ones(draw(st.lists(st.integers(1, 5), max_size=3)), np.float32))
        return draw(damaged(file.getvalue(), 1))
    kind = draw(st.sampled_from(["<f4", "<f4", "<f4", "<f8", ">f4", "|b1", "|O", "<U9", "<i4",
                                 "<f99", "[('a', '<f4')]", "V0", "|S0", "", "<M8[s]",
                                 "|V4"]))  # fmt: skip
    number = st.sampled_from([0, 1, 3, 3, 7, -1, 2**31, 2**62, 2**70, "True", "'3'", "1.5"])
    dims = draw(st.lists(number, max_size=3))
    shape = "(" + "".join(f"{dim}, " for dim in dims) + ")"
    shape = draw(st.sampled_from([shape] * 9 + ["3", "(3", "None", "(" * 300, "-" * 9000 + "1"]))
    order = draw(st.sampled_from(["False", "True", "False", "2"]))
    header = f"{{'descr': {kind!r}, 'fortran_order': {order}, 'shape': {shape}, }}"
    header += draw(st.sampled_from(["", "", " " * 50, " " * 20_000, "#", "\x1b[2J", "__import__"]))
    sizes = [dim for dim in dims if isinstance(dim, int) and 0 <= dim < 100]
    body = bytes(range(256))[: 4 * math.prod(sizes)] if draw(st.integers(0, 4)) else bytes(5)
    version = draw(st.sampled_from([(1, 0), (1, 0), (1, 0), (2, 0), (3, 0), (4, 0)]))
    whole = npy(header, body, version)
    if not draw(st.integers(0, 3)):
        whole = draw(damaged(whole))
    if not draw(st.integers(0, 19)):
        file = io.BytesIO()
        np.savez(file, x=np.ones(3, np.float32))  # a zip: NumPy loads it under any name
        whole = file.getvalue()
    return whole


FLOATS = arguments.Parameter("x", Expected("const float*", True, True, 4, 4, "f", 4))


@given(npy_files())
@share(8, 200)
def test_npy_argument(target: Target, tmp_path: Path, content: bytes):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    got = target.outcome(
        lambda: arguments.parse("kernel", [FLOATS], [str(path)]), arguments.ArgumentsError
    )
    if got is not None:
        (array,) = got.inputs
        assert array.dtype == np.float32
        # By hand: the body's bytes, behind a header of the length that the file says.
        begin = 10 + struct.unpack("<H", content[8:10])[0]
        if content[6] > 1:
            begin = 12 + struct.unpack("<I", content[8:12])[0]
        flat = np.frombuffer(content, "<f4", array.size, begin)
        assert {array.tobytes(), array.T.tobytes()} & {flat.tobytes()}


@given(st.text(alphabet="0123456789xX:.-+eE\u0663 randomzeospty=floatiu/", max_size=30))
@share(4, 150)
def test_argument_text(target: Target, text: str):
    texts = [text, "zeros:3x3"]
    target.outcome(
        lambda: arguments.parse("kernel", [FLOATS], [texts[len(text) % 2]]),
        arguments.ArgumentsError,
    )


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path):
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(idx((200 << 24,), b"")) + ZEROS * 200)
    with limits(), pytest.raises(DataError, match="unpacks to"):
        read_idx(path, 1)
