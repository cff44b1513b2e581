"""The data: scikit-learn's digits, a set that is fetched, or a folder of IDX files."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path

import numpy as np

from lenet.datasets import BALANCED, DIGITS, SOURCES
from lenet.errors import DataError
from lenet.fetch import Place, fetch
from lenet.idx import read_idx
from lenet.model import IMAGE

TEST_EVERY = 5  # of digits, one in five is for the test
DIGIT = 20  # pixels; digits are drawn this large in the middle of the image, as MNIST's are
MAX_CLASSES = 62  # EMNIST ByClass, the most of MNIST's family

# Ways the four files are named; {part} is train, test or t10k.
FILE_NAMES = tuple(
    name + suffix
    for name in ("{part}-{kind}-idx{rank}-ubyte", "{part}-{kind}.idx{rank}-ubyte")
    for suffix in ("", ".gz")
)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images ready for the model, with their labels.

    Attributes
    ----------
    name
        ``"digits"``, ``"mnist"`` and so on, or the folder's path.
    train_images, test_images
        float32, (N, 1, 28, 28), standardised: of mean 0 and deviation 1 over the training pixels,
        unless a scale was given.
    train_labels, test_labels
        int64, (N,), from 0 to ``classes - 1``.
    classes
        One more than the highest training label.
    mean, std
        Of the training pixels, scaled from 0 (background) to 1; or that scale.
    fingerprint
        CRC-32 of pixels and labels: whether a run goes on with the data it began with.
    names
        What each class is called, by label; empty where nobody knows.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int
    mean: float
    std: float
    fingerprint: int
    names: tuple[str, ...] = ()

    @property
    def background(self) -> float:
        """What `standardise` makes of an empty pixel."""
        return -float(np.float32(self.mean / self.std))


def load_data(
    name: str = "digits",
    folder: str | Path | None = None,
    *,
    scale: tuple[float, float] | None = None,
) -> Dataset:
    """Return the embedded digits, a set that is fetched once, or the one in a folder.

    Parameters
    ----------
    name
        ``"digits"``: 1,797 handwritten digits that come with scikit-learn, a fifth for the test.
        Or a key of `lenet.datasets.SOURCES`.
    folder
        In place of a name. Holds four IDX files under MNIST's names, plain or gzipped, or EMNIST's
        (``emnist-letters-train-images-idx3-ubyte.gz``). EMNIST's images are stored transposed,
        column by column; they are turned upright.
    scale
        What stands in for mean and deviation of the training pixels where pixels are standardised.

    Raises
    ------
    DataError
        Missing, damaged or mismatched files, or files that cannot be fetched.
    """
    if folder is not None:
        files = _find_all(Path(folder))
        names = BALANCED if files[0].name.startswith("emnist-balanced-") else ()
        return _prepare(str(folder), names, scale, *_read(files))
    if name in SOURCES:
        return _prepare(name, SOURCES[name].names, scale, *_read(fetch(name)))
    if name != "digits":
        raise DataError(
            f"no data set named {name!r}; there are digits, {', '.join(SOURCES)}, and folders of "
            "IDX files by --data-dir"
        )
    return _prepare(name, DIGITS, scale, *_digits())


def standardise(pixels: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Return images of bytes, (N, 28, 28), as the model takes them: float32, (N, 1, 28, 28)."""
    images = pixels[:, None].astype(np.float32)
    images *= np.float32(1 / (255 * std))
    images -= np.float32(mean / std)
    return images


def _prepare(
    name: str,
    names: tuple[str, ...],
    scale: tuple[float, float] | None,
    train_pixels: np.ndarray,
    train_labels: np.ndarray,
    test_pixels: np.ndarray,
    test_labels: np.ndarray,
) -> Dataset:
    mean, std = scale or _mean_and_std(train_pixels)
    classes = int(train_labels.max()) + 1
    fingerprint = 0
    for array in (train_pixels, train_labels, test_pixels, test_labels):
        fingerprint = zlib.crc32(np.ascontiguousarray(array).data, fingerprint)
    return Dataset(
        name,
        standardise(train_pixels, mean, std),
        train_labels.astype(np.int64),
        standardise(test_pixels, mean, std),
        test_labels.astype(np.int64),
        classes,
        mean,
        std,
        fingerprint,
        names if classes <= len(names) else (),
    )


