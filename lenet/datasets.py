"""The data sets that can be fetched: where from, and how what came is known to be right."""

from __future__ import annotations

import dataclasses

DIGITS = tuple("0123456789")
# Fifteen letters are written alike in both cases and share the upper one's class.
BALANCED = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
EMNIST = "gzip/emnist-balanced-"


@dataclasses.dataclass(frozen=True)
class Source:
    """One data set's files, places and classes.

    Attributes
    ----------
    mirrors
        Addresses that the name of a file is put behind, tried in this order.
    sha256
        Of each file.
    names
        What the classes are called, by label.
    members
        Where the one file is a zip archive: the files in it, in the order of `IDX_ORDER`.
    """

    mirrors: tuple[str, ...]
    sha256: dict[str, str]
    names: tuple[str, ...]
    members: tuple[str, ...] = ()


IDX_ORDER = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)

# The sums are those that TensorFlow Datasets checks its downloads against (tensorflow_datasets/
# url_checksums/mnist.txt, fashion_mnist.txt, kmnist.txt, emnist.txt), with the first address of
# MNIST, the last two of Fashion-MNIST and KMNIST, and the last of EMNIST. MNIST's second is
# torchvision's (torchvision/datasets/mnist.py); Fashion-MNIST's first is Keras's and its second the
# authors' repository; EMNIST's first is the page of NIST's.
SOURCES = {
    "mnist": Source(
        (
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        {
            TRAIN_IMAGES: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            TRAIN_LABELS: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            TEST_IMAGES: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            TEST_LABELS: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        DIGITS,
    ),
    "fashion-mnist": Source(
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        {
            TRAIN_IMAGES: "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            TRAIN_LABELS: "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            TEST_IMAGES: "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            TEST_LABELS: "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        (
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
    ),
    "kmnist": Source(
        (
            "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
            "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        ),
        {
            TRAIN_IMAGES: "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            TRAIN_LABELS: "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            TEST_IMAGES: "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            TEST_LABELS: "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        },
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
    # One archive with all of EMNIST's splits, 562 MB.
    "emnist-balanced": Source(
        (
            "https://biometrics.nist.gov/cs_links/EMNIST/",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/",
        ),
        {"gzip.zip": "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"},
        BALANCED,
        tuple(EMNIST + name.replace("t10k", "test") for name in IDX_ORDER),
    ),
}  # fmt: skip
