"""LeNet's learned filters and feature maps, out of a run's folder.

The run is read as files, for this package knows nothing of the trainer: ``checkpoint.safetensors``
with the tensors ``conv1.w`` (6, 1, 5, 5), ``conv1.b``, ``conv2.w`` (16, 6, 5, 5) and ``conv2.b``,
and ``config.json`` beside it, of whose entries ``mean`` and ``std`` (of pixel / 255),
``activation`` (``"relu"`` or ``"tanh"``) and ``pool`` (``"max:..."`` or ``"avg:..."``) are used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from kernels import operations
from kernels.explain_page.examples import encode

CHECKPOINT, CONFIG = "checkpoint.safetensors", "config.json"
FORMAT = "conv-kernel-lab lenet 1"
SHAPES = {"conv1.w": (6, 1, 5, 5), "conv1.b": (6,), "conv2.w": (16, 6, 5, 5), "conv2.b": (16,)}
SIDE = 28  # LeNet's images, pixels
ACTIVATIONS: dict[str, Any] = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}
POOLS: dict[str, Any] = {"max": operations.max_pool2d, "avg": operations.avg_pool2d}
WANTED = "expected a run of `python -m lenet train`, such as runs/NAME/checkpoint.safetensors"


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the convolutions' weights, float64, and the run's config.

    Parameters
    ----------
    path
        The checkpoint, or its folder.

    Raises
    ------
    ValueError
        No checkpoint of the trainer's, or no config beside it.
    """
    from safetensors import SafetensorError, safe_open

    file_name = path / CHECKPOINT if path.is_dir() else path
    try:
        with safe_open(file_name, framework="np") as file:
            metadata = file.metadata() or {}
            names = set(file.keys())
            weights = {name: file.get_tensor(name) for name in SHAPES if name in names}
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError, KeyError) as error:
        # The last three where an element type is none of NumPy's.
        reason = getattr(error, "strerror", None) or "it cannot be read as safetensors"
        if isinstance(error, FileNotFoundError):
            reason = "there is no such file"
        raise ValueError(f"--checkpoint {file_name}: {reason}; {WANTED}") from None
    got = {name: weights[name].shape for name in weights}
    if metadata.get("format") != FORMAT or got != SHAPES:
        raise ValueError(f"--checkpoint {file_name}: not of LeNet; {WANTED}")
    config_name = file_name.with_name(CONFIG)
    try:
        config = json.loads(config_name.read_text(encoding="utf-8"))
        known = (
            config["activation"] in ACTIVATIONS
            and config["pool"][:3] in POOLS
            and all(isinstance(config[name], (int, float)) for name in ("mean", "std"))
            and 0 <= config["mean"] <= 1
            and 0 < config["std"] <= 1
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        known = False
    if not known:
        raise ValueError(
            f"--checkpoint {file_name}: no {CONFIG} of its run beside it, with mean, std, "
            f"activation and pool; {WANTED}"
        )
    return {name: array.astype(float) for name, array in weights.items()}, config


def digit() -> np.ndarray:
    """Return a handwritten digit of scikit-learn's, as the trainer's data are: (28, 28), bytes."""
    from PIL import Image
    from sklearn.datasets import load_digits

    small = np.rint(load_digits().images[4] / 16 * 255).astype(np.uint8)
    image = np.zeros((SIDE, SIDE))
    large = Image.fromarray(small).resize((20, 20), Image.Resampling.BILINEAR)
    image[4:-4, 4:-4] = np.asarray(large)
    return image


def fitted(pixels: np.ndarray) -> np.ndarray:
    """Return the middle square of an image as LeNet's 28x28 pixels."""
    from PIL import Image

    height, width = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = pixels[top : top + side, left : left + side].astype(np.uint8)
    return np.asarray(Image.fromarray(middle).resize((SIDE, SIDE))).astype(float)


def maps(
    weights: dict[str, np.ndarray], config: dict[str, Any], pixels: np.ndarray, name: str
) -> dict[str, Any]:
    """Return filters and feature maps of an image, (28, 28), 0 to 255, for the page."""
    activation = ACTIVATIONS[config["activation"]]
    pool = POOLS[config["pool"][:3]]
    x = ((pixels / 255 - config["mean"]) / config["std"])[None, None]
    stages = []
    for layer, padding in (("conv1", 2), ("conv2", 0)):
        w, b = weights[f"{layer}.w"], weights[f"{layer}.b"]
        y = operations.conv2d(x, w, b, padding=padding, kernel="reference")
        pooled = pool(activation(y), 2, kernel="reference")
        stages.append(
            {
                "name": layer, "padding": padding, "x": _array(x[0]), "w": _array(w),
                "b": _array(b), "y": _array(y[0]), "pooled": _array(pooled[0]),
            }
        )  # fmt: skip
        x = pooled
    return {
        "name": name, "activation": config["activation"], "pool": config["pool"][:3],
        "stages": stages,
    }  # fmt: skip


def _array(values: np.ndarray) -> dict[str, Any]:
    return {"extents": values.shape, "values": encode(values)}