def _mean_and_std(pixels: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation of pixel / 255, exact: from a count of each grey level."""
    counts = np.bincount(pixels.ravel(), minlength=256)
    levels = np.arange(256) / 255
    mean = float(counts @ levels / counts.sum())
    std = float((counts @ (levels - mean) ** 2 / counts.sum()) ** 0.5)
    if std == 0:
        raise DataError("all training pixels are the same; expected images")
    return mean, std


def _digits() -> tuple[np.ndarray, ...]:
    """Return digits' training and test parts, enlarged to 28x28 bytes; always the same split."""
    from sklearn.datasets import load_digits  # seconds to import, so not at the top

    small, labels = load_digits(return_X_y=True)
    enlarge = _bilinear(8, DIGIT)
    margin = (IMAGE - DIGIT) // 2
    large = enlarge @ (small.reshape(-1, 8, 8) / 16) @ enlarge.T
    pixels = np.zeros((len(small), IMAGE, IMAGE), np.uint8)
    pixels[:, margin:-margin, margin:-margin] = np.rint(255 * large)
    labels = labels.astype(np.uint8)
    test = _stratified(labels)
    return pixels[~test], labels[~test], pixels[test], labels[test]


def _bilinear(small: int, large: int) -> np.ndarray:
    """Return the (large, small) matrix that resamples a line of pixels."""
    centres = (np.arange(large) + 0.5) * small / large - 0.5
    distance = np.abs(np.clip(centres, 0, small - 1)[:, None] - np.arange(small))
    return np.maximum(1 - distance, 0)


def _stratified(labels: np.ndarray) -> np.ndarray:
    """Mark every fifth image of each class as test; neighbours are often by one writer."""
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        test[np.flatnonzero(labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return test


def _find_all(folder: Path) -> list[Place]:
    """Return the files of images and labels for training, then for the test."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; --data-dir wants one with MNIST's IDX files")
    return [
        _find(folder, parts, kind, rank)
        for parts in (("train",), ("t10k", "test"))
        for kind, rank in (("images", 3), ("labels", 1))
    ]


def _read(files: list[Place]) -> list[np.ndarray]:
    """Return images and labels for training, then for the test."""
    arrays: list[np.ndarray] = []
    for image_file, label_file in (files[:2], files[2:]):
        images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
        if image_file.name.startswith("emnist-"):
            images = np.ascontiguousarray(images.transpose(0, 2, 1))
        _check(image_file, images, label_file, labels)
        arrays += [images, labels]
        if len(arrays) == 2:
            highest = int(labels.max())
            if not 1 <= highest < MAX_CLASSES:
                raise DataError(
                    f"{label_file}: labels run to {highest}; expected two classes at least and "
                    f"{MAX_CLASSES} at most, labels 0 to {MAX_CLASSES - 1}"
                )
        elif labels.max() > highest:
            raise DataError(
                f"{label_file}: has a label {labels.max()} but the training labels end at "
                f"{highest}; do the files belong together?"
            )
    return arrays


def _check(image_file: Place, images: np.ndarray, label_file: Place, labels: np.ndarray) -> None:
    if images.shape[1:] != (IMAGE, IMAGE):
        height, width = images.shape[1:]
        raise DataError(f"{image_file}: images are {height}x{width}; expected {IMAGE}x{IMAGE}")
    if len(images) != len(labels):
        raise DataError(
            f"{image_file} has {len(images)} images but {label_file} has {len(labels)} labels; "
            "expected one label an image"
        )
    if not len(images):
        raise DataError(f"{image_file}: holds no images; expected at least one")


def _find(folder: Path, parts: tuple[str, ...], kind: str, rank: int) -> Path:
    """Return the one file of this kind, whatever its naming."""
    names = [n.format(part=p, kind=kind, rank=rank) for p in parts for n in FILE_NAMES]
    there = [folder / name for name in names if (folder / name).is_file()]
    if there:
        return there[0]
    # EMNIST puts the name of its split in front, and one folder may hold them all.
    there = sorted({path for name in names for path in folder.glob("emnist-*-" + name)})
    if not there:
        raise DataError(
            f"{folder}: no file of {parts[0]} {kind}; looked for {', '.join(names)} "
            f"and emnist-*-{names[0]}"
        )
    if len({path.name.removesuffix(".gz") for path in there}) > 1:
        raise DataError(
            f"{folder}: several files of {parts[0]} {kind}: "
            f"{', '.join(path.name for path in there)}; keep one split in a folder of its own"
        )
    return there[0]
