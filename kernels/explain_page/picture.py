"""An image through named filters, by the lab's conv2d; the image is the user's or drawn here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kernels import image_file, operations
from kernels.explain_page.examples import encode

SIDE = 96  # pixels of the longer side on the page

FILTERS: dict[str, Any] = {
    "identity": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "blur (box)": np.full((3, 3), 1 / 9),
    "blur (Gaussian)": np.outer([1, 2, 1], [1, 2, 1]) / 16,
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "edges (Laplacian)": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "edges across (Sobel x)": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "edges down (Sobel y)": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
}


def read(path: Path) -> np.ndarray:
    """Return an image file's pixels, grey, 0 to 255, (H, W), shrunk to `SIDE` where it is larger.

    Raises
    ------
    ValueError
        No image that Pillow can read; or one whose pixels are not bytes.
    """
    from PIL import Image

    def refused(width: int, height: int) -> str | None:
        if width * height <= image_file.MOST_PIXELS:
            return None
        return f"too many pixels, {width}x{height}; save it smaller"

    try:
        image = image_file.read(path, refused)
    except ValueError as error:
        raise ValueError(f"--image {path}: {error}") from None
    white = Image.new("RGBA", image.size, "white")
    grey = Image.alpha_composite(white, image).convert("L")
    grey.thumbnail((SIDE, SIDE))
    return np.asarray(grey).astype(float)


def drawn() -> np.ndarray:
    """Return an image with what filters tell apart: areas, edges every way, stripes and noise."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    image = 70 + 0.9 * y  # a slope
    image[np.hypot(x - 30, y - 32) < 21] = 225
    image[np.hypot(x - 30, y - 32) < 9] = 40
    image[(np.abs(x - 71) < 17) & (np.abs(y - 27) < 17)] = 30
    image[(np.abs((x - 71) - (y - 27)) < 3) & (np.abs(y - 27) < 17)] = 235
    image[(y > 58) & (y < 88) & (x > 8) & (x < 44) & (x // 4 % 2 == 0)] = 205
    noisy = (np.abs(x - 71) < 17) & (np.abs(y - 73) < 15)
    image[noisy] += np.random.default_rng(0).normal(0, 45, np.count_nonzero(noisy))
    return np.rint(np.clip(image, 0, 255))


def through_filters(pixels: np.ndarray, name: str) -> dict[str, Any]:
    """Return an image and what each named filter makes of it, padded "same", for the page."""
    x = pixels[None, None]
    filtered = []
    for filter_name, values in FILTERS.items():
        w = np.array(values, float)
        y = operations.conv2d(x, w[None, None], padding="same", kernel="reference")
        filtered.append({"name": filter_name, "filter": w.tolist(), "y": encode(y)})
    height, width = pixels.shape
    return {
        "name": name, "height": height, "width": width, "x": encode(pixels), "filters": filtered
    }  # fmt: skip
