import gzip
import struct

import numpy as np
import pytest
from lenet_idx_files import idx, squares, write_folder

from lenet.data import load_data, standardise
from lenet.errors import DataError

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def test_digits():
    data = load_data()
    assert len(data.train_images) + len(data.test_images) == 1797
    assert data.train_images.shape[1:] == (1, 28, 28)
    assert data.train_images.dtype == np.float32
    assert data.train_labels.dtype == np.int64
    assert data.classes == 10
    assert data.train_images.mean() == pytest.approx(0, abs=1e-4)
    assert data.train_images.std() == pytest.approx(1, abs=1e-4)
    share = np.bincount(data.test_labels) / np.bincount(data.train_labels)
    assert np.all(np.abs(share - 0.25) < 0.01)  # a fifth of each class
    assert data.fingerprint == load_data().fingerprint


def test_no_digit_is_in_both_parts():
    data = load_data()
    train = {image.tobytes() for image in data.train_images}
    shared = sum(image.tobytes() in train for image in data.test_images)
    assert shared == 0


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder(tmp_path, suffix):
    data = load_data(folder=write_folder(tmp_path, 30, 20, suffix))
    images, labels = squares(30, 1)
    assert data.train_labels.tolist() == labels.tolist()
    pixels = data.train_images[:, 0] * data.std + data.mean
    assert np.rint(255 * pixels).astype(int).tolist() == images.tolist()
    assert len(data.test_images) == 20


def test_names_with_a_dot_and_gzip_without_its_suffix(idx_folder):
    path = idx_folder / TRAIN_IMAGES
    (idx_folder / "train-images.idx3-ubyte").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert len(load_data(folder=idx_folder).train_images) == 96


def emnist(folder, split, classes):
    for part, count, seed in (("train", 2 * classes, 1), ("test", classes, 2)):
        images, labels = squares(count, seed, classes)
        prefix = f"emnist-{split}-{part}-"
        (folder / (prefix + "images-idx3-ubyte.gz")).write_bytes(
            gzip.compress(idx(images.transpose(0, 2, 1).copy()))
        )
        (folder / (prefix + "labels-idx1-ubyte.gz")).write_bytes(gzip.compress(idx(labels)))


def test_emnist_is_turned_upright_and_brings_its_classes(tmp_path):
    emnist(tmp_path, "balanced", 16)
    data = load_data(folder=tmp_path)
    assert data.classes == 16
    images, _ = squares(32, 1, 16)
    pixels = data.train_images[:, 0] * data.std + data.mean
    assert np.rint(255 * pixels).astype(int).tolist() == images.tolist()
    emnist(tmp_path, "letters", 12)
    with pytest.raises(DataError, match=r"several files of train images: emnist-balanced.*letters"):
        load_data(folder=tmp_path)


def test_standardise_in_place_equals_its_formula():
    pixels = np.arange(784, dtype=np.uint8).reshape(1, 28, 28)
    want = (pixels[:, None] / 255 - 0.3) / 0.2
    assert standardise(pixels, 0.3, 0.2) == pytest.approx(want, abs=1e-6)


