"""Using a trained run: its accuracy on data, and what it sees in an image file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from kernels import image_file
from lenet import device as devices
from lenet.checkpoint import Run
from lenet.choice import choose_kernels
from lenet.data import Dataset, standardise
from lenet.errors import CheckpointError, DataError, KernelError, OptionError
from lenet.loss import softmax
from lenet.model import IMAGE, Model, build_model
from lenet.settings import from_config
from lenet.trainer import evaluate


class Trained:
    """A run's model with its weights.

    Parameters
    ----------
    folder
        The run's.
    conv, pool, block, device
        What to run it on, as ``python -m lenet train`` takes them; it may be other than what it
        was trained on, but the kind of pooling is the model's.

    Raises
    ------
    LenetError
        Options that cannot be used, or a run that cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        *,
        conv: str = "auto",
        pool: str = "auto",
        block: str = "auto",
        device: str = "auto",
    ) -> None:
        run, self.folder = Run(folder), folder
        self.config = run.config()
        self.settings = from_config(self.config, folder)
        # Runs older than the names do not mention them.
        self.names = self.config.get("names") or [str(i) for i in range(self.config["classes"])]
        kind = self.settings.pool[:3]
        self.device = devices.choose(device)
        self.choice = choose_kernels(
            conv,
            f"{kind}:auto" if pool == "auto" else pool,
            self.device,
            block=block,
            activation=self.settings.activation,
            model=self.settings.model,
        )
        if self.choice.pool_operation[:3] != kind:
            raise OptionError(
                f"--pool {pool}: {folder} was trained with {kind}-pooling; give one of its "
                f"kernels, such as {kind}:{self.choice.pool}"
            )
        self.model: Model = build_model(
            self.config["classes"],
            self.choice,
            model=self.settings.model,
            activation=self.settings.activation,
            device=self.device,
        )
        views = self.model.tensors(self.model.weights)
        saved = run.load({name: self.device.fetch(view) for name, view in views.items()})
        for name, array in saved.weights.items():
            views[name][...] = self.device.put(array)

    def evaluate(self, data: str | None = None, data_dir: str | None = None) -> dict[str, Any]:
        """Return test loss and accuracy on the run's own data, or on others; and by class.

        Others are standardised by their own training pixels, if the run's were.
        """
        settings = self.settings
        if data is not None or data_dir is not None:
            settings = dataclasses.replace(settings, data=data or "digits", data_dir=data_dir)
        dataset = settings.data_set()
        if dataset.classes != self.config["classes"]:
            raise CheckpointError(
                f"{dataset.name} has {dataset.classes} classes but the run was trained on "
                f"{self.config['classes']}; evaluate it on data it knows"
            )
        images, labels = map(self.device.put, (dataset.test_images, dataset.test_labels))
        taken: list[np.ndarray] = []
        with _kernels_start(), devices.one_blas_thread():
            loss, accuracy = evaluate(
                self.model,
                images,
                labels,
                seen=lambda logits: taken.append(self.device.fetch(logits.argmax(axis=1))),
            )
        self._numbers(loss)
        return {
            "data": dataset.name,
            "images": len(images),
            "loss": loss,
            "accuracy": accuracy,
            "classes": by_class(dataset, np.concatenate(taken)),
        }

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Return each class's probability, (N, classes), for images of bytes, (N, 28, 28)."""
        images = standardise(pixels, self.config["mean"], self.config["std"])
        with _kernels_start():
            found = self.device.fetch(softmax(self.model.forward(self.device.put(images))))
        self._numbers(found)
        return found

    def _numbers(self, found: Any) -> None:
        if not np.isfinite(found).all():
            raise CheckpointError(
                f"{self.folder}: its weights give no numbers; the training had diverged, or the "
                "checkpoint is damaged: start the run anew"
            )


def by_class(dataset: Dataset, taken: np.ndarray) -> list[dict[str, Any]]:
    """Return what became of the test images of each class.

    Parameters
    ----------
    dataset
        With the right labels.
    taken
        The label that each of its test images was given, (N,).

    Returns
    -------
    list
        Of each class its label, name, images, how many of them were told right (``right``), and the
        name of the class that the others were most often taken for (``mistaken_for``) or None.
    """
    classes = dataset.classes
    table = np.bincount(dataset.test_labels * classes + taken, minlength=classes**2)
    names = dataset.names or [str(label) for label in range(classes)]
    rows = []
    for label, counts in enumerate(table.reshape(classes, classes)):
        images, right = int(counts.sum()), int(counts[label])
        counts[label] = 0
        other = names[int(counts.argmax())] if counts.any() else None
        rows.append(
            {"label": label, "name": names[label], "images": images, "right": right}
            | {"mistaken_for": other}
        )
    return rows


class _kernels_start:  # noqa: N801 - reads as a function
    """Turn what a kernel cannot start for into one clear line."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (ImportError, RuntimeError)):
            raise KernelError(f"the kernels do not run here: {error}") from error


def read_image(path: Path, invert: bool = False) -> np.ndarray:
    """Return an image file's pixels, grey bytes, (28, 28).

    Parameters
    ----------
    path
        PNG or another of `kernels.image_file.FORMATS`. Colours become grey; what is transparent
        becomes background.
    invert
        For dark strokes on a light ground: the model knows light strokes on a dark one.

    Raises
    ------
    DataError
        No image, or not of 28x28 pixels.
    """
    from PIL import Image

    def refused(width: int, height: int) -> str | None:
        if (width, height) == (IMAGE, IMAGE):
            return None
        return (
            f"{width}x{height} pixels; expected {IMAGE}x{IMAGE}. Resize it first, for "
            f'instance: python -c "from PIL import Image; Image.open({str(path)!r})'
            f".resize(({IMAGE}, {IMAGE})).save('resized.png')\""
        )

    try:
        image = image_file.read(path, refused)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    ground = Image.new("RGBA", image.size, "white" if invert else "black")
    pixels = np.asarray(Image.alpha_composite(ground, image).convert("L"))
    return 255 - pixels if invert else pixels
