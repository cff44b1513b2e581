"""LeNet, trained on the lab's convolution and pooling kernels.

>>> import numpy as np
>>> from lenet import train_steps
>>> images = np.random.default_rng(0).standard_normal((64, 1, 28, 28), dtype=np.float32)
>>> curve = train_steps(images, np.arange(64) % 10, 3, conv="reference", pool="reference")
>>> len(curve.losses)
3
"""

from lenet.checkpoint import Run
from lenet.choice import Choice, choose_kernels
from lenet.data import Dataset, load_data
from lenet.device import Device
from lenet.errors import LenetError
from lenet.model import Model, build_model
from lenet.trainer import Curve, Trainer, evaluate, train_steps

__all__ = [
    "Choice",
    "Curve",
    "Dataset",
    "Device",
    "LenetError",
    "Model",
    "Run",
    "Trainer",
    "build_model",
    "choose_kernels",
    "evaluate",
    "load_data",
    "train_steps",
]
