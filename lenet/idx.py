"""IDX files, MNIST's format: two zero bytes, a type, a rank, the dimensions, then the elements."""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

from lenet.errors import DataError

UINT8 = 0x08
TYPES = {0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
HOLDS = {1: "labels", 3: "images"}
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: Path | zipfile.Path, rank: int) -> np.ndarray:
    """Return the elements of an IDX file of unsigned bytes, plain or gzipped.

    Parameters
    ----------
    path
        The file, or one in a zip archive. That it is gzipped is seen from its content, not from its
        name.
    rank
        Dimensions it must have: 1 for labels, 3 for images.

    Raises
    ------
    DataError
        A file that cannot be read, is no IDX file, holds another type or rank, or is shorter or
        longer than its own header says.
    """
    content = _content(path)
    if len(content) < 4:
        raise DataError(
            f"{path}: {len(content)} bytes are too few for an IDX file; fetch the file again"
        )
    zeros, kind, got_rank = struct.unpack(">HBB", content[:4])
    if zeros != 0 or kind not in (UINT8, *TYPES):
        raise DataError(
            f"{path}: not an IDX file: it begins with {content[:4].hex(' ')}; "
            f"expected 00 00 08 {rank:02x}"
        )
    if kind != UINT8:
        raise DataError(
            f"{path}: holds {TYPES[kind]} elements (type 0x{kind:02x}); "
            "expected unsigned bytes (type 0x08)"
        )
    if got_rank != rank:
        raise DataError(
            f"{path}: has {got_rank} dimension{'s' * (got_rank != 1)}"
            f"{', as ' + HOLDS[got_rank] if got_rank in HOLDS else ''}; "
            f"expected {rank}, {HOLDS[rank]}: is it mislabelled?"
        )
    begin = 4 + 4 * rank
    if len(content) < begin:
        raise DataError(
            f"{path}: truncated in its header, {len(content)} of {begin} bytes; "
            "fetch the file again"
        )
    dims = struct.unpack(f">{rank}I", content[4:begin])
    got, wanted = len(content) - begin, math.prod(dims)
    if got != wanted:
        raise DataError(
            f"{path}: {'truncated' if got < wanted else 'too long'}: its header says "
            f"{' x '.join(map(str, dims))} = {wanted} bytes but {got} follow; fetch the file again"
        )
    return np.frombuffer(content, np.uint8, offset=begin).reshape(dims)


def _content(path: Path | zipfile.Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if not content.startswith(GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file: {error}; fetch the file again") from None
