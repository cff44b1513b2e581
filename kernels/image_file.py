"""An image file that anybody may have sent: read by Pillow, within bounds and without its plug-ins.

Only formats that are pixels and nothing else: Pillow would hand PostScript to Ghostscript, which
runs it.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MOST_PIXELS = 50_000_000  # of which Pillow makes 16 bytes each on the way


def read(path: Path, refused: Callable[[int, int], str | None]) -> Image:
    """Return an image with colours and opacity (Pillow's RGBA).

    Parameters
    ----------
    path
        The file.
    refused
        Takes width and height, before anything is unpacked, and returns why that size is not taken.

    Raises
    ------
    ValueError
        What is wrong with the file; the caller says which file it is.
    """
    from PIL import Image

    try:
        # Of what is odd in a file Pillow warns; for a person it is an image or it is none.
        # Mapped, since Pillow reads as many bytes as a file says that it has.
        with (
            warnings.catch_warnings(action="ignore"),
            path.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
            Image.open(cast("IO[bytes]", content), formats=FORMATS) as file,
        ):
            why = refused(*file.size)
            if why is None and file.mode.startswith(("I", "F")):
                why = f"its pixels are not bytes (mode {file.mode}); save it with 8 bits"
            if why is None:
                return file.convert("RGBA")
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        why = "too many pixels; save it smaller"
    except Exception as error:  # a damaged file ends in whatever its reader trips over
        known = getattr(error, "strerror", None)
        why = known or f"no image that Pillow can read; expected one of {', '.join(FORMATS)}"
    raise ValueError(why) from None