def damaged(content, how):
    if how == "truncated":
        return content[:-5]
    if how == "too long":
        return content + b"\0"
    if how == "header":
        return content[:9]
    if how == "tiny":
        return content[:3]
    if how == "float":
        return content[:2] + b"\x0d" + content[3:]
    if how == "rank":
        return idx(np.zeros(7, np.uint8))
    if how == "rank 2":
        return idx(np.zeros((7, 7), np.uint8))
    if how == "png":
        return b"\x89PNG\r\n\x1a\n" + content
    if how == "gzip cut":
        return gzip.compress(content)[:-20]
    if how == "gzip cut early":
        noise = np.random.default_rng(0).integers(0, 256, (50_000, 28, 28), np.uint8)
        return gzip.compress(idx(noise), 1)[:100_000]
    if how == "gzip bits":
        packed = bytearray(gzip.compress(content))
        packed[len(packed) // 2] ^= 0xFF
        return bytes(packed)
    if how == "size":
        return idx(np.zeros((96, 32, 32), np.uint8))
    if how == "count":
        return idx(squares(95, 1)[0])
    if how == "empty":
        return idx(np.zeros((0, 28, 28), np.uint8))
    if how == "flat":
        return idx(np.zeros((96, 28, 28), np.uint8))
    raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", r"truncated: its header says 96 x 28 x 28 = 75264 bytes but 75259 follow"),
        ("too long", r"too long: its header says .* but 75265 follow"),
        ("header", r"truncated in its header, 9 of 16 bytes"),
        ("tiny", r"3 bytes are too few for an IDX file"),
        ("float", r"holds float32 elements \(type 0x0d\); expected unsigned bytes"),
        ("rank", r"has 1 dimension, as labels; expected 3, images: is it mislabelled"),
        ("rank 2", r"has 2 dimensions; expected 3"),
        ("png", r"not an IDX file: it begins with 89 50 4e 47; expected 00 00 08 03"),
        ("gzip cut", r"damaged gzip file"),
        ("gzip cut early", r"more than 100 times its size: .*; the file is cut short, or no data"),
        ("gzip bits", r"damaged gzip file"),
        ("size", r"images are 32x32; expected 28x28"),
        ("count", r"has 95 images but .* has 96 labels"),
        ("empty", r"has 0 images but .* has 96 labels"),
        ("flat", r"all training pixels are the same"),
    ],
)
def test_damaged_images(idx_folder, how, message):
    path = idx_folder / TRAIN_IMAGES
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(DataError, match=message):
        load_data(folder=idx_folder)


def test_images_where_labels_should_be(idx_folder):
    (idx_folder / TRAIN_LABELS).write_bytes((idx_folder / TRAIN_IMAGES).read_bytes())
    with pytest.raises(DataError, match=r"has 3 dimensions, as images; expected 1, labels"):
        load_data(folder=idx_folder)


def test_no_images_at_all(idx_folder):
    (idx_folder / TEST_IMAGES).write_bytes(idx(np.zeros((0, 28, 28), np.uint8)))
    (idx_folder / TEST_LABELS).write_bytes(idx(np.zeros(0, np.uint8)))
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte: holds no images"):
        load_data(folder=idx_folder)


@pytest.mark.parametrize(
    ("name", "highest", "message"),
    [
        (TEST_LABELS, 12, r"has a label 12 but the training labels end at 9"),
        (TRAIN_LABELS, 200, r"labels run to 200; expected two classes at least and 62 at most"),
        (TRAIN_LABELS, 0, r"labels run to 0; expected two classes at least"),
    ],
)
def test_labels_out_of_range(idx_folder, name, highest, message):
    path = idx_folder / name
    content = bytearray(path.read_bytes())
    if highest:
        content[-1] = highest
    else:
        content[8:] = bytes(len(content) - 8)
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_data(folder=idx_folder)


def test_missing_file_says_what_was_looked_for(idx_folder):
    (idx_folder / TEST_LABELS).unlink()
    message = (
        r"no file of t10k labels; looked for t10k-labels-idx1-ubyte, t10k-labels-idx1-ubyte.gz, "
        r"t10k-labels.idx1-ubyte.*emnist-\*"
    )
    with pytest.raises(DataError, match=message):
        load_data(folder=idx_folder)


def test_missing_folder_and_unknown_name(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder; --data-dir wants"):
        load_data(folder=tmp_path / "nowhere")
    with pytest.raises(DataError, match="no data set named 'cifar'; there are digits, mnist, "):
        load_data("cifar")


def test_a_header_that_claims_too_much(idx_folder):
    path = idx_folder / TRAIN_IMAGES
    path.write_bytes(struct.pack(">HBB3I", 0, 8, 3, 2**31, 28, 28) + bytes(100))
    with pytest.raises(DataError, match="truncated: its header says 2147483648 x 28 x 28"):
        load_data(folder=idx_folder)
